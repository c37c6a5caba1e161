//! System calls for which there is no safe wrapper. The only unsafe code of this program.
#![expect(unsafe_code, reason = "the one place for calls into the C library")]

use std::{
    ffi::c_uint,
    fs::File,
    io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Command, ExitStatus},
    ptr,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sched::CpuSet,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    },
    unistd::{Pid, getppid, setpgid},
};
use nvml_wrapper::{
    Device,
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Empties the signal mask and gives every signal its default action, but SIGPIPE, which stays
/// ignored as Rust programs expect. Slurm blocks and ignores signals in what it starts, and exec
/// keeps both.
pub(crate) fn reset_signals() {
    for number in 1..=libc::SIGRTMAX() {
        let action = if number == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: both actions have no handler of ours; a number that cannot be set is refused
        // without consequence. Called before any thread or handler exists.
        unsafe { libc::signal(number, action) };
    }
    let _cannot_fail = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Waits for one of `set`, which must be blocked; `None` when `timeout` has passed first.
pub(crate) fn wait_signal(set: &SigSet, timeout: Duration) -> Option<Signal> {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: an initialised set and time that outlive the call; no information is requested.
    let number = unsafe { libc::sigtimedwait(set.as_ref(), ptr::null_mut(), &raw const time) };
    Signal::try_from(number).ok()
}

/// Reaps one child that has ended: its pid and how it ended. `None` when there is none; the error
/// ECHILD when there is no child at all.
pub(crate) fn reap_any() -> io::Result<Option<(u32, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: `status` may be written for the whole call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match u32::try_from(pid) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some((pid, ExitStatus::from_raw(status)))),
    }
}

/// Keeps every descriptor that was inherited beyond the three standard ones from going on to
/// services: what started this program may have left any open.
pub(crate) fn keep_descriptors() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // SAFETY: a plain system call with three integers; a number that is no longer open is
        // an error and changes nothing.
        let _closed = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Takes over an inherited descriptor if it is a pipe or a socket, and keeps it from being
/// inherited further. `None` if it is closed or something else.
///
/// Must be called at most once for each number, before anything else opens files.
pub(crate) fn take_inherited(number: RawFd) -> Option<File> {
    // SAFETY: `stat` is plain data for which all zero is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` may be written; a number that is not open is an error.
    let answer = unsafe { libc::fstat(number, &raw mut stat) };
    let kind = stat.st_mode & libc::S_IFMT;
    if answer != 0 || (kind != libc::S_IFIFO && kind != libc::S_IFSOCK) {
        return None;
    }
    // SAFETY: the descriptor is open (fstat worked) and inherited, so nothing in this program
    // owns it; the caller asks once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(File::from(fd))
}

/// A descriptor that becomes readable when the process ends. Needs Linux 5.3.
///
/// # Errors
/// The process is gone, or the kernel is older.
pub(crate) fn process_end(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = open_process(pid)?;
    // SAFETY: the descriptor is open and owned by the AsyncFd from here on; nothing else has its
    // number, so it refers to the same process until the AsyncFd is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call with two integers.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us; it has no other owner.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a child does between fork and exec.
#[derive(Debug, Clone, Default)]
pub(crate) struct BeforeExec {
    /// Signal that the child gets when the thread that starts it ends.
    pub(crate) death_signal: Option<Signal>,
    /// Lead a process group of its own.
    pub(crate) own_group: bool,
    /// The only CPUs it may use.
    pub(crate) cpus: Option<CpuSet>,
    /// Empty the signal mask, which exec would keep.
    pub(crate) clear_mask: bool,
}

/// Has `command` do `setup` in the child.
pub(crate) fn before_exec(command: &mut Command, setup: BeforeExec) {
    let parent = std::process::id();
    let act = move || -> io::Result<()> {
        if setup.own_group {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        }
        if setup.clear_mask {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        }
        if let Some(cpus) = &setup.cpus {
            nix::sched::sched_setaffinity(Pid::from_raw(0), cpus)?;
        }
        if let Some(signal) = setup.death_signal {
            prctl::set_pdeathsig(signal)?;
            // The parent may have ended before the line above; 0 stands for one in another
            // PID namespace.
            let now = getppid().as_raw();
            if now != 0 && u32::try_from(now) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only: it neither allocates nor takes a lock, and
    // what it reads was copied into it.
    unsafe { command.pre_exec(act) };
}

/// A counter of the NVML field `field` summed over all NVLinks of a device; absent where it has
/// none. The wrapper asks for link 0 only.
///
/// # Errors
/// The library lacks the call, or refuses.
pub(crate) fn nvml_field_of_all_links(
    device: &Device<'_>,
    field: u32,
) -> Result<Option<u64>, NvmlError> {
    let ask = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    // SAFETY: plain data for which all zero is valid.
    let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    (value.fieldId, value.scopeId) = (field, c_uint::MAX);
    // SAFETY: the handle is only passed to the library that gave it, which `device` keeps loaded.
    let handle = unsafe { device.handle() };
    // SAFETY: one value may be written for the whole call, as the count says.
    nvml_try(unsafe { ask(handle, 1, &raw mut value) })?;
    nvml_try(value.nvmlReturn)?;
    if value.valueType != nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG {
        return Ok(None);
    }
    // SAFETY: the library says that it has written this member of the union.
    Ok(Some(unsafe { value.value.ullVal }))
}

/// Time that a thread of short turns asks for at once: a tick fits, and what computes beside it
/// asks for more (the kernel's own choice is 0.7 ms on one CPU and 2.8 ms on eight).
const SHORT_TURN_NS: u64 = 500_000;

/// Has the kernel run this thread as soon as it may after each wait: its timers wait for no others,
/// and its turns are short, for which a thread in a longer turn makes room. It gets no more CPU time
/// than before, and needs no right. The second is for Linux 6.12 and later; older ones, and threads
/// with a policy of their own, stay as they are.
pub(crate) fn wake_promptly() {
    let _older_kernel = prctl::set_timerslack(1);
    // SAFETY: plain data for which all zero is valid.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::sched_attr>();
    // SAFETY: `size` bytes may be written for the whole call; 0 stands for this thread.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if got == 0 && attributes.sched_policy == libc::SCHED_OTHER.unsigned_abs() {
        attributes.sched_runtime = SHORT_TURN_NS;
        // SAFETY: initialised data that outlives the call; 0 stands for this thread.
        let _refused =
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

/// Seconds that the node's own time is east of Greenwich at an instant, in seconds since 1970.
pub(crate) fn zone_offset_s(epoch_s: i64) -> i64 {
    let time: libc::time_t = epoch_s;
    // SAFETY: `tm` is plain data for which all zero is valid.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid for the whole call; the function keeps neither. It reads the
    // environment, which this program never changes.
    let made = unsafe { libc::localtime_r(&raw const time, &raw mut local) };
    if made.is_null() { 0 } else { local.tm_gmtoff }
}
