//! The counters of one cgroup, version 1 or 2: of the job, or of one of its steps.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    cgroup::{Place, with_subfolders},
    kernel_file::{Buffer, KernelFile},
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
    threads: Option<KernelFile>,
    /// Resource and file; version 2 only.
    pressure: Vec<(&'static str, KernelFile)>,
    /// The limit as it was last read: it changes seldom.
    limit: Option<u64>,
}

#[derive(Debug)]
enum Cpu {
    V1 { usage: KernelFile, stat: KernelFile, split: Split },
    V2 { stat: KernelFile },
}

#[derive(Debug)]
enum Memory {
    V1 {
        current: KernelFile,
        peak: KernelFile,
        limit: KernelFile,
        stat: KernelFile,
        ooms: Option<Ooms>,
    },
    V2 {
        current: KernelFile,
        peak: KernelFile,
        limit: KernelFile,
        stat: KernelFile,
        events: Option<KernelFile>,
    },
}

#[derive(Debug)]
enum Io {
    V1(KernelFile),
    V2(KernelFile),
}

impl Group {
    /// The job's cgroup, whose CPU time and memory are shown.
    pub(super) fn of_job(place: &Place) -> Self {
        let folders = Folders { place, step: None };
        let (cpu, memory) = (Cpu::open(&folders), Memory::open(&folders));
        Self { cpu, memory, io: None, threads: None, pressure: Vec::new(), limit: None }
    }

    /// A step's cgroup.
    pub(super) fn of_step(place: &Place, step: &str) -> Self {
        let folders = Folders { place, step: Some(step) };
        let io = folders
            .v1("blkio")
            .map(|at| Io::V1(kept(&at, "blkio.throttle.io_service_bytes_recursive")))
            .or_else(|| folders.v2("io.stat").map(|at| Io::V2(kept(&at, "io.stat"))));
        let threads = folders.v1("pids").or_else(|| folders.v2("pids.current"));
        let threads = threads.map(|at| kept(&at, "pids.current"));
        let pressure = ["cpu", "memory", "io"].into_iter().filter_map(|resource| {
            let file = format!("{resource}.pressure");
            folders.v2(&file).map(|at| (resource, kept(&at, &file)))
        });
        let (cpu, memory) = (Cpu::open(&folders), Memory::open(&folders));
        Self { cpu, memory, io, threads, pressure: pressure.collect(), limit: None }
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

    /// Reads all counters; `slow` also reads what changes seldom and looks for new folders below.
    /// The first reading is slow.
    pub(super) fn read(&mut self, buffer: &mut Buffer, slow: bool) -> Values {
        let mut values = Values::default();
        if let Some(cpu) = &mut self.cpu {
            read_cpu(cpu, buffer, &mut values);
        }
        if let Some(memory) = &mut self.memory {
            read_memory(memory, &mut self.limit, buffer, slow, &mut values);
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

/// Where the files of the job, or of one of its steps, are. Each controller is looked for in its own
/// version 1 tree first: a version 2 tree beside it (hybrid) has no controllers.
struct Folders<'a> {
    place: &'a Place,
    step: Option<&'a str>,
}

impl Folders<'_> {
    fn below(&self, job: &Path) -> PathBuf {
        self.step.map_or_else(|| job.to_owned(), |step| job.join(format!("step_{step}")))
    }

    fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.place.v1.get(controller).map(|job| self.below(job))
    }

    /// In the version 2 tree, if it has this file.
    fn v2(&self, file: &str) -> Option<PathBuf> {
        let folder = self.place.v2.as_ref().map(|job| self.below(job));
        folder.filter(|at| at.join(file).exists())
    }
}

fn kept(folder: &Path, file: &str) -> KernelFile {
    KernelFile::at_once(folder.join(file))
}

impl Cpu {
    fn open(folders: &Folders<'_>) -> Option<Self> {
        let v1 = folders.v1("cpuacct").map(|at| Self::V1 {
            usage: kept(&at, "cpuacct.usage"),
            stat: kept(&at, "cpuacct.stat"),
            split: Split::default(),
        });
        v1.or_else(|| {
            let at = folders.v2("cpu.stat")?;
            // As in version 1 and in Slurm's accounting, slurmstepd is no part of its step.
            let tasks = at.join("user");
            let apart = folders.step.is_some() && tasks.is_dir();
            Some(Self::V2 { stat: kept(if apart { &tasks } else { &at }, "cpu.stat") })
        })
    }
}

impl Memory {
    fn open(folders: &Folders<'_>) -> Option<Self> {
        let kills = folders.step.is_some();
        let v1 = folders.v1("memory").filter(|at| is_hierarchical(at)).map(|at| Self::V1 {
            current: kept(&at, "memory.usage_in_bytes"),
            peak: kept(&at, "memory.max_usage_in_bytes"),
            limit: kept(&at, "memory.limit_in_bytes"),
            stat: kept(&at, "memory.stat"),
            ooms: kills.then(|| Ooms { folder: at, counts: BTreeMap::new() }),
        });
        let v2 = |at: PathBuf| Self::V2 {
            current: kept(&at, "memory.current"),
            peak: kept(&at, "memory.peak"),
            limit: kept(&at, "memory.max"),
            stat: kept(&at, "memory.stat"),
            events: kills.then(|| kept(&at, "memory.events")),
        };
        v1.or_else(|| folders.v2("memory.current").map(v2))
    }
}

/// Whether a version 1 memory group counts what is below it. Slurm asks for that; without it a
/// step's own figures would miss its tasks.
fn is_hierarchical(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("memory.use_hierarchy"))
        .map_or(true, |text| text.trim() != "0")
}

