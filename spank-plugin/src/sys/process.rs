//! Starting a program from inside somebody else's process, and waiting for it.
//!
//! The host is a process of Slurm: perhaps with several threads, blocked signals, odd file
//! descriptors and a parent that reaps children it does not know. So the child undoes all of
//! that itself, between fork and exec, and reports a failure through a pipe of its own.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::time::{Duration, Instant};

use aifb_schema::launch_status::STATUS_FD;

/// Where the child keeps its error pipe until exec closes it.
const REPORT_FD: RawFd = 4;

/// A child moves descriptors above this number first, so that none is overwritten while the
/// numbers 0 to 4 are filled.
const PARKED_FD: c_int = 10;

/// How long the parent waits to hear that exec worked. Milliseconds are enough unless the
/// program lies on a file system that hangs; then the wait for its answer has its own deadline.
const EXEC_DEADLINE: Duration = Duration::from_secs(10);

/// A program to start with the signal mask empty, all signals at their default, standard input
/// from /dev/null and nothing of the host's environment.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// Absolute path.
    pub(crate) path: &'a CStr,
    /// Arguments without the program's own name.
    pub(crate) args: &'a [CString],
    /// The whole environment, `NAME=value` each.
    pub(crate) env: &'a [CString],
}

/// Why a program could not be started.
#[derive(Debug)]
pub(crate) struct StartError {
    /// The step that failed: `fork`, `setsid`, `exec` …
    pub(crate) step: &'static str,
    /// The system's reason.
    pub(crate) cause: io::Error,
}

/// What the child has to set up.
#[derive(Debug, Clone, Copy)]
struct Plumbing {
    /// Goes to descriptor 1; /dev/null where absent.
    stdout: Option<RawFd>,
    /// Goes to descriptor 3.
    status: Option<RawFd>,
    /// Leave the host's session and process group, close every other descriptor, and send
    /// standard error to /dev/null.
    detach: bool,
}

/// The steps of the child that can fail, as the number it sends through its error pipe.
const STEPS: [&str; 5] = ["fork", "setsid", "open /dev/null", "dup", "exec"];
const FORK: u8 = 0;
const SETSID: u8 = 1;
const OPEN: u8 = 2;
const DUP: u8 = 3;
const EXEC: u8 = 4;

/// A running child, not yet waited for.
#[derive(Debug)]
pub(crate) struct Child {
    pid: libc::pid_t,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Starts a program as a child of the present process, its standard output into `stdout`,
/// standard error inherited.
///
/// # Errors
/// The step that failed, exec included.
pub(crate) fn start(program: &Program<'_>, stdout: BorrowedFd<'_>) -> Result<Child, StartError> {
    let plumbing = Plumbing { stdout: Some(stdout.as_raw_fd()), status: None, detach: false };
    spawn(program, plumbing).map(|pid| Child { pid })
}

/// Starts a program detached: in its own session, with no descriptor of the host but `status` as
/// number 3.
///
/// # Errors
/// The step that failed, exec included.
pub(crate) fn detach(program: &Program<'_>, status: BorrowedFd<'_>) -> Result<(), StartError> {
    let plumbing = Plumbing { stdout: None, status: Some(status.as_raw_fd()), detach: true };
    let middle = spawn(program, plumbing)?;
    // The middle process ends as soon as it has forked; the host must never meet it.
    let _ended = Child { pid: middle }.reap(0);
    Ok(())
}

impl Child {
    /// Waits until the child has ended or the deadline has passed; `None` then.
    pub(crate) fn wait_until(&self, deadline: Instant) -> Option<Ended> {
        loop {
            if let Some(ended) = self.reap(libc::WNOHANG) {
                return Some(ended);
            }
            if Instant::now() >= deadline {
                return None;
            }
            // Its output has ended, so the child is about to: there is nothing else to wait on,
            // since Linux 4.18 has no descriptor for a process.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills the child and waits for its end.
    pub(crate) fn kill(&self) {
        // SAFETY: a plain system call; the pid is our own child, not yet waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let _ended = self.reap(0);
    }

    fn reap(&self, flags: c_int) -> Option<Ended> {
        let mut status = 0;
        loop {
            // SAFETY: `status` may be written for the whole call.
            let pid = unsafe { libc::waitpid(self.pid, &raw mut status, flags) };
            match pid {
                0 => return None,
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return Some(Ended::Signal(0)),
                _ if libc::WIFEXITED(status) => {
                    return Some(Ended::Code(libc::WEXITSTATUS(status)));
                }
                _ => return Some(Ended::Signal(libc::WTERMSIG(status))),
            }
        }
    }
}

/// Gives signals of the host their default action until dropped.
pub(crate) struct DefaultActions<'a> {
    previous: Vec<(&'a c_int, libc::sigaction)>,
}

/// Where SIGCHLD is ignored, as some parents leave it, the kernel throws the exit codes of
/// children away.
pub(crate) const CHILD_SIGNAL: &[c_int] = &[libc::SIGCHLD];

/// The signals by which a user ends a command. srun blocks them and keeps handlers that only
/// count them.
pub(crate) const END_SIGNALS: &[c_int] =
    &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

impl<'a> DefaultActions<'a> {
    pub(crate) fn of(signals: &'a [c_int]) -> Self {
        // SAFETY: all zero is the default action with an empty mask.
        let default: libc::sigaction = unsafe { std::mem::zeroed() };
        let set = |signal: &'a c_int| {
            let mut previous = default;
            // SAFETY: the default action has no handler; `previous` may be written.
            unsafe { libc::sigaction(*signal, &raw const default, &raw mut previous) };
            (signal, previous)
        };
        Self { previous: signals.iter().map(set).collect() }
    }
}

impl Drop for DefaultActions<'_> {
    fn drop(&mut self) {
        for (signal, previous) in &self.previous {
            // SAFETY: puts back what the host had installed, unchanged.
            unsafe { libc::sigaction(**signal, &raw const *previous, ptr::null_mut()) };
        }
    }
}

/// A pipe whose two ends are closed in every program that is started: (read, write).
///
/// # Errors
/// The process has no descriptor left.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [read, write] = ends;
    // SAFETY: just made by pipe2, so open and owned by nobody else.
    let read = unsafe { OwnedFd::from_raw_fd(read) };
    // SAFETY: as above, the other end.
    let write = unsafe { OwnedFd::from_raw_fd(write) };
    Ok((read, write))
}

