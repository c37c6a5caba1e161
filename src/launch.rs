//! Starting a run: `aifb-agent launch` and what it reports on its status pipe.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aifb_schema::{
    launch_status::{Answer, End},
    names::{env, exit},
};
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

/// Reads the launcher's answer to its end.
fn read_report(
    pipe: OwnedFd,
    until: Instant,
    stop: &impl Fn() -> Option<CommandError>,
) -> Result<BTreeMap<String, String>, Unready> {
    let mut pipe = File::from(pipe);
    let mut answer = Answer::default();
    let mut noted = Instant::now();
    loop {
        if let Some(error) = stop() {
            return Err(Unready::GaveUp(error));
        }
        if Instant::now() >= until {
            return Err(Unready::GaveUp(too_late()));
        }
        if noted.elapsed() >= PROGRESS_EVERY {
            output::note("aifb: the services are still starting");
            noted = Instant::now();
        }
        if !readable(&pipe)? {
            continue;
        }
        let mut chunk = [0; 4096];
        let count = pipe.read(&mut chunk).map_err(wrong)?;
        if count == 0 {
            return Err(Unready::Failed(ended_silently()));
        }
        let received = answer.push(chunk.get(..count).unwrap_or_default());
        match received.map_err(|cause| wrong(io::Error::other(format!("the launcher {cause}"))))? {
            Some(End::Ready) => return Ok(environment(&answer)),
            Some(End::Failed { code, text }) => {
                return Err(Unready::Failed(CommandError::relayed(code, text)));
            }
            None => {}
        }
    }
}

fn too_late() -> CommandError {
    let error = CommandError::new(
        exit::SERVICE,
        "waiting for the services",
        "not healthy within the time limit",
    );
    error.hint("see their progress with aifb logs show; set a longer limit with --timeout")
}

fn ended_silently() -> CommandError {
    let error =
        CommandError::new(exit::SLURM, "starting the run", "the launcher ended without a message");
    error.hint("see launch.log in the run folder")
}

fn environment(answer: &Answer) -> BTreeMap<String, String> {
    let text = |value: &CString| value.to_string_lossy().into_owned();
    answer.variables().iter().map(|(name, value)| (text(name), text(value))).collect()
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
        let error = report(b"A\0READY\0", minute).unwrap_err();
        assert!(error.text.contains("unknown record 'A'"), "{error}");
        let error = report(b"A=1\0REA", minute).unwrap_err();
        assert!(error.text.contains("without a message"), "{error}");
        let error = report(b"A=1\0", Duration::from_millis(50)).unwrap_err();
        assert!(error.text.contains("within the time limit"), "{error}");
    }
}
