//! GPU values in a tick.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use aifb_schema::metric;
use nvml_wrapper::bitmasks::device::ThrottleReasons;

use super::{Device, Gathered, Process, quantity, role::Roles};
use crate::sample::{
    background::Background, cgroup::Place, context::Context, grid::Grid, service::Services,
    table::Tick,
};

/// Reasons that hold clocks down, by the name of their series. A GPU that is idle is not held.
const REASONS: [(&str, ThrottleReasons); 6] = [
    ("power_cap", ThrottleReasons::SW_POWER_CAP),
    ("thermal", ThrottleReasons::SW_THERMAL_SLOWDOWN.union(ThrottleReasons::HW_THERMAL_SLOWDOWN)),
    ("hardware", ThrottleReasons::HW_SLOWDOWN),
    ("power_brake", ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN),
    ("sync_boost", ThrottleReasons::SYNC_BOOST),
    ("application_clocks", ThrottleReasons::APPLICATIONS_CLOCKS_SETTING),
];

/// Shows what the thread has read.
#[derive(Debug)]
pub(in crate::sample) struct Gpus {
    background: Background<Gathered>,
    roles: Roles,
}

impl Gpus {
    pub(in crate::sample) fn new(
        background: Background<Gathered>,
        proc_root: PathBuf,
        place: Option<Place>,
    ) -> Self {
        Self { background, roles: Roles::new(proc_root, place) }
    }

    /// From now on ticks follow this grid.
    pub(in crate::sample) fn follow(&mut self, grid: Grid) {
        self.background.follow(grid);
    }

    /// Puts the newest reading, if the library still answers.
    pub(in crate::sample) fn collect(
        &mut self,
        tick: &mut Tick<'_>,
        context: &mut Context,
        services: &Services,
        now_ns: u64,
    ) {
        let Some(reading) = self.background.newest(now_ns) else {
            context.absent.say("gpu", "no_answer");
            return;
        };
        if let Some(reason) = reading.value.absent {
            context.absent.say("gpu", reason);
            return;
        }
        context.absent.clear("gpu");
        let seconds = |ns| Duration::from_nanos(ns).as_secs_f64();
        let age_ns = now_ns.saturating_sub(reading.at_ns + reading.took_ns);
        tick.put(&metric::GPU_READING_AGE, &[], seconds(age_ns));
        tick.put(&metric::AGENT_SOURCE_DURATION, &[("source", "gpu")], seconds(reading.took_ns));
        for device in &reading.value.devices {
            put_device(tick, device);
        }
        let untold = |device: &Device| device.xids.as_ref()?.as_ref().err().copied();
        match reading.value.devices.iter().find_map(untold) {
            Some(reason) => context.absent.say("gpu_xid", reason),
            None => context.absent.clear("gpu_xid"),
        }
        self.put_processes(tick, context, services, &reading.value.devices);
    }

    fn put_processes(
        &mut self,
        tick: &mut Tick<'_>,
        context: &mut Context,
        services: &Services,
        devices: &[Device],
    ) {
        for device in devices {
            let gpu = device.identity.gpu.as_str();
            let mut roles: BTreeMap<&str, u64> = BTreeMap::new();
            let mut replicas: BTreeMap<(&str, u32), u64> = BTreeMap::new();
            for Process { pid, bytes } in &device.processes {
                let owner = services.owner(*pid);
                let role = match owner {
                    Some(_) => "service",
                    None => self.roles.of(*pid, &mut context.buffer),
                };
                *roles.entry(role).or_default() += bytes;
                if let Some(owner) = owner {
                    *replicas.entry(owner).or_default() += bytes;
                }
            }
            for (role, bytes) in roles {
                tick.put_u64(&metric::GPU_PROCESS_MEMORY, &[("gpu", gpu), ("role", role)], bytes);
            }
            for ((service, replica), bytes) in replicas {
                let replica = replica.to_string();
                let labels = [("service", service), ("replica", &replica), ("gpu", gpu)];
                tick.put_u64(&metric::SERVICE_GPU_MEMORY, &labels, bytes);
            }
        }
        let processes = || devices.iter().flat_map(|device| &device.processes);
        self.roles.keep(|pid| processes().any(|process| process.pid == pid));
    }
}

fn put_device(tick: &mut Tick<'_>, device: &Device) {
    let identity = &*device.identity;
    let gpu = [("gpu", identity.gpu.as_str()), ("uuid", identity.uuid.as_str())];
    let [number, uuid] = gpu;
    let info = [number, uuid, ("name", &identity.name), ("driver", &identity.driver)];
    tick.put(&metric::GPU_INFO, &info, 1.0);
    if let Some(reason) = device.absent {
        tick.put(&metric::GPU_ABSENT, &[number, uuid, ("reason", reason)], 1.0);
    }
    for (quantity, value) in quantity::ALL.iter().zip(&device.values) {
        match (value, quantity.label) {
            (None, _) => {}
            (Some(value), None) => tick.put(quantity.family, &gpu, *value),
            (Some(value), Some(label)) => tick.put(quantity.family, &[number, uuid, label], *value),
        }
    }
    if let Some(bits) = device.throttled {
        let now = ThrottleReasons::from_bits_truncate(bits);
        for (reason, flags) in REASONS {
            let held = u64::from(now.intersects(flags));
            tick.put_u64(&metric::GPU_THROTTLED, &[number, uuid, ("reason", reason)], held);
        }
    }
    put_xids(tick, device, gpu);
    for part in &device.instances {
        let labels = [number, ("instance", part.number.as_str()), ("uuid", part.uuid.as_str())];
        for (family, bytes) in [
            (&metric::GPU_INSTANCE_MEMORY_USED, part.used),
            (&metric::GPU_INSTANCE_MEMORY_TOTAL, part.total),
        ] {
            if let Some(bytes) = bytes {
                tick.put_u64(family, &labels, bytes);
            }
        }
    }
}

/// Critical errors: how many in all, from 0, and how many of each reported number.
fn put_xids(tick: &mut Tick<'_>, device: &Device, gpu: [(&'static str, &str); 2]) {
    let [number, uuid] = gpu;
    if let Some(Ok(counts)) = &device.xids {
        tick.put_u64(&metric::GPU_XIDS, &gpu, counts.values().sum());
        for (xid, count) in counts {
            let xid = xid.map_or_else(|| "unknown".to_owned(), |xid| xid.to_string());
            tick.put_u64(&metric::GPU_XID_CODES, &[number, uuid, ("xid", &xid)], *count);
        }
    }
    if let Some(xid) = device.last_xid {
        tick.put_u64(&metric::GPU_LAST_XID, &gpu, xid);
    }
}