/// Waits until something can be read or the other end is closed; false when `timeout` has passed
/// first.
///
/// With `killable` [`END_SIGNALS`] are not blocked during the wait; together with
/// [`DefaultActions`] they end the host, which in srun is what the user wants.
///
/// # Errors
/// What the system says.
pub(crate) fn readable(fd: BorrowedFd<'_>, timeout: Duration, killable: bool) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let time = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut mask = blocked_signals();
    if killable {
        for signal in END_SIGNALS {
            // SAFETY: `mask` is an initialised set and `signal` a valid number.
            unsafe { libc::sigdelset(&raw mut mask, *signal) };
        }
    }
    // SAFETY: one entry, a time and a set that outlive the call.
    let count = unsafe { libc::ppoll(&raw mut entry, 1, &raw const time, &raw const mask) };
    match check(count) {
        Ok(()) => Ok(count > 0),
        Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(err) => Err(err),
    }
}

/// A copy of the present process's environment.
pub(crate) fn environ() -> Vec<CString> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: reads the C library's pointer; the hooks run while no thread changes it.
    let array = unsafe { environ };
    // SAFETY: NULL or an array of strings that ends with NULL, says POSIX.
    unsafe { super::spank::copy_array(array) }
}

/// Sets a variable of the present process.
pub(crate) fn set_variable(name: &CStr, value: &CStr) {
    // SAFETY: both are NUL-terminated and copied; called in the hooks of sbatch, salloc and srun
    // only, where Slurm itself changes the environment in the same way.
    unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
}

/// Removes a variable from the present process.
pub(crate) fn remove_variable(name: &CStr) {
    // SAFETY: NUL-terminated; see `set_variable`.
    unsafe { libc::unsetenv(name.as_ptr()) };
}

/// Writes to standard error. Without std's lock, which would leave thread-local data behind in a
/// library that the host may unload.
pub(crate) fn write_error(mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: `text` may be read for its length.
        let written = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        let rest = usize::try_from(written).ok().and_then(|count| text.get(count..));
        match rest {
            Some(rest) => text = rest,
            None if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            None => return,
        }
    }
}

/// Ends the present process at once, without the exit handlers of the host it was forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Forks and lets the child run the program; returns when exec has worked or has failed.
fn spawn(program: &Program<'_>, plumbing: Plumbing) -> Result<libc::pid_t, StartError> {
    let failed = |cause| StartError { step: "pipe", cause };
    let (report_read, report_write) = pipe().map_err(failed)?;
    let argv = pointers([program.path].into_iter().chain(program.args.iter().map(|a| &**a)));
    let envp = pointers(program.env.iter().map(|entry| &**entry));

    // SAFETY: the child of a process with threads may only do what is safe in a signal handler:
    // `child` makes plain system calls; the one place that allocates says why it may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Were a panic to leave this copy of the host, the host would run on twice.
        let run = || child(program.path, &argv, &envp, plumbing, report_write.as_raw_fd());
        let _panicked = panic::catch_unwind(AssertUnwindSafe(run));
        exit_now(127);
    }
    if pid < 0 {
        return Err(StartError { step: "fork", cause: io::Error::last_os_error() });
    }
    drop(report_write);
    match read_report(report_read) {
        None => Ok(pid),
        Some(error) => {
            let _ended = Child { pid }.reap(0);
            Err(error)
        }
    }
}

