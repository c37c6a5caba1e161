//! One replica of a service on this node, from its order to its end.

mod attempt;
mod command;
mod container;
mod endpoint;
mod folders;
mod health;
mod memory;
mod page;
mod port;
mod prepare;
mod probe;
mod program;
mod supervisor;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use aifb_schema::{
    control::ReplicaChange,
    recipe::{RESTARTS_MAX, Restart, Service},
    run::{Failure, Owner},
};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::{
    context::Context,
    resources::{Resources, Share},
    sampling::Sampling,
    shipping::Shipping,
};
use command::Position;
use container::Container;
use folders::Folders;
use memory::Memory;
use supervisor::{Report, Supervisor};

/// Pause before the first restart; each further one takes twice as long.
const BACKOFF: Duration = Duration::from_secs(1);

/// Between the end of a process and the judgement that it failed: at the end of a job Slurm may
/// signal the service a moment before the agent.
const JUDGE_AFTER: Duration = Duration::from_millis(250);

/// Attempts to find a free port, the first one included.
const PORT_TRIES: u32 = 4;

/// Beyond its grace a stopped program is killed; killed processes are gone by then.
const KILL_PATIENCE: Duration = Duration::from_secs(6);

/// Service name and replica number.
type Key = (String, u32);

/// Gives the grace of a stop.
type StopSender = watch::Sender<Option<Duration>>;

/// What replicas use of their agent.
#[derive(Clone)]
struct Host {
    context: Rc<Context>,
    sampling: Sampling,
    shipping: Shipping,
    resources: Rc<Resources>,
}

/// All replicas of this node.
pub(crate) struct Replicas {
    host: Host,
    stops: RefCell<HashMap<Key, StopSender>>,
}

impl Replicas {
    /// None yet.
    pub(crate) fn new(context: &Rc<Context>, sampling: &Sampling, shipping: &Shipping) -> Rc<Self> {
        let host = Host {
            context: Rc::clone(context),
            sampling: sampling.clone(),
            shipping: shipping.clone(),
            resources: Resources::new(context.local()),
        };
        Rc::new(Self { host, stops: RefCell::default() })
    }

    /// Starts one. A second order for the same one is passed over.
    pub(crate) fn start(self: &Rc<Self>, name: &str, position: Position) {
        let key = (name.to_owned(), position.replica);
        let Some(service) = self.host.context.service(name).cloned() else {
            tracing::error!(name, "order for a service that the recipe does not have");
            return;
        };
        if self.stops.borrow().contains_key(&key) {
            return;
        }
        let (sender, stop) = watch::channel(None);
        self.stops.borrow_mut().insert(key.clone(), sender);
        let replica = Replica { host: self.host.clone(), service, position, stop };
        let all = Rc::clone(self);
        tokio::task::spawn_local(async move {
            replica.live().await;
            all.stops.borrow_mut().remove(&key);
        });
    }

    /// Stops one within `grace`.
    pub(crate) fn stop(&self, name: &str, replica: u32, grace: Duration) {
        if let Some(stop) = self.stops.borrow().get(&(name.to_owned(), replica)) {
            stop.send_replace(Some(grace));
        }
    }

    /// Stops all within `grace`.
    pub(crate) fn stop_all(&self, grace: Duration) {
        for stop in self.stops.borrow().values() {
            stop.send_replace(Some(grace));
        }
    }

    /// Resolves when none is left.
    pub(crate) async fn wait_empty(&self) {
        while !self.stops.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) use command::Position as At;

/// How an attempt ended.
enum End {
    /// It was ordered to stop, with this grace period.
    Stop(Duration),
    /// Its process ended.
    Exited(Report),
    /// It is wrong in another way; its process may live.
    Failed(Failure),
}

struct Replica {
    host: Host,
    service: Service,
    position: Position,
    stop: watch::Receiver<Option<Duration>>,
}

/// What stays the same over restarts.
struct Prepared {
    folders: Folders,
    values: std::collections::BTreeMap<String, super::secrets::Value>,
    share: Share,
    container: Option<Container>,
}

impl Replica {
    fn name(&self) -> &str {
        self.service.name.as_str()
    }

    fn tell(&self, change: ReplicaChange) {
        self.host.context.outbox.event(self.name(), self.position.replica, change);
    }

    /// A failure of this service.
    fn failure(&self, owner: Owner, reason: impl Into<String>) -> Failure {
        Failure::new(owner, self.name(), reason)
    }

    /// Resolves with the grace when a stop is ordered.
    async fn stopped(&self) -> Duration {
        let mut stop = self.stop.clone();
        let grace = match stop.wait_for(Option::is_some).await {
            Ok(grace) => *grace,
            Err(_) => None,
        };
        grace.unwrap_or_default()
    }

