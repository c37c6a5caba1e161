//! What the tests share: the mock server, runs of the program, and a stand-in for the agent.
#![allow(dead_code, missing_docs, reason = "each test binary uses its own part of this")]

pub(crate) mod agent;
pub(crate) mod front;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use aifb_schema::result::LoadResult;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_aifb-loadgen");

/// A child that is ended with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL too; one that has ended is fine.
        let _ignored = self.0.kill();
        let _ignored = self.0.wait();
    }
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).expect("signal a child");
    }

    /// Waits for its end, at most `most`.
    pub(crate) fn end(&mut self, most: Duration) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = until(most, || self.0.try_wait().expect("wait for a child"));
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

/// Looks every millisecond until there is a value.
pub(crate) fn until<T>(most: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + most;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "nothing within {most:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The mock server.
pub(crate) struct Mock {
    pub(crate) server: Running,
    pub(crate) url: String,
}

impl Mock {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .arg("mock")
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the mock");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        let url = line.trim().strip_prefix("listening on ").expect("its address").to_owned();
        Self { server: Running(child), url }
    }
}

/// `aifb-loadgen run`, to its end.
pub(crate) fn measure(options: &[&str]) -> Output {
    Command::new(PROGRAM).arg("run").args(options).output().expect("run the program")
}

/// Result of a run that printed one.
pub(crate) fn result(output: &Output) -> LoadResult {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let result: LoadResult =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"));
    assert!(result.counts.balanced(), "{:?}", result.counts);
    result
}

/// A measured result.
pub(crate) fn measured(options: &[&str]) -> LoadResult {
    // In front: behind `--` it would be the command's.
    let output = measure(&[&["--json"], options].concat());
    result(&output)
}

pub(crate) fn verdicts(result: &LoadResult) -> Vec<&str> {
    result.verdicts.iter().map(|verdict| verdict.kind.as_str()).collect()
}

/// Rows in a file, up to its last whole batch.
pub(crate) fn rows_in(path: &Path) -> usize {
    let file = std::fs::File::open(path).expect("open rows");
    let reader = arrow_ipc::reader::StreamReader::try_new(file, None).expect("a schema");
    reader.map_while(Result::ok).map(|batch| batch.num_rows()).sum()
}

/// Engines that every test of a protocol over HTTP/1.1 runs on.
pub(crate) const ENGINES: [&str; 2] = ["hyper", "raw"];

/// Runs a test of a protocol once for each engine; `test` adds the options to those of its runs
/// (`measured(&[options, engine].concat())`).
pub(crate) fn for_each_engine(mut test: impl FnMut(&[&str])) {
    for engine in ENGINES {
        test(&["--engine", engine]);
    }
}
