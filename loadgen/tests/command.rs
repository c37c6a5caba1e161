//! Programs as requests.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use aifb_schema::result::LoadResult;
use support::{measure, measured, result, until};

fn run(requests: &str, more: &[&str], script: &str) -> LoadResult {
    let base = ["--driver", "command", "--concurrency", "2", "--requests", requests];
    measured(&[&base[..], more, &["--", "sh", "-c", script]].concat())
}

#[test]
fn placeholders_are_filled_in() {
    let url = "http://127.0.0.1:4711";
    let script = "test {port} = 4711 && test {host} = 127.0.0.1 && test {url} = $SERVICE_URL && \
        test {id} = $AIFB_REQUEST && test $AIFB_PHASE = measure";
    let result = run("6", &["--url", url], script);
    assert_eq!(result.counts.ok, 6, "{:?}", result.error_examples);
}

#[test]
fn the_last_words_of_a_failure_are_kept() {
    let result = run("2", &[], "yes filler | head -n 10000 >&2; echo the reason >&2; exit 7");
    let example = &result.error_examples["exit_status"];
    assert!(example.contains("exit status: 7"), "{example}");
    assert!(example.ends_with("the reason") && example.len() < 600, "{example}");
}

/// Megabytes of output do not stop a program, and something left behind does not hold a request.
#[test]
fn output_is_read_and_nothing_else_is_waited_for() {
    let result = run("2", &[], "head -c 3000000 /dev/zero; sleep 30 & :");
    assert_eq!(result.counts.ok, 2, "{:?}", result.error_examples);
    assert!(result.metrics.total_seconds.expect("times").max < 25.0);
}

/// A request that is too late takes all of its processes with it.
#[test]
fn a_request_that_times_out_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sh -c 'echo $$ > {}; exec sleep 300' & wait", file.display());
    let base = ["--driver", "command", "--concurrency", "1", "--requests", "1", "--json"];
    let output = measure(&[&base[..], &["--timeout", "2s", "--", "sh", "-c", &script]].concat());
    let result = result(&output);
    assert_eq!(result.counts.failed, 1, "{:?}", result.errors);
    let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    until(Duration::from_secs(10), || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Gone, or waiting for whoever inherited it to notice.
        (status.is_empty() || status.contains(") Z ")).then_some(())
    });
}
