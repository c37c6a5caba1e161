//! The end of a run: loads, then services in reverse order, then agents, then the record.

use std::time::{Duration, Instant};

use aifb_schema::{
    control::NodeOrder,
    run::{Ended, Failure, State},
};
use nix::sys::signal::Signal;

use super::{Coordinator, nodes::NodeState, services::name_of};
use crate::{clock, process::script};

/// Why the run ends.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// This agent got a signal: the job ends, and Slurm kills everything KillWait seconds later.
    Signal(Signal),
    /// A user or a program requested it.
    Stop(String),
    /// Something failed.
    Failure(Failure),
}

impl Cause {
    /// Why the run ends, as a message of its state.
    fn message(&self) -> String {
        match self {
            Self::Signal(signal) => format!("ended by {signal}"),
            Self::Stop(reason) => reason.clone(),
            Self::Failure(failure) => {
                format!("{}: {} (cause: {})", failure.part, failure.reason, failure.owner.as_str())
            }
        }
    }
}

/// Time for everything after a signal: KillWait is 30 s by default and may be as short as 5 s.
const AFTER_SIGNAL: Duration = Duration::from_secs(4);

/// Of that, for workers to end their loads; the rest is for the services.
const LOADS_AFTER_SIGNAL: Duration = Duration::from_millis(1_200);

/// Of that, when the services must be gone.
const SERVICES_AFTER_SIGNAL: Duration = Duration::from_millis(3_000);

/// Of that, when the agents must have left.
const NODES_AFTER_SIGNAL: Duration = Duration::from_millis(3_500);

/// Time for workers to end their loads when nothing presses.
const LOADS: Duration = Duration::from_secs(5);

/// Time for the agents' last reports.
const NODES: Duration = Duration::from_secs(2);

/// Between the end of a service's grace and the news that it is gone.
const KILLING: Duration = Duration::from_millis(400);

/// A script that ended this shortly before the signal was ended by the same hand: slurmd signals
/// the steps of a job one after the other, in a millisecond or two.
const SIGNALLED_TOGETHER: Duration = Duration::from_millis(4);

/// A tick older than this: this process did not run.
const ASLEEP: Duration = Duration::from_secs(1);

/// A job that ends this close to its time limit was ended by it.
const AT_LIMIT: i64 = 2;

/// How far the end has come.
#[derive(Debug)]
pub(super) struct Finish {
    cause: Cause,
    /// When a signal came, be it the cause or later.
    signal: Option<(Signal, Instant)>,
    stage: Stage,
    until: Instant,
    /// The state to end in unless something fails.
    outcome: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Loads,
    /// The service of this index and those before it still run.
    Services(usize),
    Nodes,
}

impl Finish {
    /// `planned` from now, or less where a signal presses.
    fn limit(&self, now: Instant, planned: Duration, after_signal: Duration) -> Instant {
        let planned = now + planned;
        self.signal.map_or(planned, |(_, at)| planned.min(at + after_signal))
    }
}

impl Coordinator {
    /// Begins the end; a signal during an end only presses.
    pub(super) fn begin_finish(&mut self, cause: Cause) {
        let now = Instant::now();
        let signal = match cause {
            Cause::Signal(signal) => Some((signal, now)),
            Cause::Stop(_) | Cause::Failure(_) => None,
        };
        if let Some(finish) = &mut self.finish {
            if finish.signal.is_none() && signal.is_some() {
                finish.signal = signal;
                finish.until = finish.until.min(now + LOADS_AFTER_SIGNAL);
            }
            return;
        }
        if let Some(failure) = self.load_failure() {
            self.record.failure.get_or_insert(failure);
        }
        let outcome = self.outcome(&cause, now);
        let message = cause.message();
        let planned = if self.load_active() { LOADS } else { Duration::ZERO };
        let mut finish = Finish { cause, signal, stage: Stage::Loads, until: now, outcome };
        finish.until = finish.limit(now, planned, LOADS_AFTER_SIGNAL);
        self.finish = Some(finish);
        self.enter(State::Finishing, &message);
        if outcome != State::Completed {
            self.announced.take_back();
        }
        self.stop_loads(&message);
    }

    /// The state to end in, judged at the first sign of the end.
    fn outcome(&self, cause: &Cause, now: Instant) -> State {
        match cause {
            Cause::Failure(_) => State::Failed,
            Cause::Stop(_) => State::Cancelled,
            Cause::Signal(_) if self.record.failure.is_some() => State::Failed,
            Cause::Signal(signal) => {
                let before_script = self.record.state < State::Healthy;
                let at_limit = self.seconds_to_limit().is_some_and(|left| left <= AT_LIMIT);
                let script_ended = self.script_ended_before(now);
                if *signal == Signal::SIGTERM
                    && !before_script
                    && !at_limit
                    && !self.load_active()
                    && script_ended
                {
                    State::Completed
                } else {
                    State::Cancelled
                }
            }
        }
    }

