//! One repeat of a load in a few lines.

use aifb_schema::{
    result::{Counts, Distribution, LoadResult},
    search::SearchResult,
};

use crate::observe::view;

/// Counts, rates and the distributions that matter, then each doubt on a line of its own.
pub(super) fn lines(result: &LoadResult) -> Vec<String> {
    let Counts { sent, ok, failed, cancelled, unfinished, unsent, .. } = result.counts;
    let mut parts = vec![format!(
        "{sent} sent = {ok} ok + {failed} failed + {cancelled} cancelled + {unfinished} unfinished"
    )];
    if let Some(unsent) = unsent.filter(|unsent| *unsent > 0) {
        parts.push(format!("{unsent} not sent"));
    }
    let metrics = &result.metrics;
    for (value, unit) in [
        (metrics.requests_per_second, "requests/s"),
        (metrics.output_tokens_per_second, "tokens/s"),
        (metrics.goodput_per_second, "good requests/s"),
    ] {
        if let Some(value) = value {
            parts.push(format!("{value:.1} {unit}"));
        }
    }
    for (name, distribution) in [
        ("ttft", &metrics.ttft_seconds),
        ("inter-token", &metrics.inter_token_seconds),
        ("e2e", &metrics.e2e_seconds),
    ] {
        if let Some(Distribution { p50, p99, .. }) = distribution {
            parts.push(format!("{name} p50 {} p99 {}", duration(*p50), duration(*p99)));
        }
    }
    let name = view::load_name(&result.load, result.point, result.repeat);
    let mut lines = vec![format!("{name}: {}", parts.join(", "))];
    let settings: Vec<String> =
        result.settings.iter().map(|(path, value)| format!("{path}={}", plain(value))).collect();
    if !settings.is_empty() {
        lines.push(format!("  at {}", settings.join(" ")));
    }
    if !result.complete {
        let lost: Vec<String> = result.lost_workers.iter().map(u32::to_string).collect();
        lines.push(format!("  incomplete: clients lost: {}", lost.join(", ")));
    }
    for (class, count) in &result.errors {
        let example = result.error_examples.get(class).map_or("", String::as_str);
        lines.push(format!("  {count} failed with {class}: {example}"));
    }
    for verdict in &result.verdicts {
        lines.push(format!("  verdict {}: {}", verdict.kind, verdict.message));
    }
    lines
}

/// The answer of a search on one line, and its doubt.
pub(super) fn search_lines(found: &SearchResult) -> Vec<String> {
    let unit = &found.unit;
    let ends = match (found.capacity, found.beyond) {
        (Some(low), Some(high)) => {
            format!("maximum sustained load {low:.3} {unit}; lowest that failed: {high:.3}")
        }
        (Some(low), None) => format!("maximum sustained load: at least {low:.3} {unit}"),
        (None, Some(high)) => format!("maximum sustained load: below {high:.3} {unit}"),
        (None, None) => "no probe has a result".to_owned(),
    };
    let name = format!("{} p{}", found.load, found.point);
    let mut lines =
        vec![format!("{name}: {ends}; {} probes, {}", found.probes.len(), found.reason)];
    if found.client_limited {
        lines.push("  the clients limited the upper end: use more of them".to_owned());
    }
    lines
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Seconds in the unit that reads best, three digits.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (seconds, text) in
            [(0.000_012_3, "12.3 us"), (0.001_234, "1.23 ms"), (0.123, "123 ms"), (12.3, "12.3 s")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_result_says_what_happened() {
        let result: LoadResult = serde_json::from_value(serde_json::json!({
            "version": 1, "load": "chat", "point": 1, "settings": {"load.chat.arrival.rate": "5/s"},
            "repeat": 0, "service": "llm", "driver": "http",
            "counts": {"sent": 10, "ok": 8, "failed": 1, "cancelled": 1, "unfinished": 0,
                       "planned": 12, "unsent": 2, "warmup": 0},
            "metrics": {"requests_per_second": 4.0},
            "errors": {"status_5xx": 1}, "error_examples": {"status_5xx": "503"},
            "verdicts": [{"kind": "client_stall", "message": "1 s"}],
            "complete": false, "lost_workers": [3], "source": "rows",
            "plan": {"seed": 0, "hash": "", "workers": 4},
            "client": {"cpu_seconds": 0.1, "peak_rss_bytes": 1},
            "measure_start_epoch_ns": 0, "measure_end_epoch_ns": 0,
        }))
        .unwrap();
        assert_eq!(
            lines(&result).join("\n"),
            "chat p1 r0: 10 sent = 8 ok + 1 failed + 1 cancelled + 0 unfinished, 2 not sent, 4.0 \
             requests/s\n  at load.chat.arrival.rate=5/s\n  incomplete: clients lost: 3\n  1 \
             failed with status_5xx: 503\n  verdict client_stall: 1 s"
        );
    }
}
