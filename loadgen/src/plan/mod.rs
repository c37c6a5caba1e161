//! The plan: what is sent when, as a pure function of the recipe, the seed and the rank (and of the
//! trace, where one is replayed).
//!
//! An open load has one schedule for all workers: arrival i of a phase belongs to worker
//! i mod size. So the union is exactly the requested process, the counts differ by at most one
//! (remainders go to low ranks), and the schedule does not depend on how many workers share it. A
//! closed load has no send times; its plan is the number of slots, when they begin and when they
//! stop.

mod ask;
mod schedule;
mod slots;
mod trace;

use std::sync::Arc;

use aifb_schema::{
    recipe::{Arrival, Load, Measure},
    snapshot::hex,
};
use sha2::{Digest, Sha256};

pub(crate) use ask::Ask;
pub(crate) use slots::Pause;
pub(crate) use trace::{Lengths, Trace};

use crate::error::Fatal;

/// Most arrivals of one load: at 8 bytes each the schedule of a single worker takes 800 MB.
const ARRIVALS_MAX: usize = 100_000_000;

/// Whether a request counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    /// Sent, not measured.
    Warmup,
    /// Measured.
    Measure,
}

impl Phase {
    /// The word in files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Warmup => "warmup",
            Self::Measure => "measure",
        }
    }

    /// The phase of a word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Warmup, Self::Measure].into_iter().find(|phase| phase.as_str() == word)
    }
}

/// What every worker of a load knows: enough to compute anybody's plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// When requests are sent.
    pub(crate) arrival: Arrival,
    /// Length of the warm-up.
    pub(crate) warmup_ns: u64,
    /// Length of the measured part.
    pub(crate) measure: Measure,
    /// Longest wait for the last answers.
    pub(crate) drain_ns: u64,
    /// Seed.
    pub(crate) seed: u64,
    /// Workers.
    pub(crate) size: u32,
}

/// One worker's part. Times are offsets from the common start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkerPlan {
    /// Its sends.
    pub(crate) sends: Sends,
    /// End of the warm-up, start of the measured part.
    pub(crate) measure_start_ns: u64,
    /// End of the measured part, where it does not depend on answers.
    pub(crate) measure_end_ns: Option<u64>,
    /// What is replayed, where something is.
    pub(crate) trace: Option<Arc<Trace>>,
    /// SHA-256 of all of this, hexadecimal.
    pub(crate) hash: String,
}

/// When a worker sends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sends {
    /// At these instants, whatever the answers do.
    Open {
        /// During the warm-up, ascending.
        warmup: Vec<u64>,
        /// During the measured part, ascending.
        measure: Vec<u64>,
    },
    /// Each slot after its answer.
    Closed {
        /// Requests in flight.
        slots: u32,
        /// When each of them begins, ascending; empty: all at once, at the start.
        starts: Vec<u64>,
        /// Pause after an answer.
        think: Pause,
        /// Measured requests, where their number ends the load.
        requests: Option<u64>,
    },
}

/// `whole` shared among `size`: the part of `rank`; remainders go to low ranks.
pub(crate) fn share(whole: u64, rank: u32, size: u32) -> u64 {
    let size = u64::from(size.max(1));
    whole / size + u64::from(u64::from(rank) < whole % size)
}

fn nanos(span: aifb_schema::units::Span) -> u64 {
    u64::try_from(span.get().as_nanos()).unwrap_or(u64::MAX)
}

impl Shape {
    /// The shape of a recipe's load with `size` workers.
    ///
    /// # Errors
    /// If the schedule would be too long.
    pub(crate) fn new(load: &Load, size: u32) -> Result<Self, Fatal> {
        let shape = Self {
            arrival: load.arrival.clone(),
            warmup_ns: nanos(load.phases.warmup),
            measure: load.phases.measure,
            drain_ns: nanos(load.phases.drain),
            seed: load.seed,
            size: size.max(1),
        };
        let refused =
            |cause: String| Fatal::usage(format!("planning load '{}': {cause}", load.name));
        let arrivals = shape.expected();
        if arrivals > float(ARRIVALS_MAX) {
            return Err(refused(format!("{arrivals:.0} requests are more than {ARRIVALS_MAX}"))
                .hint("measure for a shorter time, or repeat the load"));
        }
        let least = match &shape.arrival {
            Arrival::Closed { concurrency, ramp, .. } => {
                ramp.map_or(*concurrency, |ramp| ramp.from)
            }
            Arrival::Open { .. } | Arrival::Trace { .. } => u32::MAX,
        };
        if least < shape.size {
            return Err(refused(format!("concurrency {least} for {} tasks", shape.size)).hint(
                "start fewer tasks or raise concurrency: each task needs at least one request in flight",
            ));
        }
        if shape.ramps() && shape.ramp_ns().is_none() {
            return Err(refused("the length of the ramp is not set".to_owned())
                .hint("measure for a time, or add over: 60s to the ramp"));
        }
        Ok(shape)
    }

    /// Arrivals that are expected of an open load's rate.
    fn expected(&self) -> f64 {
        let Arrival::Open { rate, ramp, .. } = &self.arrival else { return 0.0 };
        let from = ramp.map_or(*rate, |ramp| ramp.from).get();
        let warmup = from * aifb_stats::distribution::seconds(self.warmup_ns);
        warmup
            + match self.measure {
                Measure::Time(span) => rate.get().max(from) * span.get().as_secs_f64(),
                Measure::Requests(requests) => aifb_stats::distribution::seconds(requests) * 1e9,
            }
    }

    fn ramps(&self) -> bool {
        matches!(
            &self.arrival,
            Arrival::Open { ramp: Some(_), .. } | Arrival::Closed { ramp: Some(_), .. }
        )
    }

