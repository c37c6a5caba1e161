//! What ends a load of several workers: real load generators, and the coordinator in a real agent.

use std::fs;

use serde_json::Value;

use super::{Local, programs, text};

/// A mock server with these options, and a load of several workers against it.
fn recipe(server: &str, load: &str) -> String {
    format!(
        "aifb: 1
name: stops
services:
  - name: llm
    kind: container
    program: {programs}/aifb-loadgen
    args: [mock, --listen, '{{host}}:{{port}}', --itl, 0s, {server}]
    health: {{http: /health, deadline: 20s, max: 30s}}
load:
  - name: chat
    driver: openai-chat
    dataset: {{kind: synthetic, input_tokens: 8, output_tokens: 2}}
{load}",
        programs = programs().display(),
    )
}

/// What a run left: the load's result, and what each worker says of itself.
struct Left {
    result: Value,
    workers: Vec<Value>,
}

impl Left {
    fn of(local: &Local) -> Self {
        let folder = local.only_run().unwrap().join("load/chat/p0/r0");
        let result: Value =
            serde_json::from_slice(&fs::read(folder.join("result.json")).unwrap()).unwrap();
        let worker = |rank: u64| {
            let file = fs::read_to_string(folder.join(format!("worker-{rank}.hdr"))).unwrap();
            let record = file.lines().find_map(|line| line.strip_prefix("#aifb ")).unwrap();
            serde_json::from_str(record).unwrap()
        };
        let workers = (0..result["plan"]["workers"].as_u64().unwrap()).map(worker).collect();
        Self { result, workers }
    }

    /// Runs a recipe to its end, which must have this exit code.
    #[track_caller]
    fn by(recipe: &str, code: i32, words: &[&str]) -> Self {
        let local = Local::new(recipe);
        let output = local.run(&[&["run", "--local", "x.yaml"], words].concat());
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert_eq!(local.record()["state"], "completed", "{:#}", local.record());
        local.nothing_left();
        Self::of(&local)
    }

    /// Every worker was ended by this rule, for the same reason and at the same time, long before
    /// the 60 s that were planned; nothing that was sent is missing.
    #[track_caller]
    fn ended_by(&self, rule: &str, reason: &str) {
        let Self { result, workers } = self;
        let because = &result["stopped_because"];
        assert_eq!(because["rule"], rule, "{result:#}");
        assert!(because["reason"].as_str().unwrap().contains(reason), "{because}");
        assert_eq!(result["complete"], true, "{result:#}");
        let ends: Vec<u64> = workers
            .iter()
            .map(|worker| {
                assert_eq!(worker["stopped_by"], *because, "{worker:#}");
                assert!(worker["tally"]["sent"].as_u64().unwrap() > 0, "{worker:#}");
                worker["client"]["measure_end_ns"].as_u64().unwrap()
            })
            .collect();
        // One message to each; 10 s are for a machine that does much else.
        let apart = ends.iter().max().unwrap() - ends.iter().min().unwrap();
        assert!(apart < 10_000_000_000, "{ends:?}");
        assert!(result["metrics"]["duration_seconds"].as_f64().unwrap() < 50.0, "{result:#}");
        let count = |name: &str| result["counts"][name].as_u64().unwrap();
        let known = count("ok") + count("failed") + count("cancelled") + count("unfinished");
        assert_eq!(count("sent"), known, "{:#}", result["counts"]);
    }
}

/// Half of the requests fail; no worker knows more than its own.
#[test]
fn an_error_budget_ends_all_workers() {
    let load = "    clients: 3
    arrival: {process: constant, rate: 60/s}
    phases: {measure: 60s, drain: 5s}
    stop: {errors: 20%}
";
    let left = Left::by(&recipe("--ttft, 1ms, --fault, status-500/2", load), 1, &[]);
    assert_eq!(left.workers.len(), 3);
    left.ended_by("errors", "the budget is 20%");
    // The coordinator saw at least twenty requests of all, and not of one.
    assert!(left.result["errors"]["status_5xx"].as_u64().unwrap() > 1, "{:#}", left.result);
}

/// Ten at a time for 100 ms are a hundred a second; each of two workers alone asks for less.
#[test]
fn saturation_ends_all_workers() {
    let load = "    clients: 2
    arrival: {process: constant, rate: 180/s}
    phases: {measure: 60s, drain: 60s}
    stop: {saturation: {window: 5s}}
";
    let left = Left::by(&recipe("--ttft, 100ms, --slots, '10'", load), 1, &[]);
    left.ended_by("saturation", "requests in flight grew by");
}

#[test]
fn a_steady_state_ends_all_workers() {
    let load = "    clients: 2
    arrival: {process: constant, rate: 40/s}
    phases: {measure: 60s, drain: 5s}
    stop: {steady: {metric: throughput, within: 30%, for: 5s}}
";
    let left = Left::by(&recipe("--ttft, 5ms", load), 0, &[]);
    left.ended_by("steady", "throughput settled");
}

/// Two steps of one task each, which both call their task 0, are one load as well.
#[test]
fn a_rule_ends_the_workers_of_several_steps() {
    let load = "    clients: 2
    arrival: {process: constant, rate: 60/s}
    phases: {measure: 60s, drain: 5s}
    stop: {errors: 20%}
";
    let script = "AIFB_LOCAL_STEP=1 aifb-loadgen --load chat --workers 2 >one & first=$!
        AIFB_LOCAL_STEP=2 aifb-loadgen --load chat --workers 2 >two; second=$?
        wait $first; echo $? $second >codes; [ \"$(cat codes)\" = '1 1' ]";
    let local_words = ["--", "sh", "-c", script];
    let left = Left::by(&recipe("--ttft, 1ms, --fault, status-500/2", load), 0, &local_words);
    assert_eq!(left.workers.len(), 2);
    left.ended_by("errors", "the budget is 20%");
}

/// A number of requests and a time end a load by themselves, and are named too.
#[test]
fn the_plan_of_several_workers_ends_where_it_says() {
    let of = |measure: &str| {
        let load = format!(
            "    clients: 3
    arrival: {{process: poisson, rate: 50/s}}
    phases: {{measure: {measure}, drain: 5s}}
    stop: {{errors: 50%}}
"
        );
        Left::by(&recipe("--ttft, 1ms", &load), 0, &[]).result
    };
    let counted = of("{requests: 100}");
    assert_eq!(counted["stopped_because"]["rule"], "requests", "{counted:#}");
    assert_eq!((&counted["counts"]["sent"], &counted["counts"]["ok"]), (&100.into(), &100.into()));
    let timed = of("2s");
    assert_eq!(timed["stopped_because"]["rule"], "time", "{timed:#}");
    assert_eq!(timed["counts"]["planned"], timed["counts"]["sent"], "{timed:#}");
}
