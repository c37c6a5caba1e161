//! Everything unsafe: Slurm's C interface, the exported symbols, and the system calls for which
//! std has no safe form. The rest of the crate only sees the safe layer.
#![expect(unsafe_code, reason = "the C interface of Slurm and fork have no safe form")]

#[cfg(not(test))]
mod exports;
pub(crate) mod process;
pub(crate) mod spank;

#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    reason = "made by bindgen from the site's own spank.h, which differs between releases"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/spank.rs"));
}
