//! `supervise`: the supervisor of one service replica or helper command.
//!
//! It starts one program, is the sub-reaper of everything that this starts, and ends all of it:
//! when the program has ended, on SIGTERM (with grace), on SIGPWR (at once), and when the agent
//! dies. So no process of a service survives, however it forks, and the tree below a supervisor is
//! exactly what its service started.
//!
//! Descriptor 0 is a socket to the agent; the supervisor writes [`Report`] lines to it.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::{
        fs::DirBuilderExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use aifb_schema::names::exit;
use nix::{
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
    },
    unistd::{Pid, getppid},
};
use serde::{Deserialize, Serialize};

use crate::{
    problem::{self, complain},
    process::tree,
    sys::{self, BeforeExec},
};

/// Grace after SIGTERM when the agent is dead: an orderly end is no longer awaited, and all
/// processes must be gone within 10 s.
pub(crate) const ORPHAN_GRACE: Duration = Duration::from_secs(3);

/// How long killed processes may take to vanish. Longer only in the kernel's uninterruptible
/// sleep, where waiting does not help.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// The agent's order to end everything at once: a signal that is not otherwise sent to a job.
pub(crate) const KILL_NOW: Signal = Signal::SIGPWR;

/// Its name in process lists; it is started by a link without one.
const PROGRAM_NAME: &std::ffi::CStr = c"aifb-agent";

/// Arguments of `supervise`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Milliseconds between SIGTERM and SIGKILL.
    #[arg(long)]
    grace_ms: u64,
    /// Folder to make for the program, gone with it.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Folder with secrets: the agent removes it, and the supervisor where the agent has died.
    #[arg(long)]
    secrets: Option<PathBuf>,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

/// What a supervisor tells the agent, one JSON line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It could not be started.
    NotStarted {
        /// The system's reason.
        cause: String,
    },
    /// It has ended, and all that it left behind is gone.
    Ended {
        /// Exit code.
        code: Option<i32>,
        /// Signal that ended it.
        signal: Option<i32>,
        /// Processes that it left behind.
        leftover: usize,
        /// Whether the grace was over before the program ended.
        killed: bool,
    },
}

/// Runs the command; its exit code.
pub(crate) fn main(arguments: &Arguments) -> i32 {
    let Some(agent) = sys::take_inherited(0) else {
        return problem::usage("supervise is started by the agent only", "see aifb-agent --help");
    };
    match supervise(arguments, agent) {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&format!("{}: supervising a service: {error}", problem::PROGRAM));
            exit::INCOMPLETE
        }
    }
}

fn supervise(arguments: &Arguments, mut agent: File) -> io::Result<()> {
    let parent = getppid();
    prctl::set_name(PROGRAM_NAME)?;
    prctl::set_child_subreaper(true)?;
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, KILL_NOW] {
        signals.add(signal);
    }
    // What a user sends to the steps of a job for programs of theirs does nothing here.
    let users = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM];
    let blocked = signals.iter().chain(users).collect();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
    if let Some(scratch) = &arguments.scratch
        && let Err(error) = DirBuilder::new().mode(0o700).create(scratch)
    {
        let cause = format!("making '{}': {error}", scratch.display());
        say(&mut agent, &Report::NotStarted { cause });
        return Ok(());
    }
    let Some((program, words)) = arguments.command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).process_group(0);
    sys::before_exec(
        &mut command,
        BeforeExec { death_signal: Some(Signal::SIGKILL), clear_mask: true, ..Default::default() },
    );
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            remove(arguments.scratch.as_deref());
            say(&mut agent, &Report::NotStarted { cause: error.to_string() });
            return Ok(());
        }
    };
    say(&mut agent, &Report::Started { pid: child.id() });
    let main = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let grace = Duration::from_millis(arguments.grace_ms);
    let (status, killed) = watch(main, parent, &signals, grace);
    let leftover = tree::descendants(std::process::id()).len();
    tree::kill_descendants(KILL_PATIENCE);
    remove(arguments.scratch.as_deref());
    if getppid() != parent {
        remove(arguments.secrets.as_deref());
    }
    say(
        &mut agent,
        &Report::Ended {
            code: status.and_then(|status| status.code()),
            signal: status.map_or(Some(libc::SIGKILL), |status| status.signal()),
            leftover: if status.is_some() { leftover } else { leftover.saturating_sub(1) },
            killed,
        },
    );
    Ok(())
}

/// Removes a folder; errors are ignored.
pub(crate) fn remove(folder: Option<&Path>) {
    if let Some(folder) = folder
        && let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        complain(&format!("{}: removing '{}': {error}", problem::PROGRAM, folder.display()));
    }
}

/// Waits for the program's end. Its status, absent when it is still there and has to be killed,
/// and whether that is so.
fn watch(main: Pid, parent: Pid, signals: &SigSet, grace: Duration) -> (Option<ExitStatus>, bool) {
    let mut deadline: Option<Instant> = None;
    loop {
        if let Some(status) = reap(main) {
            return (Some(status), false);
        }
        let left = deadline
            .map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
        match sys::wait_signal(signals, left) {
            Some(KILL_NOW) => return (None, true),
            Some(Signal::SIGCHLD) => {}
            Some(_) => {
                let grace = if getppid() == parent { grace } else { grace.min(ORPHAN_GRACE) };
                let at = Instant::now() + grace;
                if deadline.is_none() {
                    terminate(main);
                }
                deadline = Some(deadline.map_or(at, |earlier| earlier.min(at)));
            }
            None if deadline.is_some_and(|at| at <= Instant::now()) => return (None, true),
            None => {}
        }
    }
}

/// SIGTERM to the program's group, and to what has left it.
fn terminate(main: Pid) {
    let _gone = kill(Pid::from_raw(-main.as_raw()), Signal::SIGTERM);
    for pid in tree::descendants(std::process::id()) {
        let Ok(pid) = i32::try_from(pid) else { continue };
        let pid = Pid::from_raw(pid);
        if nix::unistd::getpgid(Some(pid)).is_ok_and(|group| group != main) {
            let _gone = kill(pid, Signal::SIGTERM);
        }
    }
}

/// Reaps all that has ended; the status of `main` if it is among them.
fn reap(main: Pid) -> Option<ExitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = sys::reap_any() {
        if i32::try_from(pid) == Ok(main.as_raw()) {
            found = Some(status);
        }
    }
    found
}

/// The agent may be dead; the work goes on all the same.
fn say(agent: &mut File, what: &Report) {
    if let Ok(mut line) = serde_json::to_vec(what) {
        line.push(b'\n');
        let _dead = agent.write_all(&line);
    }
}
