//! Loading the library, and reading all its devices again and again.

use std::path::Path;

use nvml_wrapper::Nvml;

use super::{Gathered, device::Watcher, refusal::reason};

/// Devices of a node that are looked at.
const DEVICES_MAX: u32 = 32;

/// What changes seldom or is dear is read at most this often: at each tick of one a second.
const SLOW_NS: u64 = 900_000_000;

/// Loads the library and gives what reads it. Where it cannot be loaded, each reading says why.
///
/// The library stays loaded until the program ends: unloading a driver's library while it may
/// still have threads is asking for a crash.
pub(super) fn reader(library: &Path) -> impl FnMut(u64) -> Gathered + use<> {
    let mut watchers = open(library);
    let mut next_slow_ns = 0;
    move |now_ns| {
        let slow = now_ns >= next_slow_ns;
        if slow {
            next_slow_ns = now_ns + SLOW_NS;
        }
        match &mut watchers {
            Ok(watchers) => {
                let devices = watchers.iter_mut().map(|watcher| watcher.read(slow)).collect();
                Gathered { absent: None, devices }
            }
            Err(reason) => Gathered { absent: Some(*reason), devices: Vec::new() },
        }
    }
}

fn open(library: &Path) -> Result<Vec<Watcher>, &'static str> {
    let nvml = Nvml::builder().lib_path(library.as_os_str()).init();
    let nvml: &'static Nvml = Box::leak(Box::new(nvml.map_err(|error| reason(&error))?));
    let count = nvml.device_count().map_err(|error| reason(&error))?;
    let driver = nvml.sys_driver_version().unwrap_or_default();
    let watchers: Vec<Watcher> =
        (0..count.min(DEVICES_MAX)).map(|index| Watcher::new(nvml, index, &driver)).collect();
    if watchers.is_empty() { Err("no_device") } else { Ok(watchers) }
}
