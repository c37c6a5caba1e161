//! `aifb-agent sample`: the real program, on this machine and on made ones.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers, too"
)]

mod command;
mod gpus;
mod large;
mod record;
