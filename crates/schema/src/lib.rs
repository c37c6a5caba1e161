//! The words that the parts of aifb share: recipe, snapshot, run-folder records, results,
//! control messages and names.
//!
//! No I/O and no clock here. With default features off only [`names`] and [`launch_status`] are
//! left, so that the plugin has no dependency.
#![forbid(unsafe_code)]

pub mod launch_status;
pub mod names;

#[cfg(feature = "full")]
pub mod control;
#[cfg(feature = "full")]
pub mod error;
#[cfg(feature = "full")]
pub mod gateway;
#[cfg(feature = "full")]
pub mod live;
#[cfg(feature = "full")]
pub mod log_line;
#[cfg(feature = "full")]
pub mod logs;
#[cfg(feature = "full")]
pub mod metric;
#[cfg(feature = "full")]
pub mod recipe;
#[cfg(feature = "full")]
pub mod result;
#[cfg(feature = "full")]
pub mod run;
#[cfg(feature = "full")]
pub mod samples;
#[cfg(feature = "full")]
pub mod search;
#[cfg(feature = "full")]
pub mod snapshot;
#[cfg(feature = "full")]
pub mod time;
#[cfg(feature = "full")]
pub mod units;

/// The one version line that every program prints for `--version`.
#[must_use]
pub fn version_line(program: &str) -> String {
    format!("{program} {} (protocol {})", names::VERSION, names::PROTOCOL)
}
