//! The whole pipeline on this machine, without Slurm: `aifb run --local` with real processes.
//!
//! The three programs must stand in one folder, as they are installed; cargo builds them there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that panics has failed, which is what it is for"
)]

mod exports;
mod files;
mod live;
mod servers;
mod stops;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Builds the programs that are not this package's own, once, and returns their folder.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let aifb = PathBuf::from(env!("CARGO_BIN_EXE_aifb"));
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "-p", "aifb-agent", "-p", "aifb-loadgen"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success());
        aifb.parent().unwrap().to_owned()
    })
}

fn recipe(arguments: &str, more: &str) -> String {
    format!(
        "aifb: 1
name: local
services:
  - name: web
    kind: container
    program: {python}
    args: [{root}/tests/support/service.py, --host, '{{host}}', --port, '{{port}}'{arguments}]
    env: {{TOKEN: generate}}
    health: {{http: /health, deadline: 5s, max: 8s}}
{more}",
        python = python().display(),
        root = env!("CARGO_MANIFEST_DIR")
    )
}

/// The Python on PATH, as an absolute path.
fn python() -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("python3"))
        .find(|path| path.exists())
        .expect("python3 is on PATH")
}

const LOAD: &str = "load:
  - name: hits
    driver: http
    http: {path: /}
    clients: 2
    arrival: {process: constant, rate: 50/s}
    phases: {warmup: 500ms, measure: MEASURE, drain: 2s}
";

struct Local {
    folder: TempDir,
}