/// The child between fork and exec. Returns only where that fails, after saying so.
fn child(
    path: &CStr,
    argv: &[*const c_char],
    envp: &[*const c_char],
    plumbing: Plumbing,
    report: RawFd,
) {
    // Never write to a number that may be the host's: 4 is ours only after `set_up`.
    let Ok(parked) = park(report) else { return };
    let (report, step, cause) = match set_up(plumbing, parked) {
        Ok(report) => {
            // SAFETY: `path` is NUL-terminated, both arrays hold NUL-terminated strings that the
            // parent keeps alive in this copy of its memory, and end with NULL.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
            (report, EXEC, io::Error::last_os_error())
        }
        Err((step, cause)) => (parked, step, cause),
    };
    let [a, b, c, d] = cause.raw_os_error().unwrap_or(0).to_ne_bytes();
    let message = [step, a, b, c, d];
    // SAFETY: `message` may be read for its length.
    unsafe { libc::write(report, message.as_ptr().cast(), message.len()) };
}

/// Session, signals and descriptors of the child. Returns where a failure of exec is reported.
fn set_up(plumbing: Plumbing, parked_report: RawFd) -> Result<RawFd, (u8, io::Error)> {
    if plumbing.detach {
        // SAFETY: this process has one thread; both copies go on with plain system calls.
        match unsafe { libc::fork() } {
            -1 => return Err((FORK, io::Error::last_os_error())),
            0 => {}
            _ => exit_now(0),
        }
        // SAFETY: a plain system call.
        check(unsafe { libc::setsid() }).map_err(|err| (SETSID, err))?;
    }
    reset_signals();

    let dup = |err| (DUP, err);
    let parked_stdout = plumbing.stdout.map(park).transpose().map_err(dup)?;
    let parked_status = plumbing.status.map(park).transpose().map_err(dup)?;
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: the path is NUL-terminated.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), flags) };
    check(null).map_err(|err| (OPEN, err))?;
    let null = park(null).map_err(dup)?;

    place(null, 0, 0).map_err(dup)?;
    place(parked_stdout.unwrap_or(null), 1, 0).map_err(dup)?;
    if plumbing.detach {
        place(null, 2, 0).map_err(dup)?;
        if let Some(status) = parked_status {
            place(status, STATUS_FD, 0).map_err(dup)?;
        }
        place(parked_report, REPORT_FD, libc::O_CLOEXEC).map_err(dup)?;
        close_from(REPORT_FD + 1);
        return Ok(REPORT_FD);
    }
    Ok(parked_report)
}

/// Empties the signal mask and gives every signal its default action: slurmstepd and srun block
/// what a job needs to be ended, and exec keeps that.
fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: the default action has no handler; a number that cannot be set is an error
        // without consequence.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = blocked_signals();
    // SAFETY: `none` may be written.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` is an initialised set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
}

/// The signal mask of this thread.
fn blocked_signals() -> libc::sigset_t {
    // SAFETY: a set of bits; all zero is a valid, empty one on Linux.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: no new mask is given, the old one is written to `mask`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut mask) };
    mask
}

/// Copies a descriptor to a number that nothing else wants; exec closes the copy.
fn park(fd: RawFd) -> io::Result<RawFd> {
    // SAFETY: a plain system call.
    let parked = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, PARKED_FD) };
    check(parked).map(|()| parked)
}

/// Puts a copy of a parked descriptor at the number `at`.
fn place(parked: RawFd, at: RawFd, flags: c_int) -> io::Result<()> {
    // SAFETY: a plain system call; the numbers differ, since parked ones are large.
    check(unsafe { libc::dup3(parked, at, flags) })
}

/// Closes every descriptor from `first` on.
fn close_from(first: RawFd) {
    // SAFETY: a plain system call with three integers.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if answer == 0 {
        return;
    }
    // Linux before 5.9, or a filter of system calls. Listing allocates, which glibc allows in a
    // forked child: its fork leaves the allocator usable.
    for fd in open_descriptors().into_iter().filter(|&fd| fd >= first) {
        // SAFETY: closes a number; nothing in this child owns one.
        unsafe { libc::close(fd) };
    }
}

/// The numbers of all open descriptors. The one used for listing is among them.
fn open_descriptors() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Reads what the child says before exec closes its end; `None` when it says nothing.
fn read_report(report: OwnedFd) -> Option<StartError> {
    use std::os::fd::AsFd;
    let deadline = Instant::now() + EXEC_DEADLINE;
    while !readable(report.as_fd(), deadline.saturating_duration_since(Instant::now()), false)
        .ok()?
    {
        if Instant::now() >= deadline {
            return None;
        }
    }
    let mut message = Vec::new();
    fs::File::from(report).take(5).read_to_end(&mut message).ok()?;
    let [step, code @ ..] = <[u8; 5]>::try_from(message).ok()?;
    let step = STEPS.get(usize::from(step)).copied().unwrap_or("start");
    Some(StartError { step, cause: io::Error::from_raw_os_error(i32::from_ne_bytes(code)) })
}

/// An array of pointers to the strings, closed by NULL.
fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

fn check(answer: c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
