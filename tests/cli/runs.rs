//! Verbs that read a run folder, and `aifb load` in a job of stand-ins.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::{
    programs::{GOOD, Place},
    stand_ins::{called, make, place},
};

/// A run folder as a run leaves it behind.
pub(crate) fn make_run(place: &Place, id: &str, job: Option<u32>, state: &str) -> PathBuf {
    let folder = place.folder.path().join("aifb-runs").join(id);
    for sub in ["nodes/n1", "services/web", "load"] {
        fs::create_dir_all(folder.join(sub)).unwrap();
    }
    let failure = (state == "failed").then(|| {
        json!({"owner": "service", "part": "web", "reason": "exited with code 3", "exit_code": 4,
               "hint": "mend it", "log_tail": "one\ntwo"})
    });
    let mut record = json!({
        "protocol": 1, "version": "0.1.0", "run_id": id, "name": "good", "mode": "wrapper",
        "uid": 0, "state": state, "recipe_path": "/x.yaml", "recipe_sha256": "",
        "sets": ["load.hits.repeat=2"],
        "job": {"components": [["n1", "n2"]]}, "submit_dir": "/",
        "started_epoch_ns": 1_700_000_000_000_000_000_u64,
        "healthy_epoch_ns": 1_700_000_001_000_000_000_u64,
        "ended": {"epoch_ns": 1_700_000_090_000_000_000_u64},
    });
    if let Some(job) = job {
        record["job"]["id"] = job.into();
    }
    if let Some(failure) = failure {
        record["failure"] = failure;
    }
    fs::write(folder.join("run.json"), record.to_string()).unwrap();
    fs::write(folder.join("recipe.yaml"), GOOD).unwrap();
    fs::write(folder.join(".token"), "0".repeat(64)).unwrap();
    let endpoint = json!({"service": "web", "replica": 0, "node": "n1", "host": "n1", "port": 8080,
        "url": "http://n1:8080", "healthy_epoch_ns": 1});
    fs::write(folder.join("services/web/endpoint.json"), endpoint.to_string()).unwrap();
    fs::write(folder.join("services/web/stdout.log"), "first\nsecond\nthird\n").unwrap();
    fs::write(folder.join("services/web/stderr.log"), "problem\n").unwrap();
    fs::write(folder.join("nodes/n1/agent.log"), "agent line\n").unwrap();
    let event = json!({"epoch_ns": 1_700_000_001_500_000_000_u64, "mono_ns": 1, "node": "n1",
        "kind": "service", "subject": "web", "message": "healthy"});
    fs::write(folder.join("events.jsonl"), format!("{event}\n{{\"torn")).unwrap();
    folder
}

#[test]
fn a_run_that_ended_is_shown_from_its_files() {
    let place = place();
    make_run(&place, "c-17", None, "completed");
    let ran = place.aifb(&["status"]);
    for words in ["c-17 (good, wrapper)", "completed", "1.0s after the start", "http://n1:8080"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    let status = place.aifb(&["status", "17", "--json"]).json();
    assert_eq!(
        (&status["liveness"], &status["run"]["state"]),
        (&"ended".into(), &"completed".into())
    );
    let listed = place.aifb(&["list", "--json"]).json();
    assert_eq!(listed[0]["run"]["run_id"], "c-17");
    let watched = place.aifb(&["watch", "c-17"]);
    assert!(watched.stdout.contains("1.5s  service web: healthy (n1)"), "{watched:?}");
    assert!(watched.code == 0 && watched.stdout.ends_with("c-17 completed\n"), "{watched:?}");
    let stopped = place.aifb(&["stop", "17", "--json"]).json();
    assert_eq!(stopped["how"], "had ended already");
}

#[test]
fn a_failed_run_says_who_and_why() {
    let place = place();
    make_run(&place, "c-18", None, "failed");
    let ran = place.aifb(&["status", "18"]);
    assert!(ran.stdout.contains("failed: web: exited with code 3 (cause: service)"), "{ran:?}");
    assert_eq!(place.aifb(&["watch", "18"]).code, 4);
    let ran = place.aifb(&["wait", "18"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    for words in ["exited with code 3", "hint: mend it", "| two"] {
        assert!(ran.stderr.contains(words), "{words}: {ran:?}");
    }
    let lines: Vec<_> =
        place.aifb(&["watch", "18", "--json"]).stdout.lines().map(str::to_owned).collect();
    let last: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["run"]["state"]), (&"end".into(), &"failed".into()));
}

/// The recorder is gone, Slurm knows that the job ended: a reader says so and keeps what Slurm said.
#[test]
fn a_lost_run_is_told_from_slurms_records() {
    let place = place();
    let folder = make_run(&place, "c-19", Some(19), "measuring");
    make(&place, "sacct", "echo 'NODE_FAIL|0:0|None'");
    let status = place.aifb(&["status", "19", "--json"]).json();
    assert_eq!((&status["liveness"], &status["run"]["state"]), (&"lost".into(), &"failed".into()));
    assert!(status["run"]["failure"]["reason"].as_str().unwrap().contains("coordinator lost"));
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("run.json")).unwrap()).unwrap();
    assert_eq!(kept["slurm"]["state"], "NODE_FAIL");
    assert_eq!(kept["state"], "measuring", "only Slurm's part is added to the record");
    // Asked once.
    place.aifb(&["status", "19"]);
    let asked = called(&place, "sacct").iter().filter(|word| *word == "--jobs=19").count();
    assert_eq!(asked, 1);
}