fn number(kept: &mut KernelFile, buffer: &mut Buffer) -> Option<u64> {
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

fn read_memory(
    memory: &mut Memory,
    kept_limit: &mut Option<u64>,
    buffer: &mut Buffer,
    slow: bool,
    values: &mut Values,
) {
    let (current, peak, limit, stat, [anonymous, file]) = match memory {
        Memory::V1 { current, peak, limit, stat, ooms } => {
            values.oom_kills = ooms.as_mut().and_then(|ooms| ooms.read(buffer, slow));
            (current, peak, limit, stat, ["total_rss", "total_cache"])
        }
        Memory::V2 { current, peak, limit, stat, events } => {
            let text = events.as_mut().and_then(|events| events.read(buffer).ok());
            values.oom_kills = text.and_then(|text| keyed(text, "oom_kill"));
            (current, peak, limit, stat, ["anon", "file"])
        }
    };
    values.memory_current = number(current, buffer);
    values.memory_peak = number(peak, buffer);
    if slow {
        *kept_limit = number(limit, buffer).filter(|bytes| *bytes < NO_LIMIT_BYTES);
    }
    values.memory_limit = *kept_limit;
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

/// A resource without values stays absent: a kernel may account pressure only when configured to.
fn read_pressure(
    kept: &mut KernelFile,
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
    counts: BTreeMap<PathBuf, Kills>,
}

#[derive(Debug)]
struct Kills {
    control: KernelFile,
    /// Whether the file stays open.
    keep: bool,
    count: u64,
}

/// Files that stay open, for each step: with them a step has as many as one of version 2.
const OOM_FILES_KEPT: usize = 3;

/// Folders whose kills are counted: a step has one for each task. Those of ended tasks count too.
const OOM_FOLDERS_MAX: usize = 512;

impl Ooms {
    fn read(&mut self, buffer: &mut Buffer, slow: bool) -> Option<u64> {
        if slow || self.counts.is_empty() {
            for folder in with_subfolders(self.folder.clone()) {
                let room = self.counts.len() < OOM_FOLDERS_MAX;
                if room && !self.counts.contains_key(&folder) {
                    let control = kept(&folder, "memory.oom_control");
                    let keep = self.counts.len() < OOM_FILES_KEPT;
                    self.counts.insert(folder, Kills { control, keep, count: 0 });
                }
            }
        }
        let mut known = false;
        for Kills { control, keep, count } in self.counts.values_mut() {
            let kills = control.read(buffer).ok().and_then(|text| keyed(text, "oom_kill"));
            if !*keep {
                control.close();
            }
            known |= kills.is_some();
            *count = kills.unwrap_or(*count);
        }
        known.then(|| {
            self.counts.values().fold(0, |sum: u64, kills| sum.saturating_add(kills.count))
        })
    }
}
