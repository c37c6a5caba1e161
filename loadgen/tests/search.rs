//! The search for the largest load within limits, against servers whose capacity is known.
//!
//! How near the truth it comes is a figure of `make bench`, on cores of its own; here a busy
//! machine may cost capacity, but never add any.

mod support;

use support::{Mock, measure, result};

/// Ten answers at a time of 100 ms each: 100 a second.
const SERVER: [&str; 8] = ["--slots", "10", "--ttft", "100ms", "--itl", "0s", "--tokens", "1"];

#[test]
fn the_capacity_of_a_server_is_found() {
    let mock = Mock::start(&SERVER);
    let output = measure(&[
        "--driver",
        "openai-chat",
        "--url",
        &mock.url,
        "--search",
        "ttft_p99=1s",
        "--from",
        "10/s",
        "--to",
        "1000/s",
        "--process",
        "constant",
        "--for",
        "5s",
        "--warmup",
        "500ms",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let result = result(&output);
    let search = result.search.as_deref().expect("what the search found");
    let capacity = search.capacity.expect("a capacity");
    println!("capacity search: {capacity:.2}/s for a true 100/s, {} probes", search.probes.len());
    assert_eq!((search.reason.as_str(), search.unit.as_str()), ("converged", "1/s"), "{search:#?}");
    assert!((70.0..=103.0).contains(&capacity), "{search:#?}");
    assert!(search.probes.len() <= 10, "{search:#?}");
    // The result is that of the best probe.
    let probe = result.probe.as_deref().expect("a probe");
    assert_eq!((probe.level, result.counts.failed), (capacity, 0));
    assert!(search.knee.is_some_and(|knee| knee > 30.0), "{search:#?}");
}

/// In a closed load an eleventh request waits for the others: one in eleven takes twice as long.
#[test]
fn a_concurrency_is_found_as_a_whole_number() {
    // Far apart: hardly ever does a busy machine turn 400 ms into 650.
    let mock = Mock::start(&["--slots", "10", "--ttft", "400ms", "--itl", "0s", "--tokens", "1"]);
    let output = measure(&[
        "--driver",
        "openai-chat",
        "--url",
        &mock.url,
        "--search",
        "ttft_p95=650ms",
        "--from",
        "6",
        "--to",
        "16",
        "--for",
        "4s",
        "--json",
    ]);
    let result = result(&output);
    let search = result.search.as_deref().expect("what the search found");
    let capacity = search.capacity.expect("a capacity");
    assert!((6.0..=10.0).contains(&capacity), "{search:#?}");
    assert_eq!(search.beyond, Some(capacity + 1.0), "{search:#?}");
    assert_eq!(search.unit, "requests in flight");
}

#[test]
fn what_no_load_fulfils_fails() {
    let mock = Mock::start(&SERVER);
    let options = [
        "--driver",
        "openai-chat",
        "--url",
        &mock.url,
        "--search",
        "ttft_p50=50ms",
        "--from",
        "5/s",
        "--to",
        "20/s",
        "--for",
        "1s",
    ];
    let output = measure(&options);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("maximum sustained load: below 5.000 1/s"), "{text}");
    // Everything of a probe is kept where that is asked for.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    measure(&[&options[..], &["--out", &out]].concat());
    assert!(folder.path().join("r1/result.json").is_file());
    assert!(folder.path().join("result.json").is_file());
}

#[test]
fn wrong_searches_are_explained() {
    for (options, text) in [
        (&["--search", "ttft_p98=1s", "--from", "1", "--to", "2"][..], "no such limit"),
        (&["--search", "ttft_p99", "--from", "1", "--to", "2"], "expected NAME=LIMIT"),
        (&["--search", "ttft_p99=1", "--from", "1", "--to", "2"], "--search 'ttft_p99=1'"),
        (&["--search", "attainment=2", "--from", "1", "--to", "2"], "a share below 1"),
        (&["--search", "attainment=0.9", "--from", "1", "--to", "2"], "it needs the limits"),
        (&["--search", "ttft_p99=1s", "--from", "1/s", "--to", "2"], "they are not a range"),
        (&["--search", "ttft_p99=1s", "--from", "2", "--to", "2"], "they are not a range"),
        (&["--search", "ttft_p99=1s", "--from", "0", "--to", "2"], "at least one"),
        (&["--search", "ttft_p99=1s", "--from", "1", "--to", "2", "--requests", "3"], "--requests"),
        (&["--search", "ttft_p99=1s", "--from", "1"], "--to"),
    ] {
        let fixed = ["--driver", "openai-chat", "--url", "http://127.0.0.1:1", "--for", "1s"];
        let output = measure(&[&fixed[..], options].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(text), "{options:?}: {stderr}");
    }
}
