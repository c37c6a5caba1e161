//! Each kind of arrival, workload and stop rule, from a recipe's load against the mock server.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers, too"
)]

mod support;

use std::{io::Write, time::Duration};

use aifb_schema::result::LoadResult;
use serde_json::{Value, json};
use support::{Mock, Running, agent::FakeAgent, measured, verdicts};

const MOST: Duration = Duration::from_secs(30);

fn fast() -> Mock {
    Mock::start(&["--ttft", "1ms", "--itl", "0s"])
}

/// Runs a recipe's load with two workers.
fn run(mock: &Mock, load: Value) -> LoadResult {
    let mut all = json!({
        "name": "chat", "service": "llm", "driver": "openai-chat",
        "phases": {"measure": {"requests": 40}}, "arrival": {"concurrency": 4}, "seed": 42,
    });
    for (key, value) in load.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut agent = FakeAgent::new(all, 2, &mock.url);
    let mut workers: Vec<Running> = (0..2).map(|rank| agent.worker(rank)).collect();
    agent.start();
    assert!(agent.finish().is_empty());
    for worker in &mut workers {
        assert_eq!(worker.end(MOST), 0);
    }
    let result = agent.result();
    assert_eq!(result.counts.ok, result.counts.sent, "{:?}", result.error_examples);
    result
}

fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

fn rule(result: &LoadResult) -> &str {
    &result.stopped_because.as_ref().unwrap().rule
}

#[test]
fn each_arrival_runs_from_a_recipe() {
    let mock = fast();
    for arrival in [
        json!({"process": "gamma", "burstiness": 0.5, "rate": "100/s"}),
        json!({"process": "constant", "ramp": {"from": "20/s", "to": "200/s", "over": "300ms"}}),
        json!({"process": "poisson", "rate": "100/s", "ramp": {"from": "20/s", "over": "300ms",
            "shape": "exponential", "steps": 3}}),
    ] {
        let result = run(&mock, json!({"arrival": arrival}));
        assert_eq!((result.counts.planned, result.counts.sent), (Some(40), 40), "{arrival}");
        assert_eq!(rule(&result), "requests");
    }
    for arrival in [
        json!({"concurrency": 4, "think": {"exponential": "5ms"}}),
        json!({"concurrency": 6, "ramp": {"from": 2}}),
    ] {
        let measured =
            json!({"arrival": arrival, "phases": {"warmup": "100ms", "measure": "500ms"}});
        let result = run(&mock, measured);
        assert!(result.counts.sent > 20 && result.counts.warmup > 2, "{:?}", result.counts);
        assert_eq!((result.counts.planned, rule(&result)), (None, "time"));
    }
}

#[test]
fn a_trace_gives_times_and_lengths() {
    let mock = fast();
    let lines: String = (0..30)
        .map(|n| {
            let (at, input, output) = (n * 100, 5 + n, 2 + n % 3);
            format!(
                "{{\"timestamp\": {at}, \"input_length\": {input}, \"output_length\": {output}}}\n"
            )
        })
        .collect();
    let (_kept, path) = file(&lines);
    let result = run(
        &mock,
        json!({
            "arrival": {"trace": path, "speed": 4.0},
            "phases": {"warmup": "250ms", "measure": "10s"},
        }),
    );
    // 40 a second: ten before the measured part.
    let counts = result.counts;
    assert_eq!((counts.warmup, counts.planned, counts.sent), (10, Some(20), 20));
    let input: u64 = (10..30).map(|n| 5 + n).sum();
    let output: u64 = (10..30).map(|n| 2 + n % 3).sum();
    assert_eq!(result.metrics.input_tokens, Some(input));
    assert_eq!(result.metrics.output_tokens, Some(output));
    assert_eq!((result.plan.files[0].path.as_str(), rule(&result)), (path.as_str(), "trace"));
    assert_eq!(result.plan.files[0].sha256.len(), 64);
}

