//! The coordinator: on the first node, the one owner of the run's state.
//!
//! ```text
//! launching ─all agents up─▶ starting ─all healthy─▶ healthy ◀─load ends / starts─▶ measuring
//!     └───────────┬──────────────┴─────────────┬────────┴──────────────────────────────┘
//!           signal, stop or failure ─▶ finishing ─▶ completed | failed | cancelled
//! ```
//!
//! One task takes messages from a queue and a tick; nothing in it waits for anything else.

mod allot;
mod announce;
mod finish;
mod load_run;
mod loads;
mod nodes;
mod record;
mod search;
pub(crate) use record::say;
mod services;

use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use aifb_schema::{
    control::{Delta, FromCoordinator, NodeOrder, NodeOrders, NodeReport, ProcessId, RunStatus},
    run::{Failure, RunRecord, State},
};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot};

use super::{context::Context, sampling::Sampling};
use crate::export::targets::Group;
use announce::Announced;
use finish::{Cause, Finish};
use load_run::{LoadRun, Prepared};
use nodes::Node;
use services::Replica;

/// Messages that wait for the coordinator: two requests from each of a thousand agents.
const QUEUE: usize = 4096;

/// The loads' progress is shown this often: workers tell it once a second.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Deadlines are looked at this often while the run starts or ends.
const TICK: Duration = Duration::from_millis(100);

/// The same in between, when services run and loads measure: then only heartbeats and lost nodes
/// are due, and this agent's node is one of those that are measured.
const STEADY_TICK: Duration = Duration::from_millis(250);

/// A tick this late means that the whole agent stood still (a suspended job): then the silence of
/// others says nothing.
const STOOD_STILL: Duration = Duration::from_secs(2);

enum Message {
    Report(NodeReport, oneshot::Sender<Result<NodeOrders, String>>),
    Status(oneshot::Sender<RunStatus>),
    Targets(oneshot::Sender<Vec<Group>>),
    Stop(String),
    Fail(Failure),
    Signal(Signal),
    ScriptEnded,
    LoadPrepared(Prepared),
}

/// The way to the coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Handle(mpsc::Sender<Message>);

impl Handle {
    /// Hands in a report; the orders, when there are some or a heartbeat has passed. `None` when
    /// the coordinator has ended, an error for a node that it does not know or has given up.
    pub(crate) async fn report(&self, report: NodeReport) -> Option<Result<NodeOrders, String>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Report(report, reply)).await.ok()?;
        answer.await.ok()
    }

    /// The state of everything; `None` when the coordinator has ended.
    pub(crate) async fn status(&self) -> Option<RunStatus> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Where the agents show their metrics; `None` when the coordinator has ended.
    pub(crate) async fn targets(&self) -> Option<Vec<Group>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Targets(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Ends the run.
    pub(crate) fn stop(&self, reason: &str) {
        self.tell(Message::Stop(reason.to_owned()));
    }

    /// Ends the run as failed.
    pub(crate) fn fail(&self, failure: Failure) {
        self.tell(Message::Fail(failure));
    }

    /// This agent got a signal that asks it to end.
    pub(crate) fn signal(&self, signal: Signal) {
        self.tell(Message::Signal(signal));
    }

    /// The job's script has ended.
    pub(crate) fn script_ended(&self) {
        self.tell(Message::ScriptEnded);
    }

    fn tell(&self, message: Message) {
        if self.0.try_send(message).is_err() {
            tracing::warn!("the coordinator has ended or is flooded");
        }
    }
}

/// The coordinator's state.
pub(crate) struct Coordinator {
    context: Rc<Context>,
    sampling: Sampling,
    queue: mpsc::Receiver<Message>,
    own: Handle,
    record: RunRecord,
    nodes: Vec<Node>,
    replicas: Vec<Replica>,
    loads: Vec<LoadRun>,
    finish: Option<Finish>,
    begun: Instant,
    healthy_since: Option<Instant>,
    last_tick: Instant,
    loads_shown: Instant,
    /// Whether the agents were informed that a load is in its measured phase.
    measuring: bool,
    /// The end of the last standstill of this agent.
    woke: Option<Instant>,
    /// The job's script, where it runs on this node.
    script: Option<ProcessId>,
    script_ended: Option<Instant>,
    announced: Announced,
}

