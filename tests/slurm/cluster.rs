//! The test cluster as seen by a test: commands as a user on a node, folders of a case, jobs.
//!
//! The cluster is brought up once, by `tests/run`, which names it in `AIFB_TEST_CLUSTER`. All cases
//! run side by side on it, so a case may only touch its own folder, jobs and processes.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Longest time for one command inside the cluster; jobs are waited for by polling.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// Numeric id of alice in the cluster's root file system.
const ALICE: u32 = 1001;

/// A running cluster.
#[derive(Clone)]
pub struct Cluster {
    name: String,
    scripts: PathBuf,
    state: PathBuf,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Standard output, after a check that the command succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// The cluster named by the environment; `None`, loudly, without one. With `CI=true` that is a
/// failure.
pub fn cluster() -> Option<Cluster> {
    named_by("AIFB_TEST_CLUSTER")
}

/// The second cluster, without the plugin.
pub fn bare() -> Option<Cluster> {
    named_by("AIFB_TEST_CLUSTER_BARE")
}

fn named_by(variable: &str) -> Option<Cluster> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let Ok(name) = std::env::var(variable) else {
        let why = format!(
            "SKIPPED: needs a test cluster: run `make test`, or `tests/slurm/cluster/up NAME` and set {variable}=NAME"
        );
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
        eprintln!("{why}");
        return None;
    };
    let cache = std::env::var_os("AIFB_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let state = cache.join("clusters").join(&name);
    assert!(state.is_dir(), "no cluster '{name}' ({} is missing)", state.display());
    Some(Cluster { scripts: root.join("tests/slurm/cluster"), state, name })
}

/// Skips a case loudly where there is no cluster.
#[macro_export]
macro_rules! case {
    ($name:literal) => {
        match $crate::cluster::cluster() {
            Some(cluster) => $crate::cluster::Case::new(cluster, $name),
            None => return,
        }
    };
}

impl Cluster {
    /// Runs a command as `user` on `node`.
    pub fn run(&self, user: &str, node: &str, cwd: &str, words: &[&str]) -> Ran {
        let mut command = Command::new(self.scripts.join("exec"));
        command.args([
            &self.name,
            "--user",
            user,
            "--node",
            node,
            "--cwd",
            cwd,
            "--env",
            "PATH=/opt/aifb/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "--",
        ]);
        let output = with_deadline(command.args(words), COMMAND_DEADLINE);
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a shell script as root on `node`.
    pub fn root(&self, node: &str, script: &str) -> Ran {
        self.run("root", node, "/", &["bash", "-c", script])
    }

    /// The cluster's folder: `slurm` in it is its /etc/slurm, `installed` what is installed.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Puts the plugin's line into plugstack.conf.d.
    pub fn plugin_on(&self) {
        let mut command = Command::new(self.scripts.join("plugin"));
        let output = with_deadline(command.args([&self.name, "on"]), COMMAND_DEADLINE);
        assert!(output.status.success(), "{output:?}");
    }

    /// Compute nodes.
    pub fn nodes(&self) -> Vec<String> {
        let mut nodes: Vec<String> = fs::read_dir(self.state.join("nodes"))
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.strip_prefix('n').is_some_and(|rest| rest.parse::<u32>().is_ok()))
            .collect();
        nodes.sort();
        nodes
    }
}

fn with_deadline(command: &mut Command, deadline: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the exec script can be started");
    let started = Instant::now();
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > deadline {
            child.kill().unwrap();
            panic!("{command:?} did not end within {deadline:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// One test's own folder in alice's home, and what it does there.
pub struct Case {
    pub cluster: Cluster,
    /// The folder as the machine sees it.
    pub outside: PathBuf,
    /// The folder as the cluster sees it.
    pub inside: String,
}

/// How a job ended, as sacct says.
#[derive(Debug, Clone)]
pub struct JobEnd {
    pub state: String,
    pub exit_code: i32,
}

impl Case {
    pub fn new(cluster: Cluster, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder =
            format!("{name}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let outside = cluster.state.join("home/alice/cases").join(&folder);
        fs::create_dir_all(&outside).unwrap();
        for path in [outside.parent().unwrap(), &outside] {
            std::os::unix::fs::chown(path, Some(ALICE), Some(ALICE)).unwrap();
        }
        let inside = format!("/home/alice/cases/{folder}");
        Self { cluster, outside, inside }
    }

    /// Runs a command as alice on the login node, in the case's folder.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.cluster.run("alice", "login", &self.inside, words)
    }

    /// Runs a shell script as alice on the login node, in the case's folder.
    pub fn sh(&self, script: &str) -> Ran {
        self.run(&["bash", "-c", script])
    }

    /// Writes a file of alice's into the folder.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.outside.join(name);
        fs::write(&path, text).unwrap();
        std::os::unix::fs::chown(&path, Some(ALICE), Some(ALICE)).unwrap();
    }

    /// Puts an image with llama.cpp's server and a tiny model into the folder.
    pub fn llama(&self, image: &str, model: &str) {
        let made = Command::new(self.cluster.scripts.join("llama-sif")).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let from = String::from_utf8(made.stdout).unwrap();
        fs::copy(from.trim(), self.outside.join(image)).unwrap();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tiny-gguf");
        let written = Command::new(tiny).arg(self.outside.join(model)).output().unwrap();
        assert!(written.status.success(), "{written:?}");
        for name in [image, model] {
            std::os::unix::fs::chown(self.outside.join(name), Some(ALICE), Some(ALICE)).unwrap();
        }
    }

    /// Reads a file of the folder; empty when it is not there.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.outside.join(name)).unwrap_or_default()
    }

    /// Submits a script; `options` come before it. Returns the job id.
    #[track_caller]
    pub fn sbatch(&self, options: &[&str], script: &str) -> u32 {
        self.write("job.sh", &format!("#!/bin/bash\n{script}\n"));
        let mut words = vec!["sbatch", "--parsable", "--mem=200", "--output=job.out"];
        words.extend(options);
        words.push("job.sh");
        self.run(&words).ok().trim().split(';').next().unwrap().parse().unwrap()
    }

    /// The end of a job, asked of Slurm until it is there.
    #[track_caller]
    pub fn wait(&self, job: u32, within: Duration) -> JobEnd {
        let started = Instant::now();
        loop {
            let text =
                self.run(&["sacct", "-nPX", "-j", &job.to_string(), "-o", "State,ExitCode"]).stdout;
            if let Some((state, code)) = text.lines().next().and_then(|line| line.split_once('|')) {
                let state = state.split_whitespace().next().unwrap_or_default().to_owned();
                if !["PENDING", "RUNNING", "REQUEUED", "COMPLETING", "SUSPENDED"]
                    .contains(&state.as_str())
                {
                    let exit_code = code.split(':').next().unwrap().parse().unwrap();
                    return JobEnd { state, exit_code };
                }
            }
            assert!(
                started.elapsed() < within,
                "job {job} has not ended within {within:?}: {text}{}",
                self.state_text()
            );
            // Asking costs Slurm and the machine more than the job does.
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until `ready` gives a value.
    #[track_caller]
    pub fn until<T>(&self, what: &str, within: Duration, ready: impl Fn() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(value) = ready() {
                return value;
            }
            assert!(
                started.elapsed() < within,
                "{what} did not come within {within:?}\n{}",
                self.state_text()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Run folders below the case's folder, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.outside.join("aifb-runs")) else { return Vec::new() };
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        runs.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
        runs
    }

    /// The only run folder.
    #[track_caller]
    pub fn only_run(&self) -> PathBuf {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:?}\n{}", self.state_text());
        runs[0].clone()
    }

    /// run.json of the only run; null when it is not there yet.
    pub fn record(&self) -> serde_json::Value {
        self.runs().first().map_or(serde_json::Value::Null, |run| json(&run.join("run.json")))
    }

    /// Everything a person would look at first when a case fails.
    pub fn state_text(&self) -> String {
        let mut text = format!("job.out:\n{}\n", self.read("job.out"));
        for run in self.runs() {
            for file in ["run.json", "launch.log", "events.jsonl"] {
                text.push_str(&format!(
                    "{}:\n{}\n",
                    run.join(file).display(),
                    fs::read_to_string(run.join(file)).unwrap_or_default()
                ));
            }
        }
        text
    }

    /// Checks that within 10 s nothing of a job is left on any node: no process of its cgroups, none
    /// that names the case's folder, no mount below it; and that every node is fit for work.
    #[track_caller]
    pub fn nothing_left(&self, job: u32) {
        let started = Instant::now();
        // One grep over all processes: a look must not take long on a busy machine. The shell that
        // looks has the folder's name in its own command line.
        let script = format!(
            r#": this-looks-for-what-is-left
               show() {{ while read -r f; do pid=${{f#/proc/}}; pid=${{pid%/*}}
                 line=$(tr '\0' ' ' < /proc/$pid/cmdline) && [[ $line != *this-looks-for-what-is-left* ]] &&
                   echo "process of the $1: $pid $line"; done 2>/dev/null; }}
               grep -l -E '/job_{job}(/|$)' /proc/[0-9]*/cgroup 2>/dev/null | show job
               grep -l -a -F '{folder}' /proc/[0-9]*/cmdline 2>/dev/null | show case
               grep -F '{folder}' /proc/mounts && echo "mount above"
               grep -E '@aifb-.*-{job}(\.|-)' /proc/net/unix && echo "socket above"; true"#,
            folder = self.inside
        );
        loop {
            let look = started.elapsed();
            let left: String = self
                .cluster
                .nodes()
                .iter()
                .map(|node| (node, self.cluster.root(node, &script).stdout))
                .filter(|(_, text)| !text.trim().is_empty())
                .map(|(node, text)| format!("{node}: {text}"))
                .collect();
            if left.is_empty() {
                break;
            }
            assert!(
                look < Duration::from_secs(10),
                "10 s after its end job {job} left:\n{left}\n{}",
                self.state_text()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
        let nodes = self.run(&["sinfo", "-hN", "-o", "%N %T"]).ok();
        assert!(!nodes.contains("drain") && !nodes.contains("down"), "{nodes}");
    }
}

/// Reads a JSON file; null when it is not there or half there.
pub fn json(path: &Path) -> serde_json::Value {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