#[test]
fn each_workload_runs_from_a_recipe() {
    let mock = fast();
    let chats = json!([
        {"conversations": [
            {"from": "human", "value": "one two three"}, {"from": "gpt", "value": "12345678"},
            {"from": "human", "value": "four"}, {"from": "gpt", "value": "1234"}]},
        {"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "1234"}]},
    ]);
    let (_kept, sharegpt) = file(&chats.to_string());
    let (_kept_too, jsonl) = file(
        "{\"prompt\": \"a b\", \"output_tokens\": 3}\n{\"text\": \"c d\", \"output_tokens\": 5}\n",
    );
    for (dataset, input, output) in [
        (json!({"kind": "synthetic", "input_tokens": 7, "output_tokens": 3}), 280, 120),
        (json!({"kind": "prompt", "prompt": "Say \"hi\" to me", "output_tokens": 2}), 160, 80),
        (
            json!({"kind": "synthetic", "input_tokens": {"weighted": [[5, 1.0]]},
            "prefix": {"tokens": 10, "groups": 4}, "output_tokens": 1}),
            600,
            40,
        ),
        (json!({"kind": "ids", "input_tokens": 9, "output_tokens": 2}), 360, 80),
        // 20 times each.
        (json!({"kind": "sharegpt", "file": sharegpt}), 20 * 4, 20 * 3),
        (json!({"kind": "jsonl", "file": jsonl}), 40 * 2, 20 * 8),
        // Each conversation: 3, then 3 + 2 words and 1 more; then of the other 1.
        (
            json!({"kind": "sharegpt", "file": sharegpt, "output_tokens": 1, "shuffle": false,
            "turns": {"count": 9}}),
            0,
            40,
        ),
    ] {
        let driver = if dataset["turns"].is_null() { "openai-completions" } else { "openai-chat" };
        let result = run(&mock, json!({"dataset": dataset, "driver": driver}));
        let metrics = &result.metrics;
        assert_eq!(metrics.output_tokens, Some(output), "{dataset}");
        if input > 0 {
            assert_eq!(metrics.input_tokens, Some(input), "{dataset}");
        }
        let reuse = result.plan.prefix_reuse_ratio.unwrap();
        match dataset["kind"].as_str().unwrap() {
            // All but the first of each group.
            "synthetic" if dataset["prefix"].is_object() => {
                assert!((reuse - 36.0 * 10.0 / 600.0).abs() < 1e-9, "{reuse}");
            }
            "synthetic" | "ids" => assert!(reuse.abs() < 1e-9, "{reuse}"),
            "prompt" => assert!((reuse - 39.0 / 40.0).abs() < 1e-9, "{reuse}"),
            _ => {
                assert_eq!(result.plan.entries, Some(2));
                assert!(result.plan.entries_reused > Some(10) && reuse > 0.5, "{:?}", result.plan);
            }
        }
    }
}

#[test]
fn conversations_carry_their_history() {
    let mock = fast();
    let dataset = json!({"kind": "synthetic", "input_tokens": 10, "output_tokens": 4,
        "turns": {"count": 3, "think": "5ms"}});
    let closed = run(&mock, json!({"dataset": dataset, "phases": {"measure": {"requests": 42}}}));
    // Prompts of 10, 24 and 38 words, as often each: the four slots have ended whole conversations
    // but for those that the last requests belong to.
    let input = closed.metrics.input_tokens.unwrap();
    assert!((42 * 20..=42 * 26).contains(&input), "{input}");
    assert!(closed.plan.prefix_reuse_ratio.unwrap() > 0.4);
    let open = run(
        &mock,
        json!({"dataset": dataset, "phases": {"measure": "1s"},
            "arrival": {"process": "constant", "rate": "20/s"}}),
    );
    let counts = open.counts;
    assert_eq!((counts.planned, counts.unsent), (Some(counts.sent), Some(0)), "{counts:?}");
    // 20 conversations of three, but for the last ones, whose rest was due too late.
    assert!((50..=60).contains(&counts.sent), "{counts:?}");
}

fn standalone(mock: &Mock, options: &[&str]) -> LoadResult {
    let base = ["--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "3"];
    measured(&[&base[..], options].concat())
}

#[test]
fn an_error_budget_ends_the_load() {
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "0s", "--fault", "status-500/2"]);
    let options = ["--rate", "50/s", "--for", "60s", "--stop-errors", "20%"];
    let result = standalone(&mock, &options);
    assert_eq!(rule(&result), "errors");
    let because = result.stopped_because.as_ref().unwrap();
    assert!(because.is_failure() && because.reason.as_ref().unwrap().contains("the budget is 20%"));
    let counts = result.counts;
    assert!(result.complete && counts.sent < 50 * 20, "{counts:?}");
    // What was due later is not planned any more.
    assert!(counts.unsent <= Some(1) && result.metrics.duration_seconds.unwrap() < 20.0);
    assert!(!verdicts(&result).contains(&"rate_not_delivered"), "{:?}", result.verdicts);
    let kept = ["--rate", "50/s", "--requests", "60", "--stop-errors", "60%"];
    assert_eq!(rule(&standalone(&mock, &kept)), "requests", "half of them is within this budget");
}

