//! The report's tables over several figures of a load: by other programs' definitions, by the
//! points of a sweep, by the probes of a search.

use std::collections::BTreeMap;

use aifb_schema::{
    result::{Comparable, Compatible, Distribution, LoadResult, Metrics, OperationResult},
    search::SearchResult,
};

use super::quantity::{bytes, digits, seconds};
use crate::observe::view;

/// What stands where nothing was measured.
fn absent() -> String {
    "-".to_owned()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What each operation did, where there are several or one that does several things; empty for
/// results of programs that did not count by operation.
pub(super) fn operations(operations: &BTreeMap<String, OperationResult>) -> Vec<Vec<String>> {
    let alone = operations.len() < 2
        && operations.values().all(|one| one.items.is_none() && one.recall.is_none());
    let counted = operations.iter().filter_map(|(name, one)| Some((name, one, one.counts?)));
    let rate = |value: Option<f64>| value.map_or_else(absent, digits);
    let rows: Vec<Vec<String>> = counted
        .filter(|_| !alone)
        .map(|(name, one, counts)| {
            vec![
                name.clone(),
                counts.sent.to_string(),
                counts.ok.to_string(),
                counts.failed.to_string(),
                rate(one.requests_per_second),
                rate(one.items_per_second),
                one.payload_bytes.map_or_else(absent, bytes),
                one.recall.map_or_else(absent, |recall| format!("{:.4}", recall.mean)),
            ]
        })
        .collect();
    if rows.is_empty() {
        return rows;
    }
    let head =
        ["operation", "sent", "ok", "failed", "requests/s", "items/s", "payload", "recall (mean)"];
    std::iter::once(words(&head)).chain(rows).collect()
}

/// The same requests by other programs' definitions, a row each.
pub(super) fn comparable(others: &Comparable) -> Vec<Vec<String>> {
    let times = [
        ("ttft_service", &others.ttft_service_seconds),
        ("ttft_vllm", &others.ttft_vllm_seconds),
        ("ttft_sglang", &others.ttft_sglang_seconds),
        ("ttft_genai", &others.ttft_genai_seconds),
        ("ttft_mlperf", &others.ttft_mlperf_seconds),
        ("tpot_vllm", &others.tpot_vllm_seconds),
        ("tpot_sglang", &others.tpot_sglang_seconds),
        ("tpot_guidellm", &others.tpot_guidellm_seconds),
        ("tpot_mlperf", &others.tpot_mlperf_seconds),
        ("itl_genai", &others.itl_genai_seconds),
        ("itl_aiperf", &others.itl_aiperf_seconds),
        ("itl_vllm", &others.itl_vllm_seconds),
        ("itl_infperf", &others.itl_infperf_seconds),
        ("e2e_vllm", &others.e2e_vllm_seconds),
        ("e2e_sglang", &others.e2e_sglang_seconds),
        ("e2e_aiperf", &others.e2e_aiperf_seconds),
        ("latency_mlperf", &others.latency_mlperf_seconds),
        ("ntpot", &others.ntpot_seconds),
    ];
    let mut rows: Vec<Vec<String>> = times
        .into_iter()
        .filter_map(|(name, one)| Some((name, one.as_ref()?)))
        .map(|(name, one)| {
            let mut row = words(&[name]);
            row.extend([one.p50, one.p90, one.p99, one.mean].map(seconds));
            row
        })
        .collect();
    for (name, value) in [
        ("goodput_vllm", others.goodput_vllm_per_second.map(|rate| format!("{}/s", digits(rate)))),
        (
            "attainment_sglang",
            others.attainment_sglang_ratio.map(|ratio| format!("{} %", digits(ratio * 100.0))),
        ),
    ] {
        if let Some(value) = value {
            rows.push(vec![name.to_owned(), value]);
        }
    }
    if !rows.is_empty() {
        rows.insert(0, words(&["by others' definitions", "p50", "p90", "p99", "mean"]));
    }
    rows
}

/// The main figures by the names of earlier benchmarks: their averages on one line.
pub(super) fn compatible(figures: &Compatible) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    for (name, one, unit) in [
        ("response_time", &figures.response_time, " s"),
        ("time_to_first_token", &figures.time_to_first_token, " s"),
        ("tokens_generated_per_second", &figures.tokens_generated_per_second, ""),
    ] {
        if let Some(one) = one {
            parts.push(format!("{name} {:.6}{unit}", one.average));
        }
    }
    if let Some(rate) = figures.throughput {
        parts.push(format!("throughput {}/s", digits(rate)));
    }
    (!parts.is_empty()).then(|| vec!["averages".to_owned(), parts.join(", ")])
}

