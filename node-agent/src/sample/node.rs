//! The whole node: CPU, run delay, memory, pressure, disks, network.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use aifb_schema::metric;

use super::{
    context::Context,
    kernel_file::KernelFile,
    parse::{keyed, not_understood, numbers, pressure_totals},
    table::Tick,
    units::{Units, seconds_of_ns, seconds_of_us},
};

/// CPU modes in the order of `/proc/stat`. The two that follow, guest and guest_nice, are part
/// of user and nice.
const CPU_MODES: [&str; 8] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// Memory kinds and their names in `/proc/meminfo`.
const MEMORY_KINDS: [(&str, &str); 12] = [
    ("total", "MemTotal"),
    ("free", "MemFree"),
    ("available", "MemAvailable"),
    ("buffers", "Buffers"),
    ("cached", "Cached"),
    ("anonymous", "AnonPages"),
    ("shared", "Shmem"),
    ("slab", "Slab"),
    ("dirty", "Dirty"),
    ("writeback", "Writeback"),
    ("swap_total", "SwapTotal"),
    ("swap_free", "SwapFree"),
];

/// Network devices and disks with values. A compute node has a few of each; containers and
/// virtual machines can make thousands.
const DEVICES_MAX: usize = 32;

/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// Collects the node's own counters.
#[derive(Debug)]
pub(super) struct Node {
    units: Units,
    stat: KernelFile,
    schedstat: KernelFile,
    meminfo: KernelFile,
    vmstat: KernelFile,
    /// As last read: the file has more than a hundred lines, most of them sums over all CPUs, for
    /// one count that seldom grows.
    oom_kills: Option<u64>,
    pressure: [(&'static str, KernelFile); 3],
    diskstats: KernelFile,
    netdev: KernelFile,
    disks: Disks,
}

impl Node {
    pub(super) fn new(proc_root: &Path, sys_root: &Path, units: Units) -> Self {
        let list = |name: &str| KernelFile::new(proc_root.join(name));
        let kept = |name: &str| KernelFile::at_once(proc_root.join(name));
        let pressure = ["cpu", "memory", "io"];
        Self {
            units,
            stat: kept("stat"),
            schedstat: list("schedstat"),
            meminfo: kept("meminfo"),
            vmstat: list("vmstat"),
            oom_kills: None,
            pressure: pressure.map(|name| (name, kept(&format!("pressure/{name}")))),
            diskstats: list("diskstats"),
            netdev: list("self/net/dev"),
            disks: Disks { block: sys_root.join("block"), there: false, physical: HashMap::new() },
        }
    }

    pub(super) fn collect(&mut self, tick: &mut Tick<'_>, context: &mut Context) {
        let Context { buffer, absent, slow, .. } = context;
        let slow = *slow;
        let units = self.units;
        let mut read = |source, kept: &mut KernelFile, put: &mut PutText<'_>| {
            let result = kept.read(buffer).and_then(|text| put(tick, text));
            absent.note(source, result);
        };
        read("node_cpu", &mut self.stat, &mut |tick, text| put_cpu(tick, text, units));
        // Its text has several lines for each CPU: dear on large nodes, for the kernel above all.
        if slow {
            read("node_run_delay", &mut self.schedstat, &mut put_run_delay);
        }
        read("node_memory", &mut self.meminfo, &mut put_memory);
        let kills = &mut self.oom_kills;
        if slow {
            *kills = None;
            read("node_oom_kills", &mut self.vmstat, &mut |_, text| take_oom_kills(text, kills));
        }
        for (resource, kept) in &mut self.pressure {
            read("node_pressure", kept, &mut |tick, text| put_pressure(tick, text, resource));
        }
        let disks = &mut self.disks;
        if slow {
            disks.there = disks.block.is_dir();
        }
        read("node_disk", &mut self.diskstats, &mut |tick, text| put_disks(tick, text, disks));
        read("node_network", &mut self.netdev, &mut put_network);
        if let Some(kills) = self.oom_kills {
            tick.put_u64(&metric::NODE_OOM_KILLS, &[], kills);
        }
    }
}

type PutText<'a> = dyn FnMut(&mut Tick<'_>, &str) -> io::Result<()> + 'a;

fn put_cpu(tick: &mut Tick<'_>, text: &str, units: Units) -> io::Result<()> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "));
    for (mode, ticks) in CPU_MODES.iter().zip(numbers(line.ok_or_else(not_understood)?)) {
        tick.put(&metric::NODE_CPU, &[("mode", mode)], units.seconds(ticks));
    }
    Ok(())
}

