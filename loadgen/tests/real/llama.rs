//! llama-server with a tiny model of random weights: real tokens, real keep-alive. It closes the
//! connection after each streamed answer without saying so before.

use std::process::Command;

use crate::{
    given,
    server::{Server, free_ports, get},
    support::{for_each_engine, measured},
};

/// Requests of each run.
const REQUESTS: u64 = 10_000;

/// Tokens of each answer.
const TOKENS: u64 = 8;

/// The server, in a mode that these options say.
fn start(mode: &[&str]) -> Option<(Server, u16)> {
    let (program, model) = given("AIFB_REAL_LLAMA_SERVER").zip(given("AIFB_REAL_GGUF"))?;
    let ports = free_ports(1);
    let port = ports[0];
    let mut command = Command::new(program);
    command.args(["--model", &model, "--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--threads", "1", "--ctx-size", "4096", "--parallel", "4", "--metrics"]);
    command.args(mode);
    Some((Server::start(&mut command, ports, "/health"), port))
}

/// What the server itself counted.
fn counted(port: u16, name: &str) -> u64 {
    let (_, text) = get(port, "/metrics").expect("its metrics");
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let value: f64 =
        line.and_then(|line| line.split(' ').nth(1)).and_then(|v| v.parse().ok()).expect(name);
    value as u64
}

/// Ten thousand requests: none is lost, and the tokens are as many as the server generated.
fn none_is_lost(driver: &str, more: &[&str]) {
    let Some((_server, port)) = start(&[]) else { return };
    let url = format!("http://127.0.0.1:{port}");
    for_each_engine(|engine| {
        let before = counted(port, "llamacpp:tokens_predicted_total");
        let (requests, tokens) = (REQUESTS.to_string(), TOKENS.to_string());
        let mut options = vec!["--driver", driver, "--url", &url, "--concurrency", "4"];
        options.extend(["--requests", &requests, "--output-tokens", &tokens]);
        options.extend(["--input-tokens", "4"]);
        let result = measured(&[&options, more, engine].concat());
        let counts = &result.counts;
        assert_eq!((counts.sent, counts.ok), (REQUESTS, REQUESTS), "{:?}", result.error_examples);
        assert_eq!((counts.failed, counts.cancelled, counts.unfinished), (0, 0, 0));
        assert_eq!(result.metrics.token_source.as_deref(), Some("usage"));
        assert_eq!(result.metrics.output_tokens, Some(REQUESTS * TOKENS));
        let generated = counted(port, "llamacpp:tokens_predicted_total") - before;
        assert_eq!(generated, REQUESTS * TOKENS, "as the server counted");
        let rate = result.metrics.output_tokens_per_second.unwrap_or(0.0);
        println!("{driver} {more:?} {engine:?}: {REQUESTS} requests, 0 lost, {rate:.0} tokens/s");
    });
}

#[test]
fn streamed_completions() {
    none_is_lost("openai-completions", &[]);
}

#[test]
fn streamed_chats() {
    none_is_lost("openai-chat", &[]);
}

#[test]
fn whole_completions() {
    none_is_lost("openai-completions", &["--no-stream"]);
}

/// Requests for vectors and scores, each of several texts.
const LISTS: u64 = 1_000;

/// Texts of each request.
const BATCH: &str = "5";

/// A thousand requests of five texts: each answer has a vector or a score for each text, and the
/// tokens are as many as the server read.
fn lists(driver: &str, mode: &[&str]) {
    let Some((server, port)) = start(mode) else { return };
    let url = format!("http://127.0.0.1:{port}");
    for_each_engine(|engine| {
        let before = counted(port, "llamacpp:prompt_tokens_total");
        let requests = LISTS.to_string();
        let mut options = vec!["--driver", driver, "--url", &url, "--concurrency", "4"];
        options.extend(["--requests", &requests, "--batch", BATCH, "--input-tokens", "4"]);
        let result = measured(&[&options, engine].concat());
        let counts = &result.counts;
        let told = (&result.error_examples, server.log());
        assert_eq!((counts.sent, counts.ok), (LISTS, LISTS), "{told:?}");
        let read = counted(port, "llamacpp:prompt_tokens_total") - before;
        assert_eq!(result.metrics.input_tokens, Some(read), "as the server counted");
        assert!(read >= LISTS * 5, "at least a token for each text: {read}");
        assert_eq!(result.metrics.output_tokens, None);
        println!("{driver} {engine:?}: {LISTS} requests of {BATCH} texts, {read} tokens, 0 lost");
    });
}

#[test]
fn embeddings() {
    lists("openai-embeddings", &["--embedding", "--pooling", "mean"]);
}

/// And a server that was started for neither says so in each answer.
#[test]
fn rerank() {
    lists("rerank", &["--reranking"]);
    let Some((_server, port)) = start(&[]) else { return };
    let url = format!("http://127.0.0.1:{port}");
    for driver in ["rerank", "openai-embeddings"] {
        let options = ["--driver", driver, "--url", &url, "--concurrency", "1", "--requests", "5"];
        let result = measured(&[&options[..], &["--batch", BATCH]].concat());
        assert_eq!(result.errors.get("status_5xx"), Some(&5), "{driver}: {:?}", result.errors);
        let example = &result.error_examples["status_5xx"];
        assert!(example.contains("does not support"), "{driver}: {example}");
    }
}
