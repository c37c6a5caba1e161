//! The plugin in the real sbatch, srun and salloc of this machine, with a configuration of its
//! own and no controller behind it: whatever happens before Slurm is asked for a job.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that panics has failed, which is what it is for"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Scratch, have, launcher, panicking_plugin, plugin, run};

/// Commands with a plugstack.conf of one line, or none.
struct Site {
    folder: Scratch,
}

/// How a command ended and which arguments it gave to `prepare`.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    prepared: Option<Vec<String>>,
}

impl Site {
    /// `None` where the machine has no Slurm commands.
    fn new(plugstack: &str) -> Option<Self> {
        if !have("sbatch", "apt-get install slurm-client") {
            return None;
        }
        let folder = Scratch::new("site");
        let file = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        // Port 1 of the loopback: nobody listens there, so the answer comes at once.
        let conf = format!(
            "ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\n\
             AuthType=auth/none\nCredType=cred/none\nMessageTimeout=2\nNodeName=n1\n\
             PartitionName=p Nodes=n1 Default=YES\nPlugStackConfig={}/plugstack.conf\n",
            folder.display()
        );
        file("slurm.conf", &conf);
        file("plugstack.conf", plugstack);
        file("job.sh", "#!/bin/sh\n#SBATCH --aifb-recipe=script.yaml\n#SBATCH --aifb-set=a=1\n");
        file("plain.sh", "#!/bin/sh\n#SBATCH --job-name=plain\n");
        Some(Self { folder })
    }

    fn with_plugin() -> Option<Self> {
        Self::new(&line(plugin(), ""))
    }

    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> Ended {
        let seen = self.folder.join("seen");
        let prepared = self.folder.join("seen.prepare");
        let _from_before = fs::remove_file(&prepared);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&*self.folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("TEST_SEEN", seen);
        command.env("SLURM_CONF", self.folder.join("slurm.conf")).envs(variables.iter().copied());
        let (code, stdout, stderr) = run(&mut command);
        let prepared = fs::read_to_string(prepared).ok().map(|text| {
            let args = text.lines().filter_map(|line| line.strip_prefix("arg "));
            args.skip(1).map(str::to_owned).collect()
        });
        Ended { code, stdout, stderr, prepared }
    }
}

impl Ended {
    /// It got as far as asking the controller, which is not there.
    fn asked(&self) -> &Self {
        assert!(self.stderr.contains("Unable to contact slurm controller"), "{}", self.stderr);
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""));
        self
    }

    /// It ended before that.
    fn refused(&self, expected: &str) -> &Self {
        assert!(!self.stderr.contains("Unable to contact"), "{}", self.stderr);
        assert!(self.stderr.contains(expected), "{expected}: {}", self.stderr);
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""));
        self
    }

    fn arguments(&self) -> Vec<&str> {
        self.prepared.iter().flatten().map(String::as_str).collect()
    }
}

fn line(plugin: &Path, more: &str) -> String {
    format!("optional {} launcher={} {more}\n", plugin.display(), launcher().display())
}

const VARIABLE: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_aifb_aifb_recipe";

#[test]
fn script_lines_then_variable_then_command_line_and_the_last_wins() {
    let Some(site) = Site::with_plugin() else { return };
    let ended = site.run(&["sbatch", "job.sh"], &[]);
    assert_eq!(ended.asked().arguments(), ["--recipe=script.yaml", "--set=a=1"]);
    let ended = site.run(&["sbatch", "job.sh"], &[(VARIABLE, "variable.yaml")]);
    assert_eq!(ended.asked().arguments(), ["--recipe=variable.yaml", "--set=a=1"]);
    let words = [
        "sbatch",
        "--parsable",
        "--aifb-set=b=2",
        "--aifb-recipe",
        "command.yaml",
        "--aifb-set",
        "a=3",
        "--aifb-runs=/runs",
        "job.sh",
        "--aifb-recipe=of-the-script.yaml",
    ];
    let ended = site.run(&words, &[(VARIABLE, "variable.yaml")]);
    let expected = ["--recipe=command.yaml", "--set=a=1", "--set=b=2", "--set=a=3", "--runs=/runs"];
    assert_eq!(ended.asked().arguments(), expected);
}

#[test]
fn all_three_commands_prepare() {
    let Some(site) = Site::with_plugin() else { return };
    for command in [
        &["sbatch", "--aifb-recipe=r.yaml", "--wrap=true"][..],
        &["srun", "--aifb-recipe=r.yaml", "true"],
        &["salloc", "--aifb-recipe=r.yaml", "--no-shell"],
        &["sbatch", "--aifb-recipe=r.yaml", "-N1", ":", "-N2", "--wrap=true"],
        &["srun", "--aifb-recipe=r.yaml", "-N1", ":", "-N2", "true"],
    ] {
        let ended = site.run(command, &[]);
        assert_eq!(ended.asked().arguments(), ["--recipe=r.yaml"], "{command:?}");
    }
}

