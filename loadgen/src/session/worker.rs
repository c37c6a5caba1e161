//! One worker: the thread that sends and receives, and what others hold of it.
//!
//! The thread has its own single-threaded runtime and shares nothing with the control side but
//! the channels of [`crate::job`].

use std::sync::Arc;

use aifb_schema::recipe::{Arrival, Engine};
use tokio::sync::{oneshot, watch};

use crate::{
    clock,
    drive::{self, limits},
    error::Fatal,
    job::{Job, Link, Ready, Start, Stop},
    record::{Progress, checkpoint::WorkerRecord},
    registry,
};

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
    clock::remove_timer_slack();
    let load = &job.plan.load;
    if matches!(load.arrival, Arrival::Open { .. }) || load.connection().engine != Engine::Hyper {
        // Refused only where the step's CPUs change at this very moment; then nothing is pinned.
        let _ignored = limits::pin(std::env::var("SLURM_LOCALID").ok().as_deref());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| Fatal::loadgen(format!("starting the runtime: {error}")))?;
    runtime.block_on(async {
        let room = limits::descriptors(&job, &job.made()?.plan)?;
        let driver = registry::prepare(&job).await?;
        drive::run(&job, driver, room, link).await
    })
}
