//! The programs under test, and running them in a folder of their own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// Folder of aifb, aifb-agent and aifb-loadgen, as they are installed: side by side.
pub(crate) fn programs() -> &'static Path {
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

/// A folder to work in.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    /// Searched for programs; the folder of stand-ins where a test makes some.
    pub(crate) path: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), path: "/usr/bin:/bin".into() }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// `aifb` with these words, in the folder, with nothing of a job or run in its environment.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(programs().join("aifb"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", self.folder.path());
        command
    }

    pub(crate) fn aifb(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().unwrap())
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output as JSON, after a check that the command succeeded.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A recipe that is right.
pub(crate) const GOOD: &str = "\
aifb: 1
name: good
slurm: {nodes: 2, time: \"00:10:00\"}
services:
  - name: web
    kind: container
    program: /usr/bin/web
    health: {http: /health}
load:
  - name: hits
    driver: http
    clients: 3
    arrival: {process: poisson, rate: 20/s}
    phases: {warmup: 1s, measure: 5s}
";
