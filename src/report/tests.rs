//! Reports of whole run folders: exact values, exact text.

use std::{collections::BTreeMap, fs, path::Path};

use aifb_runfolder::{RepeatFolder, worker};
use aifb_schema::{
    names::exit,
    result::{LoadResult, Report, Window},
    run::{Owner, State},
};
use tempfile::TempDir;

use super::{
    Life, build, exit_code,
    fixture::{self, Folder, SECOND, START},
    text, write,
};
use crate::{
    observe::{Liveness, liveness},
    store::RunFolder,
};

/// A fixture in a folder of its own.
fn made(name: &str) -> (TempDir, RunFolder) {
    let temporary = tempfile::tempdir().unwrap();
    let (_, folder) = fixture::all().into_iter().find(|(known, _)| *known == name).unwrap();
    folder.write(temporary.path());
    let run = RunFolder::open(temporary.path()).unwrap();
    (temporary, run)
}

/// The report of a fixture whose end needs nobody to be asked.
fn report_of(name: &str) -> Report {
    let (_temporary, run) = made(name);
    build(&run, run.record().unwrap(), &Life::Over, &nothing)
}

/// Where the workers left nothing that helps.
fn nothing(_repeat: &RepeatFolder) -> Result<LoadResult, String> {
    Err("there is no record of any worker".into())
}

fn files_below(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files_below(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read(&path).unwrap());
        }
    }
}

/// The kept fixtures are what the present types write, and their reports are what they were. A
/// change of either is a change of a format that users have.
#[test]
fn kept_runs_and_their_reports_have_not_changed() {
    for (name, mut folder) in fixture::all() {
        let (temporary, run) = made(name);
        let report = build(&run, run.record().unwrap(), &Life::Over, &nothing);
        // Paths of this test's folder are no part of the format.
        let here = run.path().to_str().unwrap();
        let text = text(&report, here).replace(here, "/runs/x");
        let json = serde_json::to_string_pretty(&report).unwrap().replace(here, "/runs/x");
        drop(temporary);
        folder.0.insert("expected-report.txt".into(), text.into_bytes());
        folder.0.insert("expected-report.json".into(), (json + "\n").into_bytes());
        let kept = fixture::kept(name);
        if std::env::var_os("AIFB_BLESS").is_some() {
            drop(fs::remove_dir_all(&kept));
            folder.write(&kept);
        }
        let mut found = BTreeMap::new();
        files_below(&kept, &kept, &mut found);
        let names = |folder: &Folder| folder.0.keys().cloned().collect::<Vec<_>>();
        let found = Folder(found);
        assert_eq!(names(&found), names(&folder), "{name}");
        for (file, bytes) in &folder.0 {
            let (now, kept) =
                (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&found.0[file]));
            assert!(now == kept, "{name}/{file} would now be:\n{now}\n(AIFB_BLESS=1 keeps it)");
        }
    }
}

#[test]
fn a_complete_run() {
    let report = report_of("complete");
    assert_eq!(report.state, State::Completed);
    assert!(report.warnings.is_empty() && report.missing.is_empty(), "{report:?}");
    assert_eq!(report.counts, report.results[0].counts);
    assert!(report.counts.balanced());
    assert_eq!(report.metrics.as_ref(), Some(&report.results[0].metrics));
    let window = Window { start_epoch_ns: START + 10 * SECOND, end_epoch_ns: START + 15 * SECOND };
    assert_eq!(report.window, Some(window));
    let [n1, n2] = report.nodes.as_slice() else { panic!("{report:?}") };
    assert_eq!((n1.node.as_str(), n1.samples, n1.gaps, n1.seconds), ("n1", 6, 0, 5.0));
    assert_eq!((n1.node_cpu_seconds, n1.job_cpu_seconds), (Some(5.0), Some(2.5)));
    assert_eq!(n1.service_cpu_seconds, BTreeMap::from([("llm".into(), 1.25)]));
    assert_eq!(n1.service_memory_max_bytes, BTreeMap::from([("llm".into(), 515_000_000)]));
    assert_eq!(n1.agent_cpu_seconds, Some(5.0 / 1024.0));
    assert_eq!(n1.agent_memory_max_bytes, Some(4 << 20));
    assert_eq!(n1.node_memory_max_bytes, Some(2_015_000_000));
    assert_eq!(n1.job_memory_max_bytes, Some(1_015_000_000));
    assert_eq!((n1.network_received_bytes, n1.network_sent_bytes), (Some(10_240), Some(5_120)));
    assert_eq!((n1.disk_read_bytes, n1.disk_written_bytes), (None, None));
    assert!(n2.service_cpu_seconds.is_empty());
    assert_eq!(exit_code(&report, |_| true), exit::OK);
}

