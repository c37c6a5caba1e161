//! Workers of one load that meet through files, where no agent leads them and nodes may not connect
//! to each other: `aifb-loadgen run --join FOLDER`, and inside a run those that do not reach their
//! agent.
//!
//! ```text
//! every rank:  prepares ─▶ rank-<r>.json ─▶ waits for start.json ─▶ measures ─▶ waits for result.json
//! rank 0:                  waits for all rank files, then writes start.json (an instant ahead)
//! leader:      the lowest rank that is not lost; merges when every rank has ended or is lost
//! ```
//!
//! The start is an instant of rank 0's clocks. On rank 0's own node it is exact; elsewhere it is
//! the wall clock, and the error that both kernels state for theirs is stored with the result. A
//! rank has ended when its record says so, and is lost when it no longer replaces its record.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aifb_schema::{
    names::{PROTOCOL, file},
    result::LoadResult,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    cli::JoinOptions,
    clock::{epoch_minus_mono, mono_ns},
    error::Fatal,
    job::{Job, Start},
    merge,
    record::{
        self, checkpoint,
        start::{START, StartFile, read_bounded},
    },
    sys,
};

/// Longest time until all ranks have joined, as inside a run.
const JOIN_MAX: Duration = Duration::from_secs(60);

/// Longest wait for the start, beyond that: rank 0 may see the last rank's file late.
const START_SLACK: Duration = Duration::from_secs(30);

/// Polling interval: each rank polls the shared file system 20 times per second.
const LOOK: Duration = Duration::from_millis(50);

/// Silence after which a rank counts as lost: it replaces its record once a second, and waits for
/// a file system for up to 20 s at its end.
const LOST_AFTER: Duration = Duration::from_secs(25);

/// Longest wait for the leader's result, once every rank has ended.
const MERGE_MAX: Duration = Duration::from_secs(300);

/// How the reason of a rank begins that a signal ended.
pub(crate) const INTERRUPTED: &str = "interrupted by";

/// Most ranks, as inside a run.
const RANKS_MAX: u32 = 65_536;

/// One rank's place in a load that meets through files.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    folder: PathBuf,
    rank: u32,
    size: u32,
    lead: Duration,
    /// Why a load inside a run does not go by its agents.
    because: Option<String>,
}

/// What a rank tells when it is prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Hello {
    protocol: u32,
    size: u32,
    /// What the load is, without what belongs to the rank.
    load: String,
}

impl Join {
    /// The place that options and environment say; `None` without `--join`.
    ///
    /// # Errors
    /// If rank or number of ranks are unknown or impossible.
    pub(crate) fn new(
        options: &JoinOptions,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Fatal> {
        let Some(folder) = &options.join else { return Ok(None) };
        let number = |name: &str| variable(name).and_then(|text| text.parse::<u32>().ok());
        let size = options
            .ranks
            .or_else(|| number("SLURM_STEP_NUM_TASKS"))
            .or_else(|| number("SLURM_NTASKS"));
        let (Some(rank), Some(size)) = (options.rank.or_else(|| number("SLURM_PROCID")), size)
        else {
            return Err(Fatal::usage("joining a load: rank and number of ranks are unknown")
                .hint("start it with srun, or give --rank R --ranks N"));
        };
        if rank >= size || size > RANKS_MAX {
            return Err(Fatal::usage(format!("joining a load: rank {rank} of {size} ranks"))
                .hint(format!("ranks count from 0; at most {RANKS_MAX} of them")));
        }
        let lead = options.lead.get();
        Ok(Some(Self { folder: folder.clone(), rank, size, lead, because: None }))
    }

    /// A place of a load inside a run whose workers do not reach their agents, because of this.
    ///
    /// # Errors
    /// If the folder has been used.
    pub(crate) fn inside(
        folder: PathBuf,
        (rank, size): (u32, u32),
        lead: Duration,
        because: String,
    ) -> Result<Self, String> {
        let before = [folder.join(file::RESULT), record::checkpoint_path(&folder, rank)];
        match before.iter().find(|path| path.exists()) {
            Some(path) => Err(format!("'{}' already exists", path.display())),
            None => Ok(Self { folder, rank, size, lead, because: Some(because) }),
        }
    }

    /// Rank of this worker.
    pub(crate) fn rank(&self) -> u32 {
        self.rank
    }

    /// Workers of the load.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Where all files go.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn fail(&self, cause: impl std::fmt::Display) -> Fatal {
        Fatal::loadgen(format!("joining the load in '{}': {cause}", self.folder.display()))
    }

