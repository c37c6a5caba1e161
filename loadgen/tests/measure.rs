//! `aifb-loadgen run` against the mock server, whose truth is known.

mod support;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use aifb_schema::result::LoadResult;
use nix::sys::signal::Signal;
use support::{Mock, PROGRAM, Running, for_each_engine, measure, measured, result, verdicts};

const MOST: Duration = Duration::from_secs(30);

fn chat<'a>(mock: &'a Mock, engine: &[&'a str], options: &[&'a str]) -> LoadResult {
    let base = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "10"];
    measured(&[&base[..], engine, options].concat())
}

#[test]
fn the_truth_is_found() {
    for_each_engine(|engine| {
        let mock = Mock::start(&["--ttft", "50ms", "--itl", "20ms"]);
        for driver in ["openai-chat", "openai-completions"] {
            let result = measured(&[
                "--driver",
                driver,
                "--url",
                &mock.url,
                "--concurrency",
                "8",
                "--requests",
                "24",
                "--output-tokens",
                "12",
                "--input-tokens",
                "30",
                "--seed",
                "7",
                engine[0],
                engine[1],
            ]);
            let counts = result.counts;
            assert_eq!((counts.sent, counts.ok, counts.planned), (24, 24, None), "{driver}");
            let metrics = &result.metrics;
            assert_eq!(
                (metrics.output_tokens, metrics.input_tokens),
                (Some(24 * 12), Some(24 * 30))
            );
            let (ttft, gap) = (metrics.ttft_seconds.unwrap(), metrics.inter_token_seconds.unwrap());
            let (tpot, e2e) = (metrics.tpot_seconds.unwrap(), metrics.e2e_seconds.unwrap());
            // The best request of 24 is near the truth however busy this machine is.
            assert!(ttft.min >= 0.050 && ttft.min < 0.080, "{ttft:?}");
            assert!(e2e.min >= 0.050 + 11.0 * 0.020 && e2e.min < 0.320, "{e2e:?}");
            assert_eq!(gap.count, 24 * 11, "{gap:?}");
            let between = (e2e.mean - ttft.mean) / 11.0;
            assert!((gap.mean - between).abs() < 1e-6, "{gap:?} is not {between}");
            assert!((tpot.mean - between).abs() < 1e-6, "{tpot:?} is not {between}");
            assert!(metrics.total_seconds.unwrap().p50 >= e2e.p50);
            assert!(metrics.service_seconds.unwrap().p50 <= metrics.total_seconds.unwrap().p50);
            assert_eq!((result.source.as_str(), result.plan.seed), ("rows", 7));
            assert!(
                result.client.cpu_us_per_token.unwrap() > 0.0 && result.client.peak_rss_bytes > 0
            );
        }
    });
}

#[test]
fn an_open_load_sends_as_planned() {
    for_each_engine(|engine| {
        let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms"]);
        let options =
            ["--rate", "100/s", "--process", "constant", "--warmup", "300ms", "--for", "1s"];
        let result = chat(&mock, engine, &options);
        let counts = result.counts;
        assert_eq!((counts.planned, counts.sent, counts.unsent), (Some(100), 100, Some(0)));
        assert_eq!((counts.ok, counts.warmup), (100, 30));
        assert!(result.metrics.duration_seconds.unwrap() >= 1.0);
    });
}

#[test]
fn each_fault_has_its_class() {
    for_each_engine(|engine| {
        for (fault, class) in [
            ("status-500", "status_5xx"),
            ("status-429", "status_4xx"),
            ("drop", "reset_before_response"),
            ("early-eof", "truncated_stream"),
            ("no-done", "truncated_stream"),
            ("error-event", "error_event_in_200"),
            ("empty", "empty_response"),
            ("garbage", "parse"),
            ("hang", "timeout_first_byte"),
        ] {
            let rule = format!("{fault}/3");
            let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms", "--fault", &rule]);
            let result =
                chat(&mock, engine, &["--concurrency", "1", "--requests", "9", "--timeout", "1s"]);
            let counts = result.counts;
            // A connection that is dropped was a kept one, so the request is sent once more.
            let expected = if fault == "drop" { 0 } else { 3 };
            assert_eq!(
                (counts.sent, counts.failed, counts.ok),
                (9, expected, 9 - expected),
                "{fault}"
            );
            if expected > 0 {
                assert_eq!(result.errors.get(class), Some(&3), "{fault}: {:?}", result.errors);
                assert!(!result.error_examples[class].is_empty());
            }
            let ttft = result.metrics.ttft_seconds.unwrap();
            assert_eq!(ttft.count, counts.ok, "{fault}: failures never enter latency");
        }
        // On a connection of its own it has nothing to be sent again for.
        let mock = Mock::start(&["--fault", "drop"]);
        let output = measure(&[
            "--driver",
            "openai-chat",
            "--url",
            &mock.url,
            "--concurrency",
            "2",
            "--requests",
            "6",
            "--json",
            engine[0],
            engine[1],
        ]);
        assert_eq!(output.status.code(), Some(1), "all failed");
        let result = support::result(&output);
        assert_eq!(result.errors.get("reset_before_response"), Some(&6));
        assert_eq!(result.metrics.ttft_seconds, None, "absent, not zero");
    });
}

