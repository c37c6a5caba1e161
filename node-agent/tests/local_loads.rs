//! Loads of a local run: workers that speak the protocol by hand.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers, too"
)]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
};

use aifb_schema::{
    control::{Delta, FromWorker, LoadPlan, ToWorker, WorkerId},
    live::{CLIENT_LAG, TOTAL, TTFT, Times},
};
use common::{PATIENCE, Run, wait_for};
use serde_json::Value;

const RECIPE: &str = "aifb: 1\nname: t\nservices:\n  - name: web\n    kind: container\n    program: \
                      /bin/sh\n    args: [-c, 'echo ready; exec sleep 1000']\n    env: \
                      {API_KEY: generate}\n    health: {log: ready, every: 10ms}\nload:\n  - {name: \
                      l, driver: http, clients: 2, repeat: 2, arrival: {rate: 1/s}, phases: \
                      {measure: 1s}}\n";

struct Worker {
    reader: BufReader<UnixStream>,
}

impl Worker {
    fn join(run: &Run, step: &str, rank: u32, size: u32) -> Self {
        Self::join_of(run, step, rank, size, None)
    }

    fn join_of(run: &Run, step: &str, rank: u32, size: u32, whole: Option<u32>) -> Self {
        let record = run.agent_record();
        let name = record["socket"].as_str().unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let stream = UnixStream::connect_addr(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut worker = Self { reader: BufReader::new(stream) };
        let id = WorkerId { load: "l".into(), step: step.into(), rank };
        let protocol = aifb_schema::names::PROTOCOL;
        worker.say(&FromWorker::Join {
            protocol,
            worker: id,
            size,
            point: None,
            repeat: None,
            whole,
        });
        worker
    }

    fn say(&mut self, message: &FromWorker) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.reader.get_mut().write_all(&line).unwrap();
    }

    fn hear(&mut self) -> ToWorker {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: '{line}'"))
    }

    fn plan(&mut self) -> LoadPlan {
        match self.hear() {
            ToWorker::Plan(plan) => *plan,
            other => panic!("no plan but {other:?}"),
        }
    }

    /// Says that it is ready.
    fn ready(&mut self) {
        self.say(&FromWorker::Ready { plan_hash: "h".into(), workload_hash: "w".into() });
    }

    fn start(&mut self) -> u64 {
        match self.hear() {
            ToWorker::Start { at_mono_ns, .. } => at_mono_ns,
            other => panic!("no start but {other:?}"),
        }
    }

    fn refusal(&mut self) -> String {
        match self.hear() {
            ToWorker::Refused { failure } => failure.reason,
            other => panic!("no refusal but {other:?}"),
        }
    }
}

fn two(run: &Run, step: &str) -> [Worker; 2] {
    [Worker::join(run, step, 0, 2), Worker::join(run, step, 1, 2)]
}

/// Two workers that have started.
fn started(run: &Run, step: &str) -> ([Worker; 2], LoadPlan) {
    let mut workers = two(run, step);
    let plans = workers.each_mut().map(Worker::plan);
    workers.iter_mut().for_each(Worker::ready);
    let starts = workers.each_mut().map(Worker::start);
    assert_eq!(starts[0], starts[1]);
    let [plan, other] = plans;
    assert_eq!(plan, other);
    (workers, plan)
}

/// What a worker tells of so many requests, of which one is within the first or second bucket of
/// each time and all are within the others; there is nothing between tokens.
fn told(sent: u64) -> Delta {
    let times = |first: &[u64], len: usize, ns: u64| {
        let rest = std::iter::repeat_n(sent, len - first.len());
        Times { counts: first.iter().copied().chain(rest).collect(), sum_ns: sent * ns }
    };
    let total = times(&[0, 1], TOTAL.len(), 5_000_000);
    Delta {
        phase: "measure".to_owned(),
        sent,
        ok: sent,
        durations: total.counts,
        durations_ns: total.sum_ns,
        ttft: times(&[1], TTFT.len(), 2_000_000),
        client_lag: times(&[1], CLIENT_LAG.len(), 100_000),
        ..Delta::default()
    }
}

fn status(run: &Run) -> Value {
    let (code, body) = run.http("GET /v1/status", Some(&run.token()));
    assert_eq!(code, 200);
    serde_json::from_str(&body).unwrap()
}