/// A line for each point and repeat, where a load has several.
pub(super) fn sweep(results: &[&LoadResult]) -> Vec<Vec<String>> {
    let mut rows = vec![words(&[
        "",
        "at",
        "sent",
        "ok",
        "requests/s",
        "TTFT p50",
        "p99",
        "TPOT p50",
        "e2e p50",
        "p99",
        "tokens/s",
        "goodput/s",
        "verdicts",
    ])];
    for result in results {
        let metrics: &Metrics = &result.metrics;
        let rate = |value: Option<f64>| value.map_or_else(absent, digits);
        let at = |one: &Option<Distribution>, of: fn(&Distribution) -> f64| {
            one.as_ref().map_or_else(absent, |one| seconds(of(one)))
        };
        let kinds: Vec<&str> =
            result.verdicts.iter().map(|verdict| verdict.kind.as_str()).collect();
        rows.push(vec![
            format!("p{} r{}", result.point, result.repeat),
            settings(result),
            result.counts.sent.to_string(),
            result.counts.ok.to_string(),
            rate(metrics.requests_per_second),
            at(&metrics.ttft_seconds, |one| one.p50),
            at(&metrics.ttft_seconds, |one| one.p99),
            at(&metrics.tpot_seconds, |one| one.p50),
            at(&metrics.e2e_seconds, |one| one.p50),
            at(&metrics.e2e_seconds, |one| one.p99),
            rate(metrics.output_tokens_per_second),
            rate(metrics.goodput_per_second),
            kinds.join(" "),
        ]);
    }
    // A column in which nothing was measured says nothing.
    let empty: Vec<usize> = (1..rows.first().map_or(0, Vec::len))
        .filter(|column| {
            rows.iter()
                .skip(1)
                .all(|row| row.get(*column).is_none_or(|cell| cell == "-" || cell.is_empty()))
        })
        .collect();
    for row in &mut rows {
        let mut column = 0;
        row.retain(|_| {
            column += 1;
            !empty.contains(&(column - 1))
        });
    }
    rows
}

/// The point's values by the last words of their paths.
fn settings(result: &LoadResult) -> String {
    let own = format!("load.{}.", result.load);
    let short = |path: &str| {
        let path = path.strip_prefix(&own).unwrap_or(path);
        path.strip_prefix("arrival.").unwrap_or(path).to_owned()
    };
    let probe = result.probe.as_ref().map(|probe| format!("level={}", digits(probe.level)));
    let values = result.settings.iter().map(|(path, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{}={value}", short(path))
    });
    values.chain(probe).collect::<Vec<_>>().join(" ")
}

/// What a search found: the answer, and a line for each probe.
pub(super) fn search(found: &SearchResult) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let unit = &found.unit;
    let load = |value: f64| format!("{} {unit}", digits(value));
    let mut rows = Vec::new();
    let mut row = |what: &str, text: String| rows.push(vec![what.to_owned(), text]);
    row(
        "capacity",
        match (found.capacity, found.beyond) {
            (Some(low), Some(high)) => format!("{}, {} is too much", load(low), load(high)),
            (Some(low), None) => format!("at least {}", load(low)),
            (None, Some(high)) => format!("below {}", load(high)),
            (None, None) => "unknown".to_owned(),
        },
    );
    row("ended", format!("{} ({} probes)", found.reason, found.probes.len()));
    if let Some(knee) = found.knee {
        row("knee", load(knee));
    }
    if found.client_limited {
        row("doubt", "the client is to blame for the upper end: use more clients".to_owned());
    }
    let mut probes = vec![words(&["probe", "load", "answers/s", "", "why"])];
    for probe in &found.probes {
        let word = match (probe.passed, probe.certain) {
            (true, true) => "pass",
            (true, false) => "pass, perhaps by chance",
            (false, true) => "fail",
            (false, false) => "fail, perhaps by chance",
        };
        probes.push(vec![
            format!("r{}", probe.repeat),
            digits(probe.level),
            probe.answered_per_second.map_or_else(absent, digits),
            word.to_owned(),
            probe.why.clone(),
        ]);
    }
    (rows, probes)
}

/// Name of a load's point.
pub(super) fn search_title(found: &SearchResult) -> String {
    let name = view::load_name(&found.load, found.point, 0);
    format!("search {}", name.rsplit_once(' ').map_or(name.as_str(), |(point, _)| point))
}
