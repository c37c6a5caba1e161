//! Evaluates the stop rules of a load with a single worker. Inside a run the coordinator evaluates
//! them over all workers together.

use std::{sync::atomic::Ordering, time::Instant};

use aifb_schema::recipe::Load;
use aifb_stats::stopping::Judge;

use crate::{
    job::Stop,
    record::{Progress, checkpoint::StoppedBy},
};

/// Looks at a worker once a second.
#[derive(Debug)]
pub(crate) struct Watch {
    judge: Option<Judge>,
    started: Instant,
}

/// [`Progress::phase`] of the measured part.
const MEASURING: u64 = 2;

impl Watch {
    /// By the rules of this load.
    pub(crate) fn new(load: &Load) -> Self {
        Self { judge: load.stop.map(Judge::new), started: Instant::now() }
    }

    /// What a fulfilled rule asks for; once.
    pub(crate) fn look(&mut self, progress: &Progress) -> Option<Stop> {
        if progress.phase.load(Ordering::Relaxed) != MEASURING {
            return None;
        }
        let judge = self.judge.as_mut()?;
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = judge.second(progress.figures(at_ms, progress.take_recent()))?;
        self.judge = None;
        Some(Stop::Rule(StoppedBy { rule: verdict.rule.to_owned(), reason: verdict.reason }))
    }
}
