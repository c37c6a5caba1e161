//! KServe's version 2 protocol against the mock server; its faults are in `conformance`.
#![allow(missing_docs, reason = "tests")]

mod support;

use aifb_schema::result::LoadResult;
use support::{Mock, for_each_engine, measure, measured};

fn run(mock: &Mock, driver: &str, model: &str, options: &[&str]) -> LoadResult {
    measured(&[&["--driver", driver, "--url", &mock.url, "--model", model][..], options].concat())
}

const FEW: [&str; 4] = ["--concurrency", "4", "--requests", "40"];

const SHAPED: &str = r#"{"inputs":[{"name":"INPUT0","shape":[2,16]}],
    "outputs":[{"name":"OUTPUT0","shape":[2,16]}]}"#;

#[test]
fn inferences_are_timed_and_verified() {
    let mock = Mock::start(&["--ttft", "20ms"]);
    let plain = SHAPED.replace("\"inputs\"", "\"binary\":false,\"inputs\"");
    for_each_engine(|engine| {
        for kserve in [SHAPED, &plain] {
            let options = [&FEW[..], &["--kserve", kserve], engine].concat();
            let result = run(&mock, "kserve-http", "ident", &options);
            assert_eq!(result.counts.ok, 40, "{kserve}: {:?}", result.error_examples);
            let service = result.metrics.service_seconds.expect("times");
            assert!(service.min >= 0.02, "not before the server answers: {service:?}");
            assert_eq!(result.metrics.ttft_seconds, None, "one answer is no stream");
            assert_eq!(result.metrics.output_tokens, None);
        }
    });
}

