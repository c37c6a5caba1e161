//! What hardware and parallel file systems count: InfiniBand ports, Lustre and NFS mounts, energy
//! of CPUs. Some of it asks firmware, so it is read on a thread of its own.

mod energy;
mod infiniband;
mod lustre;
mod nfs;
#[cfg(test)]
mod tests;

use std::{io, path::Path, time::Duration};

use aifb_schema::metric::{self, Family};

use super::{
    background::{Background, Read},
    context::Context,
    grid::Grid,
    kernel_file::Buffer,
    table::Tick,
};
use energy::Energy;
use infiniband::InfiniBand;
use lustre::Lustre;
use nfs::Nfs;

/// What changes its shape (ports, mounts) is looked for at most this often: what comes later in a
/// run is seen soon enough.
const DISCOVER_NS: u64 = 10_000_000_000;

/// One value with its labels, in the order of its family's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    family: &'static Family,
    labels: Vec<String>,
    value: f64,
}

/// What one reading gave.
#[derive(Debug, Default)]
pub(super) struct Points {
    all: Vec<Point>,
    /// Whether each source has values, or why not.
    sources: Vec<(&'static str, io::Result<()>)>,
}

impl Points {
    fn put(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        self.all.push(Point { family, labels, value });
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 PB")]
    fn put_u64(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.put(family, labels, value as f64);
    }
}

impl Read for Points {
    fn rests(&self) -> Duration {
        let missing = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        };
        let nothing = |(_, result): &(_, io::Result<()>)| result.as_ref().is_err_and(missing);
        let rests = self.all.is_empty() && self.sources.iter().all(nothing);
        if rests { Duration::from_nanos(DISCOVER_NS) } else { Duration::ZERO }
    }
}

/// Gives what reads all devices.
pub(super) fn reader(proc_root: &Path, sys_root: &Path) -> impl FnMut(u64) -> Points + use<> {
    let mut infiniband = InfiniBand::new(sys_root);
    let mut lustre = Lustre::new(proc_root, sys_root);
    let mut nfs = Nfs::new(proc_root);
    let mut energy = Energy::new(sys_root);
    let mut buffer = Buffer::new();
    let mut next_discovery_ns = 0;
    move |now_ns| {
        if now_ns >= next_discovery_ns {
            next_discovery_ns = now_ns + DISCOVER_NS;
            infiniband.discover();
            lustre.discover();
            nfs.discover();
            energy.discover(&mut buffer);
        }
        let mut points = Points::default();
        let results = [
            ("infiniband", infiniband.read(&mut buffer, &mut points)),
            ("lustre", lustre.read(&mut buffer, &mut points)),
            ("nfs", nfs.read(&mut buffer, &mut points)),
            ("cpu_energy", energy.read(&mut buffer, &mut points)),
        ];
        points.sources.extend(results);
        points
    }
}

/// Shows what the thread has read.
#[derive(Debug)]
pub(super) struct Devices(Background<Points>);

impl Devices {
    pub(super) fn new(background: Background<Points>) -> Self {
        Self(background)
    }

    /// From now on ticks follow this grid.
    pub(super) fn follow(&mut self, grid: Grid) {
        self.0.follow(grid);
    }

    /// Puts the newest reading, if there is one.
    pub(super) fn collect(&self, tick: &mut Tick<'_>, context: &mut Context, now_ns: u64) {
        let Some(reading) = self.0.newest(now_ns) else {
            context.absent.say("devices", "no_answer");
            return;
        };
        context.absent.clear("devices");
        let took = Duration::from_nanos(reading.took_ns).as_secs_f64();
        tick.put(&metric::AGENT_SOURCE_DURATION, &[("source", "devices")], took);
        for (source, result) in &reading.value.sources {
            context.absent.note(source, result.as_ref().map_err(|error| error.kind().into()));
        }
        let mut labels = Vec::new();
        for Point { family, labels: values, value } in &reading.value.all {
            labels.clear();
            labels.extend(family.labels.iter().copied().zip(values.iter().map(String::as_str)));
            tick.put(family, &labels, *value);
        }
    }
}

/// Names of what is in a folder, in order.
///
/// # Errors
/// If the folder cannot be read.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The error of a source that has nothing here.
fn nothing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}