#[test]
fn a_run_whose_job_goes_on_is_not_lost() {
    let place = place();
    make_run(&place, "c-20", Some(20), "measuring");
    make(&place, "sacct", "echo 'RUNNING|0:0|None'");
    make(&place, "scancel", "true");
    let status = place.aifb(&["status", "20", "--json"]).json();
    assert_eq!(
        (&status["liveness"], &status["run"]["state"]),
        (&"silent".into(), &"measuring".into())
    );
    // Nobody answers: stopping it is Slurm's business.
    let stopped = place.aifb(&["stop", "20", "--json"]).json();
    assert_eq!(stopped["how"], "no agent responds; job cancelled");
    assert_eq!(called(&place, "scancel"), ["20"]);
}

#[test]
fn logs_are_shown_from_their_end() {
    let place = place();
    make_run(&place, "c-17", None, "completed");
    let shown = place.aifb(&["logs", "show", "17", "--lines", "2"]).stdout;
    assert_eq!(shown, "web/stdout: second\nweb/stdout: third\nweb/stderr: problem\n");
    let shown =
        place.aifb(&["logs", "show", "17", "--service", "web", "--stderr", "--json"]).stdout;
    assert_eq!(shown, "{\"file\":\"web/stderr\",\"text\":\"problem\"}\n");
    assert_eq!(place.aifb(&["logs", "show", "--agent"]).stdout, "n1/agent: agent line\n");
    let followed = place.aifb(&["logs", "follow", "17", "--stdout"]);
    assert!(followed.stdout.ends_with("third\n"), "{followed:?}");
    let ran = place.aifb(&["logs", "show", "17", "--service", "wbe"]);
    assert!(ran.code == 2 && ran.stderr.contains("services with logs: web"), "{ran:?}");
}