/// Every type, in both forms; several inputs; the names that are asked for.
#[test]
fn tensors_of_every_type_go_there_and_back() {
    let mock = Mock::start(&["--ttft", "0s"]);
    let json = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"];
    let json = json.iter().chain(&["FP32", "FP64", "BYTES"]).copied();
    for (binary, datatypes) in
        [(false, json.clone().collect::<Vec<_>>()), (true, json.chain(["FP16", "BF16"]).collect())]
    {
        let inputs: Vec<String> = datatypes
            .iter()
            .map(|datatype| {
                format!(r#"{{"name":"{datatype}","datatype":"{datatype}","shape":[3,2]}}"#)
            })
            .collect();
        let outputs: Vec<String> = datatypes
            .iter()
            .map(|datatype| format!(r#"{{"name":"out_{datatype}","shape":[-1,2]}}"#))
            .collect();
        let kserve = format!(
            r#"{{"binary":{binary},"inputs":[{}],"outputs":[{}]}}"#,
            inputs.join(","),
            outputs.join(",")
        );
        let result = run(&mock, "kserve-http", "m", &[&FEW[..], &["--kserve", &kserve]].concat());
        assert_eq!(result.counts.ok, 40, "{:?}", result.error_examples);
    }
}

#[test]
fn answers_that_are_not_what_was_asked_for_fail() {
    for (fault, class) in [
        ("short-list", "empty_response"),
        ("odd-list", "verify_mismatch"),
        ("empty", "empty_response"),
        ("garbage", "parse"),
        ("error-body", "error_event_in_200"),
        ("status-500", "status_5xx"),
        ("status-429", "status_4xx"),
        ("html", "parse"),
    ] {
        let mock = Mock::start(&["--ttft", "0s", "--fault", &format!("{fault}/2")]);
        let options = [&FEW[..], &["--kserve", SHAPED]].concat();
        let result = run(&mock, "kserve-http", "ident", &options);
        assert_eq!(result.counts.ok, 20, "{fault}: {:?}", result.error_examples);
        assert_eq!(result.errors.get(class), Some(&20), "{fault}: {:?}", result.errors);
    }
}

#[test]
fn generated_answers_are_counted() {
    let mock = Mock::start(&["--ttft", "20ms", "--itl", "5ms"]);
    for_each_engine(|engine| {
        let options = [&FEW[..], &["--output-tokens", "8"], engine].concat();
        let result = run(&mock, "triton-generate", "gen", &options);
        assert_eq!(result.counts.ok, 40, "{:?}", result.error_examples);
        let metrics = &result.metrics;
        assert_eq!(
            (metrics.output_tokens, metrics.token_source.as_deref()),
            (Some(320), Some("chunks"))
        );
        let ttft = metrics.ttft_seconds.as_ref().expect("first answers");
        assert!(ttft.min >= 0.02, "{ttft:?}");
        let gaps = metrics.inter_token_seconds.as_ref().expect("gaps");
        assert_eq!(gaps.count, 40 * 7);
        // The server sends nothing before it is due.
        let e2e = metrics.e2e_seconds.as_ref().expect("times");
        assert!(e2e.min >= 0.055 && ttft.min < e2e.min, "{ttft:?} {e2e:?}");
        let whole = [&options[..], &["--no-stream"]].concat();
        let result = run(&mock, "triton-generate", "gen", &whole);
        assert_eq!((result.counts.ok, result.metrics.output_tokens), (40, None));
    });
}

#[test]
fn grpc_inferences_are_timed_and_verified() {
    let mock = Mock::start(&["--ttft", "20ms"]);
    let result = run(&mock, "kserve-grpc", "ident", &[&FEW[..], &["--kserve", SHAPED]].concat());
    assert_eq!(result.counts.ok, 40, "{:?}", result.error_examples);
    assert_eq!(result.metrics.ttft_seconds, None, "the model is not decoupled");
    let service = result.metrics.service_seconds.expect("times");
    assert!(service.min >= 0.02, "{service:?}");
}

const TOKENS: &str = r#"{"inputs":[{"name":"text_input","data":"text"},
    {"name":"max_tokens","data":"tokens"}]}"#;

/// Each answer of a decoupled model has its own time.
#[test]
fn grpc_streams_are_timed() {
    let mock = Mock::start(&["--ttft", "20ms", "--itl", "5ms"]);
    let result = run(
        &mock,
        "kserve-grpc",
        "gen",
        &[&FEW[..], &["--kserve", TOKENS, "--output-tokens", "8"]].concat(),
    );
    assert_eq!(result.counts.ok, 40, "{:?}", result.error_examples);
    let metrics = &result.metrics;
    assert_eq!(
        (metrics.output_tokens, metrics.token_source.as_deref()),
        (Some(320), Some("chunks"))
    );
    assert!(metrics.ttft_seconds.as_ref().is_some_and(|ttft| ttft.min >= 0.02));
    let gaps = metrics.inter_token_seconds.as_ref().expect("gaps");
    assert_eq!(gaps.count, 40 * 7);
    let (ttft, e2e) = (metrics.ttft_seconds.expect("times"), metrics.e2e_seconds.expect("times"));
    assert!(e2e.min >= 0.055 && ttft.min < e2e.min, "{ttft:?} {e2e:?}");
}

#[test]
fn grpc_failures_have_their_class() {
    for (fault, class) in [
        ("error-event", "error_event_in_200"),
        ("early-eof", "truncated_stream"),
        ("no-done", "truncated_stream"),
        ("garbage", "parse"),
        ("empty", "empty_response"),
        ("status-500", "status_5xx"),
        ("status-429", "status_4xx"),
        ("error-body", "parse"),
        ("html", "parse"),
    ] {
        let mock = Mock::start(&["--ttft", "1ms", "--itl", "0s", "--fault", &format!("{fault}/2")]);
        let options = [&FEW[..], &["--kserve", TOKENS, "--output-tokens", "8"]].concat();
        let result = run(&mock, "kserve-grpc", "gen", &options);
        assert_eq!(result.counts.ok, 20, "{fault}: {:?}", result.error_examples);
        assert_eq!(result.errors.get(class), Some(&20), "{fault}: {:?}", result.error_examples);
    }
    for (fault, class) in [("short-list", "empty_response"), ("odd-list", "verify_mismatch")] {
        let mock = Mock::start(&["--ttft", "0s", "--fault", &format!("{fault}/2")]);
        let options = [&FEW[..], &["--kserve", SHAPED]].concat();
        let result = run(&mock, "kserve-grpc", "ident", &options);
        assert_eq!(result.errors.get(class), Some(&20), "{fault}: {:?}", result.error_examples);
    }
}

#[test]
fn wrong_use_is_explained() {
    let mock = Mock::start(&["--model", "ident"]);
    // Over HTTP the URL may name the API or not.
    let below = format!("{}/v2", mock.url);
    for (options, code, text) in [
        (&["--driver", "kserve-http"][..], 2, "hint: add model: NAME"),
        (&["--driver", "kserve-http", "--model", "ident"], 2, "shape [-1, 16]"),
        (&["--driver", "kserve-http", "--model", "other"], 4, "waiting for model 'other'"),
        (&["--driver", "kserve-http", "--model", "ident", "--kserve", "{"], 2, "reading --kserve"),
        (
            &["--driver", "kserve-http", "--model", "ident", "--kserve", r#"{"input":[]}"#],
            2,
            "unknown field `input`",
        ),
        (&["--driver", "triton-generate", "--model", "ident"], 2, "no input 'text_input'"),
        (&["--driver", "kserve-grpc", "--model", "other"], 4, "waiting for model 'other'"),
        (&["--driver", "kserve-grpc", "--model", "ident"], 2, "shape [-1, 16]"),
        (&["--driver", "kserve-grpc", "--model", "ident", "--engine", "raw"], 2, "HTTP/1.1 only"),
    ] {
        let url = if options.contains(&"kserve-grpc") { &mock.url } else { &below };
        let more = ["--url", url, "--concurrency", "1", "--requests", "1"];
        let output = measure(&[options, &more].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options:?}: {stderr}");
        assert!(stderr.contains(text), "{options:?}: {stderr}");
    }
}