#[test]
fn all_three_commands_end_with_2_where_the_recipe_is_refused() {
    let Some(site) = Site::with_plugin() else { return };
    for command in [
        &["sbatch", "--parsable", "job.sh"][..],
        &["srun", "--aifb-recipe=r.yaml", "true"],
        &["salloc", "--aifb-recipe=r.yaml", "--no-shell"],
        &["sbatch", "--aifb-recipe=r.yaml", "-N1", ":", "-N2", "--wrap=true"],
    ] {
        let ended = site.run(command, &[("TEST_PREPARE", "refuse")]);
        ended.refused("launcher: recipe.yaml:3:5: unknown key 'servces'");
    }
}

#[test]
fn misplaced_options_are_refused() {
    let Some(site) = Site::with_plugin() else { return };
    let behind = "behind the first ':'";
    for (words, expected) in [
        (&["srun", "-N1", ":", "--aifb-recipe=r", "true"][..], behind),
        (&["sbatch", "-N1", ":", "--aifb-recipe=r", "--wrap=true"], behind),
        (&["sbatch", "--aifb-set=a=1", "--wrap=true"], "there is no --aifb-recipe"),
        (&["sbatch", "--aifb-recipe=", "--wrap=true"], "it is empty"),
        (&["sbatch", "--aifb-recipe=a\nb", "--wrap=true"], "line break"),
        (&["srun", "--jobid=5", "--aifb-recipe=r", "true"], "srun --jobid"),
    ] {
        site.run(words, &[]).refused(expected);
    }
    let long = format!("--aifb-recipe={}", "a".repeat(5000));
    site.run(&["sbatch", &long, "--wrap=true"], &[]).refused("longer than 4096 bytes");
    let in_job = [("SLURM_JOB_ID", "5")];
    site.run(&["srun", "--aifb-recipe=r", "true"], &in_job).refused("srun inside a job");
}

#[test]
fn inside_a_job_nothing_is_inherited() {
    let Some(site) = Site::with_plugin() else { return };
    let inside = [("SLURM_JOB_ID", "5"), (VARIABLE, "old.yaml")];
    let ended = site.run(&["sbatch", "plain.sh"], &inside);
    assert_eq!(ended.asked().prepared, None);
    assert_eq!(site.run(&["sbatch", "job.sh"], &inside).arguments()[0], "--recipe=script.yaml");
}

#[test]
fn without_the_flag_commands_print_what_they_print_without_the_plugin() {
    let Some(with) = Site::with_plugin() else { return };
    let Some(without) = Site::new("") else { return };
    for command in [
        &["sbatch", "--parsable", "plain.sh"][..],
        &["sbatch", "--wrap=true"],
        &["sbatch", "--test-only", "plain.sh"],
        &["srun", "true"],
        &["salloc", "--no-shell"],
        &["sbatch", "--usage"],
        &["srun", "--no-such-option"],
        &["sinfo"],
    ] {
        let (a, b) = (with.run(command, &[]), without.run(command, &[]));
        assert_eq!((a.code, a.stdout, a.stderr), (b.code, b.stdout, b.stderr), "{command:?}");
    }
}

#[test]
fn a_missing_or_broken_plugin_stops_no_command() {
    let missing = Path::new("/nowhere/aifb_spank.so");
    for line in [line(missing, ""), format!("optional {}\n", launcher().display())] {
        let Some(site) = Site::new(&line) else { return };
        site.run(&["sbatch", "plain.sh"], &[]).asked();
        let ended = site.run(&["sbatch", "job.sh"], &[]);
        assert_ne!(ended.code, Some(0));
        assert!(ended.stderr.contains("unrecognized option"), "{}", ended.stderr);
    }
}

#[test]
fn a_plugin_built_for_another_release_is_skipped() {
    if !have("sbatch", "apt-get install slurm-client") {
        return;
    }
    let Some(site) = Site::new(&line(&common::foreign_plugin(), "")) else { return };
    let ended = site.run(&["sbatch", "plain.sh"], &[]);
    assert!(ended.asked().stderr.contains("ncompatible"), "{}", ended.stderr);
    assert_eq!(ended.prepared, None);
    assert_ne!(site.run(&["sbatch", "job.sh"], &[]).code, Some(0));
}

#[test]
fn the_plugin_listed_twice_says_nothing_and_acts_once() {
    let Some(site) = Site::new(&line(plugin(), "").repeat(2)) else { return };
    let Some(once) = Site::with_plugin() else { return };
    for command in [&["sbatch", "plain.sh"][..], &["sbatch", "job.sh"]] {
        let (twice, once) = (site.run(command, &[]), once.run(command, &[]));
        assert_eq!(twice.asked().stderr, once.stderr);
        assert_eq!(twice.prepared, once.prepared);
    }
}

#[test]
fn a_panic_in_any_hook_stops_no_command() {
    for hook in ["init", "init_post_opt", "option"] {
        let Some(site) = Site::new(&line(panicking_plugin(), &format!("panic={hook}"))) else {
            return;
        };
        for command in [&["sbatch", "plain.sh"][..], &["srun", "true"], &["salloc", "--no-shell"]] {
            site.run(command, &[("RUST_BACKTRACE", "full")]).asked();
        }
        let ended = site.run(&["sbatch", "job.sh"], &[("RUST_BACKTRACE", "full")]);
        if hook != "init" {
            ended.asked();
        }
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}
