//! The failure drill (Shows f): whatever dies, nothing stays behind, run.json says which part
//! failed and why, and a report can be made of what was measured until then.

use std::time::Duration;

use serde_json::Value;

use crate::{cluster::Case, recipes};

const MINUTES: Duration = Duration::from_secs(180);

/// Checks owner and reason of the failure, that nothing is left, and that a report can be made.
#[track_caller]
fn failed(case: &Case, job: u32, owner: &str, reason: &str) -> Value {
    case.nothing_left(job);
    let run = case.only_run();
    let report =
        case.run(&["aifb", "report", "--json", run.file_name().unwrap().to_str().unwrap()]);
    let report: Value = serde_json::from_str(&report.stdout)
        .unwrap_or_else(|error| panic!("{error}: {report:?}\n{}", case.state_text()));
    assert_eq!(report["state"], "failed", "{report:#}\n{}", case.state_text());
    let failure = &report["run"]["failure"];
    assert_eq!(failure["owner"], owner, "{failure:#}");
    assert!(failure["reason"].as_str().unwrap().contains(reason), "{failure:#}");
    report
}

/// Submits a recipe whose service fails before the script starts.
#[track_caller]
fn never_starts(case: &Case, arguments: &str, more: &str) -> u32 {
    case.write("x.yaml", &format!("{}{more}", recipes::service(arguments)));
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "echo the script has started");
    let end = case.wait(job, MINUTES);
    let output = case.read("job.out");
    assert_eq!((end.state.as_str(), end.exit_code), ("FAILED", 4), "{}", case.state_text());
    assert!(!output.contains("the script has started"), "{output}");
    job
}

#[test]
fn a_service_that_exits_at_once() {
    let case = case!("exits");
    let job = never_starts(&case, ", --exit-at-once, '3'", "");
    let output = case.read("job.out");
    assert!(output.contains("flux capacitor") && output.contains("web"), "{output}");
    failed(&case, job, "service", "3");
}

#[test]
fn a_service_that_never_becomes_healthy() {
    let case = case!("never");
    case.write(
        "x.yaml",
        &recipes::service(", --never-healthy")
            .replace("{http: /health}", "{http: /health, deadline: 2s, max: 4s}"),
    );
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "echo the script has started");
    let end = case.wait(job, MINUTES);
    assert_eq!((end.state.as_str(), end.exit_code), ("FAILED", 4), "{}", case.state_text());
    assert!(
        case.read("job.out").contains("listening on"),
        "the log's tail is shown: {}",
        case.read("job.out")
    );
    failed(&case, job, "service", "503");
}

#[test]
fn a_program_that_is_missing() {
    let case = case!("missing");
    case.write("x.yaml", &recipes::service("").replace("/usr/bin/python3", "/nowhere/python3"));
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "true");
    assert_eq!(case.wait(job, MINUTES).exit_code, 2, "{}", case.state_text());
    case.nothing_left(job);
    assert!(case.record()["failure"]["reason"].as_str().unwrap().contains("/nowhere/python3"));
}

#[test]
fn an_image_that_is_missing() {
    let case = case!("image");
    case.write(
        "x.yaml",
        &recipes::service("")
            .replace("program: /usr/bin/python3", "image: /nowhere/x.sif\n    command: [python3]"),
    );
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "true");
    assert_eq!(case.wait(job, MINUTES).exit_code, 2, "{}", case.state_text());
    case.nothing_left(job);
    assert!(case.record()["failure"]["reason"].as_str().unwrap().contains("/nowhere/x.sif"));
}

#[test]
fn a_port_that_is_taken() {
    let case = case!("taken");
    let first = Case::new(case.cluster.clone(), "taken-first");
    let port = 20_000 + std::process::id() % 20_000;
    let recipe =
        recipes::service("").replace("    health:", &format!("    port: {port}\n    health:"));
    first.write("x.yaml", &recipe);
    case.write("x.yaml", &recipe);
    let holder = first.sbatch(&["--aifb-recipe=x.yaml", "-w", "n1"], "sleep 100");
    first.until("the first service", MINUTES, || {
        (first.record()["state"] == "healthy").then_some(())
    });
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "-w", "n1"], "true");
    assert_eq!(case.wait(job, MINUTES).exit_code, 4, "{}", case.state_text());
    failed(&case, job, "service", &port.to_string());
    assert_eq!(first.record()["state"], "healthy", "the first job goes on");
    first.run(&["scancel", &holder.to_string()]).ok();
    first.wait(holder, MINUTES);
    first.nothing_left(holder);
}

