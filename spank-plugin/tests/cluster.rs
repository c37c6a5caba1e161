//! The plugin on a real Slurm (tests/slurm/cluster) with a stand-in for aifb-agent: panics in
//! slurmstepd, and what a user sees of a launcher that fails or hangs.
//!
//! One test, because all parts change the one plugstack.conf of the cluster.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that panics has failed, which is what it is for"
)]

mod common;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{launcher, panicking_plugin_for, plugin_for, run};

/// alice's user and group id on the cluster.
const ALICE: u32 = 1001;

/// A cluster of this test's own, taken down at its end.
struct Cluster {
    name: String,
    scripts: PathBuf,
    state: PathBuf,
}

/// How a command on the login node ended.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Cluster {
    /// `None` where this machine cannot have one.
    fn up() -> Option<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let scripts = fs::canonicalize(repository.join("tests/slurm/cluster")).unwrap();
        let cache =
            std::env::var_os("AIFB_CACHE").map_or_else(|| repository.join(".cache"), PathBuf::from);
        let name = format!("spank{}", std::process::id());
        let mut command = Command::new(scripts.join("up"));
        // trixie is Slurm 24.11, bookworm 22.05, sid 26.05.
        let release = std::env::var("AIFB_TEST_RELEASE").unwrap_or_else(|_| "trixie".into());
        command.args([&name, "--nodes", "2", "--release", &release, "--conf"]);
        let (code, stdout, stderr) = run(command.arg("LaunchParameters=use_interactive_step"));
        if code == Some(77) {
            common::skip(&format!("no cluster can be had here: {stderr}"));
            return None;
        }
        let state = cache.join("clusters").join(&name);
        let cluster = Self { name, scripts, state };
        assert_eq!(code, Some(0), "up: {stdout}{stderr}");
        Some(cluster)
    }

    fn exec(&self, more: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new(self.scripts.join("exec"));
        command.arg(&self.name).args(more).arg("--").args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        let (code, stdout, stderr) = run(&mut self.exec(&[], words));
        Ran { code, stdout, stderr }
    }

    /// Submits a script, waits for its end, returns its output and exit code.
    fn batch(&self, options: &[&str], launch: &str) -> (String, Option<i32>) {
        let export = format!("--export=ALL,TEST_LAUNCH={launch},TEST_SEEN=/home/alice/seen");
        let mut words = vec!["sbatch", "--parsable", "--output=out", "--mem=50", &export];
        words.extend(options);
        words.push("--wrap=echo script starts; echo id $AIFB_RUN_ID; env | grep SPANK || true");
        let submitted = self.run(&words);
        let job = submitted.stdout.trim();
        assert_eq!(submitted.code, Some(0), "{}", submitted.stderr);
        let code = within(Duration::from_secs(60), || {
            let job = self.run(&["scontrol", "show", "job", "--oneliner", job]).stdout;
            let value = |name| job.split_whitespace().find_map(|word| word.strip_prefix(name));
            let code = value("ExitCode=")?.split(':').next()?.parse().ok();
            (!["PENDING", "RUNNING", "COMPLETING"].contains(&value("JobState=")?)).then_some(code)
        });
        let output = fs::read_to_string(self.state.join("home/alice/out")).unwrap_or_default();
        (output + &submitted.stderr, code)
    }

    fn plugstack(&self, text: &str) {
        let file = self.state.join("slurm/plugstack.conf.d/aifb.conf");
        fs::write(file.with_extension("new"), text).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }

    fn all_idle(&self) {
        within(Duration::from_secs(30), || {
            let states = self.run(&["sinfo", "-h", "-N", "-p", "cpu", "-o", "%T"]).stdout;
            assert!(!states.contains("drain"), "{states}");
            let jobs = self.run(&["squeue", "-h"]).stdout;
            (jobs.is_empty() && states.lines().all(|state| state == "idle")).then_some(())
        });
    }
}

/// Asks ten times a second until there is an answer.
fn within<T>(limit: Duration, ask: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "no response within {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _down = Command::new(self.scripts.join("down")).arg(&self.name).output();
    }
}

/// A line of plugstack.conf; the nodes see this checkout at /aifb.
fn line(plugin: &Path, more: &str) -> String {
    let repository = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    let inside = |path: &Path| {
        let path = fs::canonicalize(path).unwrap();
        Path::new("/aifb").join(path.strip_prefix(&repository).unwrap()).display().to_string()
    };
    format!("optional {} launcher={} {more}\n", inside(plugin), inside(launcher()))
}

#[test]
fn on_a_real_cluster() {
    let Some(cluster) = Cluster::up() else { return };
    let include = cluster.state.join("rootfs/usr/include");
    let recipe = cluster.state.join("home/alice/r.yaml");
    fs::write(&recipe, "").unwrap();
    chown(&recipe, Some(ALICE), Some(ALICE)).unwrap();

    panics(&cluster, &panicking_plugin_for(&include));
    let plugin = plugin_for(&include);
    cluster.plugstack(&line(&plugin, "wait_max=3s"));
    outcomes(&cluster);
    interactive(&cluster);
    ended_by_a_signal(&cluster);
    cluster.plugstack(&line(&plugin, "partitions=gpu"));
    partitions(&cluster);
    cluster.all_idle();
}

