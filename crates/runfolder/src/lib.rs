//! The run folder: where each file is, how it is written, how it is read.
//!
//! * [`RunFolder`] and the folders below it ([`NodeFolder`], [`ReplicaFolder`], [`RepeatFolder`])
//!   name every path. No other crate joins them by hand.
//! * [`write`] is the one way to write: a whole file by rename ([`write::replace`]), a file that
//!   must not exist yet ([`write::create`], [`write::publish`]), appended lines
//!   ([`write::Appender`]).
//! * [`read`] reads what is there. A file may be missing, cut off in the middle of a line, or
//!   another user's: every reader has a bound, follows no length that the file states, and says
//!   how many bytes at the end are torn.
//!
//! The formats themselves are in `aifb-schema`, which has no I/O. This crate starts no thread and
//! knows no queue: who must not wait for a file system calls it from a thread of its own.
#![forbid(unsafe_code)]

mod folder;
pub mod read;
pub mod write;

pub use folder::{NodeFolder, RepeatFolder, ReplicaFolder, RunFolder, worker};
