//! Hostile streams: every fault that the mock server knows, on every engine. What a client should
//! make of each is in the server's own table (`aifb-loadgen mock --list-faults`), which is also
//! what other clients are judged by; what is other for KServe is in [`of_kserve`].

mod support;

use std::process::Command;

use aifb_schema::result::LoadResult;
use support::{Mock, PROGRAM, measured};

/// Tokens of each answer.
const TOKENS: u64 = 10;

/// Requests of each row: the second goes to a kept connection, where there is one.
const REQUESTS: u64 = 3;

/// Ways in which HTTP is carried.
const ENGINES: &[&[&str]] = &[&["--engine", "hyper"], &["--engine", "raw"]];

/// A line of the table.
#[derive(Clone)]
struct Row {
    name: String,
    on: String,
    expect: String,
}

fn table() -> Vec<Row> {
    let output = Command::new(PROGRAM).args(["mock", "--list-faults"]).output().expect("the table");
    let text = String::from_utf8(output.stdout).expect("text");
    let row = |line: &str| {
        let mut parts = line.split('\t').map(str::to_owned);
        let mut next = || parts.next().expect("four parts");
        Row { name: next(), on: next(), expect: next() }
    };
    text.lines().map(row).collect()
}

/// What a load against the fault reports, as the table writes it; or what is wrong with it. `each`
/// is how many tokens each answer should be found to have, if it has any.
fn verdict(result: &LoadResult, expect: &str, each: Option<u64>) -> Result<String, String> {
    let counts = result.counts;
    if counts.sent != REQUESTS {
        return Err(format!("{} sent", counts.sent));
    }
    if counts.ok == REQUESTS {
        let source = result.metrics.token_source.as_deref();
        let Some(each) = each else { return Ok("ok".into()) };
        return match (result.metrics.output_tokens, source) {
            (Some(count), Some("usage")) if count == REQUESTS * each => Ok("ok".into()),
            (Some(count), Some("chunks")) if count == REQUESTS * each => Ok("ok-chunks".into()),
            // Nobody can count the tokens of an answer that was not streamed.
            (None, None) if expect == "ok-chunks" => Ok("ok-chunks".into()),
            (count, source) => Err(format!("{count:?} tokens from {source:?}")),
        };
    }
    match result.errors.iter().next() {
        Some((class, count)) if *count == REQUESTS && counts.failed == REQUESTS => {
            Ok(class.clone())
        }
        _ => Err(format!("{counts:?}, {:?}", result.error_examples)),
    }
}

/// Whether a fault means anything for a driver.
fn applies(on: &str, driver: &str, stream: bool) -> bool {
    let sse = driver.starts_with("openai-c");
    let chat = driver.ends_with("-chat");
    let lists = !sse && !matches!(driver, "ollama-chat" | "ollama-generate");
    match on {
        "all" => true,
        "streams" => stream && !lists,
        "sse" => stream && sse,
        "sse-chat" => stream && sse && chat,
        "chat" => stream && chat,
        "embeddings,rerank" => lists,
        other => panic!("unknown kind of answers '{other}'"),
    }
}

/// The rows that mean something for a driver.
fn rows_of(driver: &str, stream: bool) -> Vec<Row> {
    let rows = table().into_iter();
    if driver.starts_with("kserve") || driver.starts_with("triton") {
        rows.filter_map(|row| of_kserve(row, driver, stream)).collect()
    } else {
        rows.filter(|row| applies(&row.on, driver, stream)).collect()
    }
}

/// Faults of a content that KServe does not have: no answer tells a number of tokens, and a stream
/// ends with its body.
const NOT_KSERVE: &[&str] =
    &["usage-only", "usage-in-finish", "usage-in-each", "no-usage", "no-done"];

/// What means something over gRPC, where it is not what the table says: faults of HTTP/1.1's
/// framing and of lines do not, a stream does have a mark of its end, and an answer that is no gRPC
/// is not read any further.
const GRPC_STREAM: &[&str] =
    &["multi-token", "coalesced", "split-utf8", "early-eof", "no-done", "error-event"];
const GRPC: &[&str] = &[
    "error-body",
    "empty",
    "garbage",
    "bad-utf8",
    "html",
    "hang",
    "drop",
    "status-429",
    "status-500",
];