/// Starts a run whose script runs a long load, and waits until it measures.
fn measuring(case: &Case, nodes: &str, arguments: &str) -> u32 {
    case.write("x.yaml", &recipes::service_and_load(arguments, "20s"));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", nodes], "aifb load\necho load ended with $?");
    case.until("the measured part", MINUTES, || {
        (case.record()["state"] == "measuring").then_some(())
    });
    job
}

/// Kills the processes of a job on `node` whose command line matches, as root.
fn kill(case: &Case, node: &str, job: u32, pattern: &str) -> Killed {
    let script = format!(
        r#"for f in $(grep -l -E '/job_{job}(/|$)' /proc/[0-9]*/cgroup); do pid=${{f#/proc/}}; pid=${{pid%/cgroup}}
           tr '\0' ' ' < /proc/$pid/cmdline | grep -q -E '{pattern}' && kill -9 $pid && echo killed $pid; done; true"#
    );
    let ran = case.cluster.root(node, &script);
    assert!(
        ran.stdout.contains("killed"),
        "nothing matched '{pattern}' on {node}: {ran:?}\n{}",
        case.state_text()
    );
    Killed
}

#[test]
fn a_service_killed_while_measuring() {
    let case = case!("kill-service");
    let job = measuring(&case, "-N2", "");
    let nodes = nodes_of(&case, job);
    kill(&case, &nodes[0], job, "service.py").then_wait(&case, job);
    failed(&case, job, "service", "signal 9");
}

#[test]
fn an_agent_killed_while_measuring() {
    let case = case!("kill-agent");
    let job = measuring(&case, "-N2", "");
    let nodes = nodes_of(&case, job);
    kill(&case, &nodes[1], job, "^[^ ]*aifb-agent run").then_wait(&case, job);
    let report = failed(&case, job, "node", "lost");
    assert_eq!(report["run"]["failure"]["part"], nodes[1].as_str());
}

#[test]
fn the_coordinator_killed_while_measuring() {
    let case = case!("kill-coordinator");
    let job = measuring(&case, "-N2", "");
    let nodes = nodes_of(&case, job);
    kill(&case, &nodes[0], job, "^[^ ]*aifb-agent run").then_wait(&case, job);
    failed(&case, job, "node", "coordinator");
}

#[test]
fn the_agents_srun_killed_while_measuring() {
    let case = case!("kill-srun");
    let job = measuring(&case, "-N2", "");
    let nodes = nodes_of(&case, job);
    kill(&case, &nodes[0], job, "srun.*aifb-agent").then_wait(&case, job);
    case.nothing_left(job);
    let report =
        case.run(&["aifb", "report", case.only_run().file_name().unwrap().to_str().unwrap()]);
    assert!(report.stdout.contains("requests"), "{report:?}");
}

#[test]
fn a_load_task_killed_while_measuring() {
    let case = case!("kill-task");
    case.write("x.yaml", &format!("{}    clients: 2\n", recipes::service_and_load("", "8s")));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "-N3"], "aifb load\necho load ended with $?");
    case.until("enough answers", MINUTES, || {
        let status = case.run(&["aifb", "status", &job.to_string(), "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        (status["loads"][0]["progress"]["ok"].as_u64()? > 150).then_some(())
    });
    let nodes = nodes_of(&case, job);
    kill(&case, &nodes[1], job, "^[^ ]*aifb-loadgen").then_wait(&case, job);
    let output = case.read("job.out");
    assert!(output.contains("load ended with 5"), "{output}");
    let report = failed(&case, job, "loadgen", "worker");
    let result = &report["results"][0];
    let count = |key: &str| result["counts"][key].as_u64().unwrap();
    assert_eq!(
        count("sent"),
        count("ok") + count("failed") + count("cancelled") + count("unfinished")
    );
    assert!(count("ok") > 100, "{result:#}");
    assert_eq!(result["complete"], false);
}

#[test]
fn scancel_while_pending() {
    let case = case!("cancel-pending");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "--hold"], "true");
    case.run(&["scancel", &job.to_string()]).ok();
    assert!(case.wait(job, MINUTES).state.starts_with("CANCELLED"));
    assert!(case.runs().is_empty());
    case.nothing_left(job);
}

#[test]
fn scancel_at_any_moment() {
    // Launching, starting, healthy: the delay moves the moment through all of them.
    for (index, delay_ms) in [0_u64, 150, 400, 800, 1500].into_iter().enumerate() {
        let case = case!("cancel");
        case.write("x.yaml", &recipes::service(", --delay, '0.7'"));
        let job = case.sbatch(&["--aifb-recipe=x.yaml", "-N2"], "sleep 100");
        case.until("the start of the job", MINUTES, || {
            case.run(&["squeue", "-h", "-o", "%t", "-j", &job.to_string()])
                .stdout
                .contains('R')
                .then_some(())
        });
        std::thread::sleep(Duration::from_millis(delay_ms));
        case.run(&["scancel", &job.to_string()]).ok();
        if index % 2 == 1 {
            case.run(&["scancel", &job.to_string()]);
        }
        assert!(case.wait(job, MINUTES).state.starts_with("CANCELLED"));
        case.nothing_left(job);
    }
}

