//! The agents, as the coordinator sees them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use aifb_schema::{
    control::{
        ClockOffset, HEARTBEAT_MS, LOST_AFTER_MS, NodeOrder, NodeOrders, NodeReport, NodeStatus,
    },
    run::{Failure, Owner},
};
use tokio::sync::oneshot;

use super::Coordinator;

/// Longest time until every agent has reported: Slurm starts a step's tasks on all nodes within
/// seconds, a node's prolog may take a minute.
const JOIN_DEADLINE: Duration = Duration::from_secs(90);

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    Expected,
    Up,
    Left,
    Lost,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) state: NodeState,
    pub(super) address: String,
    pub(super) http: String,
    seen: Instant,
    /// Orders that it has not yet received, by number.
    orders: VecDeque<(u64, NodeOrder)>,
    next_order: u64,
    /// Number of the last report with news that was taken in.
    sequence: u64,
    /// Its empty report that waits for orders.
    waiting: Option<(oneshot::Sender<Result<NodeOrders, String>>, Instant)>,
}

impl Node {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: NodeState::Expected,
            address: String::new(),
            http: String::new(),
            seen: Instant::now(),
            orders: VecDeque::new(),
            next_order: 1,
            sequence: 0,
            waiting: None,
        }
    }

    /// Gives an order; it leaves at once if the agent's empty report is here.
    pub(super) fn order(&mut self, order: NodeOrder) {
        self.orders.push_back((self.next_order, order));
        self.next_order += 1;
        self.answer_waiting();
    }

    fn answer_waiting(&mut self) {
        if let Some((reply, _)) = self.waiting.take() {
            let _connection_broke = reply.send(Ok(self.open_orders()));
        }
    }

    fn open_orders(&self) -> NodeOrders {
        NodeOrders { orders: self.orders.iter().cloned().collect() }
    }

    pub(super) fn status(&self) -> NodeStatus {
        let state = match self.state {
            NodeState::Expected => "expected",
            NodeState::Up => "up",
            NodeState::Left => "left",
            NodeState::Lost => "lost",
        };
        NodeStatus { node: self.name.clone(), state: state.to_owned(), http: self.http.clone() }
    }
}

impl Coordinator {
    /// Takes an agent's report in and answers it, now or at the end of the heartbeat.
    pub(super) fn report(
        &mut self,
        report: NodeReport,
        reply: oneshot::Sender<Result<NodeOrders, String>>,
    ) {
        let name = report.node.clone();
        let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) else {
            let _gone = reply.send(Err(format!("node '{name}' is not part of this run")));
            return;
        };
        match node.state {
            NodeState::Lost | NodeState::Left => {
                let _gone = reply.send(Err(format!("node '{name}' has left this run")));
                return;
            }
            NodeState::Up => {}
            NodeState::Expected => {
                node.state = NodeState::Up;
                node.address.clone_from(&report.address);
                node.http.clone_from(&report.http);
                let message = format!("agent up, http {}", report.http);
                self.event_on(&name, "node", &name, &message, BTreeMap::new());
            }
        }
        let fresh = self.receive(&name, &report);
        if fresh {
            for event in report.events {
                self.replica_event(&name, event);
            }
            for warning in report.warnings {
                self.warn(&format!("node {name}: {warning}"));
            }
            // Before the workers' messages: a worker's clock is measured just before it reports
            // done.
            if let Some(clock) = report.clock {
                self.clock_measured(&name, clock);
            }
            for trouble in report.troubles {
                self.node_trouble(&name, trouble);
            }
            for message in report.workers {
                self.worker_message(&name, message);
            }
            if report.leaving {
                self.node_left(&name);
            }
        }
        let Some(node) = self.node_mut(&name) else { return };
        if report.sequence > 0 || !node.orders.is_empty() {
            let _connection_broke = reply.send(Ok(node.open_orders()));
        } else {
            node.answer_waiting();
            node.waiting = Some((reply, Instant::now()));
        }
    }

    /// Notes that a node lives and what it has received; whether its news is new.
    fn receive(&mut self, name: &str, report: &NodeReport) -> bool {
        let Some(node) = self.node_mut(name) else { return false };
        node.seen = Instant::now();
        node.orders.retain(|(number, _)| *number > report.received);
        let fresh = report.sequence > node.sequence;
        node.sequence = node.sequence.max(report.sequence);
        fresh
    }

    pub(super) fn node_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name == name)
    }

    /// Gives an order to a node, if it is still there.
    pub(super) fn order(&mut self, node: &str, order: NodeOrder) {
        if let Some(node) = self.node_mut(node)
            && matches!(node.state, NodeState::Up | NodeState::Expected)
        {
            node.order(order);
        }
    }

    pub(super) fn all_up(&self) -> bool {
        self.nodes.iter().all(|node| node.state == NodeState::Up)
    }

    pub(super) fn check_nodes(&mut self, now: Instant) {
        let heartbeat = Duration::from_millis(HEARTBEAT_MS);
        let silence = Duration::from_millis(LOST_AFTER_MS);
        let mut lost = Vec::new();
        for node in &mut self.nodes {
            if node.waiting.as_ref().is_some_and(|(_, at)| now.duration_since(*at) >= heartbeat) {
                node.answer_waiting();
            }
            let gone = match node.state {
                NodeState::Up => now.duration_since(node.seen) >= silence,
                NodeState::Expected => now.duration_since(self.begun) >= JOIN_DEADLINE,
                NodeState::Left | NodeState::Lost => false,
            };
            if gone {
                lost.push((node.name.clone(), node.state));
                node.state = NodeState::Lost;
            }
        }
        for (name, state) in lost {
            self.node_lost(&name, state);
        }
    }

    /// After a pause of this agent no silence counts.
    pub(super) fn forgive_silence(&mut self, now: Instant) {
        for node in &mut self.nodes {
            node.seen = now;
        }
        self.warn("the coordinator did not run for more than 2 s (was the job suspended?)");
    }

    fn node_lost(&mut self, name: &str, before: NodeState) {
        let reason = match before {
            NodeState::Expected => {
                format!("its agent did not report within {} s", JOIN_DEADLINE.as_secs())
            }
            _ => format!("lost: its agent has not responded for {LOST_AFTER_MS} ms"),
        };
        self.event_on(name, "node", name, &reason, BTreeMap::new());
        self.end_series_of(name);
        self.lose_replicas(name);
        self.lose_workers(name);
        let failure = Failure::new(Owner::Node, name, reason)
            .with_hint("the agent or the whole node died; see launch.log and the node's agent.log");
        if !self.over() {
            self.fail(failure);
        }
    }

    fn node_left(&mut self, name: &str) {
        let asked = self.over();
        if let Some(node) = self.node_mut(name) {
            node.state = NodeState::Left;
        }
        self.event_on(name, "node", name, "agent left", BTreeMap::new());
        self.lose_workers(name);
        if !asked {
            let reason = "its agent got SIGTERM during the run";
            self.lose_replicas(name);
            self.fail(Failure::new(Owner::Node, name, reason));
        }
    }

    fn clock_measured(&mut self, name: &str, clock: ClockOffset) {
        let fields = BTreeMap::from([
            ("offset_ns".to_owned(), clock.offset_ns.into()),
            ("error_ns".to_owned(), clock.error_ns.into()),
            ("measured_mono_ns".to_owned(), clock.measured_mono_ns.into()),
        ]);
        self.event_on(name, "node", name, "clock offset measured", fields);
        for run in self.loads.iter_mut().filter(|run| !run.state.over()) {
            run.clock_measured(name, clock);
        }
    }
}
