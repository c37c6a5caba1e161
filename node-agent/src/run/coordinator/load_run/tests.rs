use aifb_schema::recipe;

use super::*;

fn run(step: &str) -> LoadRun {
    let text = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, program: /x}\nload:\n  - \
                {name: l, driver: http, arrival: {rate: 1/s}, phases: {measure: 1s}}\n";
    let load = recipe::parse(text, &[]).unwrap().load.remove(0);
    let allotted = Allotted { point: 0, repeat: 0, load, settings: BTreeMap::new() };
    LoadRun::new(allotted, step, 4, (None, None))
}

fn worker(step: &str, rank: u32, node: &str) -> Worker {
    let id = WorkerId { load: "l".into(), step: step.into(), rank };
    Worker { id, node: node.into(), state: WorkerState::Joined, progress: Delta::default() }
}

#[test]
fn ranks_of_several_steps_do_not_depend_on_who_came_first() {
    let mut run = run(SEVERAL_STEPS);
    for (step, rank) in [("7.10", 1), ("7.9", 0), ("7.10", 0), ("7.9", 1)] {
        run.add(worker(step, rank, "n1")).unwrap();
    }
    let twice = run.add(worker("7.9", 0, "n1")).unwrap_err();
    assert!(twice.contains("joined twice"), "{twice}");
    run.deal_ranks();
    let order: Vec<(&str, u32)> =
        run.workers.values().map(|worker| (worker.id.step.as_str(), worker.id.rank)).collect();
    assert_eq!(order, [("7.9", 0), ("7.9", 1), ("7.10", 0), ("7.10", 1)]);
    assert_eq!(run.ranks[&run.workers[&3].id], 3);
}

#[test]
fn one_step_keeps_its_ranks() {
    let mut run = run("7.1");
    for rank in [2, 0] {
        run.add(worker("7.1", rank, "n1")).unwrap();
    }
    run.deal_ranks();
    assert_eq!(run.workers.keys().copied().collect::<Vec<_>>(), [0, 2]);
}

/// Failures count from when all have come to the measured part until none is in it.
#[test]
fn a_rule_looks_at_all_workers_while_one_measures() {
    let stop = serde_json::from_value(serde_json::json!({"errors": 5})).unwrap();
    let judged = |phases: [&str; 2], states: [WorkerState; 2]| {
        let mut run = run("7.1");
        (run.state, run.judge) = (LoadState::Running, Some(Judge::new(stop)));
        for (rank, (phase, state)) in (0..).zip(phases.into_iter().zip(states)) {
            let mut worker = worker("7.1", rank, "n1");
            worker.progress = Delta { phase: phase.into(), failed: 3, ..Delta::default() };
            worker.state = state;
            run.add(worker).unwrap();
        }
        assert_eq!(run.fulfilled(Instant::now()), None, "once a second");
        run.fulfilled(Instant::now() + JUDGE_EVERY * 2).map(|verdict| verdict.rule)
    };
    use WorkerState::{Done, Gone, Lost, Ready};
    let both = [Ready, Ready];
    assert_eq!(judged(["measure", "measure"], both), Some("errors"));
    assert_eq!(judged(["drain", "measure"], both), Some("errors"));
    for state in [Done, Gone, Lost] {
        assert_eq!(judged(["drain", "measure"], [state, Ready]), Some("errors"));
    }
    assert_eq!(judged(["", "measure"], [Lost, Ready]), Some("errors"));
    for early in ["", "warmup"] {
        assert_eq!(judged([early, "measure"], both), None, "'{early}'");
    }
    assert_eq!(judged(["drain", "drain"], both), None, "it is over");
}

#[test]
fn drift_is_from_the_start_to_the_end() {
    let mut run = run("7.1");
    run.add(worker("7.1", 0, "n2")).unwrap();
    let at = |offset_ns: i64, measured_mono_ns: u64| ClockOffset {
        offset_ns,
        error_ns: 20_000,
        measured_mono_ns,
    };
    run.clock_measured("n2", at(900, 1_000));
    run.clock_measured("n2", at(1_000, 2_000));
    run.clock_measured("n3", at(5, 2_000));
    run.state = LoadState::Running;
    run.clock_measured("n2", at(1_250, 62_000));
    run.clock_measured("n2", at(1_500, 122_000));
    let clock = NodeClock {
        node: "n2".into(),
        offset_ns: 1_000,
        error_ns: 20_000,
        drift_ns: 500,
        over_ns: 120_000,
        measurements: 4,
    };
    assert_eq!(run.node_clocks(), [clock]);
}
