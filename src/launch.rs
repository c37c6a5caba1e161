//! Starting a run: `aifb-agent launch` and what it reports on its status pipe.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aifb_schema::names::{env, exit};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{CommandError, Result},
    output, programs, sys,
};

/// Pause between two lines of progress while services start.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Time for a local run to end: every service may take its `stop` time (3 s unless the recipe says
/// otherwise, 10 min at most).
const END_DEADLINE: Duration = Duration::from_secs(11 * 60);

/// Bytes that a launcher may report before it is taken for mad: the environment of a job script,
/// with hundreds of services.
const REPORT_BYTES: usize = 1024 * 1024;

/// How the run is started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Recipe and options, packed.
    pub(crate) snapshot: &'a str,
    /// On this machine, without Slurm.
    pub(crate) local: bool,
    /// Longest time until the services are healthy.
    pub(crate) timeout: Duration,
}

/// A run that was started.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Variables for scripts and clients.
    pub(crate) environment: BTreeMap<String, String>,
    /// The launcher, which goes on while the run does.
    pub(crate) child: Child,
}

impl Launch<'_> {
    /// Starts the launcher and waits until it says that the run is ready. `stop` is asked between
    /// two looks whether to give up.
    ///
    /// # Errors
    /// The launcher's own reason and exit code, or the deadline.
    pub(crate) fn start(&self, stop: impl Fn() -> Option<CommandError>) -> Result<Launched> {
        let doing = "starting the run's launcher";
        let agent = programs::find(programs::AGENT)?;
        let (reading, writing) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
            .map_err(|error| CommandError::slurm(doing, error))?;
        let mut command = Command::new(agent);
        command.arg("launch").env(env::SNAPSHOT, self.snapshot);
        if self.local {
            command.arg("--local");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = sys::spawn_detached(&mut command, writing, self.local)
            .map_err(|error| CommandError::slurm(doing, error))?;
        match read_report(reading, Instant::now() + self.timeout, &stop) {
            Ok(environment) => Ok(Launched { environment, child }),
            Err(unready) => {
                let error = match unready {
                    Unready::Failed(error) => error,
                    Unready::GaveUp(error) => {
                        send(&mut child, signal_for(error.code));
                        error
                    }
                };
                // A local run leaves nothing; in a job Slurm sees to that.
                if self.local {
                    wait(&mut child);
                }
                Err(error)
            }
        }
    }
}

/// The signal that makes the launcher end as the code says.
fn signal_for(code: i32) -> Signal {
    if code == exit::INTERRUPTED { Signal::SIGINT } else { Signal::SIGTERM }
}

/// Interrupts the launcher of a local run for the reason that `code` names.
pub(crate) fn interrupt(child: &mut Child, code: i32) {
    send(child, signal_for(code));
}

/// Signals a child; one that has ended already is none of our business.
fn send(child: &mut Child, signal: Signal) {
    if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

/// Waits for the end of a launcher; kills it when that takes too long.
pub(crate) fn wait(child: &mut Child) {
    let until = Instant::now() + END_DEADLINE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            output::note("aifb: the launcher does not exit and is killed");
            send(child, Signal::SIGKILL);
            drop(child.wait());
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Why a launch is not ready.
enum Unready {
    /// The launcher says so, or has ended.
    Failed(CommandError),
    /// We do not wait any longer.
    GaveUp(CommandError),
}

/// Reads `KEY=VALUE` records up to `READY` or `FAILED <code> <text>`, each ended by a NUL.
fn read_report(
    pipe: OwnedFd,
    until: Instant,
    stop: &impl Fn() -> Option<CommandError>,
) -> Result<BTreeMap<String, String>, Unready> {
    let mut pipe = File::from(pipe);
    let mut bytes: Vec<u8> = Vec::new();
    let mut environment = BTreeMap::new();
    let mut told = Instant::now();
    loop {
        while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            let record = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
            bytes.drain(..=end);
            if record == "READY" {
                return Ok(environment);
            }
            if let Some(rest) = record.strip_prefix("FAILED ") {
                return Err(Unready::Failed(failed(rest)));
            }
            if let Some((name, value)) = record.split_once('=') {
                environment.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some(error) = stop() {
            return Err(Unready::GaveUp(error));
        }
        if Instant::now() >= until {
            return Err(Unready::GaveUp(
                CommandError::new(
                    exit::SERVICE,
                    "waiting for the services",
                    "not healthy within the time limit",
                )
                .hint("see their progress with aifb logs show; set a longer limit with --timeout"),
            ));
        }
        if told.elapsed() >= PROGRESS_EVERY {
            output::note("aifb: the services are still starting");
            told = Instant::now();
        }
        if readable(&pipe)? {
            let mut chunk = [0; 4096];
            let count = pipe.read(&mut chunk).map_err(wrong)?;
            if count == 0 {
                return Err(Unready::Failed(
                    CommandError::new(
                        exit::SLURM,
                        "starting the run",
                        "the launcher ended without a message",
                    )
                    .hint("see launch.log in the run folder"),
                ));
            }
            bytes.extend(chunk.iter().take(count));
            if bytes.len() > REPORT_BYTES {
                return Err(wrong(io::Error::other("too much")));
            }
        }
    }
}

fn wrong(error: io::Error) -> Unready {
    Unready::GaveUp(CommandError::slurm("reading the launcher's messages", error))
}

/// Whether there is something to read, or the end; looks for a tenth of a second.
fn readable(pipe: &File) -> Result<bool, Unready> {
    let mut looked = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    match nix::poll::poll(&mut looked, PollTimeout::from(100_u8)) {
        Ok(count) => Ok(count > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(wrong(error.into())),
    }
}

/// `<code> <text>` of a failed launch.
fn failed(rest: &str) -> CommandError {
    let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let code = code.parse().unwrap_or(exit::SERVICE);
    CommandError::relayed(code, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn report(bytes: &[u8], timeout: Duration) -> Result<BTreeMap<String, String>> {
        let (reading, writing) = nix::unistd::pipe().unwrap();
        let mut writing = File::from(writing);
        writing.write_all(bytes).unwrap();
        let keep = (timeout < Duration::from_secs(10)).then(|| writing.try_clone().unwrap());
        drop(writing);
        let answer = read_report(reading, Instant::now() + timeout, &|| None);
        drop(keep);
        answer.map_err(|unready| match unready {
            Unready::Failed(error) | Unready::GaveUp(error) => error,
        })
    }

    #[test]
    fn records_end_with_ready() {
        let minute = Duration::from_secs(60);
        let environment = report(b"A=1\0B=x=y\nz\0READY\0", minute).unwrap();
        assert_eq!(environment["A"], "1");
        assert_eq!(environment["B"], "x=y\nz");
        let error = report(b"A=1\0FAILED 4 aifb: no\0", minute).unwrap_err();
        assert_eq!((error.code, error.to_string().as_str()), (4, "aifb: no"));
        let error = report(b"A=1\0REA", minute).unwrap_err();
        assert!(error.text.contains("without a word"), "{error}");
        let error = report(b"A=1\0", Duration::from_millis(50)).unwrap_err();
        assert!(error.text.contains("time was over"), "{error}");
    }
}
