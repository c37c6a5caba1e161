//! The histograms of a load on `/metrics` while it runs, against its result.

use std::{cell::RefCell, collections::BTreeMap, fs, time::Duration};

use serde_json::Value;

use super::{
    Local,
    exports::{agent, pages_are_clean},
    programs,
    servers::{get, unpacked},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Times by their names on `/metrics`, and in a result.
const NAMES: [(&str, &str); 4] = [
    ("request_duration_seconds", "total_seconds"),
    ("ttft_seconds", "ttft_seconds"),
    ("inter_token_seconds", "inter_token_seconds"),
    ("schedule_lag_seconds", "client_lag_seconds"),
];

fn recipe() -> String {
    format!(
        "aifb: 1
name: live
services:
  - name: llm
    kind: container
    program: {programs}/aifb-loadgen
    args: [mock, --listen, '{{host}}:{{port}}', --ttft, 30ms, --itl, 6ms, --tokens, '5']
    health: {{http: /health, deadline: 5s, max: 8s}}
load:
  - name: chat
    driver: openai-chat
    clients: 2
    dataset: {{kind: synthetic, input_tokens: 8, output_tokens: 5}}
    arrival: {{process: constant, rate: 25/s}}
    phases: {{warmup: 500ms, measure: 4s, drain: 20s}}
  - name: more
    driver: openai-chat
    dataset: {{kind: synthetic, input_tokens: 8, output_tokens: 5}}
    arrival: {{concurrency: 1}}
    phases: {{measure: {{requests: 3}}, drain: 20s}}
monitor: {{sample: 200ms}}
",
        programs = programs().display(),
    )
}

/// A histogram: its buckets in the order of the page, its count and its sum.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    buckets: Vec<(String, f64)>,
    count: f64,
    sum: f64,
}

/// Those of the load.
fn seen(page: &str) -> BTreeMap<&'static str, Seen> {
    let mut all: BTreeMap<&'static str, Seen> = BTreeMap::new();
    for line in page.lines().filter(|line| line.contains("load=\"chat\"")) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap();
        let value: f64 = value.parse().unwrap();
        for (of, _) in NAMES {
            let part = name.strip_prefix("aifb_").and_then(|name| name.strip_prefix(of));
            let Some(part) = part else { continue };
            let one = all.entry(of).or_default();
            match part {
                "_bucket" => {
                    let le = labels.split("le=\"").nth(1).unwrap().trim_end_matches("\"}");
                    one.buckets.push((le.to_owned(), value));
                }
                "_count" => one.count = value,
                "_sum" => one.sum = value,
                other => panic!("{other} of {of}"),
            }
        }
    }
    all
}

/// What holds of every histogram at any time.
fn check(all: &BTreeMap<&'static str, Seen>) {
    for (name, one) in all {
        let counts: Vec<f64> = one.buckets.iter().map(|(_, count)| *count).collect();
        assert!(counts.is_sorted(), "{name}: {one:?}");
        let (le, last) = one.buckets.last().unwrap();
        assert_eq!((le.as_str(), *last), ("+Inf", one.count), "{name}: {one:?}");
    }
}

#[test]
fn times_of_a_running_load_end_as_its_result() {
    let local = Local::new(&recipe());
    let script = "\"$AIFB_BIN/aifb\" load chat && \"$AIFB_BIN/aifb\" load more && : > ended \
                  && while [ ! -e over ]; do sleep 0.1; done";
    let mut child = local.start(&["run", "--local", "x.yaml", "--", "sh", "-c", script]);
    let page = || {
        let page = get(&format!("http://{}/metrics", agent(&local)?), &[])?;
        Some(seen(&page)).filter(|all| all.len() == NAMES.len())
    };
    // While it runs: a part of all requests.
    let first = RefCell::new(None);
    local.until("times of a running load", PATIENCE, || {
        *first.borrow_mut() = page();
        first.borrow().is_some()
    });
    let first = first.into_inner().unwrap();
    check(&first);
    let sent = f64::from(25 * 4);
    let before = first["ttft_seconds"].count;
    assert!(before > 0.0 && before < sent, "{first:?}");
    local.until("the end of the load", PATIENCE, || local.folder.path().join("ended").exists());
    local.until("all its requests", PATIENCE, || {
        page().is_some_and(|all| all["ttft_seconds"].count >= sent)
    });
    let last = page().unwrap();
    check(&last);
    let result = local.only_run().unwrap().join("load/chat/p0/r0/result.json");
    let result: Value = serde_json::from_slice(&fs::read(result).unwrap()).unwrap();
    for (name, key) in NAMES {
        let (told, of) = (&last[name], &result["metrics"][key]);
        assert_eq!(Some(told.count), of["count"].as_f64(), "{name}: {told:?}, {of}");
        let sum = of["mean"].as_f64().unwrap() * told.count;
        assert!((told.sum - sum).abs() < 1e-6 * sum, "{name}: {told:?}, {of}");
        // Each bound against the order of the values that the result has.
        for (quantile, share) in [("min", 0.0), ("p50", 0.5), ("p99", 0.99)] {
            let value = of[quantile].as_f64().unwrap();
            for (le, count) in &told.buckets {
                let within = le.parse::<f64>().unwrap_or(f64::INFINITY) >= value;
                let enough = *count >= (share * told.count).max(1.0);
                assert_eq!(within, enough, "{name} {le} against {quantile} {value}: {told:?}");
            }
        }
    }
    assert_eq!(last["inter_token_seconds"].count, sent * 4.0);
    // Histograms of two loads stand one after the other.
    let url = format!("http://{}/metrics", agent(&local).unwrap());
    local.until("the second load", PATIENCE, || {
        get(&url, &[]).is_some_and(|page| {
            page.lines().any(|line| {
                line.starts_with("aifb_ttft_seconds_count") && line.ends_with("load=\"more\"} 3")
            })
        })
    });
    unpacked("bookworm").inspect(|unpacked| pages_are_clean(&local, unpacked));
    fs::write(local.folder.path().join("over"), "").unwrap();
    assert!(child.wait().unwrap().success());
    local.nothing_left();
}
