//! One repeat of a load, and its workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use aifb_schema::{
    control::{ClockOffset, Delta, LoadStatus, WorkerId},
    recipe::Load,
    result::NodeClock,
    run::Failure,
};
use aifb_stats::stopping::{Figures, Judge, Verdict};

use super::allot::Allotted;

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadState {
    Joining,
    Preparing,
    Running,
    Merging,
    Done,
    Failed,
}

impl LoadState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Merging => "merging",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing follows.
    pub(super) fn over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerState {
    Joined,
    Ready,
    Done,
    /// It ended without finishing its part.
    Lost,
    /// Its part is whole but its connection has ended.
    Gone,
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// As it calls itself: its rank within its step may be another than that within the load.
    pub(super) id: WorkerId,
    pub(super) node: String,
    pub(super) state: WorkerState,
    pub(super) progress: Delta,
}

/// One repeat of a load at one point.
#[derive(Debug)]
pub(super) struct LoadRun {
    pub(super) allotted: Allotted,
    /// The step whose tasks it is; [`SEVERAL_STEPS`] where there is more than one.
    pub(super) step: String,
    pub(super) size: u32,
    pub(super) asked: (Option<u32>, Option<u32>),
    pub(super) state: LoadState,
    /// By rank. Of several steps the ranks are dealt out when all are there.
    pub(super) workers: BTreeMap<u32, Worker>,
    /// Rank of each worker.
    pub(super) ranks: BTreeMap<WorkerId, u32>,
    /// Clocks of the nodes, the first measurement and the last.
    pub(super) clocks: BTreeMap<String, Clocks>,
    /// When the present state began.
    pub(super) since: Instant,
    pub(super) leader: Option<u32>,
    pub(super) failure: Option<Failure>,
    /// What the first worker that is ready asks, as a hash.
    pub(super) workload_hash: Option<String>,
    /// Whoever looks whether it should end before its time.
    pub(super) judge: Option<Judge>,
    /// When it looked last.
    pub(super) judged: Instant,
    /// Times that ended since then, of the metric that its rule looks at.
    pub(super) recent: Vec<(u64, u64)>,
    /// The folder is being made.
    pub(super) preparing: bool,
}

/// Stands for the step of a load that several steps are.
pub(super) const SEVERAL_STEPS: &str = "several steps";

/// A node's clock while a load runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    first: ClockOffset,
    last: ClockOffset,
    count: u64,
}

/// What had to be read or made off the main thread before a load's plan can be sent.
pub(super) struct Prepared {
    pub(super) index: usize,
    pub(super) folder: PathBuf,
    pub(super) outcome: Result<Ready, Failure>,
}

/// What a plan needs besides what the coordinator knows.
pub(super) struct Ready {
    /// Secrets of the service.
    pub(super) secrets: BTreeMap<String, String>,
    /// The load; of a search, its next probe.
    pub(super) load: Box<Load>,
}

/// Time between two looks at the rules of a load: the workers tell their figures as often.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// Most times that wait to be looked at: a second of a hundred workers' different times.
const RECENT_MAX: usize = 200_000;

impl LoadRun {
    /// A load that `size` tasks of `step` gather for; `asked` is what its command names of point and
    /// repeat.
    pub(super) fn new(
        allotted: Allotted,
        step: &str,
        size: u32,
        asked: (Option<u32>, Option<u32>),
    ) -> Self {
        Self {
            allotted,
            step: step.to_owned(),
            size,
            asked,
            state: LoadState::Joining,
            workers: BTreeMap::new(),
            ranks: BTreeMap::new(),
            clocks: BTreeMap::new(),
            since: Instant::now(),
            leader: None,
            failure: None,
            workload_hash: None,
            judge: None,
            judged: Instant::now(),
            recent: Vec::new(),
            preparing: false,
        }
    }

    /// Keeps the times of a worker until the next look.
    pub(super) fn note_times(&mut self, delta: &mut Delta) {
        let times = std::mem::take(&mut delta.recent);
        if self.judge.is_some() && self.recent.len() < RECENT_MAX {
            self.recent.extend(times);
        }
    }

    /// Whether one of its workers has reported that it is in the measured part.
    pub(super) fn measures(&self) -> bool {
        let inside = |worker: &Worker| {
            worker.state == WorkerState::Ready && worker.progress.phase == "measure"
        };
        self.state == LoadState::Running && self.workers.values().any(inside)
    }

    /// The rule that is fulfilled now, if one is. Every worker must have come to the measured part;
    /// one that has its share behind it still counts while others go on.
    pub(super) fn fulfilled(&mut self, now: Instant) -> Option<Verdict> {
        let all_came = self.workers.values().all(|worker| {
            worker.state == WorkerState::Lost
                || matches!(worker.progress.phase.as_str(), "measure" | "drain")
        });
        let goes_on = self.measures();
        let judge = self.judge.as_mut()?;
        if now.duration_since(self.judged) < JUDGE_EVERY {
            return None;
        }
        self.judged = now;
        let recent = std::mem::take(&mut self.recent);
        if !all_came || !goes_on {
            return None;
        }
        let mut figures = Figures {
            at_ms: u64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(u64::MAX),
            recent,
            ..Figures::default()
        };
        for worker in self.workers.values() {
            let Delta { sent, ok, failed, in_flight, output_tokens, .. } = &worker.progress;
            figures.sent += sent;
            figures.ok += ok;
            figures.failed += failed;
            figures.in_flight += in_flight;
            figures.output_tokens += output_tokens;
        }
        let verdict = judge.second(figures)?;
        self.judge = None;
        Some(verdict)
    }

