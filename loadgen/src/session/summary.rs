//! A result as text, for people.

use std::fmt::Write;

use aifb_schema::{
    result::{Distribution, LoadResult, StoppedBecause},
    search::SearchResult,
};

/// The summary.
pub(crate) fn text(result: &LoadResult) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ignored = write(&mut text, result);
    text
}

fn write(text: &mut String, result: &LoadResult) -> std::fmt::Result {
    let counts = &result.counts;
    write!(
        text,
        "requests: sent {} = ok {} + failed {} + cancelled {} + unfinished {}",
        counts.sent, counts.ok, counts.failed, counts.cancelled, counts.unfinished
    )?;
    if let (Some(planned), Some(unsent)) = (counts.planned, counts.unsent) {
        write!(text, "; planned {planned}, unsent {unsent}")?;
    }
    writeln!(text)?;
    let metrics = &result.metrics;
    for (name, value) in [
        ("duration, s", metrics.duration_seconds),
        ("requests/s", metrics.requests_per_second),
        ("output tokens/s", metrics.output_tokens_per_second),
        ("goodput, requests/s", metrics.goodput_per_second),
        ("attainment", metrics.attainment_ratio),
    ] {
        if let Some(value) = value {
            writeln!(text, "{name}: {value:.3}")?;
        }
    }
    writeln!(
        text,
        "{:<14}{:>10}{:>11}{:>11}{:>11}{:>11}",
        "ms", "count", "p50", "p90", "p99", "max"
    )?;
    let operations = result.operations.iter().filter(|_| result.operations.len() > 1);
    let operations = operations.filter_map(|(name, one)| Some((name, one.total_seconds?)));
    for (name, distribution) in [
        ("ttft", metrics.ttft_seconds),
        ("ttfo", metrics.ttfo_seconds.filter(|_| metrics.ttfo_seconds != metrics.ttft_seconds)),
        ("inter-token", metrics.inter_token_seconds),
        ("tpot", metrics.tpot_seconds),
        ("e2e", metrics.e2e_seconds),
        ("total", metrics.total_seconds),
        ("service", metrics.service_seconds),
        ("send delay", metrics.client_lag_seconds),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .chain(operations.map(|(name, value)| (name.as_str(), value)))
    {
        let Distribution { count, p50, p90, p99, max, .. } = distribution;
        let [p50, p90, p99, max] = [p50, p90, p99, max].map(|seconds| seconds * 1e3);
        writeln!(text, "{name:<14}{count:>10}{p50:>11.3}{p90:>11.3}{p99:>11.3}{max:>11.3}")?;
    }
    if let Some(search) = &result.search {
        write_search(text, search)?;
    }
    for (class, count) in &result.errors {
        let example = result.error_examples.get(class).map_or("", String::as_str);
        writeln!(text, "error {class}: {count} ({example})")?;
    }
    if let Some(StoppedBecause { rule, reason: Some(reason) }) = &result.stopped_because {
        writeln!(text, "ended by {rule}: {reason}")?;
    }
    for verdict in &result.verdicts {
        writeln!(text, "verdict {}: {}", verdict.kind, verdict.message)?;
    }
    Ok(())
}

fn write_search(text: &mut String, search: &SearchResult) -> std::fmt::Result {
    let unit = &search.unit;
    let ends = match (search.capacity, search.beyond) {
        (Some(low), Some(high)) => {
            format!("maximum sustained load: {low:.3} {unit} (lowest that failed: {high:.3})")
        }
        (Some(low), None) => format!("maximum sustained load: at least {low:.3} {unit}"),
        (None, Some(high)) => format!("maximum sustained load: below {high:.3} {unit}"),
        (None, None) => "maximum sustained load: unknown".to_owned(),
    };
    write!(text, "{ends}; {} probes, {}", search.probes.len(), search.reason)?;
    if let Some(knee) = search.knee {
        write!(text, "; knee {knee:.3} {unit}")?;
    }
    writeln!(text)?;
    for probe in &search.probes {
        let word = if probe.passed { "pass" } else { "fail" };
        let sure = if probe.certain { "" } else { " (not significant at 95 %)" };
        let answered = probe.answered_per_second.unwrap_or(0.0);
        writeln!(
            text,
            "  {:>12.3} {word}{sure}: {} ({answered:.3} responses/s)",
            probe.level, probe.why
        )?;
    }
    if search.client_limited {
        writeln!(text, "  the client limited the upper end: use more clients")?;
    }
    Ok(())
}
