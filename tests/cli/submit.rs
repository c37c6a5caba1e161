//! `aifb run` and `aifb doctor` against stand-ins of Slurm's commands.

use std::fs;

use crate::{
    programs::{GOOD, Place},
    stand_ins::{called, make, place},
};

/// An sbatch that knows the plugin or not, and answers with job 17.
fn sbatch(place: &Place, plugin: bool) {
    let option = if plugin { "--aifb-recipe=FILE" } else { "" };
    make(
        place,
        "sbatch",
        &format!(
            "case $1 in --help) echo 'usage {option}'; exit;; esac\ncat > \"${{log%.log}}.stdin\"\necho '17;cluster'"
        ),
    );
}

fn script_given_to_sbatch(place: &Place) -> String {
    fs::read_to_string(place.folder.path().join("slurm/sbatch.stdin")).unwrap()
}

#[test]
fn with_the_plugin_the_options_are_its_own() {
    let place = place();
    sbatch(&place, true);
    place.write("x.yaml", GOOD);
    let ran = place.aifb(&[
        "run",
        "x.yaml",
        "--no-wait",
        "--sequential",
        "--set",
        "load.hits.seed=7",
        "--runs",
        "kept",
        "--sbatch=--comment=a b",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "ok 17\n"), "{ran:?}");
    let folder = place.folder.path().canonicalize().unwrap();
    let expected = [
        "--help".to_owned(),
        "--parsable".into(),
        "--job-name=good".into(),
        "--nodes=2".into(),
        "--time=00:10:00".into(),
        "--comment=a b".into(),
        format!("--aifb-recipe={}/x.yaml", folder.display()),
        "--aifb-set=load.hits.seed=7".into(),
        "--aifb-set=start=sequential".into(),
        format!("--aifb-runs={}/kept", folder.display()),
    ];
    assert_eq!(called(&place, "sbatch"), expected);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/sbatch-wrappers/benchmark.sbatch");
    assert_eq!(script_given_to_sbatch(&place), fs::read_to_string(shipped).unwrap());
}

#[test]
fn without_the_plugin_the_script_starts_the_run() {
    let place = place();
    sbatch(&place, false);
    place.write("x.yaml", GOOD);
    place.write("job.sh", "#!/bin/bash\n#SBATCH --exclusive\n\necho \"$1\"\n");
    let ran = place.aifb(&["run", "x.yaml", "--no-wait", "--json", "--", "job.sh", "it's"]);
    assert_eq!(ran.json(), serde_json::json!({"ok": true, "job_id": 17}));
    assert!(!called(&place, "sbatch").iter().any(|word| word.contains("aifb-")));
    let script = script_given_to_sbatch(&place);
    assert!(script.starts_with("#!/bin/bash\n#SBATCH --exclusive\n"), "{script}");
    assert!(script.contains("SLURM_SPANK_AIFB_SNAPSHOT='aifb1:"), "{script}");
    assert!(script.contains("/aifb' up --sh)"), "{script}");
    assert!(script.contains("set -- 'it'\\''s'"), "{script}");
    assert!(script.ends_with("\necho \"$1\"\n"), "{script}");
}

#[test]
fn a_dry_run_shows_exactly_what_is_submitted() {
    let place = place();
    sbatch(&place, false);
    place.write("x.yaml", GOOD);
    let shown = place.aifb(&["run", "x.yaml", "--dry-run"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert_eq!(called(&place, "sbatch"), ["--help"]);
    // What is shown is a command: run by a shell it submits the very same.
    place.aifb(&["run", "x.yaml", "--no-wait"]);
    let (words, script) = (called(&place, "sbatch"), script_given_to_sbatch(&place));
    fs::remove_file(place.folder.path().join("slurm/sbatch.log")).unwrap();
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &shown.stdout])
        .env("PATH", &place.path)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"17;cluster\n");
    assert_eq!(called(&place, "sbatch"), words[2..]);
    assert_eq!(script_given_to_sbatch(&place), script);
    let json = place.aifb(&["run", "x.yaml", "--dry-run", "--json"]).json();
    assert_eq!((&json["argv"][0], &json["script"]), (&"sbatch".into(), &script.as_str().into()));
}

#[test]
fn clients_elsewhere_make_a_heterogeneous_job() {
    let place = place();
    sbatch(&place, true);
    place.write(
        "x.yaml",
        &format!("{GOOD}    slurm: {{partition: cpu, nodes: 1, exclusive: true}}\n"),
    );
    let shown = place.aifb(&["run", "x.yaml", "--dry-run", "--", "job.sh"]).stdout;
    let (first, second) = shown.split_once(" : ").unwrap();
    assert!(first.contains("--aifb-recipe="), "{shown}");
    assert_eq!(second.trim(), "--exclusive --nodes=1 --partition=cpu --time=00:10:00 job.sh");
}

