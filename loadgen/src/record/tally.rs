//! Exact sums over requests, kept while they run and computed again from the rows.

use std::collections::BTreeMap;

use aifb_schema::{recipe::Slo, units::Span};
use aifb_stats::histogram::Histogram;
use serde::{Deserialize, Serialize};

use super::operations::Operations;
use super::row::{Gaps, Outcome, Row, TokenSource};
use crate::{fault::Class, plan::Phase};

/// Sums over requests. All but `warmup*` are of the measured part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Sent.
    pub(crate) sent: u64,
    /// Answered as they should be.
    pub(crate) ok: u64,
    /// Answered with an error, or not at all.
    pub(crate) failed: u64,
    /// Ended by us.
    pub(crate) cancelled: u64,
    /// Sent during the warm-up.
    pub(crate) warmup: u64,
    /// Output tokens of the warm-up: they cost CPU time too.
    pub(crate) warmup_tokens: u64,
    /// Output tokens of successful requests.
    pub(crate) output_tokens: u64,
    /// Input tokens of successful requests, as the server counted them.
    pub(crate) input_tokens: u64,
    /// Successful requests whose tokens the server counted.
    pub(crate) from_usage: u64,
    /// Successful requests whose tokens are content events.
    pub(crate) from_chunks: u64,
    /// Successful requests within every limit of the SLO.
    pub(crate) good: u64,
    /// Requests that were sent again because a kept connection was closed.
    pub(crate) resent: u64,
    /// Sent before the window's end (or at most [`LATE_NS`] after it).
    pub(crate) in_window: u64,
    /// Latest end of a request, 0 before the first.
    pub(crate) last_end_ns: u64,
    /// Input tokens of successful requests that the server took from its prefix cache.
    #[serde(default)]
    pub(crate) cached_tokens: u64,
    /// Successful requests for which it said how many.
    #[serde(default)]
    pub(crate) cache_known: u64,
    /// Bytes written, whatever became of the request; the warm-up's too.
    #[serde(default)]
    pub(crate) bytes_sent: u64,
    /// Bytes read, likewise.
    #[serde(default)]
    pub(crate) bytes_received: u64,
    /// Content events of successful requests.
    #[serde(default)]
    pub(crate) content_events: u64,
    /// Reads that brought data of those that have content events.
    #[serde(default)]
    pub(crate) reads: u64,
    /// Failures by class.
    pub(crate) errors: BTreeMap<Class, u64>,
    /// The same by operation; empty in checkpoints of versions that did not count them.
    #[serde(default, skip_serializing_if = "Operations::is_empty")]
    pub(crate) operations: Operations,
}

/// How far beyond the window a request may be sent and still count as delivered in time: the
/// scheduler's latency on a busy node, and far below one per cent of any window.
pub(crate) const LATE_NS: u64 = 10_000_000;

/// What a request is judged by, besides itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// End of the measured part, where it is a time.
    pub(crate) window_end_ns: Option<u64>,
    /// Longest time to first token of a good request.
    pub(crate) ttft_ns: Option<u64>,
    /// Longest mean gap between its tokens.
    pub(crate) itl_ns: Option<u64>,
    /// Longest end-to-end time.
    pub(crate) e2e_ns: Option<u64>,
}

impl Limits {
    /// The limits of an SLO and of a window.
    pub(crate) fn new(slo: Option<Slo>, window_end_ns: Option<u64>) -> Self {
        let Slo { ttft, itl, e2e } = slo.unwrap_or_default();
        let nanos = |span: Option<Span>| {
            span.map(|s| u64::try_from(s.get().as_nanos()).unwrap_or(u64::MAX))
        };
        Self { window_end_ns, ttft_ns: nanos(ttft), itl_ns: nanos(itl), e2e_ns: nanos(e2e) }
    }

    /// Whether there is an SLO.
    pub(crate) fn any(&self) -> bool {
        self.ttft_ns.or(self.itl_ns).or(self.e2e_ns).is_some()
    }