/// The gateway may be named by the environment alone, with a password in its URL.
#[test]
fn a_gateway_of_the_environment_is_found_and_its_password_not_shown() {
    let place = place();
    make_run(&place, "c-17", None, "completed");
    let gateway = |name: &str, value: &str| {
        let mut command = place.command(&["metrics", "17", "--delete"]);
        let output = command.env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = gateway("PUSHGATEWAY_URL", "http://me:s3cret@127.0.0.1:1/");
    assert!(
        said.contains("at 'http://…@127.0.0.1:1/metrics/job") && !said.contains("s3c"),
        "{said}"
    );
    let said = gateway("MONITORING_NODE", "localhost.invalid");
    assert!(said.contains("at 'http://localhost.invalid:9091/metrics/job"), "{said}");
}

#[test]
fn logs_are_shown_by_their_level() {
    let place = place();
    let folder = make_run(&place, "c-17", None, "completed");
    let log = "INFO up\nWARNING slow\n  at x\nplain\nERROR no\n";
    fs::write(folder.join("services/web/stdout.log"), log).unwrap();
    let shown = |level: &str| place.aifb(&["logs", "show", "17", "--stdout", "--level", level]);
    assert_eq!(shown("error").stdout, "web/stdout: ERROR no\n");
    let warned = "web/stdout: WARNING slow\nweb/stdout:   at x\nweb/stdout: ERROR no\n";
    assert_eq!(shown("warn").stdout, warned);
    assert_eq!(shown("warning").stdout, warned);
    assert_eq!(shown("info").stdout.lines().count(), 5, "a line without a level is an info");
    let words = ["logs", "show", "17", "--level", "warn", "--lines", "2", "--json"];
    let lines: Vec<serde_json::Value> =
        place.aifb(&words).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = serde_json::json!([
        {"file": "web/stdout", "level": "warning", "text": "  at x"},
        {"file": "web/stdout", "level": "error", "text": "ERROR no"},
    ]);
    assert_eq!(serde_json::Value::from(lines), expected);
    let followed = place.aifb(&["logs", "follow", "17", "--level", "error"]);
    assert_eq!(followed.stdout, "web/stdout: ERROR no\n");
    let ran = shown("loud");
    assert!(ran.code == 2 && ran.stderr.contains("[possible values: debug, info"), "{ran:?}");
}

#[test]
fn the_environment_of_a_run_is_printed() {
    let place = place();
    let folder = make_run(&place, "c-17", Some(17), "completed");
    let env = place.aifb(&["env", "17", "--json"]).json();
    assert_eq!(env["SERVICE_URL"], "http://n1:8080");
    assert_eq!(env["SERVICE_WEB_PORT"], "8080");
    assert_eq!(env["AIFB_JOB_ID"], "17");
    assert_eq!(env["AIFB_RUN_DIR"], folder.canonicalize().unwrap().to_str().unwrap());
    let sh = place.aifb(&["env", "17", "--sh"]).stdout;
    assert!(sh.contains("export SERVICE_NAME='web'\n"), "{sh}");
}

#[test]
fn runs_are_looked_for_where_they_are_named() {
    let place = place();
    make_run(&place, "c-17", None, "completed");
    fs::rename(place.folder.path().join("aifb-runs"), place.folder.path().join("kept")).unwrap();
    assert_eq!(place.aifb(&["status", "17"]).code, 2);
    assert_eq!(place.aifb(&["status", "17", "--runs", "kept"]).code, 0);
    assert_eq!(place.aifb(&["status", "kept/c-17"]).code, 0);
    let output = place.command(&["status", "17"]).env("AIFB_RUNS", "kept").output().unwrap();
    assert!(output.status.success());
    assert_eq!(place.aifb(&["list", "--runs", "nowhere"]).code, 0);
}

/// Variables of a run count only in the job they belong to.
#[test]
fn the_run_of_another_job_is_ignored() {
    let place = place();
    let folder = make_run(&place, "c-17", Some(17), "healthy");
    let load = |slurm: &[(&str, &str)]| {
        let mut command = place.command(&["load", "--dry-run"]);
        command.env("AIFB_JOB_ID", "17").env("AIFB_RUN_DIR", &folder);
        command.envs(slurm.iter().copied()).current_dir("/");
        crate::programs::Ran::of(command.output().unwrap())
    };
    assert_eq!(load(&[("SLURM_JOB_ID", "17")]).code, 0);
    assert_eq!(load(&[("SLURM_JOB_ID", "18"), ("SLURM_HET_JOB_ID", "17")]).code, 0);
    for other in [&[("SLURM_JOB_ID", "18")][..], &[]] {
        let ran = load(other);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("hint: "), "{ran:?}");
    }
}

#[test]
fn load_places_its_steps() {
    let place = place();
    let folder = make_run(&place, "c-17", Some(17), "healthy");
    fs::create_dir_all(folder.join("load/hits/p0/r0")).unwrap();
    let mut command = place.command(&["load", "--dry-run"]);
    command.env("SLURM_JOB_ID", "17").env("SLURM_NTASKS", "99");
    let ran = crate::programs::Ran::of(command.output().unwrap());
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "one line a repeat: {ran:?}");
    for (line, repeat) in lines.iter().zip([1, 2]) {
        for word in [
            "srun --jobid=17 ",
            "--overlap",
            "--nodes=1 ",
            "--ntasks=3",
            "--nodelist=n2",
            "--cpu-bind=none",
            "--mem=0",
            "aifb-loadgen --load hits --point 0",
        ] {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert!(line.ends_with(&format!("--repeat {repeat}")), "{line}");
    }
    let mut command = place.command(&["load", "nonsense", "--dry-run"]);
    let ran = crate::programs::Ran::of(command.env("SLURM_JOB_ID", "17").output().unwrap());
    assert!(ran.code == 2 && ran.stderr.contains("loads: hits"), "{ran:?}");
}