    /// From the order to the end; the last event is Failed or Stopped.
    async fn live(self) {
        let prepared = tokio::select! {
            prepared = prepare::prepare(&self) => prepared,
            _ = self.stopped() => return self.tell(ReplicaChange::Stopped),
        };
        let last = match prepared {
            Ok(prepared) => {
                let last = self.attempts(&prepared).await;
                let _not_made = std::fs::remove_dir_all(&prepared.folders.secrets);
                last
            }
            Err(failure) => ReplicaChange::Failed { failure },
        };
        self.host.sampling.unwatch(self.name(), self.position.replica);
        self.tell(last);
    }

    /// Attempts until one is stopped or no more is allowed; the last event.
    async fn attempts(&self, prepared: &Prepared) -> ReplicaChange {
        let mut restarts = 0;
        let mut ports = None;
        let mut port_tries = 1;
        loop {
            let logs = prepared.folders.log_lengths();
            let memory = Memory::now();
            let begun = Instant::now();
            let mut attempt = attempt::Attempt::new(self, prepared, ports.clone());
            let (end, healthy) = attempt.run().await;
            ports = healthy.then(|| attempt.ports()).or(ports);
            let failure = match end {
                End::Stop(_) => return ReplicaChange::Stopped,
                End::Failed(failure) => failure,
                End::Exited(said) => {
                    let lived = begun.elapsed();
                    tokio::time::sleep(JUDGE_AFTER).await;
                    if self.host.context.ending.stops_services() || self.stop.borrow().is_some() {
                        return ReplicaChange::Stopped;
                    }
                    let tail = prepared.folders.tail(logs);
                    if !healthy
                        && ports.is_none()
                        && self.service.fixed_port().is_none()
                        && port_tries < PORT_TRIES
                        && port::says_taken(&tail)
                    {
                        port_tries += 1;
                        tracing::info!(
                            port = attempt.ports().main,
                            "the port was taken, trying another"
                        );
                        continue;
                    }
                    self.exit_failure(&said, &memory, lived, &tail)
                }
            };
            let failure = prepared.folders.with_tail(failure, logs);
            if self.service.restart == Restart::Never || restarts >= RESTARTS_MAX {
                return ReplicaChange::Failed { failure: after_restarts(failure, restarts) };
            }
            restarts += 1;
            self.tell(ReplicaChange::Restarting { count: restarts, reason: failure.reason });
            tokio::select! {
                () = tokio::time::sleep(BACKOFF * 2_u32.pow(restarts - 1)) => {}
                _ = self.stopped() => return ReplicaChange::Stopped,
            }
        }
    }

    /// Why a process that should run has ended.
    fn exit_failure(&self, said: &Report, memory: &Memory, lived: Duration, tail: &str) -> Failure {
        let after = format!("after {:.1} s", lived.as_secs_f64());
        if let Some(shortage) = memory.shortage() {
            return self
                .failure(Owner::Service, shortage)
                .with_hint("request more with --mem, or reduce the memory of the service");
        }
        match said {
            Report::Ended { code: Some(code), leftover, .. } => {
                let failure =
                    self.failure(Owner::Service, format!("exited with code {code} {after}"));
                let fixed = self.service.fixed_port().filter(|_| port::says_taken(tail));
                match (fixed, leftover) {
                    (Some(port), _) => failure
                        .with_hint(format!("its port {port} seems to be in use; use port: auto")),
                    (None, 0) => failure,
                    (None, count) => failure.with_hint(format!(
                        "its background processes ({count}) were ended; a service must stay in \
                         the foreground"
                    )),
                }
            }
            Report::Ended { signal, .. } => {
                let number = signal.unwrap_or(libc::SIGKILL);
                let name = Signal::try_from(number).map_or("", |signal| signal.as_str());
                let reason = format!("ended by signal {number} ({name}) {after}");
                self.failure(Owner::Service, reason)
            }
            Report::NotStarted { cause } => {
                self.failure(Owner::Recipe, format!("could not be started: {cause}"))
            }
            Report::Started { .. } => self.failure(Owner::Service, "ended before it started"),
        }
    }

    fn external(&self) -> bool {
        self.service.is_external()
    }

    /// Of a service across nodes only the head answers clients.
    fn is_helper_of_head(&self) -> bool {
        self.service.across && self.position.replica > 0
    }
}

fn after_restarts(mut failure: Failure, restarts: u32) -> Failure {
    if restarts > 0 {
        failure.reason = format!("{}; given up after {restarts} restarts", failure.reason);
    }
    failure
}

/// Ends a program: SIGTERM, its grace, then all that is left of it at once.
async fn shut_down(mut supervisor: Supervisor, grace: Duration) {
    supervisor.terminate();
    let ended = async {
        while !matches!(supervisor.next().await, Report::Ended { .. } | Report::NotStarted { .. }) {
        }
    };
    if tokio::time::timeout(grace, ended).await.is_ok() {
        return;
    }
    supervisor.kill();
    let ended = async {
        while !matches!(supervisor.next().await, Report::Ended { .. } | Report::NotStarted { .. }) {
        }
    };
    if tokio::time::timeout(KILL_PATIENCE, ended).await.is_err() {
        tracing::error!("a killed service still has processes; they hang in the kernel");
    }
}
