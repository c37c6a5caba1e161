//! The job of a worker, and the channels between its thread and the control side.

use std::{path::PathBuf, sync::Arc};

use aifb_schema::control::LoadPlan;
use tokio::sync::{oneshot, watch};

use crate::{
    error::Fatal,
    plan::{Shape, WorkerPlan},
    record::{Progress, checkpoint::StoppedBy},
    workload::Workload,
};

/// What a worker does.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The load.
    pub(crate) plan: LoadPlan,
    /// Rank within it.
    pub(crate) rank: u32,
    /// Its shape.
    pub(crate) shape: Shape,
    /// Where its files go.
    pub(crate) folder: PathBuf,
    /// What is made before the start; only in the load thread.
    made: Option<Arc<Made>>,
}

/// What is made before the start.
#[derive(Debug)]
pub(crate) struct Made {
    /// When this worker sends.
    pub(crate) plan: WorkerPlan,
    /// What it asks.
    pub(crate) workload: Workload,
}

impl Job {
    /// The part of `rank`.
    ///
    /// # Errors
    /// If the load cannot be planned.
    pub(crate) fn new(plan: LoadPlan, rank: u32) -> Result<Self, Fatal> {
        let shape = Shape::new(&plan.load, plan.size)?;
        let folder = PathBuf::from(&plan.folder);
        Ok(Self { plan, rank, shape, folder, made: None })
    }

    /// Plan and workload.
    ///
    /// # Errors
    /// Outside of the load thread.
    pub(crate) fn made(&self) -> Result<Arc<Made>, Fatal> {
        self.made.clone().ok_or_else(|| Fatal::loadgen("the load was not prepared"))
    }

    /// Makes plan and workload.
    pub(crate) fn make(&mut self) -> Result<(), Fatal> {
        let plan = self.shape.worker(self.rank)?;
        let workload = Workload::prepare(&self.plan.load, &plan)?;
        self.made = Some(Arc::new(Made { plan, workload }));
        Ok(())
    }
}

/// What a worker says when everything is prepared.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    /// Hash of its own plan.
    pub(crate) plan_hash: String,
    /// Hash of what all workers ask.
    pub(crate) workload_hash: String,
}

/// The common start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// CLOCK_MONOTONIC of this node.
    pub(crate) at_mono_ns: u64,
    /// Half the round trip of the clock measurement.
    pub(crate) clock_error_ns: u64,
}

/// A request to end early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Send no more, wait for the answers.
    Drain(String),
    /// Send no more, wait for nothing.
    Now(String),
    /// A rule of the load is fulfilled: the measured part ends here, wait for the answers.
    Rule(StoppedBy),
}

/// The worker's ends of the channels.
pub(crate) struct Link {
    /// Everything is prepared.
    pub(crate) ready: oneshot::Sender<Ready>,
    /// When to start.
    pub(crate) start: oneshot::Receiver<Start>,
    /// Ends it early.
    pub(crate) stop: watch::Receiver<Option<Stop>>,
    /// Figures.
    pub(crate) progress: Arc<Progress>,
}
