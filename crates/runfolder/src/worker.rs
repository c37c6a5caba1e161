//! Names of the files in the folder of a load's workers. Outside a run this folder is any folder
//! that the workers share, so these take its path.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aifb_schema::{names::file, result::LoadResult};

use crate::read::{self, RECORD_BYTES_MAX};

/// The merged result.
#[must_use]
pub fn result(folder: &Path) -> PathBuf {
    folder.join(file::RESULT)
}

/// `result.json`; what earlier programs wrote elsewhere in it is in its present place.
///
/// # Errors
/// It cannot be read or is no result (`InvalidData`).
pub fn read_result(folder: &Path) -> io::Result<LoadResult> {
    let result: LoadResult = read::json(&result(folder), RECORD_BYTES_MAX)?;
    Ok(result.with_former_operations())
}

/// The seconds of all workers together.
#[must_use]
pub fn series(folder: &Path) -> PathBuf {
    folder.join(file::SERIES)
}

/// One row for each request of this rank, as an Arrow IPC stream.
#[must_use]
pub fn rows(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("worker-{rank}.arrows"))
}

/// The sums and histograms of this rank, replaced once a second.
#[must_use]
pub fn checkpoint(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("worker-{rank}.hdr"))
}

/// The seconds of this rank, one line each.
#[must_use]
pub fn seconds(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("worker-{rank}.jsonl"))
}

/// Name of the file that a rank writes when it is prepared, where workers meet through files.
#[must_use]
pub fn prepared(rank: u32) -> String {
    format!("rank-{rank}.json")
}

/// The folder of a repeat in that of its point, or in the folder of a search outside a run.
#[must_use]
pub fn repeat(point: &Path, repeat: u32) -> PathBuf {
    point.join(format!("r{repeat}"))
}

/// Checkpoints that exist, in the order of ranks. Files that are not finished are left out.
///
/// # Errors
/// The folder cannot be read.
pub fn checkpoints(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    ranked(folder, ".hdr")
}

/// Row files that exist, in the order of ranks.
///
/// # Errors
/// The folder cannot be read.
pub fn all_rows(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    ranked(folder, ".arrows")
}

fn ranked(folder: &Path, ending: &str) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let rank = name.to_str().and_then(|name| {
            name.strip_prefix("worker-")?.strip_suffix(ending)?.parse::<u32>().ok()
        });
        found.extend(rank.map(|rank| (rank, entry.path())));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_workers_are_found_by_rank() {
        let folder = tempfile::tempdir().unwrap();
        for rank in [10, 2, 0] {
            fs::write(rows(folder.path(), rank), "").unwrap();
            fs::write(checkpoint(folder.path(), rank), "").unwrap();
        }
        for other in ["worker-x.hdr", ".worker-3.hdr.1.0.new", "worker-3.hdr.new", "result.json"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let expected = [0, 2, 10].map(|rank| (rank, checkpoint(folder.path(), rank)));
        assert_eq!(checkpoints(folder.path()).unwrap(), expected);
        assert_eq!(all_rows(folder.path()).unwrap().len(), 3);
        assert!(all_rows(&folder.path().join("none")).is_err());
    }
}
