//! Runs a program to its end: arguments as a list, bounded output, a deadline.

use std::{
    ffi::OsString,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use aifb_schema::names::exit;

use crate::error::{CommandError, Result};

/// Bytes kept of each output: `squeue` of ten thousand jobs has 1 MiB.
const OUTPUT_BYTES: u64 = 4 * 1024 * 1024;

/// Longest pause between two looks at a child.
const LOOK_MAX: Duration = Duration::from_millis(20);

/// A program about to be run.
#[derive(Debug)]
pub(crate) struct Call {
    program: OsString,
    args: Vec<OsString>,
    input: Option<Vec<u8>>,
    deadline: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Exit code; absent when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Answer {
    /// What it says about its failure.
    pub(crate) fn complaint(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        match (text.trim(), self.code) {
            ("", Some(code)) => format!("exit code {code}, no message"),
            ("", None) => "ended by a signal".to_owned(),
            (text, _) => text.to_owned(),
        }
    }
}

impl Call {
    /// Names the program: a path, or a name to be found on PATH.
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            input: None,
            deadline: Duration::from_secs(60),
        }
    }

    /// Adds arguments.
    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Gives it this standard input; it is empty otherwise.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Sets the time after which it is killed; 60 s otherwise.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// If it cannot be started or does not end in time.
    pub(crate) fn run(self) -> Result<Answer> {
        let name = self.program.to_string_lossy().into_owned();
        let started = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command
            .spawn()
            .map_err(|error| CommandError::slurm(format!("starting '{name}'"), error))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input) {
            // A program that does not read its input says why by itself.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let stdout = child.stdout.take().map(reader);
        let stderr = child.stderr.take().map(reader);
        let status = wait(&mut child, started + self.deadline)
            .map_err(|error| CommandError::slurm(format!("waiting for '{name}'"), error))?;
        let text = |thread: Option<thread::JoinHandle<Vec<u8>>>| {
            let bytes = thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let Some(status) = status else {
            return Err(CommandError::new(
                exit::SLURM,
                format!("waiting for '{name}'"),
                format!("no response within {} s", self.deadline.as_secs()),
            )
            .hint("check whether Slurm's controller is up: scontrol ping"));
        };
        Ok(Answer { code: status.code(), stdout: text(stdout), stderr: text(stderr) })
    }
}

fn reader(from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut from = from.take(OUTPUT_BYTES);
        drop(from.read_to_end(&mut kept));
        // The rest is read so that the writer does not stop, and dropped.
        drop(std::io::copy(&mut from.into_inner(), &mut std::io::sink()));
        kept
    })
}

/// Waits until `until`; absent: it had to be killed.
fn wait(child: &mut Child, until: Instant) -> std::io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// The exit code that a shell would report: 128 + signal for a program ended by one.
pub(crate) fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_come_back() {
        let answer =
            Call::new("sh").args(["-c", "cat; echo no >&2; exit 3"]).input("yes").run().unwrap();
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(3), "yes"));
        assert_eq!(answer.complaint(), "no");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let before = Instant::now();
        let error =
            Call::new("sleep").args(["60"]).deadline(Duration::from_millis(50)).run().unwrap_err();
        assert!(error.text.contains("waiting for 'sleep'"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Call::new("no-such-program-here").run().unwrap_err();
        assert!(error.text.starts_with("starting 'no-such-program-here'"), "{error}");
    }
}