#[test]
fn workers_meet_start_together_and_are_released_after_the_result() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let (mut workers, plan) = started(&run, "1.1");
    assert_eq!((plan.size, plan.point, plan.repeat), (2, 0, 0));
    assert_eq!(plan.folder, run.run_dir().join("load/l/p0/r0").to_str().unwrap());
    assert!(std::path::Path::new(&plan.folder).is_dir());
    assert_eq!(plan.secrets["API_KEY"].len(), 32);
    assert_eq!(plan.endpoints[0].url, run.variable("SERVICE_URL"));
    // The record is written by a thread of its own, after the workers were told.
    wait_for("the state", || (run.state() == "measuring").then_some(()));
    for (worker, sent) in workers.iter_mut().zip([3, 4]) {
        worker.say(&FromWorker::Delta(told(sent)));
    }
    wait_for("the sum of the progress", || {
        (status(&run)["loads"][0]["progress"]["sent"] == 7).then_some(())
    });
    wait_for("the sum on /metrics", || {
        let (_, page) = run.http("GET /metrics", None);
        let value = |name: &str| {
            let line =
                page.lines().find(|line| line.starts_with(name) && line.contains("load=\"l\""));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        };
        (value("aifb_requests_sent_total") == Some(7.0)).then_some(())
    });
    let (_, page) = run.http("GET /metrics", None);
    for (start, value) in [
        ("request_duration_seconds_bucket", "le=\"0.01\"} 2"),
        ("request_duration_seconds_bucket", "le=\"0.1\"} 7"),
        ("request_duration_seconds_bucket", "le=\"+Inf\"} 7"),
        ("request_duration_seconds_sum", "} 0.035"),
        ("request_duration_seconds_count", "} 7"),
        ("ttft_seconds_bucket", "le=\"0.001\"} 2"),
        ("ttft_seconds_bucket", "le=\"30.0\"} 7"),
        ("ttft_seconds_sum", "} 0.014"),
        ("ttft_seconds_count", "} 7"),
        ("schedule_lag_seconds_bucket", "le=\"1e-05\"} 2"),
        ("schedule_lag_seconds_bucket", "le=\"0.0005\"} 7"),
        ("schedule_lag_seconds_sum", "} 0.0007"),
        ("schedule_lag_seconds_count", "} 7"),
    ] {
        let start = format!("aifb_{start}{{");
        let found = page.lines().any(|line| line.starts_with(&start) && line.ends_with(value));
        assert!(found, "{start}…{value} is not in\n{page}");
    }
    assert!(!page.contains("aifb_inter_token_seconds"), "nothing came token by token:\n{page}");
    assert!(run.http("GET /metrics", None).1.contains("aifb_service_ready_seconds"));
    for worker in &mut workers {
        worker.say(&FromWorker::Done { complete: true });
    }
    assert_eq!(workers[0].hear(), ToWorker::Merge { lost: Vec::new(), clocks: Vec::new() });
    workers[0].say(&FromWorker::ResultWritten);
    for worker in &mut workers {
        assert_eq!(worker.hear(), ToWorker::Release);
    }
    drop(workers);
    wait_for("the state", || (run.state() == "healthy").then_some(()));
    let (_second, plan) = started(&run, "1.2");
    assert_eq!((plan.point, plan.repeat), (0, 1));
    assert_eq!(run.end(), "cancelled");
}

#[test]
fn a_finished_load_makes_a_completed_run() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let (mut workers, _) = started(&run, "1.1");
    for worker in &mut workers {
        worker.say(&FromWorker::Done { complete: true });
    }
    workers[0].hear();
    workers[0].say(&FromWorker::ResultWritten);
    assert_eq!(workers[1].hear(), ToWorker::Release);
    assert_eq!(run.end(), "completed");
}

#[test]
fn a_lost_worker_makes_the_load_incomplete_and_the_next_rank_leads() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let ([first, mut second], _) = started(&run, "1.1");
    drop(first);
    second.say(&FromWorker::Done { complete: true });
    assert_eq!(second.hear(), ToWorker::Merge { lost: vec![0], clocks: Vec::new() });
    second.say(&FromWorker::ResultWritten);
    assert_eq!(second.hear(), ToWorker::Release);
    assert_eq!(run.end(), "failed");
    let failure = &run.record()["failure"];
    assert_eq!((&failure["owner"], &failure["exit_code"]), (&"loadgen".into(), &5.into()));
    let reason = failure["reason"].as_str().unwrap();
    assert!(reason.contains("1 of 2 workers lost (rank 0 on "), "{reason}");
}

