//! Energy of CPU packages and their parts (RAPL), from `/sys/class/powercap/<zone>/energy_uj`.
//!
//! The counters start again at 0 above `max_energy_range_uj` (kernel: Documentation/power/powercap).
//! Most sites let only root read them, since CVE-2020-8694: that is absence with a reason, not 0 W.

use std::{
    io,
    path::{Path, PathBuf},
};

use aifb_schema::metric;

use super::{Points, names, nothing};
use crate::sample::{
    kernel_file::{Buffer, KernelFile},
    parse::{not_understood, numbers},
    units::millionths,
};

/// Zones with values: packages and their parts. Large nodes have some sixteen.
const ZONES_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Energy {
    root: PathBuf,
    zones: Vec<Zone>,
}

#[derive(Debug)]
struct Zone {
    folder: String,
    package: String,
    domain: String,
    /// Where the counter starts again, in µJ.
    range: Option<u64>,
    energy: KernelFile,
    last: u64,
    /// What was counted before the counter last started again, in µJ.
    before: u64,
}

impl Energy {
    pub(super) fn new(sys_root: &Path) -> Self {
        Self { root: sys_root.join("class/powercap"), zones: Vec::new() }
    }

    /// Looks for zones that are not known yet, and forgets those that are gone.
    pub(super) fn discover(&mut self, buffer: &mut Buffer) {
        let folders = names(&self.root).unwrap_or_default();
        self.zones.retain(|zone| folders.contains(&zone.folder));
        for folder in folders {
            // The same package is seen once more through memory-mapped registers.
            let again = folder.starts_with("intel-rapl-mmio");
            let known = self.zones.iter().any(|zone| zone.folder == folder);
            if !again && !known && self.zones.len() < ZONES_MAX {
                self.zones.extend(Zone::open(&self.root, folder, buffer));
            }
        }
    }

    /// # Errors
    /// There is no zone, or the counters may not be read.
    pub(super) fn read(&mut self, buffer: &mut Buffer, points: &mut Points) -> io::Result<()> {
        let mut result = if self.zones.is_empty() { Err(nothing()) } else { Ok(()) };
        for zone in &mut self.zones {
            match zone.read(buffer) {
                Ok(joules) => {
                    points.put(&metric::CPU_ENERGY, &[&zone.package, &zone.domain], joules);
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

impl Zone {
    /// A folder `intel-rapl:<package>[:<part>]` with a counter.
    fn open(root: &Path, folder: String, buffer: &mut Buffer) -> Option<Self> {
        let (_, place) = folder.split_once(':')?;
        let package = place.split(':').next()?.to_owned();
        let at = root.join(&folder);
        let energy = at.join("energy_uj");
        if !energy.exists() {
            return None;
        }
        let name = buffer.read_once(&at.join("name")).ok()?.trim().to_owned();
        // A package is called `package-0`.
        let domain = if name.starts_with("package") { "package".to_owned() } else { name };
        let range = buffer.read_once(&at.join("max_energy_range_uj")).ok();
        let range = range.and_then(|text| numbers(text).next());
        Some(Self {
            package,
            domain,
            range,
            energy: KernelFile::at_once(energy),
            last: 0,
            before: 0,
            folder,
        })
    }

    /// Joules since the counter was first read, and what it showed then.
    fn read(&mut self, buffer: &mut Buffer) -> io::Result<f64> {
        let now = numbers(self.energy.read(buffer)?).next().ok_or_else(not_understood)?;
        if now < self.last {
            // Without its range nothing is known of what went by; it counts on from there.
            self.before = self.before.saturating_add(self.range.unwrap_or(self.last));
        }
        self.last = now;
        Ok(millionths(self.before.saturating_add(now)))
    }
}
