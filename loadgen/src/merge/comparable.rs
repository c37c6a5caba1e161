//! What other programs would have printed for the same requests.
//!
//! Their definitions differ under equal names, so each is computed from the same stamps under a
//! name of its own. Counted in histograms while the rows are read: they take a fixed amount of
//! memory, and are exact to 0.1 %.

use std::collections::BTreeMap;

use aifb_schema::{
    recipe::Slo,
    result::{Comparable, Distribution},
};
use aifb_stats::{
    distribution::{self, seconds},
    histogram::Histogram,
};

use super::float;
use crate::{
    plan::Phase,
    record::{
        row::{Outcome, Row, Seen},
        tally::Limits,
    },
};

/// The requests so far, by every definition.
#[derive(Debug, Default)]
pub(super) struct Others {
    times: BTreeMap<&'static str, Histogram>,
    limits: Limits,
    good_vllm: u64,
    good_sglang: u64,
    /// First request and last answer of each worker: clocks of nodes cannot be compared.
    span: Option<(u64, u64)>,
    longest_ns: u64,
    sent: u64,
}

impl Others {
    pub(super) fn new(slo: Option<Slo>) -> Self {
        Self { limits: Limits::new(slo, None), ..Self::default() }
    }

    /// The rows of another worker follow.
    pub(super) fn next_worker(&mut self) {
        if let Some((first, last)) = self.span.take() {
            self.longest_ns = self.longest_ns.max(last.saturating_sub(first));
        }
    }

    /// Adds a request of the measured part; only successful ones have times.
    pub(super) fn add(&mut self, row: &Row) {
        if row.phase != Phase::Measure {
            return;
        }
        self.sent += 1;
        let (first, last) = self.span.unwrap_or((row.dequeued_ns, row.end_ns));
        self.span = Some((first.min(row.dequeued_ns), last.max(row.end_ns)));
        if row.outcome != Outcome::Ok {
            return;
        }
        let of = Times::of(row);
        self.good_vllm += u64::from(self.good(of.ttft_vllm, of.tpot_vllm, of.e2e_vllm, row));
        self.good_sglang +=
            u64::from(self.good(of.ttft_sglang, of.tpot_sglang, of.e2e_sglang, row));
        for (name, value) in of.named() {
            if let Some(value) = value {
                self.times.entry(name).or_default().record(value);
            }
        }
        self.gaps(row);
    }

    /// Within the SLO by these times. Both programs take a request of one token to have no gap.
    fn good(&self, ttft: Option<u64>, tpot: Option<u64>, e2e: Option<u64>, row: &Row) -> bool {
        let single = row.seen.output_tokens.is_some_and(|tokens| tokens <= 1);
        let tpot = if single { Some(0) } else { tpot };
        let within = |limit: Option<u64>, value: Option<u64>| {
            limit.is_none_or(|limit| value.is_some_and(|value| value <= limit))
        };
        self.limits.any()
            && within(self.limits.ttft_ns, ttft)
            && within(self.limits.itl_ns, tpot)
            && within(self.limits.e2e_ns, e2e)
    }

    fn gaps(&mut self, row: &Row) {
        let seen = &row.seen;
        if seen.content_events > 1
            && let Some(tokens) = seen.output_tokens.filter(|tokens| *tokens > 0)
        {
            // The tokens of each event are unknown; only their sum is known.
            let events = u64::from(seen.content_events);
            let gaps = self.times.entry("itl_infperf").or_default();
            for gap in seen.gaps.iter() {
                // Beyond 2^63 ns, whatever it is divided by.
                gaps.record(gap.saturating_mul(events) / tokens);
            }
        }
        if seen.first_choice_ns.is_some() {
            let gaps = self.times.entry("itl_vllm").or_default();
            seen.gaps.iter().for_each(|gap| gaps.record(gap));
            outer_gaps(seen).into_iter().flatten().for_each(|gap| gaps.record(gap));
        }
    }