#[test]
fn a_refusal_answers_ko_with_slurms_words() {
    let place = place();
    make(
        &place,
        "sbatch",
        "case $1 in --help) exit;; esac\necho 'sbatch: error: Batch job submission failed: Invalid account' >&2\nexit 1",
    );
    place.write("x.yaml", GOOD);
    let ran = place.aifb(&["run", "x.yaml"]);
    assert_eq!((ran.code, ran.stdout.lines().next()), (3, Some("ko")), "{ran:?}");
    assert!(ran.stderr.contains("Batch job submission failed: Invalid account"), "{ran:?}");
    let ran = place.aifb(&["run", "x.yaml", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &answer["ok"]), (3, &false.into()));
    assert!(answer["reason"].as_str().unwrap().contains("Invalid account"), "{answer}");
}

#[test]
fn the_plugin_can_be_demanded() {
    let place = place();
    sbatch(&place, false);
    place.write("x.yaml", GOOD);
    let ran = place.aifb(&["run", "x.yaml", "--plugin", "always"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("--aifb-recipe") && ran.stderr.contains("hint: "), "{ran:?}");
    sbatch(&place, true);
    let ran = place.aifb(&["run", "x.yaml", "--plugin", "never", "--dry-run"]);
    assert!(ran.stdout.contains("up --sh"), "{ran:?}");
}

#[test]
fn without_slurm_it_is_said_so() {
    let place = place();
    place.write("x.yaml", GOOD);
    let ran = place.aifb(&["run", "x.yaml"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("aifb run --local"), "{ran:?}");
}

#[test]
fn a_bad_job_script_is_refused_before_submission() {
    let place = place();
    sbatch(&place, false);
    place.write("x.yaml", GOOD);
    place.write("job.py", "#!/usr/bin/env python3\nprint(1)\n");
    for script in ["job.py", "missing.sh", "/dev/zero"] {
        let ran = place.aifb(&["run", "x.yaml", "--", script]);
        assert_eq!(ran.code, 2, "{script}: {ran:?}");
        assert!(ran.stderr.contains(script), "{ran:?}");
    }
    assert!(!called(&place, "sbatch").contains(&"--parsable".to_owned()));
}

/// A whole job in the eyes of `aifb run`: pending, running, gone; no run came up.
#[test]
fn a_job_without_a_run_is_explained() {
    let place = place();
    sbatch(&place, true);
    make(
        &place,
        "squeue",
        "n=$(grep -c noheader \"$log\")\ncase $n in 1) echo 'PENDING|Resources|N/A';; 2) echo 'RUNNING|None|N/A';; *) echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1;; esac",
    );
    make(&place, "sacct", "echo 'FAILED|9:0|None'");
    place.write("x.yaml", GOOD);
    let ran = place.aifb(&["run", "x.yaml"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("job 17 pending: Resources"), "{ran:?}");
    assert!(ran.stderr.contains("job 17 running"), "{ran:?}");
    assert!(ran.stderr.contains("FAILED") && ran.stderr.contains("slurm-17.out"), "{ran:?}");
}

#[test]
fn doctor_names_what_is_wrong_and_what_helps() {
    let place = place();
    let ran = place.aifb(&["doctor"]);
    assert!(ran.stdout.contains("warn  Slurm commands:"), "{ran:?}");
    assert!(ran.stdout.contains("fix: "), "{ran:?}");
    sbatch(&place, false);
    make(&place, "srun", "echo usage");
    make(&place, "salloc", "echo usage");
    make(&place, "squeue", "echo '5|InvalidAccount|N/A'");
    make(
        &place,
        "scontrol",
        "echo 'ClusterName = test'; echo 'ProctrackType = proctrack/linuxproc'; echo 'KillWait = 30 sec'",
    );
    let ran = place.aifb(&["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let of = |name: &str| {
        let found = checks.as_array().unwrap().iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {checks:#}")).clone()
    };
    assert_eq!(of("plugin")["verdict"], "warn");
    assert_eq!(of("process tracking")["verdict"], "warn");
    assert_eq!(of("time to stop")["verdict"], "ok");
    assert_eq!(of("aifb-agent")["verdict"], "ok");
    assert!(of("pending job")["fix"].as_str().unwrap().contains("sacctmgr"));
    assert_eq!(ran.code, 0, "{checks:#}");
    // What cannot be written is a failure.
    let ran = place.aifb(&["doctor", "--runs", "/proc/nowhere"]);
    assert_eq!(ran.code, 1, "{ran:?}");
}
