//! The command line as a user meets it: real programs, no Slurm (where a test needs Slurm's
//! commands it writes small stand-ins).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that panics has failed, which is what it is for"
)]

mod bad_recipes;
mod install;
mod logs;
mod old_runs;
mod programs;
mod regressions;
mod runs;
mod services;
mod stand_ins;
mod submit;
mod verbs;