/// srun is called with a clean environment but for the run's, and its failure is Slurm's.
#[test]
fn a_step_that_cannot_start_is_slurms_failure() {
    let place = place();
    make_run(&place, "c-17", Some(17), "healthy");
    make(
        &place,
        "srun",
        "env > \"$log.env\"\necho 'srun: error: Unable to create step' >&2\nexit 1",
    );
    let mut command = place.command(&["load"]);
    command.env("SLURM_JOB_ID", "17").env("SLURM_NTASKS", "99").env("SLURM_CONF", "/etc/x");
    let ran = crate::programs::Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("Unable to create step"), "{ran:?}");
    let env = fs::read_to_string(place.folder.path().join("slurm/srun.log.env")).unwrap();
    assert!(!env.contains("SLURM_NTASKS") && env.contains("SLURM_CONF=/etc/x"), "{env}");
    assert!(env.contains("AIFB_RUN_DIR=") && env.contains("SERVICE_URL=http://n1:8080"), "{env}");
    // A first step that failed so ends the rest.
    assert_eq!(called(&place, "srun").iter().filter(|word| *word == "--overlap").count(), 1);
}

#[test]
fn a_second_run_in_a_job_is_refused() {
    let place = place();
    let folder = make_run(&place, "c-17", Some(17), "healthy");
    place.write("x.yaml", GOOD);
    let mut command = place.command(&["up", "x.yaml"]);
    command.env("SLURM_JOB_ID", "17").env("AIFB_JOB_ID", "17").env("AIFB_RUN_DIR", &folder);
    let ran = crate::programs::Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("it already has a run"), "{ran:?}");
}

/// The smallest example, for real, with every verb that a script of a local run can use.
#[test]
fn an_example_runs_without_slurm() {
    let place = Place::new();
    let python = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("python3"))
        .find(|path| path.is_file())
        .expect("python3 is on PATH");
    let program = format!("services.web.program={}", python.display());
    let recipe = place.aifb(&["recipe", "show", "http-program"]).stdout;
    place.write("x.yaml", &recipe);
    let script = "set -e
        [ \"$SERVICE_NAME\" = web ] && [ -d \"$AIFB_RUN_DIR\" ]
        aifb wait --json >wait.json
        aifb status --json >status.json
        aifb load get --json >load.json
        aifb env --sh >env.sh
        if aifb up x.yaml; then exit 9; fi";
    let mut command = place.command(&["run", "--local", "x.yaml", "--json", "--sequential"]);
    command.args(["--set", &program, "--set", "load.get.phases={warmup: 0s, measure: 1s}"]);
    command.args(["--", "sh", "-c", script]);
    // Inside the job of somebody else's, whose variables must not count.
    command.env("SLURM_JOB_ID", "4711").env("AIFB_JOB_ID", "4711").env("AIFB_RUN_DIR", "/nowhere");
    let ran = crate::programs::Ran::of(command.output().unwrap());
    let answer = ran.json();
    assert_eq!((&answer["ok"], &answer["state"]), (&true.into(), &"completed".into()), "{ran:?}");
    let read = |name: &str| {
        let text = fs::read_to_string(place.folder.path().join(name)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text)
            .unwrap_or_else(|e| panic!("{name}: {e}: {text}"))
    };
    assert_eq!(read("status.json")["liveness"], "alive");
    assert_eq!(read("wait.json")["endpoints"][0]["service"], "web");
    let counts = &read("load.json")["counts"];
    assert!(counts["sent"].as_u64().unwrap() > 50, "{counts:#}");
    assert_eq!(counts["sent"], counts["ok"], "{counts:#}");
    let listed = place.aifb(&["list", "--json"]).json();
    assert_eq!(listed[0]["run"]["sets"][2], "start=sequential", "{listed:#}");
}
