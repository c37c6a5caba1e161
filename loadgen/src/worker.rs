//! One worker: the thread that sends and receives, and what others hold of it.
//!
//! The thread has its own single-threaded runtime and shares nothing with the control side but
//! the channels below.

use std::{path::PathBuf, rc::Rc, sync::Arc};

use aifb_schema::{
    control::LoadPlan,
    recipe::{Arrival, Engine},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::{
    driver,
    error::Fatal,
    limits, pacer,
    plan::{Shape, WorkerPlan},
    record::{Progress, checkpoint::WorkerRecord},
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
        let workload = Workload::prepare(self, &plan)?;
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

/// The rule that ended a load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoppedBy {
    /// Its key in the recipe.
    pub(crate) rule: String,
    /// What was seen.
    pub(crate) reason: String,
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

/// A worker, seen from the control side.
pub(crate) struct Worker {
    /// Everything is prepared; an error means that `done` says why not.
    pub(crate) ready: oneshot::Receiver<Ready>,
    /// When to start.
    pub(crate) start: Option<oneshot::Sender<Start>>,
    /// Ends it early.
    pub(crate) stop: watch::Sender<Option<Stop>>,
    /// Figures.
    pub(crate) progress: Arc<Progress>,
    /// The end.
    pub(crate) done: oneshot::Receiver<Result<WorkerRecord, Fatal>>,
}

impl Worker {
    /// Starts the thread, which prepares at once.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(crate) fn spawn(job: Job) -> Result<Self, Fatal> {
        let (ready_in, ready) = oneshot::channel();
        let (start, start_out) = oneshot::channel();
        let (stop, stop_out) = watch::channel(None);
        let (done_in, done) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let link = Link {
            ready: ready_in,
            start: start_out,
            stop: stop_out,
            progress: Arc::clone(&progress),
        };
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                // The control side is gone only when the program ends.
                let _ignored = done_in.send(run(job, link));
            })
            .map_err(|error| Fatal::loadgen(format!("starting the load thread: {error}")))?;
        Ok(Self { ready, start: Some(start), stop, progress, done })
    }
}

fn run(mut job: Job, link: Link) -> Result<WorkerRecord, Fatal> {
    job.make()?;
    pacer::remove_timer_slack();
    let load = &job.plan.load;
    if matches!(load.arrival, Arrival::Open { .. }) || load.engine != Engine::Hyper {
        // Refused only where the step's CPUs change at this very moment; then nothing is pinned.
        let _ignored = limits::pin(std::env::var("SLURM_LOCALID").ok().as_deref());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| Fatal::loadgen(format!("starting the runtime: {error}")))?;
    runtime.block_on(driver::run(Rc::new(job), link))
}
