//! The summary of a run for a Pushgateway, in Prometheus' text format 0.0.4.
//!
//! Two kinds of names: those that the older recipe dialect promised (`benchmark_…`, sums of all
//! loads of a service, as its dashboards expect them), and ours for each result.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    names::env,
    result::{Distribution, LoadResult},
};

/// Media type of the summary.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The `job` of the group that a run pushes to.
pub const JOB: &str = "ai_factory_benchmark";

/// The `job` of the group that `aifb metrics --push` pushes to.
pub const JOB_OF_COMMAND: &str = "benchmark";

/// Port of the Pushgateway on a monitoring node.
const PORT: u16 = 9091;

/// The gateway of a recipe (which `--pushgateway` and `--set` have overridden), else the one that the
/// `environment` names.
#[must_use]
pub fn url(recipe: Option<&str>, environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    let named = |name: &str| environment(name).filter(|value| !value.is_empty());
    let of_node = || named(env::MONITORING_NODE).map(|node| format!("http://{node}:{PORT}"));
    recipe.map(str::to_owned).or_else(|| named(env::PUSHGATEWAY_URL)).or_else(of_node)
}

/// A URL without the user and the password that it may have, for messages.
#[must_use]
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    match authority.rsplit_once('@') {
        None => url.to_owned(),
        Some((secret, _)) => {
            let host = rest.get(secret.len() + 1..).unwrap_or_default();
            format!("{scheme}://…@{host}")
        }
    }
}

/// Upper bounds of the buckets of `benchmark_request_duration_seconds`.
pub const BUCKETS_SECONDS: [f64; 9] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, f64::INFINITY];

/// Cumulative counts for [`BUCKETS_SECONDS`].
pub type Buckets = [u64; BUCKETS_SECONDS.len()];

/// A result, and how many of its successful requests took at most each bucket's time.
#[derive(Debug, Clone, PartialEq)]
pub struct Summed {
    /// What the load wrote.
    pub result: LoadResult,
    /// Absent where the histograms are not there.
    pub buckets: Option<Buckets>,
}

/// Path of a run's group below the gateway's URL. A name with a '/' has another form there, which
/// no run id needs.
#[must_use]
pub fn group_path(job: &str, run_id: &str) -> String {
    format!("/metrics/job/{job}/instance/{run_id}")
}

/// The sums of one service.
#[derive(Debug, Default)]
struct Sum {
    sent: u64,
    ok: u64,
    failed: u64,
    buckets: Buckets,
    duration_seconds: f64,
    /// Every result of it has buckets and a mean.
    incomplete: bool,
}

/// The whole page.
#[must_use]
pub fn page(run_id: &str, all: &[Summed]) -> String {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for one in all {
        sums.entry(one.result.service.as_str()).or_default().add(one);
    }
    let mut page = String::new();
    counters(&mut page, run_id, &sums);
    durations(&mut page, run_id, &sums);
    of_results(&mut page, all);
    page
}

