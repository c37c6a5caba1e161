//! NFS mounts, from `/proc/self/mountstats`.
//!
//! A mount begins with `device … mounted on <folder> with fstype nfs…`; its line `bytes:` has
//! eight numbers: read and written by ordinary calls, the same by direct I/O, the same from and
//! to the server, and pages (kernel: fs/nfs/super.c, `nfs_show_stats`; include/linux/nfs_iostat.h).

use std::{io, path::Path};

use aifb_schema::metric;

use super::{Points, nothing};
use crate::sample::{
    kernel_file::{Buffer, KernelFile},
    parse::{not_understood, numbers},
};

/// Mounts with values. Automounted homes can make many.
const MOUNTS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Nfs {
    mountstats: KernelFile,
    /// Whether there were none at the last look: the file has a line for every mount of the node.
    missing: bool,
}

impl Nfs {
    pub(super) fn new(proc_root: &Path) -> Self {
        Self { mountstats: KernelFile::new(proc_root.join("self/mountstats")), missing: false }
    }

    /// Looks for mounts at the next reading.
    pub(super) fn discover(&mut self) {
        self.missing = false;
    }

    /// # Errors
    /// There is no mount, or the file cannot be read or is of another form.
    pub(super) fn read(&mut self, buffer: &mut Buffer, points: &mut Points) -> io::Result<()> {
        if self.missing {
            return Err(nothing());
        }
        let text = self.mountstats.read(buffer)?;
        let mut mount = None;
        let mut shown = 0;
        for line in text.lines() {
            if let Some(device) = line.strip_prefix("device ") {
                mount = nfs_folder(device).filter(|_| shown < MOUNTS_MAX);
            } else if let (Some(folder), Some(bytes)) =
                (mount, line.trim_start().strip_prefix("bytes:"))
            {
                let mut fields = numbers(bytes).skip(4);
                let (Some(read), Some(written)) = (fields.next(), fields.next()) else {
                    return Err(not_understood());
                };
                points.put_u64(&metric::NFS_BYTES, &[folder, "read"], read);
                points.put_u64(&metric::NFS_BYTES, &[folder, "write"], written);
                shown += 1;
            }
        }
        self.missing = shown == 0;
        if self.missing { Err(nothing()) } else { Ok(()) }
    }
}

/// Where an NFS device is mounted; absent for another file system.
fn nfs_folder(device: &str) -> Option<&str> {
    // Most mounts are others; this costs less than taking them apart.
    if !device.contains(" nfs") {
        return None;
    }
    let (_, rest) = device.split_once(" mounted on ")?;
    let (folder, kind) = rest.split_once(" with fstype ")?;
    kind.starts_with("nfs").then_some(folder)
}
