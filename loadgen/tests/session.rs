//! Workers of one load inside a run, against a stand-in for the agent.

mod support;

use std::{io::Read, time::Duration};

use aifb_schema::{
    control::{Delta, FromWorker, ToWorker},
    live::{Bound, INTER_TOKEN, TOTAL, TTFT, Times},
    result::Distribution,
    run::{Failure, Owner},
};
use nix::sys::signal::Signal;
use serde_json::json;
use support::{Mock, Running, agent::FakeAgent, rows_in, until, verdicts};

const MOST: Duration = Duration::from_secs(30);

fn stderr(worker: &mut Running) -> String {
    let mut text = String::new();
    worker.0.stderr.take().expect("its errors").read_to_string(&mut text).expect("text");
    text
}

fn chat(arrival: &serde_json::Value, measure: &serde_json::Value) -> serde_json::Value {
    json!({
        "name": "chat", "service": "llm", "driver": "openai-chat", "arrival": arrival,
        "phases": {"warmup": "200ms", "measure": measure, "drain": "5s"},
        "dataset": {"kind": "synthetic", "input_tokens": 10, "output_tokens": 5},
        "slo": {"ttft": "10s"}, "seed": 42,
    })
}

fn run(agent: &mut FakeAgent) -> Vec<i32> {
    let mut workers: Vec<Running> = (0..agent.plan.size).map(|rank| agent.worker(rank)).collect();
    agent.start();
    assert!(agent.finish().is_empty());
    workers.iter_mut().map(|worker| worker.end(MOST)).collect()
}

#[test]
fn three_workers_are_one_load() {
    let mock = Mock::start(&["--ttft", "20ms", "--itl", "5ms"]);
    let load = chat(&json!({"process": "poisson", "rate": "50/s"}), &json!({"requests": 100}));
    let mut agent = FakeAgent::new(load.clone(), 3, &mock.url);
    assert_eq!(run(&mut agent), [0, 0, 0]);
    let result = agent.result();
    let counts = result.counts;
    assert_eq!((counts.planned, counts.sent, counts.ok), (Some(100), 100, 100));
    assert_eq!((counts.unsent, counts.unfinished), (Some(0), 0));
    assert!(result.complete && result.lost_workers.is_empty());
    assert_eq!((result.source.as_str(), result.plan.workers), ("rows", 3));
    let metrics = &result.metrics;
    assert_eq!(metrics.output_tokens, Some(500));
    assert_eq!(metrics.token_source.as_deref(), Some("usage"));
    assert_eq!(metrics.inter_token_seconds.unwrap().count, 400);
    assert_eq!(metrics.attainment_ratio, Some(1.0));
    assert!(metrics.ttft_seconds.unwrap().min >= 0.020, "never faster than the truth");
    let rows: usize =
        (0..3).map(|rank| rows_in(&agent.folder().join(format!("worker-{rank}.arrows")))).sum();
    assert_eq!(rows as u64, counts.sent + counts.warmup);
    assert!(result.client.start_skew_ns.is_some());
    // The same load alone: the same plan in another number of parts.
    let mut alone = FakeAgent::new(load, 1, &mock.url);
    assert_eq!(run(&mut alone), [0]);
    let single = alone.result();
    assert_eq!(single.counts.planned, Some(100));
    assert_eq!(single.counts.warmup, counts.warmup);
}

/// Whether what was told live is of the same times as a distribution of the result.
fn same(what: &str, told: &Times, result: Option<Distribution>) {
    let result = result.unwrap_or_else(|| panic!("no {what}"));
    assert_eq!(told.count(), result.count, "{what}");
    assert!(told.counts.is_sorted(), "{what}: {:?}", told.counts);
    let mean = Duration::from_nanos(told.sum_ns / told.count()).as_secs_f64();
    assert!((mean - result.mean).abs() < 1e-8, "{what}: {mean} and {}", result.mean);
}

/// Times within a bound.
fn within(told: &Times, bounds: &[Bound], le: &str) -> u64 {
    let at = bounds.iter().position(|bound| bound.1 == le).expect("a bound");
    told.counts.get(at).copied().expect("a count")
}

