//! The plugin inside a stand-in for the processes of Slurm (host/host.c), with a stand-in for
//! aifb-agent (host/launcher.c).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that panics has failed, which is what it is for"
)]

#[path = "../common/mod.rs"]
mod common;
mod harm;
mod host;
mod start;
mod submission;