/// Lines `cpu<N>` end in: time on CPU, time waited for a CPU (both ns), time slices.
fn put_run_delay(tick: &mut Tick<'_>, text: &str) -> io::Result<()> {
    let delays = text.lines().filter_map(|line| {
        let (cpu, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
        cpu.parse::<u32>().ok()?;
        numbers(rest).nth(7)
    });
    let delay_ns = delays.reduce(u64::saturating_add).ok_or_else(not_understood)?;
    tick.put(&metric::NODE_RUN_DELAY, &[], seconds_of_ns(delay_ns));
    Ok(())
}

fn put_memory(tick: &mut Tick<'_>, text: &str) -> io::Result<()> {
    keyed(text, "MemTotal").ok_or_else(not_understood)?;
    for (kind, key) in MEMORY_KINDS {
        if let Some(kib) = keyed(text, key) {
            tick.put_u64(&metric::NODE_MEMORY, &[("kind", kind)], kib.saturating_mul(1024));
        }
    }
    Ok(())
}

/// A kernel before 4.13 has no such line.
fn take_oom_kills(text: &str, kills: &mut Option<u64>) -> io::Result<()> {
    *kills = Some(keyed(text, "oom_kill").ok_or_else(not_understood)?);
    Ok(())
}

fn put_pressure(tick: &mut Tick<'_>, text: &str, resource: &str) -> io::Result<()> {
    for (kind, us) in pressure_totals(text) {
        let total = seconds_of_us(us.ok_or_else(not_understood)?);
        tick.put(&metric::NODE_PRESSURE, &[("resource", resource), ("kind", kind)], total);
    }
    Ok(())
}

/// Which block devices are disks of their own.
#[derive(Debug)]
struct Disks {
    block: PathBuf,
    /// Whether there is such a folder.
    there: bool,
    /// By name; a device does not change its nature.
    physical: HashMap<String, bool>,
}

impl Disks {
    /// Whole devices only: no partition, nothing in memory or on a file, and nothing stacked on
    /// other devices (LVM, RAID, encryption), whose bytes would count twice.
    fn is_physical(&mut self, name: &str) -> bool {
        if let Some(known) = self.physical.get(name) {
            return *known;
        }
        let device = self.block.join(name.replace('/', "!"));
        let virtual_device = ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
        let stacked = std::fs::read_dir(device.join("slaves"))
            .is_ok_and(|mut slaves| slaves.next().is_some());
        let physical = device.is_dir() && !virtual_device && !stacked;
        self.physical.insert(name.to_owned(), physical);
        physical
    }
}

/// Fields behind major, minor, name: reads, merged, sectors read, ms, writes, merged, sectors
/// written, ms, in flight, ms with work, …
fn put_disks(tick: &mut Tick<'_>, text: &str, disks: &mut Disks) -> io::Result<()> {
    if !disks.there {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let mut shown = 0;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(2);
        let name = words.next().ok_or_else(not_understood)?;
        let [reads, _, read, _, writes, _, written, _, _, busy_ms] =
            first(words.map_while(|word| word.parse().ok())).ok_or_else(not_understood)?;
        // A disk that never worked (an empty card reader, say) has nothing to tell.
        if reads == 0 && writes == 0 || shown == DEVICES_MAX || !disks.is_physical(name) {
            continue;
        }
        shown += 1;
        for (op, sectors) in [("read", read), ("write", written)] {
            let labels = [("device", name), ("op", op)];
            tick.put_u64(&metric::NODE_DISK, &labels, sectors.saturating_mul(SECTOR_BYTES));
        }
        let busy = seconds_of_us(busy_ms.saturating_mul(1000));
        tick.put(&metric::NODE_DISK_BUSY, &[("device", name)], busy);
    }
    Ok(())
}

/// The first numbers of a line, if it has so many.
fn first<const N: usize>(mut numbers: impl Iterator<Item = u64>) -> Option<[u64; N]> {
    let mut found = [0; N];
    for place in &mut found {
        *place = numbers.next()?;
    }
    Some(found)
}

/// Two lines of headings, then `device: ` and 8 numbers received, 8 sent: bytes, packets,
/// errors, drops, …
fn put_network(tick: &mut Tick<'_>, text: &str) -> io::Result<()> {
    let mut shown = 0;
    for line in text.lines().skip(2) {
        let (device, rest) = line.split_once(':').ok_or_else(not_understood)?;
        let device = device.trim();
        let [received, _, _, dropped_in, _, _, _, _, sent, _, _, dropped_out] =
            first(numbers(rest)).ok_or_else(not_understood)?;
        if device == "lo" || received == 0 && sent == 0 || shown == DEVICES_MAX {
            continue;
        }
        shown += 1;
        for (direction, bytes, drops) in
            [("receive", received, dropped_in), ("transmit", sent, dropped_out)]
        {
            let labels = [("device", device), ("direction", direction)];
            tick.put_u64(&metric::NODE_NETWORK, &labels, bytes);
            tick.put_u64(&metric::NODE_NETWORK_DROPS, &labels, drops);
        }
    }
    Ok(())
}
