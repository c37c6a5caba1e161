//! A local run of the real program, and what is left of it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers, too"
)]
#![allow(missing_docs, missing_debug_implementations, reason = "helpers of tests")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest time for anything in these tests; a machine under load is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// After a death nothing may be left for longer than this.
pub const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The program under test.
pub fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_aifb-agent"))
}

/// What the launcher said on descriptor 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ready,
    Failed {
        code: i32,
        text: String,
    },
    /// It ended without an answer.
    Nothing,
}

/// A local run.
pub struct Run {
    pub folder: tempfile::TempDir,
    pub launcher: Child,
    records: Receiver<String>,
    pub variables: Vec<(String, String)>,
    marker: String,
}

impl Run {
    /// Starts a recipe; `{tmp}` in it stands for the run's own folder.
    pub fn start(recipe: &str) -> Self {
        Self::start_with(recipe, &[], &[])
    }

    pub fn start_with(recipe: &str, prepare: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = recipe.replace("{tmp}", folder.path().to_str().unwrap());
        fs::write(folder.path().join("recipe.yaml"), text).unwrap();
        let prepared = agent()
            .args(["prepare", "--recipe", "recipe.yaml"])
            .args(prepare)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
        let snapshot = String::from_utf8(prepared.stdout).unwrap();
        Self::launch(folder, snapshot.trim(), variables)
    }

    pub fn launch(folder: tempfile::TempDir, snapshot: &str, variables: &[(&str, &str)]) -> Self {
        let marker = format!("AGENTTEST_{}", folder.path().display());
        // The shell puts the pipe at descriptor 3.
        let mut launcher = Command::new("sh")
            .args(["-c", r#"exec "$0" launch --local 3>&1 >/dev/null"#])
            .arg(env!("CARGO_BIN_EXE_aifb-agent"))
            .current_dir(folder.path())
            .env("SLURM_SPANK_AIFB_SNAPSHOT", snapshot)
            .env("AGENTTEST_MARKER", &marker)
            .envs(variables.iter().copied())
            .env_remove("AIFB_RUNS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut pipe = launcher.stdout.take().unwrap();
        let (sender, records) = channel();
        thread::spawn(move || {
            let mut record = Vec::new();
            let mut byte = [0];
            while pipe.read(&mut byte).unwrap_or(0) == 1 {
                if byte == [0] {
                    let text = String::from_utf8(std::mem::take(&mut record)).unwrap();
                    if sender.send(text).is_err() {
                        return;
                    }
                } else {
                    record.extend(byte);
                }
            }
        });
        Self { folder, launcher, records, variables: Vec::new(), marker }
    }

    /// Waits for the launcher's answer.
    pub fn answer(&mut self) -> Answer {
        loop {
            match self.records.recv_timeout(PATIENCE) {
                Err(_) => return Answer::Nothing,
                Ok(record) => {
                    if record == "READY" {
                        return Answer::Ready;
                    }
                    if let Some(failed) = record.strip_prefix("FAILED ") {
                        let (code, text) = failed.split_once(' ').unwrap();
                        let code = code.parse().unwrap();
                        return Answer::Failed { code, text: text.to_owned() };
                    }
                    let (name, value) = record.split_once('=').unwrap();
                    self.variables.push((name.to_owned(), value.to_owned()));
                }
            }
        }
    }

    /// The text of a failure that must come, and its code.
    pub fn failure(&mut self) -> (i32, String) {
        match self.answer() {
            Answer::Failed { code, text } => (code, text),
            other => panic!("no failure but {other:?}; events: {}", self.file("events.jsonl")),
        }
    }

    pub fn ready(&mut self) {
        let answer = self.answer();
        assert_eq!(answer, Answer::Ready, "events: {}", self.file("events.jsonl"));
    }

    pub fn variable(&self, name: &str) -> &str {
        let found = self.variables.iter().find(|(other, _)| other == name);
        &found.unwrap_or_else(|| panic!("no variable {name}: {:?}", self.variables)).1
    }

    /// The one run folder.
    pub fn run_dir(&self) -> PathBuf {
        let mut found = fs::read_dir(self.folder.path().join("aifb-runs")).unwrap();
        found.next().unwrap().unwrap().path()
    }

    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.run_dir().join(name)).unwrap_or_default()
    }

    pub fn record(&self) -> Value {
        serde_json::from_str(&self.file("run.json")).unwrap()
    }

    pub fn events(&self) -> Vec<Value> {
        self.file("events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Events as `subject: message`.
    pub fn told(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = self.events();
        events.iter().map(|e| format!("{}: {}", text(&e["subject"]), text(&e["message"]))).collect()
    }

    pub fn agent_record(&self) -> Value {
        let mut nodes = fs::read_dir(self.run_dir().join("nodes")).unwrap();
        let node = nodes.next().unwrap().unwrap().path();
        wait_for("agent.json", || {
            serde_json::from_str(&fs::read_to_string(node.join("agent.json")).ok()?).ok()
        })
    }

    pub fn token(&self) -> String {
        self.file(".token")
    }

    /// Sends a signal to the launcher.
    pub fn signal(&self, signal: &str) {
        send(self.launcher.id(), signal);
    }

    /// The launcher's exit code, when it ends in time.
    pub fn wait(&mut self) -> i32 {
        let launcher = &mut self.launcher;
        let status = wait_for("the launcher's end", || launcher.try_wait().unwrap());
        std::os::unix::process::ExitStatusExt::signal(&status)
            .map_or_else(|| status.code().unwrap(), |signal| 128 + signal)
    }

    /// Ends the run in order; the final state.
    pub fn end(&mut self) -> String {
        self.signal("TERM");
        self.wait();
        self.assert_nothing_left();
        self.state()
    }

    pub fn state(&self) -> String {
        self.record()["state"].as_str().unwrap().to_owned()
    }

    /// Processes of this run: those with the marker in their environment.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if contains(&environment, self.marker.as_bytes()) {
                let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&words).replace('\0', " ")));
            }
        }
        found
    }

    /// The one process whose command line contains `words`.
    pub fn process(&self, words: &str) -> u32 {
        wait_for(words, || {
            let found = self.processes();
            found.into_iter().find(|(_, line)| line.contains(words)).map(|(pid, _)| pid)
        })
    }

    pub fn assert_nothing_left(&self) {
        let begun = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < GONE_WITHIN, "left: {left:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A request to the agent: status and body.
    pub fn http(&self, what: &str, token: Option<&str>) -> (u16, String) {
        let record = self.agent_record();
        let address = record["address"].as_str().unwrap();
        request(address, what, token)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A failed test must not leave its run behind.
        for (pid, _) in self.processes() {
            send(pid, "KILL");
        }
        let _reaped = self.launcher.wait();
    }
}

pub fn request(address: &str, what: &str, token: Option<&str>) -> (u16, String) {
    request_with(address, what, token, "")
}

/// A request with a body: status and body of the answer.
pub fn request_with(address: &str, what: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!(
        "{what} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: {length}\r\nConnection: \
         close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub fn send(pid: u32, signal: &str) {
    let _gone = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Asks until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Whether any file below `folder` contains `text`.
pub fn any_file_contains(folder: &Path, text: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = any_file_contains(&path, text) {
                return Some(found);
            }
        } else if contains(&fs::read(&path).unwrap_or_default(), text.as_bytes()) {
            return Some(path);
        }
    }
    None
}