#[test]
fn scancel_while_measuring() {
    let case = case!("cancel-measuring");
    let job = measuring(&case, "-N2", "");
    case.run(&["scancel", &job.to_string()]).ok();
    case.wait(job, MINUTES);
    case.nothing_left(job);
    let record = case.record();
    assert_eq!(record["state"], "cancelled", "{record:#}");
    assert_eq!(record["ended"]["signal"], "TERM", "{record:#}");
}

#[test]
fn the_time_limit() {
    let case = case!("limit");
    case.write("x.yaml", &recipes::service_and_load("", "300s"));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "--time=0:20"], "aifb load");
    let end = case.wait(job, MINUTES * 4);
    assert_eq!(end.state, "TIMEOUT");
    case.nothing_left(job);
    let record = case.record();
    assert_eq!(record["state"], "cancelled", "{record:#}");
    assert!(record["ended"]["seconds_to_limit"].as_i64().unwrap() <= 1, "{record:#}");
}

#[test]
fn a_service_that_ignores_sigterm_and_one_that_daemonises() {
    for arguments in [", --ignore-term", ", --double-fork"] {
        let case = case!("stubborn");
        case.write("x.yaml", &recipes::service(arguments));
        let job = case.sbatch(&["--aifb-recipe=x.yaml"], "curl -sf $SERVICE_URL/");
        assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
        case.nothing_left(job);
        assert_eq!(case.record()["state"], "completed", "{}", case.state_text());
    }
}

#[test]
fn a_service_that_dies_later() {
    let case = case!("dies-later");
    case.write("x.yaml", &recipes::service(", --exit-after, '2'"));
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "sleep 4");
    case.wait(job, MINUTES);
    failed(&case, job, "service", "9");
}

#[test]
fn a_service_that_becomes_unhealthy() {
    let case = case!("unhealthy");
    case.write("x.yaml", &recipes::service(", --unhealthy-after, '2'"));
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "sleep 45; echo end of the script");
    case.until("the event", MINUTES, || {
        let events = case.runs().first()?.join("events.jsonl");
        std::fs::read_to_string(events).ok()?.contains("unhealthy: ").then_some(())
    });
    case.wait(job, MINUTES * 2);
    failed(&case, job, "service", "unhealthy for");
}

#[test]
fn a_restart_stops_at_its_limit() {
    let case = case!("restart");
    case.write(
        "x.yaml",
        &recipes::service(", --exit-after, '0.5'")
            .replace("    health:", "    restart: on-failure\n    health:"),
    );
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "sleep 20");
    case.wait(job, MINUTES * 2);
    failed(&case, job, "service", "3 restarts");
    let once = case!("restart-once");
    once.write(
        "x.yaml",
        &recipes::service(&format!(", --exit-once, {}/mark", once.inside))
            .replace("    health:", "    restart: on-failure\n    health:"),
    );
    let job = once.sbatch(&["--aifb-recipe=x.yaml"], "curl -sf $SERVICE_URL/");
    assert_eq!(once.wait(job, MINUTES).state, "COMPLETED", "{}", once.state_text());
    once.nothing_left(job);
    assert_eq!(once.record()["state"], "completed");
}

#[test]
fn a_service_out_of_memory() {
    let case = case!("oom");
    case.write("x.yaml", &recipes::service(", --allocate, '400'"));
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], "curl -s $SERVICE_URL/allocate; sleep 3");
    case.wait(job, MINUTES);
    let report = failed(&case, job, "service", "memory");
    let reason = report["run"]["failure"]["reason"].as_str().unwrap();
    assert!(reason.contains("200"), "the limit is named: {reason}");
}

/// Nodes of a job in their order.
fn nodes_of(case: &Case, job: u32) -> Vec<String> {
    let list = case.run(&["squeue", "-h", "-o", "%N", "-j", &job.to_string()]).ok();
    case.run(&["scontrol", "show", "hostnames", list.trim()])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// After a kill: the job ends by itself or is cancelled by the test.
struct Killed;

impl Killed {
    fn then_wait(self, case: &Case, job: u32) {
        let Killed = self;
        case.wait(job, MINUTES * 2);
    }
}
