//! The symbols that Slurm looks for. rustc hides every other one from it; tests/exports.rs is the
//! gate, since a stray symbol named `init` or `fini` would be called by Slurm, and every further
//! hook would cost a call in every job.
//!
//! A panic must not leave any of these functions: each one only makes safe values of what Slurm
//! passes and hands over to `hooks`, which catches panics.

use std::ffi::{CStr, c_char, c_int, c_uint};

use super::bindings::{SLURM_VERSION_NUMBER, spank_t};
use super::spank::Spank;
use crate::hooks;

/// Slurm's name of this plugin; the derived names of options and variables contain it.
#[unsafe(no_mangle)]
pub(super) static plugin_name: [c_char; 5] = terminated(b"aifb\0");

/// The kind of plugin, without which Slurm refuses to load it.
#[unsafe(no_mangle)]
pub(super) static plugin_type: [c_char; 6] = terminated(b"spank\0");

/// The release this was built for; Slurm refuses another major.minor.
#[unsafe(no_mangle)]
pub(super) static plugin_version: c_uint = SLURM_VERSION_NUMBER;

/// ESPANK_JOB_FAILURE: a failing init may end the job but never drains the node. Slurm 25.05 and
/// later read it, older ones do not look for it.
#[unsafe(no_mangle)]
pub(super) static slurm_spank_init_failure_mode: c_int = 3012;

/// First call in every process that loads the plugin.
#[unsafe(no_mangle)]
pub(super) extern "C" fn slurm_spank_init(
    spank: spank_t,
    ac: c_int,
    av: *mut *mut c_char,
) -> c_int {
    // SAFETY: Slurm passes its own handle and argument vector, valid until this call returns.
    unsafe { with(spank, ac, av, hooks::init) }
}

/// After sbatch, salloc or srun has read its options, once for each component of the job.
#[unsafe(no_mangle)]
pub(super) extern "C" fn slurm_spank_init_post_opt(
    spank: spank_t,
    ac: c_int,
    av: *mut *mut c_char,
) -> c_int {
    // SAFETY: as in `slurm_spank_init`.
    unsafe { with(spank, ac, av, hooks::init_post_opt) }
}

/// In srun, when it has its allocation and is about to start the tasks.
#[unsafe(no_mangle)]
pub(super) extern "C" fn slurm_spank_local_user_init(
    spank: spank_t,
    ac: c_int,
    av: *mut *mut c_char,
) -> c_int {
    // SAFETY: as in `slurm_spank_init`.
    unsafe { with(spank, ac, av, hooks::local_user_init) }
}

/// In the process that becomes a task of the job, already as the user.
#[unsafe(no_mangle)]
pub(super) extern "C" fn slurm_spank_task_init(
    spank: spank_t,
    ac: c_int,
    av: *mut *mut c_char,
) -> c_int {
    // SAFETY: as in `slurm_spank_init`.
    unsafe { with(spank, ac, av, hooks::task_init) }
}

/// Makes safe values of a hook's arguments.
///
/// # Safety
/// `spank` is Slurm's handle; `av` has `ac` NUL-terminated strings; both stay valid and unchanged
/// while this runs.
unsafe fn with(
    spank: spank_t,
    ac: c_int,
    av: *mut *mut c_char,
    hook: fn(&Spank<'_>, &[&CStr]) -> c_int,
) -> c_int {
    let mut words = Vec::new();
    for index in 0..usize::try_from(ac).unwrap_or(0) {
        if av.is_null() {
            break;
        }
        // SAFETY: `av` is not NULL and `index` is below its length `ac`, says the caller.
        let word = unsafe { *av.wrapping_add(index) };
        if !word.is_null() {
            // SAFETY: NUL-terminated and valid for this call, says the caller.
            words.push(unsafe { CStr::from_ptr(word) });
        }
    }
    // SAFETY: the caller vouches for the handle while this runs, and `handle` does not outlive it.
    let handle = unsafe { Spank::new(spank) };
    hook(&handle, &words)
}

const fn terminated<const N: usize>(text: &[u8; N]) -> [c_char; N] {
    let mut chars = [0; N];
    let mut index = 0;
    while index < N {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, index < N")]
        {
            chars[index] = text[index] as c_char;
        }
        index += 1;
    }
    chars
}
