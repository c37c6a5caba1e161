//! Lustre mounts, from the `stats` file of each in the folder `llite`.
//!
//! A line is `read_bytes <calls> samples [bytes] <smallest> <largest> <sum>`, newer versions with
//! more behind it (Lustre Software Release 2.x Operations Manual, "Monitoring Client Activity").
//! Where the folder is depends on the version; debugfs is root's.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use aifb_schema::metric;

use super::{Points, names};
use crate::sample::{
    kernel_file::{Buffer, KernelFile},
    parse::behind,
};

/// Mounts with values. A node has a few.
const MOUNTS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Lustre {
    roots: [PathBuf; 3],
    mounts: BTreeMap<PathBuf, Mount>,
    /// Why there is no mount.
    missing: Option<io::ErrorKind>,
}

#[derive(Debug)]
struct Mount {
    filesystem: String,
    stats: KernelFile,
}

impl Lustre {
    pub(super) fn new(proc_root: &Path, sys_root: &Path) -> Self {
        let roots = [
            proc_root.join("fs/lustre/llite"),
            sys_root.join("kernel/debug/lustre/llite"),
            sys_root.join("fs/lustre/llite"),
        ];
        Self { roots, mounts: BTreeMap::new(), missing: Some(io::ErrorKind::NotFound) }
    }

    /// Looks for mounts that are not known yet, and forgets those that are gone.
    pub(super) fn discover(&mut self) {
        let mut missing = io::ErrorKind::NotFound;
        let mut found = BTreeMap::new();
        for root in &self.roots {
            let mounts = match names(root) {
                Ok(mounts) => mounts,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    missing = error.kind();
                    continue;
                }
                Err(_) => continue,
            };
            for name in mounts {
                let stats = root.join(&name).join("stats");
                if stats.is_file() && found.len() < MOUNTS_MAX {
                    // `<file system>-<address of the mount in the kernel>`
                    let filesystem = name.rsplit_once('-').map_or(name.as_str(), |(name, _)| name);
                    found.insert(stats, filesystem.to_owned());
                }
            }
        }
        self.mounts.retain(|stats, _| found.contains_key(stats));
        for (stats, filesystem) in found {
            let kept = KernelFile::new(&stats);
            self.mounts.entry(stats).or_insert(Mount { filesystem, stats: kept });
        }
        self.missing = self.mounts.is_empty().then_some(missing);
    }

    /// # Errors
    /// There is no mount, or its counters cannot be read.
    pub(super) fn read(&mut self, buffer: &mut Buffer, points: &mut Points) -> io::Result<()> {
        if let Some(kind) = self.missing {
            return Err(kind.into());
        }
        // A file system that is mounted twice is counted once.
        let mut sums: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        let mut result = Ok(());
        for Mount { filesystem, stats } in self.mounts.values_mut() {
            match stats.read(buffer) {
                Ok(text) => {
                    let sum = sums.entry(filesystem).or_default();
                    for (total, key) in sum.iter_mut().zip(["read_bytes", "write_bytes"]) {
                        *total = total.saturating_add(sum_of(text, key));
                    }
                }
                Err(error) => result = Err(error),
            }
        }
        for (filesystem, [read, written]) in sums {
            points.put_u64(&metric::LUSTRE_BYTES, &[filesystem, "read"], read);
            points.put_u64(&metric::LUSTRE_BYTES, &[filesystem, "write"], written);
        }
        result
    }
}

/// The sum in a line of byte counts. The kernel leaves a line out until its first call: that is
/// nothing so far.
fn sum_of(text: &str, key: &str) -> u64 {
    let sum = behind(text, key).and_then(|rest| rest.split_ascii_whitespace().nth(5)?.parse().ok());
    sum.unwrap_or(0)
}