    fn good(&self, row: &Row) -> bool {
        let within = |limit: Option<u64>, value: Option<u64>| match (limit, value) {
            (None, _) => true,
            (Some(limit), Some(value)) => value <= limit,
            (Some(_), None) => false,
        };
        // A single token has no gap, so no gap is too long.
        let gap = if row.seen.output_tokens.is_some_and(|n| n <= 1) { Some(0) } else { row.tpot() };
        within(self.ttft_ns, row.ttft())
            && within(self.itl_ns, gap)
            && within(self.e2e_ns, row.e2e())
    }
}

impl Tally {
    /// Counts a request that is being sent.
    pub(crate) fn begin(&mut self, row: &Row, limits: &Limits) {
        match row.phase {
            Phase::Warmup => self.warmup += 1,
            Phase::Measure => {
                self.sent += 1;
                self.operations.begin(&row.operation);
                let late = limits.window_end_ns.is_some_and(|end| row.dequeued_ns > end + LATE_NS);
                self.in_window += u64::from(!late);
            }
        }
    }

    /// Counts a request that is over, after [`Tally::begin`].
    pub(crate) fn end(&mut self, row: &Row, limits: &Limits) {
        let tokens = row.seen.output_tokens.unwrap_or(0);
        self.bytes_sent += row.seen.bytes_sent;
        self.bytes_received += row.seen.bytes_received;
        if row.phase == Phase::Warmup {
            self.warmup_tokens += tokens;
            return;
        }
        self.operations.end(row);
        self.resent += u64::from(row.seen.resent);
        self.last_end_ns = self.last_end_ns.max(row.end_ns);
        match row.outcome {
            Outcome::Ok => {
                self.ok += 1;
                self.output_tokens += tokens;
                self.input_tokens += row.seen.input_tokens.unwrap_or(0);
                self.from_usage += u64::from(row.seen.token_source == Some(TokenSource::Usage));
                self.from_chunks += u64::from(row.seen.token_source == Some(TokenSource::Chunks));
                self.good += u64::from(limits.any() && limits.good(row));
                self.cached_tokens += row.seen.cached_tokens.unwrap_or(0);
                self.cache_known += u64::from(row.seen.cached_tokens.is_some());
                if row.seen.content_events > 0 {
                    self.content_events += u64::from(row.seen.content_events);
                    self.reads += u64::from(row.seen.reads);
                }
            }
            Outcome::Failed => {
                self.failed += 1;
                if let Some(class) = row.error {
                    *self.errors.entry(class).or_default() += 1;
                }
            }
            Outcome::Cancelled => self.cancelled += 1,
        }
    }

    /// Requests that are over.
    pub(crate) fn sent_over(&self) -> u64 {
        self.ok + self.failed + self.cancelled
    }

    /// Adds another worker's sums.
    pub(crate) fn merge(&mut self, other: &Self) {
        let Self {
            sent,
            ok,
            failed,
            cancelled,
            warmup,
            warmup_tokens,
            output_tokens,
            input_tokens,
            from_usage,
            from_chunks,
            good,
            resent,
            in_window,
            last_end_ns: _,
            cached_tokens,
            cache_known,
            bytes_sent,
            bytes_received,
            content_events,
            reads,
            errors,
            operations,
        } = other;
        self.sent += sent;
        self.ok += ok;
        self.failed += failed;
        self.cancelled += cancelled;
        self.warmup += warmup;
        self.warmup_tokens += warmup_tokens;
        self.output_tokens += output_tokens;
        self.input_tokens += input_tokens;
        self.from_usage += from_usage;
        self.from_chunks += from_chunks;
        self.good += good;
        self.resent += resent;
        self.in_window += in_window;
        self.cached_tokens += cached_tokens;
        self.cache_known += cache_known;
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
        self.content_events += content_events;
        self.reads += reads;
        self.operations.merge(operations);
        // Stamps of different nodes cannot be compared; the caller turns them into wall clock.
        for (class, count) in errors {
            *self.errors.entry(*class).or_default() += count;
        }
    }
}