/// A row as it is for a driver of KServe; none where it means nothing there. A good stream is
/// `ok-chunks`.
fn of_kserve(mut row: Row, driver: &str, stream: bool) -> Option<Row> {
    let name = row.name.as_str();
    let means = match (driver, row.on.as_str()) {
        ("kserve-grpc", "embeddings,rerank") => !stream,
        ("kserve-grpc", _) => GRPC.contains(&name) || (stream && GRPC_STREAM.contains(&name)),
        (_, _) if NOT_KSERVE.contains(&name) => false,
        (_, "all") => true,
        ("triton-generate", "streams" | "sse") => stream,
        ("kserve-http", "embeddings,rerank") => true,
        _ => false,
    };
    if driver == "kserve-grpc" && name == "error-body" {
        row.expect = "parse".into();
    } else if row.expect == "ok" && driver != "kserve-http" {
        row.expect = "ok-chunks".into();
    }
    means.then_some(row)
}

/// Runs every fault that applies to the driver, on both engines or on one after the other, and
/// tells which rows are not as the table says. Gives the number of rows.
fn conforms(driver: &str, more: &[&str], both: bool) -> usize {
    let stream = !more.contains(&"--no-stream");
    let generates = driver.starts_with("openai-c")
        || ["ollama-generate", "ollama-chat", "triton-generate", "kserve-grpc"].contains(&driver);
    let (mut wrong, mut rows) = (Vec::new(), 0);
    for Row { name, expect, .. } in rows_of(driver, stream) {
        // Where only events can be counted, several tokens in one are one.
        let several = name == "multi-token" && expect == "ok-chunks";
        let each = generates.then_some(if several { TOKENS.div_ceil(4) } else { TOKENS });
        let mock = Mock::start(&["--ttft", "2ms", "--itl", "1ms", "--fault", &name]);
        rows += 1;
        // gRPC is HTTP/2, which one engine speaks.
        let engines = ENGINES.iter().enumerate().filter(|(index, _)| match driver {
            "kserve-grpc" => *index == 0,
            _ => both || rows % 2 == *index,
        });
        for (_, engine) in engines {
            let tokens = TOKENS.to_string();
            let base = ["--driver", driver, "--url", &mock.url, "--output-tokens", &tokens];
            let requests = REQUESTS.to_string();
            // Only what never ends should reach it.
            let timeout = if expect.starts_with("timeout") { "400ms" } else { "30s" };
            let load = ["--concurrency", "1", "--requests", &requests, "--timeout", timeout];
            let result = measured(&[&base[..], &load, engine, more].concat());
            let found = verdict(&result, &expect, each);
            if found.as_ref() != Ok(&expect) {
                wrong.push(format!(
                    "{name} on {engine:?}: expected {expect}, found {found:?}; {:?}",
                    result.error_examples
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{driver} {more:?}:\n{}", wrong.join("\n"));
    rows
}

#[test]
fn openai_chat() {
    assert!(conforms("openai-chat", &[], true) >= 32);
}

#[test]
fn openai_completions() {
    assert!(conforms("openai-completions", &[], false) >= 32);
}

#[test]
fn answers_that_are_not_streamed() {
    conforms("openai-chat", &["--no-stream"], false);
    conforms("ollama-generate", &["--no-stream"], false);
}

#[test]
fn ollama() {
    assert!(conforms("ollama-generate", &[], true) >= 24);
    conforms("ollama-chat", &[], false);
}

#[test]
fn lists() {
    conforms("openai-embeddings", &["--batch", "3"], false);
    conforms("ollama-embed", &["--batch", "3"], false);
    conforms("rerank", &["--batch", "5"], false);
}

#[test]
fn triton_generate() {
    assert!(conforms("triton-generate", &["--model", "gen"], true) >= 32);
    conforms("triton-generate", &["--model", "gen", "--no-stream"], false);
}

/// Two inputs that come back as two outputs.
const TENSORS: &str = r#"{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[2,16]},
        {"name":"INPUT1","datatype":"INT32","shape":[4]}],
    "outputs":[{"name":"OUTPUT0","shape":[2,16]},{"name":"OUTPUT1","shape":[4]}]}"#;

#[test]
fn kserve_http() {
    let raw = ["--model", "ident", "--kserve", TENSORS];
    assert!(conforms("kserve-http", &raw, true) >= 24);
    let json = TENSORS.replacen('{', "{\"binary\":false,", 1);
    conforms("kserve-http", &["--model", "ident", "--kserve", &json], false);
}

#[test]
fn kserve_grpc() {
    let tokens = r#"{"inputs":[{"name":"text_input","data":"text"},
        {"name":"max_tokens","data":"tokens"}]}"#;
    assert!(conforms("kserve-grpc", &["--model", "gen", "--kserve", tokens], true) >= 15);
    let whole = ["--model", "ident", "--kserve", TENSORS, "--no-stream"];
    assert!(conforms("kserve-grpc", &whole, true) >= 11);
}
