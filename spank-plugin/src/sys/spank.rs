//! A safe form of the part of `slurm/spank.h` that the plugin uses.

use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::ptr;

use super::bindings as c;
use crate::hooks;
use crate::options::Kind;

// What the design relies on and what no release may change unnoticed (slurm/spank.h).
const _: () = assert!(c::ESPANK_SUCCESS == 0 && c::ESPANK_NOSPACE == 3005, "error numbers");
const _: () = assert!(c::S_JOB_ENV == 10 && c::S_TASK_ID == 11, "items of spank_get_item");
const _: () = assert!(c::S_CTX_REMOTE == 2 && c::S_CTX_ALLOCATOR == 3, "contexts");
const _: () = assert!(c::SLURM_VERSION_NUMBER >= 0x15_08_00, "Slurm 21.08 or later");

/// Where the plugin was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// srun.
    Local,
    /// sbatch, salloc, scrontab, scrun.
    Allocator,
    /// slurmstepd, as root until a task starts.
    Remote,
    /// slurmd itself.
    Slurmd,
    /// A prolog or epilog, and whatever a later release adds: not our business.
    Other,
}

/// The kinds of step that start a job's own script or shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The batch script.
    Batch,
    /// The shell of salloc with `use_interactive_step`.
    Interactive,
    /// Anything else.
    Other,
}

/// Slurm's handle, valid during one hook.
#[derive(Debug)]
pub(crate) struct Spank<'hook> {
    raw: c::spank_t,
    hook: PhantomData<&'hook ()>,
}

/// Slurm refused a call; the number is one of `ESPANK_*`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) i64);

impl Spank<'_> {
    /// Wraps the handle that Slurm passed to a hook.
    ///
    /// # Safety
    /// `raw` is that handle, and the value does not outlive the hook.
    #[cfg(not(test))]
    pub(super) unsafe fn new(raw: c::spank_t) -> Self {
        Self { raw, hook: PhantomData }
    }

    /// Adds an option to the command; only in the init hook.
    ///
    /// # Errors
    /// What Slurm says.
    pub(crate) fn register(&self, kind: Kind) -> Result<(), Refused> {
        let name = printable(kind.name());
        let (arginfo, usage) = kind.texts();
        let mut option = c::spank_option {
            name: name.as_ptr().cast_mut(),
            arginfo: arginfo.as_ptr().cast_mut(),
            usage: usage.as_ptr().cast_mut(),
            has_arg: 1,
            val: kind.number(),
            cb: Some(option_callback),
        };
        // SAFETY: the handle is valid during the hook; Slurm copies the strings, does not write
        // to them, and keeps only `cb`, which lives as long as the plugin.
        check(unsafe { c::spank_option_register(self.raw, &raw mut option) })
    }

    /// Which step this is; `Other` where Slurm does not say.
    pub(crate) fn step(&self) -> Step {
        let mut step: u32 = 0;
        // SAFETY: the handle is valid during the hook; S_JOB_STEPID takes one `uint32_t *`.
        let answer = unsafe { c::spank_get_item(self.raw, c::S_JOB_STEPID, &raw mut step) };
        match (check(answer), step) {
            (Ok(()), c::SLURM_BATCH_SCRIPT) => Step::Batch,
            (Ok(()), c::SLURM_INTERACTIVE_STEP) => Step::Interactive,
            _ => Step::Other,
        }
    }

    /// Number of the present task on its node, from 0; `None` outside a task.
    pub(crate) fn task(&self) -> Option<i32> {
        let mut task: c_int = -1;
        // SAFETY: the handle is valid during the hook; S_TASK_ID takes one `int *`.
        let answer = unsafe { c::spank_get_item(self.raw, c::S_TASK_ID, &raw mut task) };
        check(answer).ok().map(|()| task)
    }

    /// Id of the job; `None` where there is no job yet.
    pub(crate) fn job(&self) -> Option<u32> {
        let mut job: u32 = 0;
        // SAFETY: the handle is valid during the hook; S_JOB_ID takes one `uint32_t *`.
        let answer = unsafe { c::spank_get_item(self.raw, c::S_JOB_ID, &raw mut job) };
        check(answer).ok().map(|()| job)
    }

    /// Number of words of the user's command behind the options of srun.
    pub(crate) fn command_words(&self) -> Option<usize> {
        let mut count: c_int = 0;
        let mut words: *mut *mut c_char = ptr::null_mut();
        // SAFETY: the handle is valid during the hook; S_JOB_ARGV takes `int *, char ***`.
        let answer =
            unsafe { c::spank_get_item(self.raw, c::S_JOB_ARGV, &raw mut count, &raw mut words) };
        check(answer).ok().and_then(|()| usize::try_from(count).ok())
    }

    /// A copy of the job's environment. It must be taken before the first [`Self::setenv`], which
    /// may move Slurm's own array.
    pub(crate) fn job_env(&self) -> Vec<CString> {
        let mut array: *mut *mut c_char = ptr::null_mut();
        // SAFETY: the handle is valid during the hook; S_JOB_ENV takes one `char ***`.
        let answer = unsafe { c::spank_get_item(self.raw, c::S_JOB_ENV, &raw mut array) };
        if check(answer).is_err() {
            return Vec::new();
        }
        // SAFETY: Slurm's array of strings ends with NULL and is not changed before this returns.
        unsafe { copy_array(array.cast_const().cast()) }
    }

    /// A variable of the job's environment of at most `max` bytes, `None` where it is not set or
    /// longer. Only in slurmstepd.
    pub(crate) fn getenv(&self, name: &CStr, max: usize) -> Option<CString> {
        let mut size = 4096.min(max);
        loop {
            let mut value = vec![0_u8; size + 1];
            let len = c_int::try_from(value.len()).ok()?;
            let buffer = value.as_mut_ptr().cast();
            // SAFETY: the handle is valid during the hook, `name` is NUL-terminated, and `buffer`
            // may be written for `len` bytes.
            let answer = unsafe { c::spank_getenv(self.raw, name.as_ptr(), buffer, len) };
            match check(answer) {
                Ok(()) => return CStr::from_bytes_until_nul(&value).ok().map(CStr::to_owned),
                Err(Refused(code)) if code == i64::from(c::ESPANK_NOSPACE) && size < max => {
                    size = (size * 4).min(max);
                }
                Err(_) => return None,
            }
        }
    }

    /// Sets a variable of the job's environment. Only in slurmstepd.
    ///
    /// # Errors
    /// What Slurm says.
    pub(crate) fn setenv(&self, name: &CStr, value: &CStr) -> Result<(), Refused> {
        // SAFETY: the handle is valid during the hook; Slurm copies both NUL-terminated strings.
        check(unsafe { c::spank_setenv(self.raw, name.as_ptr(), value.as_ptr(), 1) })
    }

    /// Removes a variable from the job's environment; one that is not set is no error.
    ///
    /// # Errors
    /// What Slurm says.
    pub(crate) fn unsetenv(&self, name: &CStr) -> Result<(), Refused> {
        // SAFETY: the handle is valid during the hook; `name` is NUL-terminated.
        check(unsafe { c::spank_unsetenv(self.raw, name.as_ptr()) })
    }

    /// Sets a variable that travels with the job and is seen there as `SLURM_SPANK_<name>`. Only
    /// in sbatch, salloc and srun.
    ///
    /// # Errors
    /// What Slurm says.
    pub(crate) fn control_setenv(&self, name: &CStr, value: &CStr) -> Result<(), Refused> {
        // SAFETY: the handle is valid during the hook; Slurm copies both NUL-terminated strings.
        check(unsafe { c::spank_job_control_setenv(self.raw, name.as_ptr(), value.as_ptr(), 1) })
    }
}