    /// Whether the job's script was over before the signal came. True where there is none that
    /// could be watched: in a local run and in an interactive allocation the signal is the end.
    fn script_ended_before(&self, now: Instant) -> bool {
        let Some(script) = self.script else { return true };
        // An agent that stood still until now has noticed nothing.
        let asleep = || {
            let since = now.duration_since(self.last_tick);
            let woke = self.woke.is_some_and(|at| now.duration_since(at) < ASLEEP);
            (since >= ASLEEP || woke) && !script::lives(script)
        };
        let before = self.script_ended.map(|at| now.duration_since(at));
        tracing::info!(?before, "end of the script before the signal");
        before.is_some_and(|before| before >= SIGNALLED_TOGETHER) || asleep()
    }

    fn seconds_to_limit(&self) -> Option<i64> {
        let end = i64::try_from(self.record.job.end_time_epoch_s?).ok()?;
        let now = i64::try_from(clock::epoch_ns() / 1_000_000_000).ok()?;
        Some(end - now)
    }

    /// Takes the steps that are due; true when the record is closed.
    pub(super) fn advance_finish(&mut self, now: Instant) -> bool {
        loop {
            let Some(finish) = &self.finish else { return false };
            let late = now >= finish.until;
            match finish.stage {
                Stage::Loads if late || !self.load_active() => {
                    self.stop_service(self.context.recipe.services.len(), now);
                }
                Stage::Services(index) if late || !self.service_alive(index) => {
                    self.stop_service(index, now);
                }
                Stage::Nodes if late || self.all_left() => {
                    self.close();
                    return true;
                }
                _ => return false,
            }
        }
    }

    fn service_alive(&self, index: usize) -> bool {
        self.replicas.iter().any(|replica| replica.service == index && replica.alive())
    }

    fn all_left(&self) -> bool {
        self.nodes.iter().all(|node| node.state != NodeState::Up)
    }

    /// Stops the last service before `before` that still runs; if there is none, the agents.
    fn stop_service(&mut self, before: usize, now: Instant) {
        let Some(index) = (0..before).rev().find(|index| self.service_alive(*index)) else {
            self.stop_agents(now);
            return;
        };
        let left = (0..=index).filter(|index| self.service_alive(*index)).count();
        let Some(finish) = &mut self.finish else { return };
        let service = self.context.recipe.services.get(index);
        let mut grace = service.map_or(Duration::ZERO, |service| service.stop.get());
        if let Some((_, at)) = finish.signal {
            let rest = (at + SERVICES_AFTER_SIGNAL).saturating_duration_since(now);
            let share = rest / u32::try_from(left).unwrap_or(u32::MAX);
            grace = grace.min(share.saturating_sub(KILLING));
        }
        finish.stage = Stage::Services(index);
        finish.until = now + grace + KILLING;
        let name = name_of(&self.context.recipe, index);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let orders: Vec<(String, NodeOrder)> = self
            .replicas
            .iter()
            .filter(|replica| replica.service == index && replica.alive())
            .map(|replica| {
                let (service, replica_number) = (name.clone(), replica.number);
                let order = NodeOrder::StopReplica { service, replica: replica_number, grace_ms };
                (replica.node.clone(), order)
            })
            .collect();
        for (node, order) in orders {
            self.order(&node, order);
        }
    }

    fn stop_agents(&mut self, now: Instant) {
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for name in names {
            self.order(&name, NodeOrder::Finish);
        }
        if let Some(finish) = &mut self.finish {
            finish.stage = Stage::Nodes;
            finish.until = finish.limit(now, NODES, NODES_AFTER_SIGNAL);
        }
    }

    /// Writes the final state.
    fn close(&mut self) {
        let Some(finish) = self.finish.take() else { return };
        self.withdraw_targets();
        let state = if self.record.failure.is_some() { State::Failed } else { finish.outcome };
        let signal = match (&finish.cause, finish.signal) {
            (_, Some((signal, _))) => Some(signal.as_str().trim_start_matches("SIG").to_owned()),
            (Cause::Stop(_), None) => Some("stop".to_owned()),
            (Cause::Failure(_) | Cause::Signal(_), None) => None,
        };
        self.record.ended = Some(Ended {
            signal,
            epoch_ns: clock::epoch_ns(),
            seconds_to_limit: self.seconds_to_limit(),
        });
        let late: Vec<&str> = self
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Up)
            .map(|node| node.name.as_str())
            .collect();
        let mut message = finish.cause.message();
        if !late.is_empty() {
            message = format!("{message}; no last report from {}", late.join(", "));
        }
        if let Some((_, at)) = finish.signal {
            let over = at.elapsed().saturating_sub(AFTER_SIGNAL);
            if !over.is_zero() {
                tracing::warn!(over_ms = over.as_millis(), "the shutdown took longer than planned");
            }
        }
        self.enter(state, &message);
    }
}