    /// What they would have printed.
    pub(super) fn finish(mut self) -> Comparable {
        self.next_worker();
        let slo = self.limits.any();
        let span = Some(seconds(self.longest_ns)).filter(|span| slo && *span > 0.0);
        let of = |name: &str| -> Option<Distribution> {
            self.times.get(name).and_then(distribution::of_histogram)
        };
        Comparable {
            ttft_service_seconds: of("ttft_service"),
            ttft_vllm_seconds: of("ttft_vllm"),
            ttft_sglang_seconds: of("ttft_sglang"),
            ttft_genai_seconds: of("ttft_genai"),
            ttft_mlperf_seconds: of("ttft_mlperf"),
            tpot_vllm_seconds: of("tpot_vllm"),
            tpot_sglang_seconds: of("tpot_sglang"),
            tpot_guidellm_seconds: of("tpot_guidellm"),
            tpot_mlperf_seconds: of("tpot_mlperf"),
            itl_genai_seconds: of("itl_genai"),
            itl_aiperf_seconds: of("itl_aiperf"),
            itl_vllm_seconds: of("itl_vllm"),
            itl_infperf_seconds: of("itl_infperf"),
            e2e_vllm_seconds: of("e2e_vllm"),
            e2e_sglang_seconds: of("e2e_sglang"),
            e2e_aiperf_seconds: of("e2e_aiperf"),
            latency_mlperf_seconds: of("latency_mlperf"),
            ntpot_seconds: of("ntpot"),
            goodput_vllm_per_second: span.map(|span| float(self.good_vllm) / span),
            attainment_sglang_ratio: (slo && self.sent > 0)
                .then(|| float(self.good_sglang) / float(self.sent)),
        }
    }
}

/// Gaps between the first event with a choice and the first content, and between the last content
/// and the last event with a choice, where these are events of their own.
fn outer_gaps(seen: &Seen) -> [Option<u64>; 2] {
    let gap = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?).filter(|gap| *gap > 0);
    [
        gap(seen.first_choice_ns, seen.first_content_ns),
        gap(seen.last_content_ns, seen.last_choice_ns),
    ]
}

/// One request by every definition that gives one value.
#[derive(Debug, Default, PartialEq)]
struct Times {
    ttft_service: Option<u64>,
    ttft_vllm: Option<u64>,
    ttft_sglang: Option<u64>,
    ttft_genai: Option<u64>,
    ttft_mlperf: Option<u64>,
    tpot_vllm: Option<u64>,
    tpot_sglang: Option<u64>,
    tpot_guidellm: Option<u64>,
    itl_genai: Option<u64>,
    itl_aiperf: Option<u64>,
    e2e_vllm: Option<u64>,
    e2e_sglang: Option<u64>,
    e2e_aiperf: Option<u64>,
    latency_mlperf: Option<u64>,
    ntpot: Option<u64>,
}

impl Times {
    fn of(row: &Row) -> Self {
        let seen = &row.seen;
        let (planned, taken) = (row.planned_ns, Some(row.dequeued_ns));
        let between = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
        let tokens = seen.output_tokens;
        let per_gap = |time: Option<u64>| time?.checked_div(tokens?.checked_sub(1)?);
        let per_token = |time: Option<u64>| time?.checked_div(tokens?);
        // Without a mark the stream ends with its body.
        let done = seen.first_content_ns.map(|_| seen.done_ns.unwrap_or(row.end_ns));
        let (first, last) = (seen.first_content_ns, seen.last_content_ns);
        let in_first = seen.first_chunk_tokens.unwrap_or(1);
        Self {
            ttft_service: between(seen.first_write_ns, first),
            ttft_vllm: between(taken, seen.first_choice_ns),
            ttft_sglang: between(taken, first),
            ttft_genai: between(taken, seen.first_event_ns),
            ttft_mlperf: row.ttft(),
            tpot_vllm: per_gap(between(seen.first_choice_ns, seen.last_choice_ns)),
            tpot_sglang: per_gap(between(first, done)),
            tpot_guidellm: per_token(between(taken, last)),
            itl_genai: per_gap(between(seen.first_event_ns, seen.last_event_ns)),
            itl_aiperf: between(first, last)
                .and_then(|time| time.checked_div(tokens?.checked_sub(in_first)?)),
            e2e_vllm: between(taken, seen.last_choice_ns),
            e2e_sglang: between(taken, done),
            e2e_aiperf: between(taken, last),
            latency_mlperf: done.and_then(|done| done.checked_sub(planned)),
            ntpot: per_token(between(taken, done)),
        }
    }

    /// With the printed names. MLPerf's time per token is sglang's: both end with the answer.
    fn named(&self) -> [(&'static str, Option<u64>); 16] {
        [
            ("ttft_service", self.ttft_service),
            ("ttft_vllm", self.ttft_vllm),
            ("ttft_sglang", self.ttft_sglang),
            ("ttft_genai", self.ttft_genai),
            ("ttft_mlperf", self.ttft_mlperf),
            ("tpot_vllm", self.tpot_vllm),
            ("tpot_sglang", self.tpot_sglang),
            ("tpot_guidellm", self.tpot_guidellm),
            ("tpot_mlperf", self.tpot_sglang),
            ("itl_genai", self.itl_genai),
            ("itl_aiperf", self.itl_aiperf),
            ("e2e_vllm", self.e2e_vllm),
            ("e2e_sglang", self.e2e_sglang),
            ("e2e_aiperf", self.e2e_aiperf),
            ("latency_mlperf", self.latency_mlperf),
            ("ntpot", self.ntpot),
        ]
    }
}

#[cfg(test)]
mod tests {
    use aifb_schema::units::Span;