    /// How long the ramp takes, where that is known.
    fn ramp_ns(&self) -> Option<u64> {
        let over = match &self.arrival {
            Arrival::Open { ramp, .. } => ramp.and_then(|ramp| ramp.over),
            Arrival::Closed { ramp, .. } => ramp.and_then(|ramp| ramp.over),
            Arrival::Trace { .. } => None,
        };
        match (over, self.measure) {
            (Some(over), _) => Some(nanos(over)),
            (None, Measure::Time(span)) => Some(nanos(span)),
            (None, Measure::Requests(_)) => None,
        }
    }

    /// The plan of one worker.
    ///
    /// # Errors
    /// If a trace cannot be read.
    pub(crate) fn worker(&self, rank: u32) -> Result<WorkerPlan, Fatal> {
        let measure_end = match self.measure {
            Measure::Time(span) => Some(self.warmup_ns.saturating_add(nanos(span))),
            Measure::Requests(_) => None,
        };
        let mut read = None;
        let (sends, measure_end_ns) = match &self.arrival {
            Arrival::Open { process, rate, ramp } => {
                let (warmup, measure, end) =
                    schedule::open(self, (*process, *rate, ramp.as_ref()), rank);
                (Sends::Open { warmup, measure }, Some(measure_end.unwrap_or(end)))
            }
            Arrival::Trace { file, speed } => {
                let trace = Trace::read(file, *speed, self.warmup_ns)?;
                let (sends, end) = self.replay(&trace, file, rank)?;
                read = Some(Arc::new(trace));
                (sends, Some(measure_end.map_or(end, |other| other.min(end))))
            }
            Arrival::Closed { concurrency, think, ramp } => {
                let requests = match self.measure {
                    Measure::Time(_) => None,
                    Measure::Requests(requests) => Some(share(requests, rank, self.size)),
                };
                let own = (rank..*concurrency).step_by(self.size as usize);
                let slots = u32::try_from(own.len()).unwrap_or(u32::MAX);
                let starts = match (ramp, self.ramp_ns()) {
                    (Some(ramp), Some(length)) => own
                        .map(|slot| slots::start(ramp, *concurrency, slot, length))
                        .map(|at| at.map_or(0, |at| self.warmup_ns.saturating_add(at)))
                        .collect(),
                    _ => Vec::new(),
                };
                let think = Pause::new(*think, self.seed);
                (Sends::Closed { slots, starts, think, requests }, measure_end)
            }
        };
        let hash = hash(&sends, self.warmup_ns, measure_end_ns);
        let measure_start_ns = self.warmup_ns;
        Ok(WorkerPlan { sends, measure_start_ns, measure_end_ns, hash, trace: read })
    }

    /// The sends of `rank` from a trace, and the last of anybody's.
    fn replay(&self, trace: &Trace, file: &str, rank: u32) -> Result<(Sends, u64), Fatal> {
        let (warmup, rest) = trace.split();
        let most = match self.measure {
            Measure::Time(span) => {
                let end = self.warmup_ns.saturating_add(nanos(span));
                rest.partition_point(|at| *at < end)
            }
            Measure::Requests(requests) => usize::try_from(requests).unwrap_or(usize::MAX),
        };
        let measured = rest.get(..most).unwrap_or(rest);
        let Some(last) = measured.last().copied() else {
            return Err(Fatal::usage(format!(
                "reading trace '{file}': it ends before the warm-up does"
            ))
            .hint("shorten the warm-up, or lower the speed"));
        };
        let own = |times: &[u64]| -> Vec<u64> {
            times.iter().skip(rank as usize).step_by(self.size as usize).copied().collect()
        };
        Ok((Sends::Open { warmup: own(warmup), measure: own(measured) }, last))
    }

    /// SHA-256 over all workers' hashes, in the order of ranks.
    pub(crate) fn combined_hash<'a>(hashes: impl IntoIterator<Item = &'a str>) -> String {
        let mut hasher = Sha256::new();
        for hash in hashes {
            hasher.update(hash.as_bytes());
        }
        hex(&hasher.finalize())
    }
}

impl WorkerPlan {
    /// Measured requests that are due, where that is known before the start.
    pub(crate) fn planned(&self) -> Option<u64> {
        match &self.sends {
            Sends::Open { measure, .. } => u64::try_from(measure.len()).ok(),
            Sends::Closed { .. } => None,
        }
    }

    /// Measured requests a second of this worker, on average; open loads only.
    pub(crate) fn mean_rate(&self) -> f64 {
        let length = self.measure_end_ns.unwrap_or(0).saturating_sub(self.measure_start_ns);
        let count = match &self.sends {
            Sends::Open { measure, .. } => measure.len(),
            Sends::Closed { .. } => 0,
        };
        float(count) / aifb_stats::distribution::seconds(length.max(1))
    }
}

fn hash(sends: &Sends, measure_start: u64, measure_end: Option<u64>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"aifb plan 2");
    hasher.update(measure_start.to_le_bytes());
    hasher.update(measure_end.unwrap_or(u64::MAX).to_le_bytes());
    match sends {
        Sends::Open { warmup, measure } => {
            for part in [warmup, measure] {
                hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
                for due in part {
                    hasher.update(due.to_le_bytes());
                }
            }
        }
        Sends::Closed { slots, starts, think, requests } => {
            hasher.update(b"closed");
            hasher.update(slots.to_le_bytes());
            for start in starts {
                hasher.update(start.to_le_bytes());
            }
            hasher.update(think.bytes());
            hasher.update(requests.unwrap_or(u64::MAX).to_le_bytes());
        }
    }
    hex(&hasher.finalize())
}

#[expect(clippy::cast_precision_loss, reason = "at most 1e8 arrivals")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