/// Whatever panics, jobs run and no node drains.
fn panics(cluster: &Cluster, plugin: &Path) {
    for hook in
        ["init", "option", "init_post_opt", "local_user_init", "task_init", "task_init_used"]
    {
        cluster.plugstack(&line(plugin, &format!("panic={hook}")));
        let (output, code) = cluster.batch(&[], "");
        assert_eq!((code, output.as_str()), (Some(0), "script starts\nid\n"), "{hook}");
        let ran = cluster.run(&["srun", "-N2", "--mem=50", "hostname"]);
        let mut nodes: Vec<_> = ran.stdout.lines().collect();
        nodes.sort_unstable();
        assert_eq!(nodes, ["n1", "n2"], "{hook}: {}", ran.stderr);
        if hook != "init" {
            let (output, code) = cluster.batch(&["--aifb-recipe=r.yaml"], "");
            assert_eq!(code, Some(0), "{hook}: {output}");
            assert!(output.contains("script starts"), "{hook}: {output}");
            let flag = ["srun", "--mem=50", "--aifb-recipe=r.yaml", "echo", "ran"];
            let ran = cluster.run(&flag);
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "ran\n"), "{}", ran.stderr);
        }
        cluster.all_idle();
    }
    let log = cluster.run(&["true"]).stderr + &logs(cluster);
    assert!(!log.contains("panicked"), "{log}");
}

/// What slurmd and slurmstepd have written on all nodes.
fn logs(cluster: &Cluster) -> String {
    let node = |name| cluster.state.join("nodes").join(name).join("log/slurmd.log");
    ["n1", "n2"].map(|name| fs::read_to_string(node(name)).unwrap_or_default()).concat()
}

fn outcomes(cluster: &Cluster) {
    let flag = ["--aifb-recipe=r.yaml"];
    assert_eq!(cluster.batch(&flag, "slow"), ("script starts\nid c-77\n".into(), Some(0)));
    for (mode, code, expected) in [
        ("failed", 4, "service 'llm' failed: exit 1\n  its last words\nhint: look\n"),
        ("die", 5, "the launcher died without a message (cause: node)"),
        ("hang", 4, "not within 3s (cause: service"),
    ] {
        let (output, ended) = cluster.batch(&flag, mode);
        assert_eq!(ended, Some(code), "{mode}: {output}");
        assert!(output.contains(expected) && !output.contains("script starts"), "{output}");
        cluster.all_idle();

        let mut srun = cluster.exec(
            &["--env", &format!("TEST_LAUNCH={mode}"), "--env", "TEST_SEEN=/home/alice/seen"],
            &["srun", "--mem=50", "--aifb-recipe=r.yaml", "echo", "ran"],
        );
        let (ended, stdout, stderr) = run(&mut srun);
        assert_eq!((ended, stdout.as_str()), (Some(code), ""), "{mode}: {stderr}");
        assert!(stderr.contains(expected), "{mode}: {stderr}");
        cluster.all_idle();
    }
    let seen = fs::read_to_string(cluster.state.join("home/alice/seen.launch")).unwrap();
    assert!(seen.contains("folder /home/alice\n") && seen.contains("session own"), "{seen}");
}

/// The shell of salloc is the job's first program.
fn interactive(cluster: &Cluster) {
    let script = "printf 'id %s\\n' $AIFB_RUN_ID; env | grep -c SPANK; exit\n";
    fs::write(cluster.state.join("home/alice/typed"), script).unwrap();
    let words = "salloc --mem=50 --aifb-recipe=r.yaml < typed";
    let (code, stdout, stderr) = run(&mut cluster.exec(&["--tty"], &["bash", "-c", words]));
    let _from_salloc = (code, &stderr);
    assert!(stdout.contains("id c-77"), "{stdout}{stderr}");
    cluster.all_idle();
}

/// A user who presses Ctrl-C while srun waits does not wait any longer.
fn ended_by_a_signal(cluster: &Cluster) {
    for signal in ["INT", "TERM", "HUP"] {
        let script = format!(
            "rm -f seen.launch; env TEST_LAUNCH=hang TEST_SEEN=$HOME/seen \
             setsid --fork bash -c 'echo $$ > pid; exec srun --mem=50 --aifb-recipe=r.yaml true'; \
             until [[ -e seen.launch ]]; do sleep 0.05; done; \
             kill -{signal} $(cat pid); for i in {{1..20}}; do \
             kill -0 $(cat pid) 2>/dev/null || exit 0; sleep 0.1; done; exit 9"
        );
        let ran = cluster.run(&["timeout", "20", "bash", "-c", &script]);
        assert_eq!(ran.code, Some(0), "{signal}: {}", ran.stderr);
        cluster.all_idle();
    }
}

fn partitions(cluster: &Cluster) {
    let (output, code) = cluster.batch(&["--aifb-recipe=r.yaml", "-pcpu"], "");
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("in partition 'cpu': not allowed there"), "{output}");
    let (output, code) = cluster.batch(&["--aifb-recipe=r.yaml", "-pgpu"], "");
    assert_eq!((code, output.as_str()), (Some(0), "script starts\nid c-77\n"));
}