#[test]
fn odd_streams_are_understood() {
    for_each_engine(|engine| {
        for fault in ["crlf", "reasoning", "drip"] {
            let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms", "--fault", fault]);
            let result = chat(&mock, engine, &["--concurrency", "2", "--requests", "10"]);
            assert_eq!(result.counts.ok, 10, "{fault}: {:?}", result.error_examples);
            assert_eq!(result.metrics.output_tokens, Some(100), "{fault}");
        }
        let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms", "--fault", "no-usage/2"]);
        let result = chat(&mock, engine, &["--concurrency", "2", "--requests", "10"]);
        assert_eq!(result.metrics.token_source.as_deref(), Some("mixed"));
        let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms", "--tokens-per-event", "4"]);
        let result = chat(&mock, engine, &["--concurrency", "2", "--requests", "10"]);
        assert_eq!(result.metrics.output_tokens, Some(100), "tokens are the server's");
        assert_eq!(
            result.metrics.inter_token_seconds.unwrap().count,
            10 * 2,
            "gaps are between events"
        );
    });
}

/// The server closes after each answer, shortly after it: nothing is lost, and the time that the
/// second try takes counts.
#[test]
fn closed_connections_cost_no_request() {
    for_each_engine(|engine| {
        let mock = Mock::start(&["--ttft", "1ms", "--itl", "0s", "--close"]);
        let result = chat(&mock, engine, &["--concurrency", "8", "--requests", "400"]);
        assert_eq!(
            (result.counts.ok, result.counts.failed),
            (400, 0),
            "{:?}",
            result.error_examples
        );
    });
}

#[test]
fn what_does_not_end_is_cancelled() {
    for_each_engine(|engine| {
        let mock = Mock::start(&["--fault", "hang/2"]);
        let options =
            ["--rate", "50/s", "--process", "constant", "--for", "400ms", "--drain", "500ms"];
        let result = chat(&mock, engine, &options);
        let counts = result.counts;
        assert_eq!((counts.sent, counts.ok, counts.cancelled, counts.failed), (20, 10, 10, 0));
        assert!(result.complete, "cancelled is not lost");
    });
}

/// Starts a measurement in the background.
fn background(options: &[&str]) -> Running {
    let child = Command::new(PROGRAM)
        .arg("run")
        .args(options)
        .arg("--json")
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a measurement");
    Running(child)
}

fn collect(mut running: Running) -> (i32, LoadResult) {
    let mut text = String::new();
    let mut stdout = running.0.stdout.take().expect("its output");
    std::io::Read::read_to_string(&mut stdout, &mut text).expect("text");
    let code = running.end(MOST);
    let result: LoadResult = serde_json::from_str(&text).expect("a result");
    assert!(result.counts.balanced(), "{:?}", result.counts);
    (code, result)
}

const FREEZE: [&str; 10] = [
    "--rate",
    "200/s",
    "--process",
    "constant",
    "--for",
    "4s",
    "--path",
    "/health",
    "--driver",
    "http",
];

/// A server that stands still for 1 s of 4 s: a quarter of the requests waited up to 1 s, so p99
/// is the 0.96 quantile of those.
#[test]
fn a_frozen_server_is_seen() {
    let mock = Mock::start(&[]);
    let running = background(&[&FREEZE[..], &["--url", &mock.url]].concat());
    std::thread::sleep(Duration::from_millis(1500));
    mock.server.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(1));
    mock.server.signal(Signal::SIGCONT);
    let (_, result) = collect(running);
    assert_eq!((result.counts.planned, result.counts.ok), (Some(800), 800));
    let total = result.metrics.total_seconds.unwrap();
    assert!((0.85..3.0).contains(&total.p99), "{total:?}");
    assert!(total.p50 < 0.1, "{total:?}");
    let lag = result.metrics.client_lag_seconds.unwrap();
    assert!(lag.p99 < 0.5, "the client went on: {lag:?}");
}

/// A client that stands still: the requests it could not send count, and it says so.
#[test]
fn a_frozen_client_is_seen() {
    let mock = Mock::start(&[]);
    let running = background(&[&FREEZE[..], &["--url", &mock.url]].concat());
    std::thread::sleep(Duration::from_millis(1500));
    running.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(1));
    running.signal(Signal::SIGCONT);
    let (code, result) = collect(running);
    assert_eq!((code, result.counts.ok), (0, 800));
    let metrics = &result.metrics;
    assert!(metrics.total_seconds.unwrap().p99 >= 0.85, "{metrics:?}");
    assert!(metrics.client_lag_seconds.unwrap().p99 >= 0.85, "{metrics:?}");
    let kinds = verdicts(&result);
    assert!(kinds.contains(&"client_stall") && kinds.contains(&"client_saturated"), "{kinds:?}");
}