/// A load may be over before the first second is.
#[test]
fn the_last_progress_has_the_times_of_the_result() {
    let mock = Mock::start(&["--ttft", "30ms", "--itl", "6ms"]);
    let load = chat(&json!({"process": "constant", "rate": "100/s"}), &json!({"requests": 30}));
    let mut agent = FakeAgent::new(load, 2, &mock.url);
    assert_eq!(run(&mut agent), [0, 0]);
    let mut told = Delta::default();
    assert_eq!(agent.progress.len(), 2);
    for delta in agent.progress.values() {
        (told.sent, told.ok) = (told.sent + delta.sent, told.ok + delta.ok);
        told.add_durations(delta);
    }
    assert_eq!((told.sent, told.ok), (30, 30));
    let metrics = agent.result().metrics;
    let total = Times { counts: told.durations, sum_ns: told.durations_ns };
    same("total", &total, metrics.total_seconds);
    same("ttft", &told.ttft, metrics.ttft_seconds);
    same("inter_token", &told.inter_token, metrics.inter_token_seconds);
    same("client_lag", &told.client_lag, metrics.client_lag_seconds);
    assert_eq!((told.ttft.count(), told.inter_token.count()), (30, 120));
    // The server is never faster than it was told to be; a gap can be, after a late token.
    assert_eq!(within(&told.ttft, &TTFT, "0.025"), 0);
    assert_eq!(within(&total, &TOTAL, "0.01"), 0);
    assert!(within(&told.inter_token, &INTER_TOKEN, "0.005") < 120);
}

#[test]
fn a_closed_load_is_split_exactly() {
    let mock = Mock::start(&["--ttft", "5ms", "--itl", "1ms"]);
    let load = chat(&json!({"concurrency": 7}), &json!({"requests": 50}));
    let mut agent = FakeAgent::new(load, 3, &mock.url);
    assert_eq!(run(&mut agent), [0, 0, 0]);
    let counts = agent.result().counts;
    assert_eq!((counts.planned, counts.sent, counts.ok), (None, 50, 50));
    assert!(counts.warmup > 0);
}

#[test]
fn a_killed_worker_leaves_what_it_had() {
    let mock = Mock::start(&["--ttft", "100ms", "--itl", "50ms"]);
    let load = chat(&json!({"process": "constant", "rate": "60/s"}), &json!("3s"));
    let mut agent = FakeAgent::new(load, 3, &mock.url);
    let mut workers: Vec<Running> = (0..3).map(|rank| agent.worker(rank)).collect();
    agent.start();
    // Killed when its second batch has been written.
    let path = agent.folder().join("worker-0.arrows");
    until(MOST, || {
        let file = std::fs::read(&path).ok()?;
        let batches = file.windows(4).filter(|word| *word == [0xff; 4]).count();
        (batches >= 3).then_some(())
    });
    workers[0].signal(Signal::SIGKILL);
    assert_eq!(agent.finish(), [0]);
    assert_eq!(workers[0].end(MOST), 128 + 9);
    for worker in &mut workers[1..] {
        assert_eq!(worker.end(MOST), 5, "incomplete");
    }
    let result = agent.result();
    assert!(!result.complete);
    assert_eq!(result.lost_workers, [0]);
    assert!(verdicts(&result).contains(&"incomplete"), "{:?}", result.verdicts);
    let counts = result.counts;
    assert_eq!(counts.planned, Some(180));
    assert!(counts.unfinished > 0, "requests were in flight: {counts:?}");
    assert!(counts.unsent > Some(0), "{counts:?}");
    assert!(rows_in(&path) > 0);
    assert!(counts.ok >= 120 + 10, "what it had done counts: {counts:?}");
}

#[test]
fn an_agent_that_dies_before_the_start_fails_the_load() {
    let mock = Mock::start(&[]);
    let load = chat(&json!({"concurrency": 1}), &json!({"requests": 1}));
    let mut agent = FakeAgent::new(load, 1, &mock.url);
    let mut worker = agent.worker(0);
    let plan = Box::new(agent.plan.clone());
    agent.send_all(&ToWorker::Plan(plan));
    agent.ready();
    agent.die();
    assert_eq!(worker.end(Duration::from_secs(5)), 5);
    let text = stderr(&mut worker);
    assert!(text.contains("agent") && text.contains("cause: node"), "{text}");
}

#[test]
fn an_agent_that_dies_later_costs_no_records() {
    let mock = Mock::start(&["--ttft", "5ms", "--itl", "1ms"]);
    let load = chat(&json!({"process": "constant", "rate": "50/s"}), &json!("1s"));
    let mut agent = FakeAgent::new(load, 2, &mock.url);
    let mut workers: Vec<Running> = (0..2).map(|rank| agent.worker(rank)).collect();
    agent.start();
    agent.die();
    for (rank, worker) in workers.iter_mut().enumerate() {
        assert_eq!(worker.end(MOST), 5);
        let text = stderr(worker);
        assert!(text.contains("records are complete"), "{text}");
        assert_eq!(rows_in(&agent.folder().join(format!("worker-{rank}.arrows"))), 25 + 5);
    }
}

