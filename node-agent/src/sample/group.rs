//! The counters of one cgroup, version 1 or 2: of the job, or of one of its steps.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    cgroup::{Place, with_subfolders},
    kept::{Buffer, Kept},
    parse::{keyed, numbers, pressure_totals, sum_behind},
    units::{seconds_of_ns, seconds_of_us},
};

/// Version 1 writes "no limit" as the largest multiple of a page below 2^63; no machine has 2^60
/// bytes of memory.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// What a cgroup says at one tick; absent where its controller is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Values {
    pub(super) cpu_user_seconds: Option<f64>,
    pub(super) cpu_system_seconds: Option<f64>,
    pub(super) memory_current: Option<u64>,
    pub(super) memory_anonymous: Option<u64>,
    pub(super) memory_file: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) memory_peak: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    pub(super) io_read: Option<u64>,
    pub(super) io_written: Option<u64>,
    pub(super) threads: Option<u64>,
    /// Seconds of stalls, one for each of [`PRESSURES`].
    pub(super) stalled: [Option<f64>; PRESSURES.len()],
}

/// Resource and kind of the stalls that are shown: for CPU time the kernel knows no "full".
pub(super) const PRESSURES: [(&str, &str); 5] =
    [("cpu", "some"), ("memory", "some"), ("memory", "full"), ("io", "some"), ("io", "full")];

/// Readers of one cgroup.
#[derive(Debug)]
pub(super) struct Group {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
    io: Option<Io>,
    threads: Option<Kept>,
    /// Resource and file; version 2 only.
    pressure: Vec<(&'static str, Kept)>,
}

#[derive(Debug)]
enum Cpu {
    V1 { usage: Kept, stat: Kept, split: Split },
    V2 { stat: Kept },
}

#[derive(Debug)]
enum Memory {
    V1 { current: Kept, peak: Kept, limit: Kept, stat: Kept, ooms: Option<Ooms> },
    V2 { current: Kept, peak: Kept, limit: Kept, stat: Kept, events: Kept },
}

#[derive(Debug)]
enum Io {
    V1(Kept),
    V2(Kept),
}

impl Group {
    /// The job's cgroup, or with `step` that step's. Each controller is looked for in its own
    /// version 1 tree first: a version 2 tree beside it (hybrid) has no controllers.
    pub(super) fn open(place: &Place, step: Option<&str>) -> Self {
        let below = |job: &PathBuf| match step {
            Some(step) => job.join(format!("step_{step}")),
            None => job.clone(),
        };
        let v1 = |controller: &str| place.v1.get(controller).map(below);
        let v2 = |file: &str| place.v2.as_ref().map(below).filter(|at| at.join(file).exists());
        let kept = |folder: &PathBuf, file: &str| Kept::at_once(folder.join(file));
        let cpu = v1("cpuacct")
            .map(|at| Cpu::V1 {
                usage: kept(&at, "cpuacct.usage"),
                stat: kept(&at, "cpuacct.stat"),
                split: Split::default(),
            })
            .or_else(|| v2("cpu.stat").map(|at| Cpu::V2 { stat: kept(&at, "cpu.stat") }));
        let memory = v1("memory")
            .filter(|at| is_hierarchical(at))
            .map(|at| Memory::V1 {
                current: kept(&at, "memory.usage_in_bytes"),
                peak: kept(&at, "memory.max_usage_in_bytes"),
                limit: kept(&at, "memory.limit_in_bytes"),
                stat: kept(&at, "memory.stat"),
                ooms: step.map(|_| Ooms { folder: at, counts: BTreeMap::new() }),
            })
            .or_else(|| {
                v2("memory.current").map(|at| Memory::V2 {
                    current: kept(&at, "memory.current"),
                    peak: kept(&at, "memory.peak"),
                    limit: kept(&at, "memory.max"),
                    stat: kept(&at, "memory.stat"),
                    events: kept(&at, "memory.events"),
                })
            });
        let io = v1("blkio")
            .map(|at| Io::V1(kept(&at, "blkio.throttle.io_service_bytes_recursive")))
            .or_else(|| v2("io.stat").map(|at| Io::V2(kept(&at, "io.stat"))));
        let threads = v1("pids").or_else(|| v2("pids.current"));
        let threads = threads.map(|at| kept(&at, "pids.current"));
        let pressure = ["cpu", "memory", "io"].into_iter().filter_map(|resource| {
            let file = format!("{resource}.pressure");
            v2(&file).map(|at| (resource, kept(&at, &file)))
        });
        Self { cpu, memory, io, threads, pressure: pressure.collect() }
    }