#[test]
fn saturation_ends_the_load() {
    // Ten at a time for 50 ms: 200 a second.
    let mock = Mock::start(&["--ttft", "50ms", "--itl", "0s", "--slots", "10"]);
    let set = ["--stop-saturation", "--option", "stop.saturation.window=5s", "--drain", "10s"];
    let too_much = [&["--rate", "400/s", "--for", "40s"][..], &set].concat();
    let result = standalone(&mock, &too_much);
    assert_eq!(rule(&result), "saturation");
    assert!(result.metrics.duration_seconds.unwrap() < 30.0, "{:?}", result.metrics);
    assert_eq!(result.counts.cancelled + result.counts.failed, 0, "{:?}", result.counts);
    let enough = [&["--rate", "50/s", "--for", "8s"][..], &set].concat();
    assert_eq!(rule(&standalone(&mock, &enough)), "time");
}

#[test]
fn a_steady_state_ends_the_load() {
    let mock = Mock::start(&["--ttft", "20ms", "--itl", "0s"]);
    let options = ["--concurrency", "4", "--for", "60s", "--stop-steady", "ttft"];
    let set = ["--option", "stop.steady.for=5s", "--option", "stop.steady.within=25%"];
    let result = standalone(&mock, &[&options[..], &set].concat());
    assert_eq!(rule(&result), "steady");
    assert!(result.metrics.duration_seconds.unwrap() < 50.0 && result.complete);
    assert!(!result.stopped_because.as_ref().unwrap().is_failure());
}

#[test]
fn options_say_what_recipes_say() {
    let mock = fast();
    let options = ["--concurrency", "2", "--requests", "20", "--input-tokens", "{uniform: [5, 9]}"];
    let more = ["--prefix-tokens", "20", "--turns", "2", "--option", "dataset.turns.think=1ms"];
    let result = standalone(&mock, &[&options[..], &more].concat());
    assert_eq!(result.counts.ok, 20);
    let input = result.metrics.input_tokens.unwrap();
    assert!((20 * 25..20 * 40).contains(&input), "{input}");
    for (options, cause) in [
        (&["--concurrency", "2", "--process", "gamma", "--burstiness", "2"][..], "without a rate"),
        (&["--rate", "9/s", "--process", "gamma"], "without its burstiness"),
        (&["--rate", "9/s", "--ramp-from", "4"], "leads to a rate"),
        (&["--concurrency", "2", "--stop-saturation"], "cannot saturate"),
        (&["--concurrency", "2", "--dataset", "sharegpt"], "need a file"),
        (&["--concurrency", "2", "--dataset", "jsonl:/no/such"], "No such file"),
        (&["--trace", "/no/such"], "No such file"),
        (&["--concurrency", "2", "--input-tokens", "many"], "expected a number such as 512"),
        (&["--concurrency", "2", "--option", "nothing"], "expected PATH=VALUE"),
        (&["--concurrency", "2", "--stop-steady", "mood"], "unknown value 'mood'"),
        (&["--concurrency", "2", "--tokenizer", "/no/such"], "reading tokenizer"),
    ] {
        let base = ["--driver", "openai-chat", "--url", &mock.url, "--requests", "1"];
        let output = support::measure(&[&base[..], options].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(cause), "{options:?}: {stderr}");
    }
}
