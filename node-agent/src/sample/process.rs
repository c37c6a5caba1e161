//! Processes: what `/proc/<pid>` says about them, and sums over crowds of them.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use super::{
    kernel_file::{Buffer, KernelFile},
    parse::{keyed, numbers},
};

/// Processes whose files stay open (three each): beside 64 steps with eleven each that stays
/// below the usual limit of 1024 descriptors. Those above are opened at each tick.
const KEPT_PROCESSES_MAX: usize = 50;

/// The part of `/proc/<pid>/stat` that is used. Times in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    /// Own time and that of children that were waited for.
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    pub(super) threads: u64,
    /// Since boot: with the pid it names a process for good.
    pub(super) start_ticks: u64,
}

/// Fields behind the name, up to the last one that is used.
const FIELDS: usize = 20;

impl Stat {
    /// The second field, the name, may contain anything, so fields count from its last `)`.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = [""; FIELDS];
        let words = text.rsplit_once(')')?.1.split_ascii_whitespace();
        fields.iter_mut().zip(words).for_each(|(field, word)| *field = word);
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // Times of children are signed in the kernel's format and can be negative by rounding.
        let time =
            |at: usize| fields.get(at)?.parse::<i64>().ok().map(|time| time.max(0).unsigned_abs());
        let pid =
            |at: usize| fields.get(at)?.parse::<i64>().ok().map(|pid| pid.try_into().unwrap_or(0));
        Some(Self {
            parent: pid(1)?,
            group: pid(2)?,
            session: pid(3)?,
            user_ticks: time(11)?.saturating_add(time(13)?),
            system_ticks: time(12)?.saturating_add(time(14)?),
            threads: number(17)?,
            start_ticks: number(19)?,
        })
    }
}

#[derive(Debug)]
struct Process {
    stat: KernelFile,
    statm: KernelFile,
    io: KernelFile,
    /// Whether its files stay open.
    keep: bool,
    tick: u64,
    seen: Option<Stat>,
    /// Bytes read and written as this tick found them; absent before it has looked.
    moved: Option<Option<(u64, u64)>>,
}

/// All processes that are looked at, with open files.
#[derive(Debug)]
pub(super) struct Processes {
    root: PathBuf,
    known: HashMap<u32, Process>,
    tick: u64,
}

impl Processes {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, known: HashMap::new(), tick: 0 }
    }

    /// `/proc`.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a tick: what the last one did not ask for is forgotten.
    pub(super) fn begin(&mut self) {
        let last = self.tick;
        self.known.retain(|_, process| process.tick == last && process.seen.is_some());
        self.tick += 1;
    }

    /// All process ids there are.
    pub(super) fn all(&self) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return Vec::new() };
        entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// What a process is now, read once a tick; absent once it is gone.
    pub(super) fn stat(&mut self, pid: u32, buffer: &mut Buffer) -> Option<Stat> {
        let keep = self.known.len() < KEPT_PROCESSES_MAX;
        let tick = self.tick;
        let process = self.known.entry(pid).or_insert_with(|| {
            let folder = self.root.join(pid.to_string());
            let kept = |file: &str| KernelFile::at_once(folder.join(file));
            let (stat, statm, io) = (kept("stat"), kept("statm"), kept("io"));
            Process { stat, statm, io, keep, tick: 0, seen: None, moved: None }
        });
        if process.tick != tick {
            process.tick = tick;
            process.moved = None;
            process.seen = process.stat.read(buffer).ok().and_then(Stat::parse);
            if !process.keep {
                process.stat.close();
            }
        }
        process.seen
    }

    /// Pages that are resident, and how many of these are of files or shared memory.
    fn memory(&mut self, pid: u32, buffer: &mut Buffer) -> Option<(u64, u64)> {
        let Process { statm, keep, .. } = self.known.get_mut(&pid)?;
        let text = statm.read(buffer).ok()?;
        let mut fields = numbers(text).skip(1);
        let pages = fields.next().zip(fields.next());
        if !*keep {
            statm.close();
        }
        pages
    }

    /// Bytes read from and written to storage, children that were waited for included, read once a
    /// tick: a service's processes are those of a step, too. Absent where the kernel does not let us
    /// look (a set-user-id program).
    fn io(&mut self, pid: u32, buffer: &mut Buffer) -> Option<(u64, u64)> {
        let Process { io, keep, moved, .. } = self.known.get_mut(&pid)?;
        *moved.get_or_insert_with(|| {
            let text = io.read(buffer).ok()?;
            let bytes = keyed(text, "read_bytes").zip(keyed(text, "write_bytes"));
            if !*keep {
                io.close();
            }
            bytes
        })
    }
}

