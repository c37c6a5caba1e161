//! Whoever is killed, nothing survives, and the record says what happened.

mod common;

use std::time::Duration;

use common::{Run, send, wait_for};

/// A service with a daemon of its own that ignores what can be ignored.
const RECIPE: &str = "aifb: 1\nname: t\nservices:\n  - name: web\n    kind: container\n    program: \
                      /bin/sh\n    args: [-c, \"(setsid sh -c 'trap : TERM HUP INT; while :; do \
                      sleep 1113; done' &); echo ready; exec sleep 1114\"]\n    health: {log: ready, \
                      every: 10ms}\n";

fn healthy() -> Run {
    let mut run = Run::start(RECIPE);
    run.ready();
    run.process("sleep 1113");
    run
}

#[test]
fn the_death_of_the_agent_ends_its_services() {
    let mut run = healthy();
    let agent = run.agent_record()["pid"].as_u64().unwrap();
    send(u32::try_from(agent).unwrap(), "KILL");
    run.assert_nothing_left();
    assert_eq!(run.wait(), 5);
    let record = run.record();
    assert_eq!(record["state"], "failed");
    assert_eq!(record["failure"]["owner"], "node");
    let reason = record["failure"]["reason"].as_str().unwrap();
    assert!(reason.contains("coordinator lost"), "{reason}");
}

#[test]
fn the_death_of_the_launcher_ends_the_run_in_order() {
    let run = healthy();
    send(run.launcher.id(), "KILL");
    run.assert_nothing_left();
    assert_eq!(run.state(), "completed");
}

#[test]
fn the_death_of_the_service_fails_the_run() {
    let mut run = healthy();
    send(run.process("sleep 1114"), "KILL");
    assert_eq!(run.wait(), 4);
    run.assert_nothing_left();
    let record = run.record();
    assert_eq!(record["failure"]["part"], "web");
    let reason = record["failure"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("ended by signal 9 (SIGKILL) after"), "{reason}");
}

#[test]
fn the_death_of_a_supervisor_leaves_no_stray() {
    let mut run = healthy();
    send(run.process("aifb-agent supervise"), "KILL");
    assert_eq!(run.wait(), 4);
    run.assert_nothing_left();
    assert_eq!(run.state(), "failed");
}

#[test]
fn the_death_of_launcher_and_agent_at_once_leaves_nothing() {
    let run = healthy();
    let agent = run.agent_record()["pid"].as_u64().unwrap();
    send(u32::try_from(agent).unwrap(), "KILL");
    send(run.launcher.id(), "KILL");
    run.assert_nothing_left();
}

#[test]
fn an_interrupt_before_health_cancels_the_run() {
    let mut run = Run::start(&RECIPE.replace("echo ready;", ""));
    run.process("sleep 1114");
    run.signal("INT");
    let (_, _) = (run.wait(), run.assert_nothing_left());
    let record = run.record();
    assert_eq!(record["state"], "cancelled");
    assert_eq!(record["ended"]["signal"], "INT");
}

#[test]
fn a_stop_request_cancels_the_run() {
    let mut run = healthy();
    let token = run.token();
    assert_eq!(run.http("POST /v1/stop", None).0, 401);
    assert_eq!(run.http("POST /v1/stop", Some(&token)).0, 200);
    run.wait();
    run.assert_nothing_left();
    let record = run.record();
    assert_eq!(
        (&record["state"], &record["ended"]["signal"]),
        (&"cancelled".into(), &"stop".into())
    );
}

#[test]
fn the_state_is_told_to_those_who_have_the_token() {
    let mut run = healthy();
    let token = run.token();
    assert_eq!(run.http("GET /v1/status", None).0, 401);
    assert_eq!(run.http("GET /v1/status", Some("0".repeat(64).as_str())).0, 401);
    let (code, body) = run.http("GET /v1/status", Some(&token));
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &status["run"]["state"]), (200, &"healthy".into()));
    assert_eq!(status["services"][0]["state"], "healthy");
    assert_eq!(status["nodes"][0]["state"], "up");
    assert_eq!(run.http("GET /nothing", Some(&token)).0, 404);
    let metrics = wait_for("metrics", || {
        let (code, body) = run.http("GET /metrics", None);
        (code == 200 && body.contains("aifb_")).then_some(body)
    });
    assert!(metrics.contains("run_id="), "{metrics}");
    assert_eq!(run.end(), "completed");
}

#[test]
fn an_agent_that_hangs_is_ended() {
    let mut run = healthy();
    let agent = u32::try_from(run.agent_record()["pid"].as_u64().unwrap()).unwrap();
    send(agent, "STOP");
    run.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    let code = run.wait();
    run.assert_nothing_left();
    assert_ne!(code, 0);
    assert_eq!(run.state(), "failed");
}