    use super::*;
    use crate::record::row::TokenSource;

    /// A chat: planned at 100, taken up at 102, written at 103, a role event at 110, content at
    /// 150, 170 (two tokens each but the first, which has one) and 190, an empty final event at
    /// 195, usage at 200, [DONE] at 201, end of the body at 202; six tokens. All in ms.
    fn chat() -> Row {
        let ms = |at: u64| at * 1_000_000;
        let mut row = crate::record::row::tests::streamed();
        row.planned_ns = ms(100);
        row.dequeued_ns = ms(102);
        row.end_ns = ms(202);
        row.seen = Seen {
            first_write_ns: Some(ms(103)),
            output_tokens: Some(6),
            token_source: Some(TokenSource::Usage),
            first_chunk_tokens: Some(1),
            done_ns: Some(ms(201)),
            ..Seen::default()
        };
        for (at, choice, content) in [
            (110, true, false),
            (150, true, true),
            (170, true, true),
            (190, true, true),
            (195, true, false),
            (200, false, false),
        ] {
            row.seen.event(ms(at));
            if choice {
                row.seen.choice(ms(at));
            }
            if content {
                row.seen.content(ms(at));
            }
        }
        row
    }

    #[test]
    fn every_definition_has_its_own_value() {
        let row = chat();
        let of = Times::of(&row);
        let ms = |value: Option<u64>| value.map(|ns| ns / 1_000_000);
        let found = [
            of.ttft_service,
            of.ttft_vllm,
            of.ttft_sglang,
            of.ttft_genai,
            of.ttft_mlperf,
            of.tpot_vllm,
            of.tpot_sglang,
            of.tpot_guidellm,
            of.itl_genai,
            of.itl_aiperf,
            of.e2e_vllm,
            of.e2e_sglang,
            of.e2e_aiperf,
            of.latency_mlperf,
            of.ntpot,
        ];
        let expected = [47, 8, 48, 8, 50, 17, 10, 14, 18, 8, 93, 99, 88, 101, 16];
        assert_eq!(found.map(ms), expected.map(Some));
        // Ours, for comparison.
        assert_eq!((ms(row.ttft()), ms(row.tpot()), ms(row.e2e())), (Some(50), Some(8), Some(90)));
    }

    #[test]
    fn gaps_follow_each_program() {
        let mut others = Others::new(None);
        others.add(&chat());
        let found = others.finish();
        let vllm = found.itl_vllm_seconds.unwrap();
        // 110 → 150 → 170 → 190 → 195.
        let close = |a: f64, b: f64| (a - b).abs() <= b * 1e-3;
        assert!(vllm.count == 4 && close(vllm.min, 0.005) && close(vllm.max, 0.040), "{vllm:?}");
        let each = found.itl_infperf_seconds.unwrap();
        assert!(each.count == 2 && close(each.max, 0.010), "{each:?}");
        assert_eq!((found.goodput_vllm_per_second, found.attainment_sglang_ratio), (None, None));
    }

    #[test]
    fn goodput_is_judged_by_their_own_times() {
        // vLLM counts the role event: 8 ms. sglang has 48 ms.
        let slo = Slo { ttft: Some("20ms".parse::<Span>().unwrap()), ..Slo::default() };
        let mut others = Others::new(Some(slo));
        others.add(&chat());
        others.next_worker();
        let mut failed = chat();
        failed.outcome = Outcome::Failed;
        others.add(&failed);
        let found = others.finish();
        assert_eq!(found.goodput_vllm_per_second, Some(10.0), "one in 100 ms");
        assert_eq!(found.attainment_sglang_ratio, Some(0.0));
        assert_eq!(found.ttft_sglang_seconds.unwrap().count, 1);
    }

    #[test]
    fn what_a_protocol_lacks_is_absent() {
        let mut row = chat();
        row.seen = Seen { output_tokens: Some(1), ..Seen::default() };
        let mut others = Others::new(None);
        others.add(&row);
        let found = others.finish();
        assert_eq!(found, Comparable::default());
    }
}