    /// Tells that this rank is prepared and waits for the common start; gives up when `cancelled`.
    ///
    /// # Errors
    /// If not all ranks come in time, they are not of one load, or the start came too late.
    pub(crate) fn start(&self, job: &Job, cancelled: &Arc<AtomicBool>) -> Result<Start, Fatal> {
        let hello = Hello { protocol: PROTOCOL, size: self.size, load: load_of(job) };
        let mine = self.path(&format!("rank-{}.json", self.rank));
        self.write_new(&mine, &hello).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => self
                .fail(format!("rank {} has joined before", self.rank))
                .hint(match self.because {
                    None => "use a new folder for each load, and a different rank for each task",
                    Some(_) => "name another repeat: --repeat N",
                }),
            _ => self.fail(error),
        })?;
        let deadline = Instant::now() + JOIN_MAX;
        if self.rank == 0 {
            self.gather(&hello, deadline, cancelled)?;
            let (mono, epoch) = self.instant()?;
            let start = StartFile {
                boot: boot(),
                mono_ns: mono,
                epoch_ns: epoch,
                error_ns: sys::wall_clock_error_ns(),
                because: self.because.clone(),
            };
            self.write_new(&self.path(START), &start).map_err(|error| self.fail(error))?;
        }
        let start: StartFile =
            self.wait(START, deadline + START_SLACK, cancelled, "rank 0 has not set the start")?;
        self.own_start(&start)
    }

    /// The start ahead, on both clocks.
    fn instant(&self) -> Result<(u64, u64), Fatal> {
        let lead = u64::try_from(self.lead.as_nanos()).unwrap_or(u64::MAX);
        let mono = mono_ns().saturating_add(lead);
        let epoch = i128::from(mono) + i128::from(epoch_minus_mono());
        let epoch = u64::try_from(epoch).map_err(|_| self.fail("the wall clock is before 1970"))?;
        Ok((mono, epoch))
    }

    /// The start on this node's clock, and its error.
    fn own_start(&self, start: &StartFile) -> Result<Start, Fatal> {
        let (at_mono_ns, clock_error_ns) = if start.boot == boot() {
            (start.mono_ns, 0)
        } else {
            let mono = i128::from(start.epoch_ns) - i128::from(epoch_minus_mono());
            let error = start.error_ns.saturating_add(sys::wall_clock_error_ns());
            (u64::try_from(mono).unwrap_or(0), error)
        };
        let late = mono_ns().saturating_sub(at_mono_ns);
        if late > 0 {
            return Err(self
                .fail(format!("this rank saw the start {} ms too late", late / 1_000_000))
                .hint(
                    "new files become visible late on this file system: give --lead 60s to all \
                     ranks",
                ));
        }
        Ok(Start { at_mono_ns, clock_error_ns })
    }

    /// Rank 0: waits until every rank has reported that it is prepared for the same load.
    fn gather(
        &self,
        own: &Hello,
        deadline: Instant,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<(), Fatal> {
        for rank in 1..self.size {
            let name = format!("rank-{rank}.json");
            let missing = || format!("rank {rank} of {} has not joined", self.size);
            let theirs: Hello = self.wait(&name, deadline, cancelled, &missing())?;
            if theirs != *own {
                return Err(self
                    .fail(format!(
                        "rank {rank} was started for another load or another number of ranks"
                    ))
                    .hint("all ranks need the same options"));
            }
        }
        Ok(())
    }

    /// Waits for a file that is written by rename, so it is whole when it is there.
    fn wait<T: DeserializeOwned>(
        &self,
        name: &str,
        deadline: Instant,
        cancelled: &Arc<AtomicBool>,
        missing: &str,
    ) -> Result<T, Fatal> {
        let path = self.path(name);
        loop {
            match read_bounded(&path) {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes)
                        .map_err(|error| self.fail(format!("{name}: {error}")));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.fail(format!("{name}: {error}"))),
            }
            if cancelled.load(Ordering::Relaxed) {
                return Err(self.fail("interrupted"));
            }
            if Instant::now() >= deadline {
                let missing = format!("{missing} within {} s", JOIN_MAX.as_secs());
                return Err(match &self.because {
                    None => self
                        .fail(missing)
                        .hint("check that all ranks were started and see this folder"),
                    Some(why) => self.fail(format!("{missing} (by files, since {why})")).hint(
                        "files work only if no worker of the load reaches its agent: see the \
                         output of the others",
                    ),
                });
            }
            thread::sleep(LOOK);
        }
    }

    /// Writes a file that must not be there yet: whole under another name, then linked.
    fn write_new(&self, path: &Path, what: &impl Serialize) -> io::Result<()> {
        let new = path.with_extension(format!("new-{}", self.rank));
        let mut out = fs::File::create(&new)?;
        out.write_all(&serde_json::to_vec(what)?)?;
        drop(out);
        // Unlike a rename, a link fails where the name is taken.
        match fs::hard_link(&new, path) {
            // A file system without links.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                fs::rename(&new, path)
            }
            linked => {
                fs::remove_file(&new)?;
                linked
            }
        }
    }

    /// After the own end: waits for the others, and as the lowest rank that is not lost makes the
    /// result. Gives the result of the load.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn finish(&self, job: &Job) -> Result<(LoadResult, bool), Fatal> {
        let mut watched: Vec<Watched> = (0..self.size).map(|_| Watched::default()).collect();
        let mut all_over: Option<Instant> = None;
        loop {
            if let Ok(bytes) = fs::read(self.path(file::RESULT)) {
                let result = serde_json::from_slice(&bytes).map_err(|error| self.fail(error))?;
                return Ok((result, false));
            }
            for (rank, watched) in (0..self.size).zip(&mut watched) {
                watched.look(&record::checkpoint_path(&self.folder, rank), rank == self.rank);
            }
            let over = watched.iter().all(|one| one.ended || one.lost());
            let lost: Vec<u32> = (0..self.size)
                .zip(&watched)
                .filter(|(_, one)| !one.ended && one.lost())
                .map(|(rank, _)| rank)
                .collect();
            // One that was interrupted has ended and makes no result.
            let leads = (0..self.rank)
                .zip(&watched)
                .all(|(rank, one)| one.interrupted || lost.contains(&rank));
            if over && leads {
                let result = merge::result(job, &lost)?;
                merge::write(&self.folder, &result)?;
                return Ok((result, true));
            }
            if over && all_over.get_or_insert_with(Instant::now).elapsed() > MERGE_MAX {
                return Err(self
                    .fail(format!("no result within {} s of the end", MERGE_MAX.as_secs()))
                    .hint("the ranks' records are complete"));
            }
            thread::sleep(LOOK);
        }
    }
}