#[test]
fn the_leaders_death_while_it_merges_makes_another_leader() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let ([mut first, mut second], _) = started(&run, "1.1");
    for worker in [&mut first, &mut second] {
        worker.say(&FromWorker::Done { complete: true });
    }
    assert_eq!(first.hear(), ToWorker::Merge { lost: Vec::new(), clocks: Vec::new() });
    drop(first);
    assert_eq!(second.hear(), ToWorker::Merge { lost: Vec::new(), clocks: Vec::new() });
    second.say(&FromWorker::ResultWritten);
    assert_eq!(second.hear(), ToWorker::Release);
    assert_eq!(run.end(), "completed");
}

#[test]
fn a_worker_lost_before_the_start_fails_the_load() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let [mut first, second] = two(&run, "1.1");
    first.plan();
    drop(second);
    let reason = first.refusal();
    assert!(reason.contains("ended before the start"), "{reason}");
    // A later repeat makes it good.
    let (mut workers, plan) = started(&run, "1.2");
    assert_eq!(plan.repeat, 1);
    for worker in &mut workers {
        worker.say(&FromWorker::Done { complete: true });
    }
    workers[0].hear();
    workers[0].say(&FromWorker::ResultWritten);
    workers[1].hear();
    assert_eq!(run.end(), "completed");
}

/// Two steps of one and two tasks: each task has a rank of its own within the load, whoever comes
/// first.
#[test]
fn several_steps_are_one_load() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let mut late = Worker::join_of(&run, "7.10", 0, 3, Some(3));
    let mut others = [0, 1].map(|rank| Worker::join_of(&run, "7.9", rank, 3, Some(3)));
    let plan = late.plan();
    assert_eq!((plan.size, plan.rank), (3, Some(2)));
    let ranks = others.each_mut().map(|worker| worker.plan().rank);
    assert_eq!(ranks, [Some(0), Some(1)]);
    late.ready();
    others.iter_mut().for_each(Worker::ready);
    let start = late.start();
    assert_eq!(others.each_mut().map(Worker::start), [start, start]);
    // The one of the other step is lost: rank 2 of the load.
    drop(late);
    for worker in &mut others {
        worker.say(&FromWorker::Done { complete: true });
    }
    assert_eq!(others[0].hear(), ToWorker::Merge { lost: vec![2], clocks: Vec::new() });
    others[0].say(&FromWorker::ResultWritten);
    for worker in &mut others {
        assert_eq!(worker.hear(), ToWorker::Release);
    }
    assert_eq!(run.end(), "failed");
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let record = run.agent_record();
    let address = SocketAddr::from_abstract_name(record["socket"].as_str().unwrap()).unwrap();
    let join = |load: &str, protocol: u32, rank: u32| {
        let stream = UnixStream::connect_addr(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut worker = Worker { reader: BufReader::new(stream) };
        let id = WorkerId { load: load.into(), step: format!("9.{rank}"), rank };
        worker.say(&FromWorker::Join {
            protocol,
            worker: id,
            size: 2,
            point: None,
            repeat: None,
            whole: None,
        });
        worker.refusal()
    };
    let ours = aifb_schema::names::PROTOCOL;
    for (reason, words) in [
        (join("none", ours, 0), "the recipe has no load 'none'"),
        (join("l", ours + 1, 0), "uses protocol"),
        (join("l", ours, 2), "rank 2 is out of range for 2 workers"),
    ] {
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(run.end(), "completed");
}

/// The rules of a load are judged over all its workers: none of them alone is over the budget.
#[test]
fn a_fulfilled_rule_ends_the_load_for_all_workers() {
    let stop = "load:\n- {name: l, driver: http, clients: 2, arrival: {rate: 5/s}, \
        phases: {measure: 60s}, stop: {errors: 5}}";
    let recipe = RECIPE.split("load:").next().unwrap().to_owned() + stop;
    let mut run = Run::start(&recipe);
    run.ready();
    let (mut workers, _) = started(&run, "1.1");
    for worker in &mut workers {
        let delta = Delta { phase: "measure".into(), sent: 9, failed: 3, ..Delta::default() };
        worker.say(&FromWorker::Delta(delta));
    }
    end_by_errors(run, workers);
}

/// Both workers are told that the rule ends the load, and the run ends well.
fn end_by_errors(mut run: Run, mut workers: [Worker; 2]) {
    for worker in &mut workers {
        match worker.hear() {
            ToWorker::Stop { reason, rule } => {
                assert_eq!(rule.as_deref(), Some("errors"));
                assert!(reason.contains("6 of 6 requests failed"), "{reason}");
            }
            other => panic!("no stop but {other:?}"),
        }
        worker.say(&FromWorker::Done { complete: true });
    }
    assert!(matches!(workers[0].hear(), ToWorker::Merge { lost, .. } if lost.is_empty()));
    workers[0].say(&FromWorker::ResultWritten);
    assert_eq!(workers[1].hear(), ToWorker::Release);
    assert_eq!(run.end(), "completed");
}

/// The same where the workers are tasks of several steps, which number their tasks from 0 each.
#[test]
fn a_rule_is_judged_over_several_steps() {
    let stop = "load:\n- {name: l, driver: http, clients: 2, arrival: {rate: 5/s}, \
        phases: {measure: 60s}, stop: {errors: 5}}";
    let recipe = RECIPE.split("load:").next().unwrap().to_owned() + stop;
    let mut run = Run::start(&recipe);
    run.ready();
    let mut workers = ["7.9", "7.10"].map(|step| Worker::join_of(&run, step, 0, 2, Some(2)));
    workers.iter_mut().for_each(|worker| drop(worker.plan()));
    workers.iter_mut().for_each(Worker::ready);
    let starts = workers.each_mut().map(Worker::start);
    assert_eq!(starts[0], starts[1]);
    for (worker, failed) in workers.iter_mut().zip([2, 4]) {
        let delta = Delta { phase: "measure".into(), sent: 9, failed, ..Delta::default() };
        worker.say(&FromWorker::Delta(delta));
    }
    end_by_errors(run, workers);
}

/// Workers on different nodes may find different files under one name.
#[test]
fn workers_that_ask_different_things_are_refused() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let mut workers = two(&run, "1.1");
    workers.iter_mut().for_each(|worker| drop(worker.plan()));
    for (worker, hash) in workers.iter_mut().zip(["a", "b"]) {
        worker.say(&FromWorker::Ready { plan_hash: "h".into(), workload_hash: hash.into() });
    }
    for worker in &mut workers {
        let reason = worker.refusal();
        assert!(reason.contains("found other dataset"), "{reason}");
    }
    assert_eq!(run.end(), "failed");
}

