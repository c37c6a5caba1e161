//! What every part of an agent knows.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aifb_schema::{
    control::{ClockOffset, FromWorker, ReplicaChange, ReplicaEvent, Trouble, WorkerMessage},
    names::file,
    recipe::{Recipe, Resolved, Service},
    run::RunRecord,
};
use nix::sys::signal::Signal;
use tokio::sync::Notify;

use super::files::Files;
use crate::logging::SharedLogging;

/// A service that exits within this time of the agent's SIGTERM was stopped with it.
const STOPPED_WITH_AGENT: Duration = Duration::from_secs(2);

/// What every part of an agent knows.
#[derive(Debug)]
pub(crate) struct Context {
    /// run.json as the launcher wrote it.
    pub(crate) record: RunRecord,
    /// The recipe.
    pub(crate) recipe: Recipe,
    /// The same with what its points are made from.
    pub(crate) resolved: Resolved,
    /// The run folder.
    pub(crate) run_dir: PathBuf,
    /// The run's token.
    pub(crate) token: String,
    /// Environment of `program:` services and of `secret_env`.
    pub(crate) environment: BTreeMap<String, String>,
    /// This program.
    pub(crate) program: PathBuf,
    /// Name of this node as Slurm knows it.
    pub(crate) node: String,
    /// Address on which this node's services are reached.
    pub(crate) address: IpAddr,
    /// Writes into the run folder.
    pub(crate) files: Files,
    /// Messages that wait to be sent to the coordinator.
    pub(crate) outbox: Outbox,
    /// Which log lines are sent and written just now.
    pub(crate) logging: SharedLogging,
    /// The signal that requested the end of this agent.
    pub(crate) ending: Ending,
}

impl Context {
    /// This node's folder.
    pub(crate) fn node_dir(&self) -> PathBuf {
        self.run_dir.join(file::NODES).join(&self.node)
    }

    /// Whether the run needs no Slurm.
    pub(crate) fn local(&self) -> bool {
        self.record.job.id.is_none()
    }

    /// A service of the recipe.
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.recipe.services.iter().find(|service| service.name.as_str() == name)
    }

    /// The folder that relative paths of the recipe start from.
    pub(crate) fn submit_dir(&self) -> &Path {
        Path::new(&self.record.submit_dir)
    }
}

/// The signal that requested the end of this agent.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    signal: Cell<Option<(Signal, Instant)>>,
    came: Notify,
}

impl Ending {
    /// Notes a signal; the first one counts.
    pub(crate) fn note(&self, signal: Signal) {
        if self.signal.get().is_none() {
            self.signal.set(Some((signal, Instant::now())));
            self.came.notify_waiters();
        }
    }

    /// When it came.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.signal.get().map(|(_, at)| at)
    }

    /// Whether a service that has just ended was stopped with this agent.
    pub(crate) fn stops_services(&self) -> bool {
        self.since().is_some_and(|at| at.elapsed() <= STOPPED_WITH_AGENT)
    }

    /// Resolves when the signal has come.
    pub(crate) async fn wait(&self) {
        let came = self.came.notified();
        if self.signal.get().is_none() {
            came.await;
        }
    }
}

/// Messages that may wait while the coordinator does not answer: at two workers' one a second,
/// more than an hour; it counts as lost after seconds.
const WAITING_MAX: usize = 10_000;

/// Doubts of one report; more of them say nothing new.
const WARNINGS_MAX: usize = 20;

/// Messages that wait to be sent to the coordinator.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: RefCell<Waiting>,
    filled: Notify,
}

/// One report's worth of news.
#[derive(Debug, Default, Clone)]
pub(crate) struct Waiting {
    /// What happened to replicas.
    pub(crate) events: Vec<ReplicaEvent>,
    /// Messages of workers.
    pub(crate) workers: Vec<WorkerMessage>,
    /// Doubts about this node's part.
    pub(crate) warnings: Vec<String>,
    /// The latest measurement of the clock.
    pub(crate) clock: Option<ClockOffset>,
    /// What samples show.
    pub(crate) troubles: Vec<Trouble>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.workers.is_empty()
            && self.warnings.is_empty()
            && self.clock.is_none()
            && self.troubles.is_empty()
    }
}

impl Outbox {
    /// Tells what happened to a replica.
    pub(crate) fn event(&self, service: &str, replica: u32, change: ReplicaChange) {
        tracing::info!(service, replica, ?change, "service");
        let mut waiting = self.waiting.borrow_mut();
        if waiting.events.len() < WAITING_MAX {
            waiting.events.push(ReplicaEvent { service: service.to_owned(), replica, change });
        }
        self.filled.notify_one();
    }

    /// Tells a doubt about this node's part of the run; the coordinator keeps it with the run.
    pub(crate) fn warn(&self, message: String) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.warnings.len() < WARNINGS_MAX {
            waiting.warnings.push(message);
        }
        self.filled.notify_one();
    }

    /// Passes a worker's message on. Of the progress messages the newest is enough.
    pub(crate) fn worker(&self, message: WorkerMessage) {
        let mut waiting = self.waiting.borrow_mut();
        if matches!(message.message, FromWorker::Delta(_)) {
            let same = |other: &WorkerMessage| {
                other.worker == message.worker && matches!(other.message, FromWorker::Delta(_))
            };
            waiting.workers.retain(|other| !same(other));
        }
        if waiting.workers.len() < WAITING_MAX {
            waiting.workers.push(message);
        }
        self.filled.notify_one();
    }

    /// Tells what happened on this node.
    pub(crate) fn trouble(&self, trouble: Trouble) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.troubles.len() < WAITING_MAX {
            waiting.troubles.push(trouble);
        }
        self.filled.notify_one();
    }

    /// Tells a measurement of the clock.
    pub(crate) fn clock(&self, offset: ClockOffset) {
        self.waiting.borrow_mut().clock = Some(offset);
        self.filled.notify_one();
    }

    /// Resolves when there is something, and takes it.
    pub(crate) async fn take(&self) -> Waiting {
        loop {
            let filled = self.filled.notified();
            {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.is_empty() {
                    return std::mem::take(&mut *waiting);
                }
            }
            filled.await;
        }
    }

    /// Takes what there is, perhaps nothing.
    pub(crate) fn take_now(&self) -> Waiting {
        std::mem::take(&mut *self.waiting.borrow_mut())
    }
}
