//! `prepare` and the launcher's refusals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::{Run, agent};

const GOOD: &str = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, program: /x}\n";

fn prepare(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = agent().arg("prepare").args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_good_recipe_gives_one_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("r.yaml"), GOOD).unwrap();
    let (code, output, messages) = prepare(
        folder.path(),
        &["--recipe", "r.yaml", "--set", "services.a.args=[x]", "--runs", "here"],
    );
    assert_eq!((code, messages.as_str()), (0, ""));
    let line = output.strip_suffix('\n').unwrap();
    let snapshot = aifb_schema::snapshot::Snapshot::decode(line).unwrap();
    assert_eq!(snapshot.recipe, GOOD);
    assert_eq!(snapshot.recipe_path, folder.path().join("r.yaml").to_str().unwrap());
    assert_eq!(snapshot.runs.as_deref(), folder.path().join("here").to_str());
}

#[test]
fn all_complaints_have_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = GOOD.replace("program: /x", "gpus: 99999, port: 0");
    fs::write(folder.path().join("r.yaml"), text).unwrap();
    let (code, output, messages) = prepare(folder.path(), &["--recipe", "r.yaml"]);
    assert_eq!((code, output.as_str()), (2, ""));
    assert!(messages.starts_with("r.yaml:4:"), "{messages}");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("large"), "#".repeat(65 * 1024)).unwrap();
    fs::write(at("latin"), b"aifb: 1\nname: \xe9\n").unwrap();
    fs::write(at("nul"), b"aifb: 1\n\0").unwrap();
    fs::write(at("secret"), GOOD).unwrap();
    fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::symlink("fifo", at("link")).unwrap();
    for (name, words) in [
        ("fifo", "it is a pipe"),
        ("link", "it is a pipe"),
        ("folder", "it is a folder"),
        ("/dev/zero", "it is a device"),
        ("/dev/tty", ""),
        ("large", "it has 66560 bytes"),
        ("latin", "not UTF-8"),
        ("nul", "NUL byte on line 2"),
        ("missing", "No such file"),
        ("secret", if nix::unistd::geteuid().is_root() { "" } else { "Permission denied" }),
    ] {
        if words.is_empty() && name == "secret" {
            continue;
        }
        let begun = Instant::now();
        let (code, output, messages) = prepare(folder.path(), &["--recipe", name]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{name} hung");
        assert_eq!((code, output.as_str()), (2, ""), "{name}: {messages}");
        assert!(messages.contains(words) && messages.contains("hint:"), "{name}: {messages}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 7, "{name} wrote something");
    }
}

#[test]
fn a_forged_snapshot_starts_nothing() {
    for snapshot in ["", "aifb1:AAAA", "not a snapshot"] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::launch(folder, snapshot, &[]);
        let (code, text) = run.failure();
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("reading SLURM_SPANK_AIFB_SNAPSHOT"), "{text}");
        assert!(!run.folder.path().join("aifb-runs").exists());
    }
}

#[test]
fn a_wrong_recipe_in_a_snapshot_is_refused_again() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = "aifb: 1\nname: t\nservices: []\n";
    let snapshot = aifb_schema::snapshot::Snapshot {
        protocol: aifb_schema::names::PROTOCOL,
        recipe_path: "/home/x.yaml".into(),
        recipe: recipe.into(),
        sha256: aifb_schema::snapshot::sha256_hex(recipe.as_bytes()),
        sets: Vec::new(),
        runs: None,
        wait: aifb_schema::snapshot::Wait::Healthy,
    };
    let mut run = Run::launch(folder, &snapshot.encode().unwrap(), &[]);
    let (code, text) = run.failure();
    assert_eq!(code, 2);
    assert!(text.contains("/home/x.yaml:3:"), "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::write(folder.path().join("r.yaml"), GOOD).unwrap();
    let (_, snapshot, _) = prepare(folder.path(), &["--recipe", "r.yaml", "--runs", "file/x"]);
    let mut run = Run::launch(folder, snapshot.trim(), &[]);
    let (code, text) = run.failure();
    assert_eq!(code, 5);
    assert!(text.contains("making folder") && text.contains("--aifb-runs"), "{text}");
}

#[test]
fn without_slurm_and_without_local_there_is_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("r.yaml"), GOOD).unwrap();
    let (_, snapshot, _) = prepare(folder.path(), &["--recipe", "r.yaml"]);
    let output = agent()
        .arg("launch")
        .env_remove("SLURM_JOB_ID")
        .env("SLURM_SPANK_AIFB_SNAPSHOT", snapshot.trim())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no Slurm job") && text.contains("--local"), "{text}");
}

#[test]
fn the_version_line_names_the_protocol() {
    let output = agent().arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim(), aifb_schema::version_line("aifb-agent"));
}
