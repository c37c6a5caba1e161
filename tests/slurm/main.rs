//! Tests on a real several-node Slurm (tests/slurm/cluster). `make test` brings it up and runs
//! them; docs/architecture.md and NASTY.md say which promise each one keeps.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "a test that panics has failed, which is what it is for"
)]

#[macro_use]
mod cluster;

mod alone;
mod bad_recipes;
mod bare;
mod change;
mod containers;
mod documents;
mod failure;
mod figures;
mod files;
mod full;
mod nasty;
mod processes;
mod rare;
mod recipes;
mod submission;
mod verbs;