/// Where this process loaded the plugin.
pub(crate) fn context() -> Context {
    // SAFETY: takes nothing and only reads Slurm's own state.
    match unsafe { c::spank_context() } {
        c::S_CTX_LOCAL => Context::Local,
        c::S_CTX_ALLOCATOR => Context::Allocator,
        c::S_CTX_REMOTE => Context::Remote,
        c::S_CTX_SLURMD => Context::Slurmd,
        _ => Context::Other,
    }
}

/// Prints one line as an error of the command or daemon.
pub(crate) fn error(line: &str) {
    let line = printable(line);
    // SAFETY: the format takes exactly one string, which is NUL-terminated.
    unsafe { c::slurm_error(c"%s".as_ptr(), line.as_ptr()) };
}

/// Prints one line to the user, without the word "error".
pub(crate) fn note(line: &str) {
    let line = printable(line);
    // SAFETY: the format takes exactly one string, which is NUL-terminated.
    unsafe { c::slurm_spank_log(c"%s".as_ptr(), line.as_ptr()) };
}

/// A C string of the text; a NUL, which cannot be shown, ends it.
fn printable(line: &str) -> CString {
    let bytes: Vec<u8> = line.bytes().take_while(|&byte| byte != 0).collect();
    CString::new(bytes).unwrap_or_default()
}

/// Copies an array of strings that ends with NULL; a NULL array is empty.
///
/// # Safety
/// The array and its strings are valid and unchanged during the call.
pub(super) unsafe fn copy_array(array: *const *const c_char) -> Vec<CString> {
    let mut copy = Vec::new();
    if array.is_null() {
        return copy;
    }
    loop {
        // SAFETY: within the array: the NULL that ends it has not been met, says the caller.
        let entry = unsafe { *array.wrapping_add(copy.len()) };
        if entry.is_null() {
            return copy;
        }
        // SAFETY: a NUL-terminated string, says the caller.
        copy.push(unsafe { CStr::from_ptr(entry) }.to_owned());
    }
}

fn check(code: impl Into<i64>) -> Result<(), Refused> {
    match code.into() {
        0 => Ok(()),
        code => Err(Refused(code)),
    }
}

/// What Slurm calls for each use of one of our options.
extern "C" fn option_callback(val: c_int, optarg: *const c_char, remote: c_int) -> c_int {
    // SAFETY: Slurm passes NULL or a NUL-terminated string that is valid during the call.
    let value = (!optarg.is_null()).then(|| unsafe { CStr::from_ptr(optarg) });
    hooks::option(val, value, remote != 0)
}