#[test]
fn the_end_of_the_job_stops_a_load_and_keeps_its_result() {
    let mut run = Run::start(RECIPE);
    run.ready();
    let (mut workers, _) = started(&run, "1.1");
    run.signal("TERM");
    for worker in &mut workers {
        assert!(matches!(worker.hear(), ToWorker::Stop { .. }));
        worker.say(&FromWorker::Done { complete: false });
    }
    assert_eq!(workers[0].hear(), ToWorker::Merge { lost: Vec::new(), clocks: Vec::new() });
    workers[0].say(&FromWorker::ResultWritten);
    assert_eq!(workers[1].hear(), ToWorker::Release);
    run.wait();
    assert_eq!(run.state(), "cancelled");
    let told = run.told();
    assert!(told.iter().any(|line| line == "l: point 0 repeat 0: done"), "{told:?}");
}

#[test]
fn a_failed_service_refuses_waiting_workers() {
    let dying = "while [ ! -e {data}/die ]; do sleep 0.05; done; exit 7";
    let mut run = Run::start(&RECIPE.replace("exec sleep 1000", dying));
    run.ready();
    let mut early = Worker::join(&run, "1.1", 0, 2);
    std::fs::write(run.run_dir().join("services/web/data/die"), "").unwrap();
    let reason = early.refusal();
    assert!(reason.contains("exited with code 7"), "{reason}");
    assert_eq!(run.wait(), 4);
}

/// Samples of the only node so far.
fn samples(run: &Run) -> usize {
    let nodes = std::fs::read_dir(run.run_dir().join("nodes")).unwrap();
    let node = nodes.map(Result::unwrap).next().unwrap().path();
    let bytes = std::fs::read(node.join("samples.bin")).unwrap();
    aifb_schema::samples::read(&bytes).unwrap_or_default().samples.len()
}

#[test]
fn samples_are_closer_in_the_measured_phase() {
    let mut run = Run::start(&format!("{RECIPE}monitor: {{sample: 1h, burst: 100ms}}\n"));
    run.ready();
    let (mut workers, _) = started(&run, "1.1");
    let mut say = |phase: &str| {
        for worker in &mut workers {
            worker.say(&FromWorker::Delta(Delta { phase: phase.into(), ..Delta::default() }));
        }
    };
    say("warmup");
    wait_for("the first sample", || (samples(&run) == 1).then_some(()));
    say("measure");
    wait_for("closer samples", || (samples(&run) >= 5).then_some(()));
    say("drain");
    let mut before = 0;
    wait_for("their end", || {
        let now = samples(&run);
        std::thread::sleep(std::time::Duration::from_millis(500));
        (std::mem::replace(&mut before, now) == now).then_some(())
    });
}