#[test]
fn a_single_worker_needs_no_agent_to_merge() {
    let mock = Mock::start(&["--ttft", "5ms", "--itl", "1ms"]);
    let load = chat(&json!({"concurrency": 2}), &json!({"requests": 20}));
    let mut agent = FakeAgent::new(load, 1, &mock.url);
    let mut worker = agent.worker(0);
    agent.start();
    agent.die();
    assert_eq!(worker.end(MOST), 0);
    assert_eq!(agent.result().counts.ok, 20);
}

#[test]
fn sigterm_keeps_what_there_is() {
    let mock = Mock::start(&["--ttft", "50ms", "--itl", "10ms"]);
    let load = chat(&json!({"process": "constant", "rate": "100/s"}), &json!("60s"));
    let mut agent = FakeAgent::new(load, 1, &mock.url);
    let mut worker = agent.worker(0);
    agent.start();
    loop {
        match agent.next() {
            (_, Some(FromWorker::Delta(delta))) if delta.ok > 20 => break,
            (_, Some(FromWorker::Delta(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    worker.signal(Signal::SIGTERM);
    assert!(agent.finish().is_empty());
    assert_eq!(worker.end(MOST), 143);
    let result = agent.result();
    let counts = result.counts;
    assert!(!result.complete && counts.cancelled > 0 && counts.unsent > Some(0), "{counts:?}");
    assert!(verdicts(&result).contains(&"incomplete"));
}

#[test]
fn a_stop_drains() {
    let mock = Mock::start(&["--ttft", "50ms", "--itl", "10ms"]);
    let load = chat(&json!({"process": "constant", "rate": "100/s"}), &json!("60s"));
    let mut agent = FakeAgent::new(load, 1, &mock.url);
    let mut worker = agent.worker(0);
    agent.start();
    while !matches!(agent.next(), (_, Some(FromWorker::Delta(delta))) if delta.ok > 20) {}
    agent.send(0, &ToWorker::Stop { reason: "asked for".into(), rule: None });
    assert!(agent.finish().is_empty());
    assert_eq!(worker.end(MOST), 5);
    let result = agent.result();
    assert_eq!(result.counts.cancelled, 0, "the answers were waited for");
    assert!(result.verdicts.iter().any(|verdict| verdict.message.contains("asked for")));
}

#[test]
fn what_the_coordinator_refuses_is_told() {
    let load = chat(&json!({"concurrency": 1}), &json!({"requests": 1}));
    let mut agent = FakeAgent::new(load, 2, "http://127.0.0.1:1");
    let mut worker = agent.worker(0);
    let failure = Failure {
        owner: Owner::Recipe,
        part: "chat".into(),
        reason: "1 of 2 clients came within 60 s".into(),
        hint: Some("start as many tasks as clients says".into()),
        log_tail: None,
        exit_code: 2,
    };
    agent.send(0, &ToWorker::Refused { failure });
    assert_eq!(worker.end(MOST), 2);
    let text = stderr(&mut worker);
    assert!(text.contains("1 of 2 clients") && text.contains("hint: start as many"), "{text}");
}

#[test]
fn a_service_that_refuses_is_named() {
    let load = chat(&json!({"concurrency": 1}), &json!({"requests": 1}));
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut agent = FakeAgent::new(load, 1, &format!("http://127.0.0.1:{port}"));
    let mut worker = agent.worker(0);
    let plan = Box::new(agent.plan.clone());
    agent.send_all(&ToWorker::Plan(plan));
    match agent.next() {
        (0, Some(FromWorker::Failed { failure })) => {
            assert_eq!((failure.owner, failure.exit_code), (Owner::Service, 4));
            assert!(failure.reason.contains("refused"), "{}", failure.reason);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(worker.end(MOST), 4);
}

#[test]
fn without_an_agent_the_error_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = support::agent::worker(folder.path(), 0, 1);
    assert_eq!(worker.end(MOST), 5);
    assert!(stderr(&mut worker).contains("looking for the agent"));
    // Its record is there, but it is gone.
    let load = chat(&json!({"concurrency": 1}), &json!({"requests": 1}));
    let agent = FakeAgent::new(load, 1, "http://127.0.0.1:1");
    let run_dir = agent.run_dir.path().to_owned();
    let record = std::fs::read(run_dir.join("nodes/node1/agent.json")).unwrap();
    drop(agent);
    std::fs::create_dir_all(folder.path().join("nodes/node1")).unwrap();
    std::fs::write(folder.path().join("nodes/node1/agent.json"), record).unwrap();
    let mut worker = support::agent::worker(folder.path(), 0, 1);
    assert_eq!(worker.end(MOST), 5);
    assert!(stderr(&mut worker).contains("connecting to the agent on node 'node1'"));
}
