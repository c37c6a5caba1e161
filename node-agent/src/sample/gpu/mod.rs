//! GPUs, by NVIDIA's management library (NVML), which is loaded at run time on a thread of its own:
//! it may be missing, slow, or hang.

mod device;
mod library;
mod quantity;
mod refusal;
mod role;
mod show;
mod xid;

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    background::{Background, Read},
    grid::Grid,
};

pub(super) use show::Gpus;
use xid::Counts;
pub(super) use xid::meaning;

/// The values of the library at one time.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Why there is nothing at all.
    absent: Option<&'static str>,
    devices: Vec<Device>,
}

/// Without a library that can be used: none will come while this agent lives.
const ABSENT_RESTS: Duration = Duration::from_secs(30);

impl Read for Gathered {
    fn rests(&self) -> Duration {
        self.absent.map_or(Duration::ZERO, |_| ABSENT_RESTS)
    }
}

/// What a GPU is called; it does not change.
#[derive(Debug)]
struct Identity {
    /// Its number in the library.
    gpu: String,
    uuid: String,
    name: String,
    driver: String,
}

/// One GPU at one time.
#[derive(Debug)]
struct Device {
    identity: Arc<Identity>,
    /// Why it has no values.
    absent: Option<&'static str>,
    /// One for each of `quantity::ALL`.
    values: Vec<Option<f64>>,
    /// Bits of the reasons that hold clocks down now.
    throttled: Option<u64>,
    /// Critical errors so far by their number, or why the driver does not tell them; absent where
    /// the GPU may not be read at all.
    xids: Option<Result<Counts, &'static str>>,
    last_xid: Option<u64>,
    processes: Vec<Process>,
    instances: Vec<Instance>,
}

/// Memory that a process has on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    bytes: u64,
}

/// A part of a GPU (MIG).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instance {
    number: String,
    uuid: String,
    used: Option<u64>,
    total: Option<u64>,
}

/// Starts reading all GPUs.
///
/// # Errors
/// If the thread cannot be started.
pub(super) fn start(library: PathBuf, grid: Grid) -> anyhow::Result<Background<Gathered>> {
    Background::start("gpu", grid, move || library::reader(&library))
}
