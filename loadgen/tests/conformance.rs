//! Hostile streams: every fault that the mock server knows, on every engine. What a client should
//! make of each is in the server's own table (`aifb-loadgen mock --list-faults`), which is also
//! what other clients are judged by.

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

/// What a load against the fault reports, as the table writes it; or what is wrong with it.
fn verdict(result: &LoadResult, expect: &str, tokens: bool) -> Result<String, String> {
    let counts = result.counts;
    if counts.sent != REQUESTS {
        return Err(format!("{} sent", counts.sent));
    }
    if counts.ok == REQUESTS {
        let source = result.metrics.token_source.as_deref();
        return match (tokens, result.metrics.output_tokens, source) {
            (false, ..) => Ok("ok".into()),
            (true, Some(count), Some("usage")) if count == REQUESTS * TOKENS => Ok("ok".into()),
            (true, Some(_), Some("chunks")) => Ok("ok-chunks".into()),
            // Nobody can count the tokens of an answer that was not streamed.
            (true, None, None) if expect == "ok-chunks" => Ok("ok-chunks".into()),
            (true, count, source) => Err(format!("{count:?} tokens from {source:?}")),
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

/// Runs every fault that applies to the driver, on both engines or on one after the other, and
/// tells which rows are not as the table says. Gives the number of rows.
fn conforms(driver: &str, more: &[&str], both: bool) -> usize {
    let stream = !more.contains(&"--no-stream");
    let generates =
        driver.starts_with("openai-c") || driver == "ollama-generate" || driver == "ollama-chat";
    let (mut wrong, mut rows) = (Vec::new(), 0);
    for Row { name, on, expect } in table() {
        if !applies(&on, driver, stream) {
            continue;
        }
        let mock = Mock::start(&["--ttft", "2ms", "--itl", "1ms", "--fault", &name]);
        rows += 1;
        let engines = ENGINES.iter().enumerate().filter(|(index, _)| both || rows % 2 == *index);
        for (_, engine) in engines {
            let tokens = TOKENS.to_string();
            let base = ["--driver", driver, "--url", &mock.url, "--output-tokens", &tokens];
            let requests = REQUESTS.to_string();
            // Only what never ends should reach it.
            let timeout = if expect.starts_with("timeout") { "400ms" } else { "30s" };
            let load = ["--concurrency", "1", "--requests", &requests, "--timeout", timeout];
            let result = measured(&[&base[..], &load, engine, more].concat());
            let found = verdict(&result, &expect, generates);
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