/// The metrics that have histograms.
pub(crate) const METRICS: [&str; 9] =
    ["ttft", "ttfo", "inter_token", "tpot", "e2e", "total", "service", "client_lag", "receive_lag"];

/// Name of the histogram of [`Row::own_lag`], which results do not show.
pub(crate) const OWN_LAG: &str = "own_lag";

/// Histograms of measured requests: of the successful ones one for each of [`METRICS`] and
/// [`OWN_LAG`]; and by operation those of [`of_operation`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histograms(BTreeMap<String, Histogram>);

/// Prefix of the histogram of an operation's successful requests: their total time.
pub(crate) const OPERATION: &str = "op:";

/// Prefix of the histogram of an operation's failed requests: their total time.
pub(crate) const FAILED_OPERATION: &str = "failed:";

/// Prefix of the histogram of an operation's recall, in billionths.
pub(crate) const RECALL: &str = "recall:";

/// The values by operation of a measured request that is over.
pub(crate) fn of_operation(row: &Row) -> impl Iterator<Item = (&'static str, u64)> {
    let total = match row.outcome {
        Outcome::Ok => row.total().map(|total| (OPERATION, total)),
        Outcome::Failed => row.total().map(|total| (FAILED_OPERATION, total)),
        Outcome::Cancelled => None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e9")]
    let billionths = |recall: f64| (RECALL, (recall.clamp(0.0, 1.0) * 1e9).round() as u64);
    let recall = row.seen.recall.filter(|_| row.outcome == Outcome::Ok).map(billionths);
    total.into_iter().chain(recall)
}

impl Histograms {
    /// Counts a request, if it is a measured one that was answered or failed.
    pub(crate) fn add(&mut self, row: &Row) {
        if row.phase != Phase::Measure {
            return;
        }
        for (prefix, value) in of_operation(row) {
            let mut name = String::with_capacity(prefix.len() + row.operation.len());
            name.push_str(prefix);
            name.push_str(&row.operation);
            self.with(&name, |histogram| histogram.record(value));
        }
        if row.outcome != Outcome::Ok {
            return;
        }
        for (name, value) in values(row) {
            if let Some(value) = value {
                self.with(name, |histogram| histogram.record(value));
            }
        }
        if row.seen.content_events > 1 {
            self.with("inter_token", |gaps| row.seen.gaps.iter().for_each(|gap| gaps.record(gap)));
        }
        if row.seen.receive_lags != Gaps::default() {
            self.with("receive_lag", |lags| {
                row.seen.receive_lags.iter().for_each(|lag| lags.record(lag));
            });
        }
    }

    /// Runs `change` on the histogram of this name, made when missing.
    fn with(&mut self, name: &str, change: impl FnOnce(&mut Histogram)) {
        if let Some(histogram) = self.0.get_mut(name) {
            change(histogram);
        } else {
            let mut histogram = Histogram::new();
            change(&mut histogram);
            self.0.insert(name.to_owned(), histogram);
        }
    }

    /// Adds another set's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, histogram) in &other.0 {
            self.with(name, |sum| sum.merge(histogram));
        }
    }

    /// Puts a histogram in its place.
    pub(crate) fn insert(&mut self, name: String, histogram: Histogram) {
        self.0.insert(name, histogram);
    }

    /// Forgets all counts, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.0.values_mut().for_each(Histogram::clear);
    }

    /// The histogram of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Histogram> {
        self.0.get(name)
    }

    /// All histograms that have counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Histogram)> {
        self.0.iter().filter(|(_, h)| h.count() > 0).map(|(name, h)| (name.as_str(), h))
    }
}

/// The scalar metrics of a request.
pub(crate) fn values(row: &Row) -> [(&'static str, Option<u64>); 8] {
    [
        ("ttft", row.ttft()),
        ("ttfo", row.ttfo()),
        ("tpot", row.tpot()),
        ("e2e", row.e2e()),
        ("total", row.total()),
        ("service", row.service()),
        ("client_lag", row.client_lag()),
        (OWN_LAG, row.own_lag()),
    ]
}
