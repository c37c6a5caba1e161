//! `start.json`: the common start of workers that meet through files.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Bytes of one of the files here: one carries a load, as a recipe of 64 KiB may have it.
const FILE_MAX: u64 = 1024 * 1024;

/// The common start, as rank 0 writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StartFile {
    /// Boot of rank 0's node: the same means the same clock.
    pub(crate) boot: String,
    /// The start, CLOCK_MONOTONIC.
    pub(crate) mono_ns: u64,
    /// The start, wall clock.
    pub(crate) epoch_ns: u64,
    /// Error of that node's wall clock, as its kernel states it.
    pub(crate) error_ns: u64,
    /// Why a load inside a run does not go by its agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<String>,
}

/// Name of the file with [`StartFile`].
pub(crate) const START: &str = "start.json";

/// Why the workers of a load inside a run met through files, if they did.
pub(crate) fn because(folder: &Path) -> Option<String> {
    let start: StartFile = serde_json::from_slice(&read_bounded(&folder.join(START)).ok()?).ok()?;
    start.because
}

/// Reads one of the files through which workers meet.
///
/// # Errors
/// Of the file system.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