#[test]
fn a_sweep_that_lost_a_worker() {
    let report = report_of("sweep");
    assert_eq!(report.metrics, None);
    assert_eq!(report.missing, ["chat/p1/r1"]);
    let counts = report.counts;
    assert_eq!((counts.sent, counts.ok, counts.failed), (305, 250, 4));
    assert_eq!((counts.cancelled, counts.unfinished, counts.warmup), (1, 50, 75));
    assert_eq!((counts.planned, counts.unsent), (Some(307), Some(2)));
    assert!(counts.balanced());
    // From second 10 to 35, without 21, 22 and 23.
    assert_eq!((report.nodes[0].samples, report.nodes[0].gaps), (23, 3));
    assert_eq!(report.nodes[0].node_cpu_seconds, Some(25.0));
    let warnings = report.warnings.join("\n");
    for part in [
        "load chat/p1/r0: incomplete; workers lost: 1",
        "load chat/p1/r1: begun, but without a result",
        "node n1: 3 of 26 samples are missing",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
    assert_eq!(exit_code(&report, |_| false), exit::INCOMPLETE);
}

#[test]
fn a_failed_service_with_torn_and_missing_files() {
    let report = report_of("service-failed");
    assert!(report.results.is_empty() && report.window.is_none());
    assert_eq!(report.nodes.len(), 1);
    assert_eq!((report.nodes[0].samples, report.nodes[0].seconds), (3, 2.0));
    let warnings = report.warnings.join("\n");
    for part in [
        "service llm: asked for n2, runs on n1",
        "recipe: the time limit is short",
        "events.jsonl: its last line is torn (15 bytes)",
        "node n1: its samples end without an end mark, and with ",
        "node n1, step 0: out of memory: the kernel killed 2 processes",
        "node n2: no samples: No such file or directory",
    ] {
        assert!(warnings.contains(part), "'{part}' is missing:\n{warnings}");
    }
    assert_eq!(warnings.matches("runs on n1").count(), 1, "{warnings}");
    assert_eq!(exit_code(&report, |_| false), exit::SERVICE);
}

#[test]
fn a_run_whose_coordinator_is_gone_has_failed() {
    let (_temporary, run) = made("coordinator-lost");
    let mut record = run.record().unwrap();
    assert!(matches!(liveness(&run, &mut record), Liveness::Lost));
    let report = build(&run, record, &Life::Over, &nothing);
    assert_eq!(report.state, State::Failed);
    let failure = report.run.failure.as_ref().unwrap();
    assert_eq!(failure.owner, Owner::Node);
    assert!(failure.reason.starts_with("coordinator lost"), "{failure:?}");
    assert_eq!(report.missing, ["chat/p0/r0"]);
    assert_eq!(report.nodes[0].samples, 13);
    assert_eq!(exit_code(&report, |_| false), exit::INCOMPLETE);
    assert!(
        text(&report, "/x").contains("state    failed\nfailure  coordinator: coordinator lost")
    );
}

#[test]
fn a_run_that_goes_on_misses_nothing_yet() {
    let (_temporary, run) = made("coordinator-lost");
    let report = build(&run, run.record().unwrap(), &Life::GoesOn, &nothing);
    assert_eq!((report.state, report.missing.len()), (State::Measuring, 0));
    assert_eq!(
        report.warnings,
        ["the run goes on: these are its figures so far", "load chat/p0/r0: no result yet"]
    );
    assert_eq!(exit_code(&report, |_| false), exit::OK);
    let silent = build(&run, run.record().unwrap(), &Life::Silent("refused".into()), &nothing);
    assert!(silent.warnings[0].ends_with("its coordinator is silent: refused"), "{silent:?}");
}

#[test]
fn a_result_that_was_never_written_is_made_from_the_workers_files() {
    let (_temporary, run) = made("coordinator-lost");
    let rebuild = |repeat: &RepeatFolder| {
        assert!(worker::checkpoint(repeat.path(), 0).is_file());
        assert_eq!(repeat.to_string(), "chat/p0/r0");
        Ok(LoadResult { complete: false, ..report_of("complete").results[0].clone() })
    };
    let report = build(&run, run.record().unwrap(), &Life::Over, &rebuild);
    assert_eq!((report.counts.ok, report.missing.len()), (100, 0));
    let warnings = report.warnings.join("\n");
    assert!(warnings.contains("load chat/p0/r0: its leader wrote no result"), "{warnings}");
    assert!(warnings.contains("load chat/p0/r0: incomplete"), "{warnings}");
    assert_eq!(exit_code(&report, |_| false), exit::INCOMPLETE);
}

#[test]
fn hostile_files_are_warnings() {
    let (temporary, run) = made("complete");
    let result = temporary.path().join("load/chat/p0/r0/result.json");
    let good = fs::read_to_string(&result).unwrap();
    for (bad, reason) in [
        ("", "EOF while parsing"),
        ("{}", "missing field"),
        (&good[..good.len() / 2], "EOF while parsing"),
        (&good.replacen("\"version\": 1", "\"version\": 2", 1), "version 2, this program knows 1"),
    ] {
        fs::write(&result, bad).unwrap();
        let report = build(&run, run.record().unwrap(), &Life::Over, &nothing);
        assert_eq!(report.missing, ["chat/p0/r0"]);
        assert!(report.warnings[0].contains(reason), "{:?}", report.warnings);
    }
    fs::write(&result, good.replace("\"sent\": 102", "\"sent\": 103")).unwrap();
    let samples = temporary.path().join("nodes/n1/samples.bin");
    fs::write(&samples, "no samples at all").unwrap();
    fs::remove_file(temporary.path().join("nodes/n2/samples.bin")).unwrap();
    fs::create_dir(temporary.path().join("nodes/n2/samples.bin")).unwrap();
    let report = build(&run, run.record().unwrap(), &Life::Over, &nothing);
    let warnings = report.warnings.join("\n");
    for part in [
        "do not add up",
        "node n1: no samples: not a samples file",
        "node n2: no samples: is a directory",
    ] {
        assert!(warnings.contains(part), "'{part}' is missing:\n{warnings}");
    }
    assert!(report.nodes.is_empty());
}

#[test]
fn a_measured_part_between_two_samples_falls_back_to_the_whole_run() {
    let (_temporary, run) = made("complete");
    let mut warnings = Vec::new();
    let window = Window { start_epoch_ns: START + SECOND / 4, end_epoch_ns: START + SECOND / 2 };
    let record = run.record().unwrap();
    let (nodes, window) =
        super::read::nodes(&run, &record, &Life::Over, Some(window), &mut warnings);
    assert_eq!((window, nodes[0].samples, nodes[0].node_cpu_seconds), (None, 21, Some(20.0)));
    assert!(warnings[0].contains("too short"), "{warnings:?}");
}

#[test]
fn the_exit_code_tells_the_worst() {
    let mut report = report_of("complete");
    assert_eq!(exit_code(&report, |_| true), exit::OK);
    report.results[0].verdicts = report_of("sweep").results[1].verdicts.clone();
    assert_eq!(exit_code(&report, |_| false), exit::OK);
    assert_eq!(exit_code(&report, |load| load == "chat"), exit::UNBELIEVABLE);
    report.results[0].counts.ok = 0;
    assert_eq!(exit_code(&report, |_| true), exit::CHECK_FAILED);
    report.results[0].complete = false;
    assert_eq!(exit_code(&report, |_| true), exit::INCOMPLETE);
    report.run.state = State::Cancelled;
    report.run.ended.as_mut().unwrap().signal = Some("TERM".into());
    assert_eq!(exit_code(&report, |_| true), exit::TERMINATED);
}

#[test]
fn files_are_replaced_whole_or_not_at_all() {
    let (temporary, _run) = made("complete");
    let report = report_of("complete");
    write(temporary.path(), &report, Some("text\n")).unwrap();
    write(temporary.path(), &report, None).unwrap();
    let back: Report =
        serde_json::from_slice(&fs::read(temporary.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(back, report);
    assert_eq!(fs::read_to_string(temporary.path().join("report.txt")).unwrap(), "text\n");
    let names: Vec<_> = fs::read_dir(temporary.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("report"))
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let error = write(Path::new("/nowhere"), &report, None).unwrap_err();
    assert!(error.starts_with("writing '/nowhere/report.json': No such file"), "{error}");
}