impl Local {
    fn new(recipe: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.yaml"), recipe).unwrap();
        Self { folder }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(programs().join("aifb"));
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        for (key, _) in std::env::vars() {
            if ["AIFB_", "SLURM_", "SERVICE_"].iter().any(|prefix| key.starts_with(prefix)) {
                command.env_remove(key);
            }
        }
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn start(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn only_run(&self) -> Option<PathBuf> {
        let mut runs = fs::read_dir(self.folder.path().join("aifb-runs")).ok()?;
        runs.next().map(|entry| entry.unwrap().path())
    }

    fn record(&self) -> Value {
        self.only_run()
            .and_then(|run| fs::read(run.join("run.json")).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    #[track_caller]
    fn until(&self, what: &str, within: Duration, ready: impl Fn() -> bool) {
        let started = Instant::now();
        while !ready() {
            assert!(
                started.elapsed() < within,
                "{what} did not come within {within:?}: {:#}",
                self.record()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pids whose command line or environment names the run's folder, with what they are.
    fn processes(&self) -> Vec<(i32, String)> {
        let folder = self.folder.path().to_str().unwrap().to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let read = |file: &str| {
                let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if read("cmdline").contains(&folder)
                || read("environ").contains(&folder)
                || cwd.starts_with(&folder)
            {
                found.push((pid, read("cmdline")));
            }
        }
        found
    }

    #[track_caller]
    fn nothing_left(&self) {
        self.until("the end of all processes", Duration::from_secs(10), || {
            self.processes().is_empty()
        });
        let secrets = self.only_run().map(|run| run.join("services/web/.secrets"));
        let left = secrets.filter(|folder| folder.exists());
        assert_eq!(left, None, "secrets are left");
    }

    fn kill(&self, pattern: &str) {
        let victims: Vec<_> =
            self.processes().into_iter().filter(|(_, line)| line.contains(pattern)).collect();
        assert!(!victims.is_empty(), "no '{pattern}' in {:?}", self.processes());
        for (pid, _) in victims {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
        }
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_full_local_run() {
    let local = Local::new(&recipe("", &LOAD.replace("MEASURE", "2s")));
    let output = local.run(&["run", "--local", "x.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains("e2e") && report.contains("p99"), "{report}");
    let record = local.record();
    assert_eq!(
        (&record["state"], &record["mode"]),
        (&"completed".into(), &"local".into()),
        "{record:#}"
    );
    let report = local.run(&["report", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&report)));
    assert_eq!(report["counts"]["sent"], 100, "{report:#}");
    assert_eq!(report["counts"]["ok"], 100, "{report:#}");
    assert_eq!(report["counts"]["warmup"], 25, "{report:#}");
    local.nothing_left();
}

/// A server that answers ten at a time, each in 100 ms: a hundred a second.
fn slots(load: &str) -> String {
    format!(
        "aifb: 1
name: slots
services:
  - name: llm
    kind: container
    program: {programs}/aifb-loadgen
    args: [mock, --listen, '{{host}}:{{port}}', --slots, '10', --ttft, 100ms, --itl, 0s, --tokens, '1']
    health: {{http: /health, deadline: 5s, max: 8s}}
load:
  - name: chat
    driver: openai-chat
    clients: 2
    dataset: {{kind: synthetic, input_tokens: 8, output_tokens: 1}}
{load}",
        programs = programs().display(),
    )
}

/// The probes are decided one after the other within one run; the report tells what they found.
#[test]
fn a_search_finds_the_capacity_within_one_run() {
    let local = Local::new(&slots(
        "    arrival: {process: constant, rate: 1/s}
    phases: {warmup: 500ms, measure: 1s, drain: 10s}
    search: {slo: {ttft_p99: 1s}, from: 10/s, to: 1000/s, probe: 4s}
",
    ));
    let output = local.run(&["run", "--local", "x.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report = local.run(&["report", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&report)));
    let found = &report["searches"][0];
    assert_eq!(found["reason"], "converged", "{found:#}");
    let capacity = found["capacity"].as_f64().unwrap();
    assert!((97.0..=103.0).contains(&capacity), "{found:#}");
    let probes = found["probes"].as_array().unwrap();
    assert_eq!(probes.len(), report["results"].as_array().unwrap().len());
    assert!(probes.len() <= 10, "{found:#}");
    let shown = String::from_utf8_lossy(&local.run(&["report"]).stdout).into_owned();
    assert!(shown.contains("search chat p0\n  capacity  "), "{shown}");
    local.nothing_left();
}

#[test]
fn a_script_of_ones_own() {
    let local = Local::new(&recipe("", ""));
    let output = local.run(&[
        "run",
        "--local",
        "x.yaml",
        "--",
        "sh",
        "-c",
        "curl -sf $SERVICE_URL/ > answer",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(fs::read_to_string(local.folder.path().join("answer")).unwrap(), "hello\n");
    local.nothing_left();
}

#[test]
fn a_service_that_exits_at_once() {
    let local = Local::new(&recipe(", --exit-at-once, '3'", ""));
    let output = local.run(&["run", "--local", "x.yaml"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("flux capacitor"), "{}", text(&output));
    assert_eq!(local.record()["failure"]["owner"], "service");
    local.nothing_left();
}

#[test]
fn a_service_that_never_becomes_healthy() {
    let local = Local::new(&recipe(", --never-healthy", ""));
    let output = local.run(&["run", "--local", "x.yaml"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("503"), "{}", text(&output));
    local.nothing_left();
}

/// Starts a local run and waits until it measures.
fn measuring(arguments: &str) -> (Local, Child) {
    let local = Local::new(&recipe(arguments, &LOAD.replace("MEASURE", "60s")));
    let child = local.start(&["run", "--local", "x.yaml"]);
    local.until("the measured part", Duration::from_secs(30), || {
        local.record()["state"] == "measuring"
    });
    (local, child)
}

#[test]
fn whatever_is_killed_nothing_stays() {
    for victim in ["aifb-agent run", "aifb-agent launch", "service.py", "aifb run", "aifb-loadgen"]
    {
        let (local, mut child) = measuring(", --double-fork");
        local.kill(victim);
        if victim == "aifb-loadgen" {
            local.kill("aifb run");
        }
        child.wait().unwrap();
        local.nothing_left();
        let report = local.run(&["report", "--json"]);
        let report: Value = serde_json::from_slice(&report.stdout)
            .unwrap_or_else(|error| panic!("{victim}: {error}: {}", text(&report)));
        let state = report["state"].as_str().unwrap();
        assert!(state == "failed" || state == "cancelled", "{victim}: {report:#}");
    }
}

#[test]
fn an_interrupt_ends_everything() {
    let (local, mut child) = measuring("");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    local.nothing_left();
    assert_eq!(local.record()["state"], "cancelled", "{:#}", local.record());
}

/// While a run lives its agents can be told what to send; what they could not send is told by the
/// report and sent afterwards.
#[test]
fn logs_are_set_while_a_run_lives_and_resent_after_it() {
    let receiver = loki_stand_in::Receiver::start(loki_stand_in::Config::default()).unwrap();
    receiver.set_down(true);
    let load = LOAD.replace("MEASURE", "60s");
    let local =
        Local::new(&recipe("", &format!("{load}monitor: {{loki: {:?}}}\n", receiver.url())));
    let mut running = local.start(&["run", "--local", "x.yaml"]);
    local.until("the load", Duration::from_secs(20), || local.record()["state"] == "measuring");
    let set = local.run(&["logs", "set", "--level", "error", "--until", "2030-01-01T00:00:00Z"]);
    assert!(text(&set).contains(": error until 2030-01-01T00:00:00Z"), "{}", text(&set));
    let refused = local.run(&["logs", "resend"]);
    assert!(
        text(&refused).contains("its agents are still running and send the logs themselves"),
        "{}",
        text(&refused)
    );
    assert_eq!(local.run(&["stop"]).status.code(), Some(0));
    running.wait().unwrap();
    let report = text(&local.run(&["report"]));
    assert!(report.contains("bytes of its logs were not sent"), "{report}");
    receiver.set_down(false);
    let resent = local.run(&["logs", "resend"]);
    assert_eq!(resent.status.code(), Some(0), "{}", text(&resent));
    assert!(receiver.store().summary()["stored"].as_u64().unwrap() > 0);
    let report = text(&local.run(&["report"]));
    assert!(!report.contains("its logs"), "{report}");
    local.nothing_left();
}