impl Coordinator {
    /// A coordinator that has not started.
    pub(crate) fn new(
        context: Rc<Context>,
        sampling: Sampling,
        script: Option<ProcessId>,
    ) -> (Self, Handle) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let own = Handle(sender);
        let record = context.record.clone();
        let now = Instant::now();
        let nodes = record.job.components.iter().flatten().map(|name| Node::new(name)).collect();
        let replicas = services::place(&context.recipe, &record.job.components);
        let announced = Announced::new(&context);
        let coordinator = Self {
            context,
            sampling,
            queue,
            own: own.clone(),
            record,
            nodes,
            replicas,
            loads: Vec::new(),
            finish: None,
            begun: now,
            healthy_since: None,
            last_tick: now,
            loads_shown: now,
            measuring: false,
            woke: None,
            script,
            script_ended: None,
            announced,
        };
        (coordinator, own)
    }

    /// Works until the run has its final state and the record says so.
    pub(crate) async fn run(mut self) {
        loop {
            let next = tokio::time::Instant::from_std(self.last_tick + self.pace());
            tokio::select! {
                message = self.queue.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = tokio::time::sleep_until(next) => self.tick(),
            }
            if self.advance() {
                break;
            }
        }
        let _hanging_files =
            tokio::time::timeout(Duration::from_secs(1), self.context.files.flush()).await;
        self.announced.finish().await;
        record::say(&FromCoordinator::Ended { state: self.record.state });
    }

    /// Time between two ticks.
    fn pace(&self) -> Duration {
        match self.record.state {
            State::Healthy | State::Measuring if self.finish.is_none() => STEADY_TICK,
            _ => TICK,
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Report(report, reply) => {
                self.report(report, reply);
                self.tell_measuring();
            }
            Message::Status(reply) => {
                let _asker_gone = reply.send(self.status());
            }
            Message::Targets(reply) => {
                let _asker_gone = reply.send(self.targets());
            }
            Message::Stop(reason) => self.begin_finish(Cause::Stop(reason)),
            Message::Fail(failure) => self.fail(failure),
            Message::Signal(signal) => self.begin_finish(Cause::Signal(signal)),
            Message::ScriptEnded => {
                self.script_ended.get_or_insert_with(Instant::now);
            }
            Message::LoadPrepared(prepared) => self.load_prepared(prepared),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.last_tick) > STOOD_STILL {
            self.woke = Some(now);
            self.forgive_silence(now);
        }
        self.last_tick = now;
        self.check_nodes(now);
        self.check_loads(now);
        self.show_loads(now);
        self.tell_measuring();
        self.announce_targets();
    }

    /// Puts the loads' progress on `/metrics`, once a second.
    fn show_loads(&mut self, now: Instant) {
        if !self.loads.is_empty() && now.duration_since(self.loads_shown) >= SHOW_EVERY {
            self.show_loads_now(now);
        }
    }

    fn show_loads_now(&mut self, now: Instant) {
        self.loads_shown = now;
        let mut sums: BTreeMap<String, Delta> = BTreeMap::new();
        for status in self.loads.iter().map(LoadRun::status) {
            let sum = sums.entry(status.load).or_default();
            let one = status.progress;
            sum.sent += one.sent;
            sum.ok += one.ok;
            sum.failed += one.failed;
            sum.output_tokens += one.output_tokens;
            sum.add_durations(&one);
            if status.state == "running" {
                sum.in_flight += one.in_flight;
            }
        }
        self.sampling.loads(&sums);
    }

    /// Tells all agents when the measured phase of a load begins and ends, as far as its workers
    /// have told: they do once a second.
    fn tell_measuring(&mut self) {
        let now = self.loads.iter().any(LoadRun::measures);
        if now == self.measuring || self.context.recipe.monitor.burst.is_none() {
            return;
        }
        self.measuring = now;
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for name in names {
            self.order(&name, NodeOrder::Measuring { now });
        }
    }

    /// Takes every step that is due; true when the run is over.
    fn advance(&mut self) -> bool {
        if self.finish.is_some() {
            return self.advance_finish(Instant::now());
        }
        self.advance_start();
        false
    }

    /// Ends the run as failed. The first failure counts.
    fn fail(&mut self, failure: Failure) {
        if self.record.failure.is_none() {
            self.record.failure = Some(failure.clone());
            self.save();
        }
        if self.finish.is_none() {
            record::say(&FromCoordinator::Failed { failure: failure.clone() });
            self.begin_finish(Cause::Failure(failure));
        }
    }

    fn status(&self) -> RunStatus {
        RunStatus {
            run: self.record.clone(),
            nodes: self.nodes.iter().map(Node::status).collect(),
            services: self.replicas.iter().map(|r| r.status(&self.context.recipe)).collect(),
            loads: self.loads.iter().map(LoadRun::status).collect(),
        }
    }

    /// The name of the coordinator's own node.
    fn own_node(&self) -> &str {
        &self.context.node
    }

    fn over(&self) -> bool {
        self.finish.is_some() || self.record.state >= State::Finishing
    }
}