    /// Whether the kernel accounts CPU time here; else processes must stand in.
    pub(super) fn has_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// Whether the kernel accounts I/O here; else processes must stand in.
    pub(super) fn has_io(&self) -> bool {
        self.io.is_some()
    }

    /// Whether there are figures of memory.
    pub(super) fn has_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Reads all counters; `slow` also looks for new folders below.
    pub(super) fn read(&mut self, buffer: &mut Buffer, slow: bool) -> Values {
        let mut values = Values::default();
        if let Some(cpu) = &mut self.cpu {
            read_cpu(cpu, buffer, &mut values);
        }
        if let Some(memory) = &mut self.memory {
            read_memory(memory, buffer, slow, &mut values);
        }
        if let Some(io) = &mut self.io {
            read_io(io, buffer, &mut values);
        }
        values.threads = self.threads.as_mut().and_then(|kept| number(kept, buffer));
        for (resource, kept) in &mut self.pressure {
            read_pressure(kept, buffer, resource, &mut values.stalled);
        }
        values
    }
}

/// Whether a version 1 memory group counts what is below it. Slurm asks for that; without it a
/// step's own figures would miss its tasks.
fn is_hierarchical(folder: &std::path::Path) -> bool {
    std::fs::read_to_string(folder.join("memory.use_hierarchy"))
        .map_or(true, |text| text.trim() != "0")
}

fn number(kept: &mut Kept, buffer: &mut Buffer) -> Option<u64> {
    kept.read(buffer).ok().and_then(|text| numbers(text).next())
}

fn read_cpu(cpu: &mut Cpu, buffer: &mut Buffer, values: &mut Values) {
    match cpu {
        Cpu::V1 { usage, stat, split } => {
            let Some(usage_ns) = number(usage, buffer) else { return };
            let Ok(text) = stat.read(buffer) else { return };
            let (Some(user), Some(system)) = (keyed(text, "user"), keyed(text, "system")) else {
                return;
            };
            let (user_ns, system_ns) = split.split(usage_ns, user, system);
            values.cpu_user_seconds = Some(seconds_of_ns(user_ns));
            values.cpu_system_seconds = Some(seconds_of_ns(system_ns));
        }
        Cpu::V2 { stat } => {
            let Ok(text) = stat.read(buffer) else { return };
            values.cpu_user_seconds = keyed(text, "user_usec").map(seconds_of_us);
            values.cpu_system_seconds = keyed(text, "system_usec").map(seconds_of_us);
        }
    }
}

fn read_memory(memory: &mut Memory, buffer: &mut Buffer, slow: bool, values: &mut Values) {
    let (current, peak, limit, stat, [anonymous, file]) = match memory {
        Memory::V1 { current, peak, limit, stat, ooms } => {
            values.oom_kills = ooms.as_mut().and_then(|ooms| ooms.read(buffer, slow));
            (current, peak, limit, stat, ["total_rss", "total_cache"])
        }
        Memory::V2 { current, peak, limit, stat, events } => {
            let kills = events.read(buffer).ok().and_then(|text| keyed(text, "oom_kill"));
            values.oom_kills = kills;
            (current, peak, limit, stat, ["anon", "file"])
        }
    };
    values.memory_current = number(current, buffer);
    values.memory_peak = number(peak, buffer);
    values.memory_limit = number(limit, buffer).filter(|bytes| *bytes < NO_LIMIT_BYTES);
    if let Ok(text) = stat.read(buffer) {
        values.memory_anonymous = keyed(text, anonymous);
        values.memory_file = keyed(text, file);
    }
}

fn read_io(io: &mut Io, buffer: &mut Buffer, values: &mut Values) {
    // Lines `8:0 Read 4096` (version 1) and `8:0 rbytes=4096 wbytes=0 …` (version 2).
    let (text, marks) = match io {
        Io::V1(kept) => (kept.read(buffer), [" Read ", " Write "]),
        Io::V2(kept) => (kept.read(buffer), [" rbytes=", " wbytes="]),
    };
    if let Ok(text) = text {
        let [read, written] = marks.map(|mark| sum_behind(text, mark));
        (values.io_read, values.io_written) = (Some(read), Some(written));
    }
}

/// A resource without values stays absent: a kernel may account pressure only when told to.
fn read_pressure(
    kept: &mut Kept,
    buffer: &mut Buffer,
    resource: &str,
    stalled: &mut [Option<f64>; PRESSURES.len()],
) {
    let Ok(text) = kept.read(buffer) else { return };
    for (kind, us) in pressure_totals(text) {
        let place = PRESSURES.iter().position(|known| *known == (resource, kind));
        if let Some(value) = place.and_then(|place| stalled.get_mut(place)) {
            *value = us.map(seconds_of_us);
        }
    }
}

/// Version 1 counts CPU time exactly, and which part of it was the user's only by clock ticks.
/// As the kernel does for version 2, the exact time is split in the ratio of the ticks, and
/// neither part ever shrinks.
#[derive(Debug, Default)]
struct Split {
    user_ns: u64,
    system_ns: u64,
}

impl Split {
    fn split(&mut self, usage_ns: u64, user: u64, system: u64) -> (u64, u64) {
        if usage_ns < self.user_ns + self.system_ns {
            // Somebody wrote 0 into cpuacct.usage: it counts anew.
            *self = Self::default();
        }
        let ticks = u128::from(user) + u128::from(system);
        let wanted = match ticks {
            // Below one tick: taken as the user's, as the kernel does.
            0 => usage_ns,
            _ => u64::try_from(u128::from(usage_ns) * u128::from(user) / ticks).unwrap_or(usage_ns),
        };
        self.user_ns = wanted.clamp(self.user_ns, usage_ns - self.system_ns);
        self.system_ns = usage_ns - self.user_ns;
        (self.user_ns, self.system_ns)
    }
}

/// Version 1 counts OOM kills only where the victim was, so those below are added. A count stays
/// when its folder goes.
#[derive(Debug)]
struct Ooms {
    folder: PathBuf,
    counts: BTreeMap<PathBuf, (Kept, u64)>,
}

/// Folders whose kills are counted: a step has one for each task. Those of ended tasks count too.
const OOM_FOLDERS_MAX: usize = 512;

impl Ooms {
    fn read(&mut self, buffer: &mut Buffer, slow: bool) -> Option<u64> {
        if slow || self.counts.is_empty() {
            for folder in with_subfolders(self.folder.clone()) {
                if !self.counts.contains_key(&folder) && self.counts.len() < OOM_FOLDERS_MAX {
                    let kept = Kept::new(folder.join("memory.oom_control"));
                    self.counts.insert(folder, (kept, 0));
                }
            }
        }
        let mut known = false;
        for (kept, count) in self.counts.values_mut() {
            let kills = kept.read(buffer).ok().and_then(|text| keyed(text, "oom_kill"));
            kept.close();
            known |= kills.is_some();
            *count = kills.unwrap_or(*count);
        }
        known.then(|| {
            self.counts.values().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
        })
    }
}