#[test]
fn an_interrupt_prints_what_there_is() {
    let mock = Mock::start(&[]);
    let running =
        background(&["--driver", "http", "--url", &mock.url, "--rate", "100/s", "--for", "60s"]);
    std::thread::sleep(Duration::from_millis(1200));
    running.signal(Signal::SIGINT);
    let (code, result) = collect(running);
    assert_eq!(code, 130);
    assert!(result.counts.ok > 0 && result.counts.unsent > Some(0) && !result.complete);
}

#[test]
fn commands_are_requests() {
    let result =
        measured(&["--driver", "command", "--concurrency", "2", "--requests", "10", "--", "true"]);
    assert_eq!((result.counts.ok, result.metrics.ttft_seconds), (10, None));
    let output = measure(&[
        "--driver",
        "command",
        "--concurrency",
        "2",
        "--requests",
        "4",
        "--json",
        "--",
        "sh",
        "-c",
        "test $((AIFB_REQUEST % 2)) = 0",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let result = support::result(&output);
    assert_eq!((result.counts.ok, result.errors.get("exit_status")), (2, Some(&2)));
    let slow = measured(&[
        "--driver",
        "command",
        "--concurrency",
        "1",
        "--requests",
        "1",
        "--timeout",
        "100ms",
        "--",
        "sleep",
        "60",
    ]);
    assert_eq!(slow.errors.get("timeout_first_byte"), Some(&1));
    let missing = measured(&[
        "--driver",
        "command",
        "--concurrency",
        "1",
        "--requests",
        "1",
        "--",
        "/no/such",
    ]);
    assert_eq!(missing.errors.get("spawn"), Some(&1));
}

#[test]
fn wrong_use_is_explained() {
    for (options, code, text) in [
        (
            &["--driver", "http", "--url", "http://127.0.0.1:1", "--concurrency", "1"][..],
            2,
            "--for",
        ),
        (
            &["--driver", "http", "--url", "ftp://x", "--concurrency", "1", "--requests", "1"],
            2,
            "hint: expected http://",
        ),
        (
            &["--driver", "http", "--url", "http://127.0.0.1:1", "--rate", "20", "--requests", "1"],
            2,
            "20/s",
        ),
        (
            &[
                "--driver",
                "http",
                "--url",
                "http://127.0.0.1:1",
                "--concurrency",
                "1",
                "--requests",
                "1",
            ],
            4,
            "refused",
        ),
        (
            &[
                "--driver",
                "http",
                "--url",
                "http://no.such.host.invalid",
                "--concurrency",
                "1",
                "--requests",
                "1",
            ],
            4,
            "resolving host",
        ),
        (
            &[
                "--driver",
                "http",
                "--url",
                "http://127.0.0.1:1",
                "--concurrency",
                "0",
                "--requests",
                "1",
            ],
            2,
            "concurrency 0",
        ),
    ] {
        let output = measure(options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options:?}: {stderr}");
        assert!(stderr.contains(text), "{options:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn paths_of_the_url_and_of_the_option_are_joined() {
    let mock = Mock::start(&[]);
    for (url, path) in [("/health", "/"), ("", "/health"), ("/", "health"), ("/v1", "/models")] {
        let url = format!("{}{url}", mock.url);
        let options = ["--url", &url, "--path", path, "--concurrency", "1", "--requests", "3"];
        let result = measured(&[&["--driver", "http"][..], &options].concat());
        assert_eq!(result.counts.ok, 3, "{url} and {path}: {:?}", result.error_examples);
    }
}

#[test]
fn a_model_that_nobody_names_is_asked_for() {
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms", "--model", "tiny-7b"]);
    let result = chat(&mock, &[], &["--concurrency", "1", "--requests", "3"]);
    assert_eq!(result.counts.ok, 3, "{:?}", result.error_examples);
    let result = chat(&mock, &[], &["--concurrency", "1", "--requests", "3", "--model", "other"]);
    assert_eq!(result.errors.get("status_4xx"), Some(&3));
    assert!(result.error_examples["status_4xx"].contains("no such model"));
}

#[test]
fn strict_refuses_doubt() {
    let mock = Mock::start(&[]);
    let options =
        ["--driver", "http", "--url", &mock.url, "--concurrency", "1", "--requests", "5", "--json"];
    assert_eq!(measure(&options).status.code(), Some(0), "five samples are few, but that is all");
    let output = measure(&[&options[..], &["--strict"]].concat());
    assert_eq!(output.status.code(), Some(6));
    assert!(verdicts(&result(&output)).contains(&"too_few_samples"));
}

#[test]
fn records_can_be_kept() {
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms"]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("kept");
    let name = out.display().to_string();
    let printed = chat(&mock, &[], &["--concurrency", "2", "--requests", "30", "--out", &name]);
    assert_eq!(support::rows_in(&out.join("worker-0.arrows")), 30);
    let kept: LoadResult =
        serde_json::from_slice(&std::fs::read(out.join("result.json")).unwrap()).unwrap();
    assert_eq!(kept, printed);
    assert!(std::fs::read_to_string(out.join("worker-0.hdr")).unwrap().contains("Tag=ttft,"));
}