    pub(super) fn name(&self) -> &str {
        self.allotted.load.name.as_str()
    }

    /// Longest time that a client may take to pull and load its model.
    pub(super) fn model_deadline(&self) -> Duration {
        let load = &self.allotted.load;
        if load.driver.is_ollama() {
            load.llm().ollama.clone().unwrap_or_default().deadline.get()
        } else {
            Duration::ZERO
        }
    }

    pub(super) fn count(&self, state: WorkerState) -> usize {
        self.workers.values().filter(|worker| worker.state == state).count()
    }

    /// Whether every worker has finished its part or is lost.
    pub(super) fn all_ended(&self) -> bool {
        use WorkerState::{Done, Gone, Lost};
        self.workers.values().all(|worker| matches!(worker.state, Done | Lost | Gone))
    }

    pub(super) fn lost(&self) -> Vec<u32> {
        let lost: BTreeSet<u32> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.state == WorkerState::Lost)
            .map(|(rank, _)| *rank)
            .collect();
        lost.into_iter().collect()
    }

    /// Adds a worker; of several steps its rank is provisional.
    pub(super) fn add(&mut self, worker: Worker) -> Result<(), String> {
        if self.ranks.contains_key(&worker.id) {
            return Err(format!("rank {} has joined twice", worker.id.rank));
        }
        let rank = if self.several() {
            u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
        } else {
            worker.id.rank
        };
        self.ranks.insert(worker.id.clone(), rank);
        self.workers.insert(rank, worker);
        Ok(())
    }

    /// Whether several steps are this load.
    pub(super) fn several(&self) -> bool {
        self.step == SEVERAL_STEPS
    }

    /// Deals out the ranks of several steps in the order of steps and of the ranks within them, so
    /// that it does not matter who came first.
    pub(super) fn deal_ranks(&mut self) {
        if !self.several() {
            return;
        }
        let mut workers: Vec<Worker> = std::mem::take(&mut self.workers).into_values().collect();
        // Steps are numbered: 7.10 comes after 7.9.
        workers.sort_by_cached_key(|worker| {
            let numbers: Vec<u64> =
                worker.id.step.split('.').map(|part| part.parse().unwrap_or(u64::MAX)).collect();
            (numbers, worker.id.clone())
        });
        self.ranks.clear();
        for (rank, worker) in (0..).zip(workers) {
            self.ranks.insert(worker.id.clone(), rank);
            self.workers.insert(rank, worker);
        }
    }

    /// Notes a measurement of a node's clock, if one of its workers is there.
    pub(super) fn clock_measured(&mut self, node: &str, clock: ClockOffset) {
        if !self.workers.values().any(|worker| worker.node == node) {
            return;
        }
        let of = Clocks { first: clock, last: clock, count: 0 };
        let clocks = self.clocks.entry(node.to_owned()).or_insert(of);
        if matches!(self.state, LoadState::Joining | LoadState::Preparing) {
            // The last one before the start is that of the start.
            clocks.first = clock;
        }
        clocks.last = clock;
        clocks.count += 1;
    }

    /// The nodes' clocks, for the result.
    pub(super) fn node_clocks(&self) -> Vec<NodeClock> {
        let of = |(node, clocks): (&String, &Clocks)| NodeClock {
            node: node.clone(),
            offset_ns: clocks.first.offset_ns,
            error_ns: clocks.first.error_ns,
            drift_ns: clocks.last.offset_ns.saturating_sub(clocks.first.offset_ns),
            over_ns: clocks.last.measured_mono_ns.saturating_sub(clocks.first.measured_mono_ns),
            measurements: clocks.count,
        };
        self.clocks.iter().map(of).collect()
    }

    /// How people call it.
    pub(super) fn title(&self) -> String {
        format!("point {} repeat {}", self.allotted.point, self.allotted.repeat)
    }

    pub(super) fn status(&self) -> LoadStatus {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut progress = Delta::default();
        for worker in self.workers.values() {
            let one = &worker.progress;
            progress.phase.clone_from(&one.phase);
            progress.elapsed_ms = progress.elapsed_ms.max(one.elapsed_ms);
            progress.sent += one.sent;
            progress.ok += one.ok;
            progress.failed += one.failed;
            progress.in_flight += one.in_flight;
            progress.output_tokens += one.output_tokens;
            progress.add_durations(one);
            progress.planned = match (progress.planned, one.planned) {
                (None, None) => None,
                (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
            };
        }
        LoadStatus {
            load: self.name().to_owned(),
            point: self.allotted.point,
            repeat: self.allotted.repeat,
            state: self.state.as_str().to_owned(),
            workers: (self.size, number(self.workers.len()), number(self.count(WorkerState::Lost))),
            progress,
        }
    }
}

#[cfg(test)]
mod tests;