/// What is known of a rank's record.
#[derive(Debug)]
struct Watched {
    seen: Option<(u64, i64, i64)>,
    changed: Instant,
    ended: bool,
    interrupted: bool,
}

impl Default for Watched {
    fn default() -> Self {
        Self { seen: None, changed: Instant::now(), ended: false, interrupted: false }
    }
}

impl Watched {
    /// Looks whether the record is a new one, and then whether it is the last one.
    fn look(&mut self, path: &Path, own: bool) {
        use std::os::unix::fs::MetadataExt;
        self.ended |= own;
        if self.ended {
            return;
        }
        // It is replaced by rename: another file is another state.
        let Ok(now) = fs::metadata(path).map(|m| (m.ino(), m.mtime(), m.mtime_nsec())) else {
            return;
        };
        if self.seen != Some(now) {
            self.seen = Some(now);
            self.changed = Instant::now();
            if let Ok((record, _)) = checkpoint::read(path) {
                self.ended = record.ended;
                let stopped = record.stopped.as_deref().unwrap_or_default();
                self.interrupted = record.ended && stopped.starts_with(INTERRUPTED);
            }
        }
    }

    fn lost(&self) -> bool {
        self.changed.elapsed() > LOST_AFTER
    }
}

/// What all ranks must agree on: the load, and what it asks.
fn load_of(job: &Job) -> String {
    let urls: Vec<&str> = job.plan.endpoints.iter().map(|one| one.url.as_str()).collect();
    serde_json::json!([job.plan.load, job.plan.size, urls]).to_string()
}

/// Whose CLOCK_MONOTONIC this is: the boot of this node and the time namespace
/// (time_namespaces(7), since Linux 5.6). On a node that does not tell, nothing equal to another's.
fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown-{}", std::process::id()), |id| id.trim().to_owned());
    match fs::read_link("/proc/self/ns/time") {
        Ok(namespace) => format!("{boot} {}", namespace.display()),
        Err(_) => boot,
    }
}

#[cfg(test)]
mod tests;
