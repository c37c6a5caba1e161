//! One start of the host, and what it, the plugin and the launcher have left.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Scratch, host, launcher, plugin, run};

pub(crate) const REGISTERED: [&str; 4] =
    ["aifb-recipe FILE 1", "aifb-set PATH=VALUE 1", "aifb-runs DIR 1", "aifb-wait healthy|none 1"];

/// One start of the host.
pub(crate) struct Host {
    pub(crate) folder: Scratch,
    pub(crate) plugins: Vec<PathBuf>,
    pub(crate) words: Vec<String>,
    pub(crate) admin: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) wrapper: Vec<String>,
}

/// What the host, the plugin and the launcher have left.
pub(crate) struct Seen {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: Vec<String>,
    pub(crate) folder: Scratch,
}

impl Host {
    pub(crate) fn new(context: &str) -> Self {
        Self {
            folder: Scratch::new(context),
            plugins: vec![plugin().to_owned()],
            words: vec!["--context".into(), context.into()],
            admin: vec![format!("launcher={}", launcher().display())],
            variables: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// A task of a batch step whose job carries a snapshot.
    pub(crate) fn batch_task() -> Self {
        Self::new("remote")
            .words(&["--step", "batch"])
            .job_env("SLURM_JOB_ID", "77")
            .job_env("SLURM_JOB_PARTITION", "cpu")
            .job_env("HOME", "/home/alice")
            .job_env("PATH", "/usr/bin")
            .job_env("SLURM_SPANK_AIFB_SNAPSHOT", "snapshot-1")
            .job_env("SLURM_SPANK_AIFB_WAIT", "healthy")
    }

    pub(crate) fn words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub(crate) fn option(self, option: &str) -> Self {
        self.words(&["--option", option])
    }

    pub(crate) fn admin(mut self, words: &[&str]) -> Self {
        self.admin.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub(crate) fn only_admin(mut self, words: &[&str]) -> Self {
        self.admin.clear();
        self.admin(words)
    }

    /// Gives the host a file of its own at each of these descriptors.
    pub(crate) fn open_for_writing(&mut self, descriptors: &str) {
        let script =
            format!("for fd in {descriptors}; do eval \"exec $fd>>host-file\"; done; exec \"$@\"");
        self.wrapper = ["bash", "-c", &script, "host"].map(str::to_owned).to_vec();
    }

    /// A variable of the job, seen through SPANK only.
    pub(crate) fn job_env(self, name: &str, value: &str) -> Self {
        self.words(&["--env", &format!("{name}={value}")])
    }

    /// A variable of the host process itself.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// What the launcher does when it is asked to launch, in a task or in srun.
    pub(crate) fn launch(self, mode: &str) -> Self {
        let seen = self.folder.join("seen").display().to_string();
        self.job_env("TEST_LAUNCH", mode).job_env("TEST_SEEN", &seen).env("TEST_LAUNCH", mode)
    }

    pub(crate) fn run(self) -> Seen {
        let report = self.folder.join("report");
        let mut all: Vec<String> = self.wrapper.clone();
        all.push(host().display().to_string());
        all.extend(["--report".into(), report.display().to_string()]);
        for path in &self.plugins {
            all.extend(["--plugin".into(), path.display().to_string()]);
        }
        all.extend(self.words);
        all.push("--".into());
        all.extend(self.admin);
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).current_dir(&*self.folder);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("TEST_SEEN", self.folder.join("seen"));
        command.envs(self.variables);
        let (code, stdout, stderr) = run(&mut command);
        let report = fs::read_to_string(report).unwrap_or_default();
        let report = report.lines().map(str::to_owned).collect();
        Seen { code, stdout, stderr, report, folder: self.folder }
    }
}

impl Seen {
    pub(crate) fn lines(&self, kind: &str) -> Vec<&str> {
        let start = format!("{kind} ");
        self.report.iter().filter_map(|line| line.strip_prefix(&start)).collect()
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.report.iter().any(|reported| reported == line)
    }

    /// The lines that the launcher has written about itself.
    pub(crate) fn launcher(&self, verb: &str) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.folder.join(format!("seen.{verb}"))).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    /// The host ran to its end, whatever the plugin did.
    pub(crate) fn finished(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{:#?}\n{}", self.report, self.stderr);
        assert!(self.has("done"), "{:#?}", self.report);
        self.silent()
    }

    /// sbatch --parsable must stay parsable.
    pub(crate) fn silent(&self) -> &Self {
        assert_eq!(self.stdout, "", "nothing may go to standard output");
        self
    }

    /// Every hook that was called answered 0.
    pub(crate) fn harmless(&self) -> &Self {
        for hook in self.lines("hook").iter().chain(&self.lines("option")) {
            assert!(hook.ends_with(" 0"), "{hook}: {:#?}", self.report);
        }
        self
    }

    /// The plugin has started no program.
    pub(crate) fn inert(&self) -> &Self {
        assert!(self.launcher("prepare").is_none() && self.launcher("launch").is_none());
        assert!(self.has("children none"), "{:#?}", self.report);
        self
    }
}

pub(crate) fn envs(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.strip_prefix("env ")).collect()
}

/// Ends with exit code 2, before Slurm is asked for anything; returns the errors.
pub(crate) fn refused(host: Host) -> (String, String) {
    let seen = host.run();
    assert_eq!(seen.silent().code, Some(2), "{:#?}\n{}", seen.report, seen.stderr);
    assert!(seen.lines("control").is_empty());
    assert!(!seen.has("done"));
    (seen.lines("error").join("\n"), seen.stderr)
}