impl Sum {
    fn add(&mut self, one: &Summed) {
        let counts = &one.result.counts;
        self.sent += counts.sent;
        self.ok += counts.ok;
        self.failed += counts.failed;
        match (&one.buckets, &one.result.metrics.total_seconds) {
            (Some(buckets), Some(total)) => {
                self.buckets.iter_mut().zip(buckets).for_each(|(sum, count)| *sum += count);
                self.duration_seconds += total.mean * count(total);
            }
            (None, None) if counts.ok == 0 => {}
            _ => self.incomplete = true,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn count(distribution: &Distribution) -> f64 {
    distribution.count as f64
}

// Writing to a String cannot fail.
fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn counters(page: &mut String, run_id: &str, sums: &BTreeMap<&str, Sum>) {
    let mut family = |name: &str, help: &str, value: &dyn Fn(&Sum) -> u64| {
        head(page, name, "counter", help);
        for (service, sum) in sums {
            let labels = format!("benchmark_id=\"{run_id}\",service=\"{service}\"");
            let _infallible = writeln!(page, "{name}{{{labels}}} {}", value(sum));
        }
    };
    family("benchmark_requests_total", "Requests sent.", &|sum| sum.sent);
    family("benchmark_requests_successful", "Requests that succeeded.", &|sum| sum.ok);
    family("benchmark_requests_failed", "Requests that failed.", &|sum| sum.failed);
}

fn durations(page: &mut String, run_id: &str, sums: &BTreeMap<&str, Sum>) {
    let name = "benchmark_request_duration_seconds";
    let whole = |(_, sum): &(&&str, &Sum)| !sum.incomplete && sum.ok > 0;
    if sums.iter().any(|sum| whole(&sum)) {
        head(page, name, "histogram", "Time of a successful request to the end of its answer.");
    }
    for (service, sum) in sums.iter().filter(whole) {
        let labels = format!("benchmark_id=\"{run_id}\",service=\"{service}\"");
        for (bound, count) in BUCKETS_SECONDS.iter().zip(sum.buckets) {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            let _infallible = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let [.., all] = sum.buckets;
        let _infallible = writeln!(page, "{name}_sum{{{labels}}} {}", sum.duration_seconds);
        let _infallible = writeln!(page, "{name}_count{{{labels}}} {all}");
    }
}

/// One family of ours: name, what it is, and its values with their further labels.
type OwnFamily = (&'static str, &'static str, fn(&LoadResult) -> Vec<(String, f64)>);

fn of_results(page: &mut String, all: &[Summed]) {
    let families: [OwnFamily; 4] = [
        ("aifb_result_requests", "Requests of a result, by outcome.", |result| {
            let counts = &result.counts;
            let of = [
                ("ok", counts.ok),
                ("failed", counts.failed),
                ("cancelled", counts.cancelled),
                ("unfinished", counts.unfinished),
            ];
            #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
            of.map(|(outcome, count)| (format!(",outcome=\"{outcome}\""), count as f64)).to_vec()
        }),
        ("aifb_result_requests_per_second", "Successful requests per second.", |result| {
            result
                .metrics
                .requests_per_second
                .map(|rate| (String::new(), rate))
                .into_iter()
                .collect()
        }),
        ("aifb_result_output_tokens_per_second", "Output tokens per second.", |result| {
            let rate = result.metrics.output_tokens_per_second;
            rate.map(|rate| (String::new(), rate)).into_iter().collect()
        }),
        ("aifb_result_time_seconds", "Times of a result: ttft, inter_token, e2e, total.", times),
    ];
    for (name, help, values) in families {
        let mut lines = String::new();
        for Summed { result, .. } in all {
            let LoadResult { load, point, repeat, service, .. } = result;
            for (more, value) in values(result) {
                let own = format!(
                    "load=\"{load}\",point=\"{point}\",repeat=\"{repeat}\",service=\"{service}\"{more}"
                );
                let _infallible = writeln!(lines, "{name}{{{own}}} {value}");
            }
        }
        if !lines.is_empty() {
            head(page, name, "gauge", help);
            page.push_str(&lines);
        }
    }
}

fn times(result: &LoadResult) -> Vec<(String, f64)> {
    let metrics = &result.metrics;
    let of = [
        ("ttft", &metrics.ttft_seconds),
        ("inter_token", &metrics.inter_token_seconds),
        ("e2e", &metrics.e2e_seconds),
        ("total", &metrics.total_seconds),
    ];
    let mut values = Vec::new();
    for (metric, distribution) in of {
        let Some(d) = distribution else { continue };
        for (stat, value) in [("mean", d.mean), ("p50", d.p50), ("p95", d.p95), ("p99", d.p99)] {
            values.push((format!(",metric=\"{metric}\",stat=\"{stat}\""), value));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(load: &str, ok: u64, failed: u64, mean: f64) -> Summed {
        let total = serde_json::json!({"count": ok, "mean": mean, "min": mean, "p50": mean,
            "p90": mean, "p95": mean, "p99": mean, "max": mean});
        let result = serde_json::json!({
            "version": 1, "load": load, "point": 0, "settings": {}, "repeat": 0, "service": "llm",
            "driver": "http",
            "counts": {"sent": ok + failed, "ok": ok, "failed": failed, "cancelled": 0,
                "unfinished": 0, "warmup": 0},
            "metrics": {"requests_per_second": 2.5, "total_seconds": total},
            "errors": {}, "verdicts": [], "complete": true, "lost_workers": [], "source": "rows",
            "plan": {"seed": 1, "hash": "", "workers": 1},
            "client": {"cpu_seconds": 0.0, "peak_rss_bytes": 0},
            "measure_start_epoch_ns": 0, "measure_end_epoch_ns": 1,
        });
        let buckets = Some([0, 0, ok / 2, ok, ok, ok, ok, ok, ok]);
        Summed { result: serde_json::from_value(result).unwrap(), buckets }
    }

    #[test]
    fn loads_of_one_service_add_up_under_the_promised_names() {
        let page = page("local-1", &[result("a", 8, 1, 0.25), result("b", 2, 0, 0.5)]);
        let labels = "{benchmark_id=\"local-1\",service=\"llm\"";
        for line in [
            format!("benchmark_requests_total{labels}}} 11"),
            format!("benchmark_requests_successful{labels}}} 10"),
            format!("benchmark_requests_failed{labels}}} 1"),
            format!("benchmark_request_duration_seconds_bucket{labels},le=\"0.1\"}} 5"),
            format!("benchmark_request_duration_seconds_bucket{labels},le=\"+Inf\"}} 10"),
            format!("benchmark_request_duration_seconds_sum{labels}}} 3"),
            format!("benchmark_request_duration_seconds_count{labels}}} 10"),
            "aifb_result_requests_per_second{load=\"b\",point=\"0\",repeat=\"0\",service=\"llm\"} 2.5"
                .to_owned(),
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
    }

    /// One name has one meaning: each is described once, and none is that of something sampled.
    #[test]
    fn a_name_has_one_kind_everywhere() {
        let page = page("local-1", &[result("a", 8, 1, 0.25), result("b", 2, 0, 0.5)]);
        let types: Vec<(&str, &str)> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let names: std::collections::BTreeSet<&str> = types.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), types.len(), "{types:?}");
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(
                names.contains(name) || stem.is_some_and(|stem| names.contains(stem)),
                "{line}"
            );
            let ours = name.strip_prefix(crate::metric::PREFIX);
            assert!(ours.is_none_or(|name| crate::metric::find(name).is_none()), "{line}");
        }
    }

    #[test]
    fn the_gateway_is_the_nearest_that_is_named() {
        let of = |recipe, url: &str, node: &str| {
            let named = |name: &str| match name {
                env::PUSHGATEWAY_URL => Some(url.to_owned()),
                env::MONITORING_NODE => Some(node.to_owned()),
                _ => None,
            };
            super::url(recipe, named)
        };
        assert_eq!(of(Some("http://r"), "http://u", "n"), Some("http://r".into()));
        assert_eq!(of(None, "http://u", "n"), Some("http://u".into()));
        assert_eq!(of(None, "", "n"), Some("http://n:9091".into()));
        assert_eq!(of(None, "", ""), None);
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, expected) in [
            ("http://h:9091/metrics/job/a@b", "http://h:9091/metrics/job/a@b"),
            ("http://u:p@ss@h:9091/x", "http://…@h:9091/x"),
            ("u:p@h", "://…@h"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn without_histograms_there_are_no_buckets() {
        let mut one = result("a", 8, 1, 0.25);
        one.buckets = None;
        let page = page("local-1", &[one]);
        assert!(!page.contains("duration_seconds"), "{page}");
    }
}
