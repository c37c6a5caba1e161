//! Starting programs under a supervisor (see [`crate::supervisor`]), and hearing from it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sched::CpuSet,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
};

use crate::supervisor::KILL_NOW;
pub(crate) use crate::supervisor::Report;
use crate::{
    problem::PROGRAM,
    sys::{self, BeforeExec},
};

/// Bytes of one line of a supervisor; the longest holds an error message.
const LINE_MAX: usize = 4096;

/// A program with all it needs.
#[derive(Debug, Clone)]
pub(crate) struct Launchable {
    /// Absolute path.
    pub(crate) program: PathBuf,
    /// Arguments without the program's name.
    pub(crate) args: Vec<String>,
    /// The whole environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Folder to start in.
    pub(crate) folder: PathBuf,
    /// Folder on the node for temporary files, made and removed by the supervisor.
    pub(crate) scratch: Option<PathBuf>,
    /// Folder with secrets, which the supervisor removes where the agent no longer can.
    pub(crate) secrets: Option<PathBuf>,
}

/// Where a program's output goes.
#[derive(Debug)]
pub(crate) struct Output {
    /// Standard output.
    pub(crate) stdout: File,
    /// Standard error.
    pub(crate) stderr: File,
}

/// A running supervisor. Dropped before its program has ended, it ends everything at once.
#[derive(Debug)]
pub(crate) struct Supervisor {
    child: tokio::process::Child,
    pid: u32,
    said: BufReader<UnixStream>,
    over: bool,
    scratch: Option<PathBuf>,
}

impl Supervisor {
    /// Starts a program under a supervisor.
    ///
    /// Must be called on the main thread: the supervisor gets its death signal when the thread that
    /// started it ends.
    ///
    /// # Errors
    /// The supervisor could not be started; [`Self::next`] reports the start of the program itself.
    pub(crate) fn start(
        agent: &Path,
        what: &Launchable,
        output: Output,
        grace: Duration,
        cpus: Option<CpuSet>,
    ) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(agent);
        command
            .arg0(PROGRAM)
            .args(["supervise", "--grace-ms", &grace.as_millis().to_string()])
            .args(what.scratch.iter().flat_map(|path| [OsStr::new("--scratch"), path.as_os_str()]))
            .args(what.secrets.iter().flat_map(|path| [OsStr::new("--secrets"), path.as_os_str()]))
            .arg("--")
            .arg(&what.program)
            .args(&what.args)
            .env_clear()
            .envs(&what.env)
            .current_dir(&what.folder)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output.stdout)
            .stderr(output.stderr)
            .process_group(0);
        let setup = BeforeExec {
            death_signal: Some(Signal::SIGTERM),
            cpus,
            clear_mask: true,
            ..BeforeExec::default()
        };
        sys::before_exec(&mut command, setup);
        let child = tokio::process::Command::from(command).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it has ended at once"))?;
        let said = BufReader::new(UnixStream::from_std(ours)?);
        Ok(Self { child, pid, said, over: false, scratch: what.scratch.clone() })
    }

    /// The supervisor's own process id: the root of everything its program starts.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What happens next. After the end this is the end again. May be dropped and called again
    /// without losing a line only between lines; lines are written in one piece.
    pub(crate) async fn next(&mut self) -> Report {
        let killed =
            Report::Ended { code: None, signal: Some(libc::SIGKILL), leftover: 0, killed: false };
        if self.over {
            return killed;
        }
        let mut line = Vec::new();
        let read = self.said.read_until(b'\n', &mut line).await;
        let said = match read {
            Ok(1..=LINE_MAX) => serde_json::from_slice(&line).unwrap_or(killed),
            // The supervisor itself was killed.
            _ => killed,
        };
        if matches!(said, Report::Ended { .. } | Report::NotStarted { .. }) {
            self.over = true;
            let _status = self.child.wait().await;
            // Only a killed supervisor has left it.
            if let Some(scratch) = self.scratch.take().filter(|path| path.exists()) {
                let removing = move || crate::supervisor::remove(Some(&scratch));
                let _removed = tokio::task::spawn_blocking(removing).await;
            }
        }
        said
    }

    /// Asks the program to end, with its grace.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends the program and all it has started at once.
    pub(crate) fn kill(&self) {
        self.signal(KILL_NOW);
    }

    fn signal(&self, signal: Signal) {
        if !self.over
            && let Ok(pid) = i32::try_from(self.pid)
        {
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.kill();
    }
}