/// Processes that are counted together: a service's tree, or a step.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Start time and pid: parents come before their children.
    members: BTreeSet<(u64, u32)>,
    user: Growing,
    system: Growing,
    read: Growing,
    written: Growing,
}

/// Sums over a crowd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    pub(super) processes: u64,
    pub(super) threads: u64,
    pub(super) io: Option<(u64, u64)>,
    pub(super) resident_pages: Option<u64>,
    pub(super) anonymous_pages: Option<u64>,
    /// Anonymous pages and the largest part of files and shared memory of one process.
    pub(super) used_pages: Option<u64>,
}

impl Crowd {
    pub(super) fn insert(&mut self, pid: u32, stat: &Stat) {
        self.members.insert((stat.start_ticks, pid));
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.iter().map(|(_, pid)| *pid)
    }

    /// From now on these are the members.
    pub(super) fn set(&mut self, pids: Vec<u32>, processes: &mut Processes, buffer: &mut Buffer) {
        let started = |pid| processes.stat(pid, buffer).map(|stat: Stat| (stat.start_ticks, pid));
        self.members = pids.into_iter().filter_map(started).collect();
    }

    /// Adds all up; absent when no member lives.
    ///
    /// Parents are read before their children: a child that ends and is waited for in between is
    /// missing for one tick, but never counted twice.
    pub(super) fn measure(
        &mut self,
        processes: &mut Processes,
        buffer: &mut Buffer,
        memory: bool,
    ) -> Option<Totals> {
        let (mut totals, mut largest_shared) = (Totals::default(), 0);
        let mut io: Option<(u64, u64)> = None;
        self.members.retain(|&(start_ticks, pid)| {
            let stat = processes.stat(pid, buffer).filter(|stat| stat.start_ticks == start_ticks);
            let Some(stat) = stat else { return false };
            totals.user_ticks = totals.user_ticks.saturating_add(stat.user_ticks);
            totals.system_ticks = totals.system_ticks.saturating_add(stat.system_ticks);
            totals.processes += 1;
            totals.threads = totals.threads.saturating_add(stat.threads);
            if let Some((read, written)) = processes.io(pid, buffer) {
                let (sum_read, sum_written) = io.unwrap_or((0, 0));
                io = Some((read.saturating_add(sum_read), written.saturating_add(sum_written)));
            }
            if let Some((resident, shared)) =
                memory.then(|| processes.memory(pid, buffer)).flatten()
            {
                let anonymous = resident.saturating_sub(shared);
                totals.resident_pages = Some(add(totals.resident_pages, resident));
                totals.anonymous_pages = Some(add(totals.anonymous_pages, anonymous));
                largest_shared = shared.max(largest_shared);
            }
            true
        });
        totals.used_pages =
            totals.anonymous_pages.map(|pages| pages.saturating_add(largest_shared));
        totals.user_ticks = self.user.next(totals.user_ticks);
        totals.system_ticks = self.system.next(totals.system_ticks);
        totals.io = io.map(|(read, written)| (self.read.next(read), self.written.next(written)));
        (totals.processes > 0).then_some(totals)
    }
}

fn add(sum: Option<u64>, value: u64) -> u64 {
    sum.unwrap_or(0).saturating_add(value)
}

/// Makes a counter of a sum over processes that come and go.
///
/// What a process used passes to the parent that waits for it. Where that happens between two
/// reads the sum is too small for one tick, and the last value holds. Where a process goes whose
/// parent does not wait for it, or is none of ours, its share is lost for good; it is added from
/// then on, so that the counter does not fall.
#[derive(Debug, Default)]
pub(super) struct Growing {
    value: u64,
    gone: u64,
    short: bool,
}

impl Growing {
    /// The counter, from the sum as it is now.
    pub(super) fn next(&mut self, sum: u64) -> u64 {
        let now = sum.saturating_add(self.gone);
        if now >= self.value {
            self.value = now;
            self.short = false;
        } else if self.short {
            self.gone += self.value - now;
            self.short = false;
        } else {
            self.short = true;
        }
        self.value
    }
}
