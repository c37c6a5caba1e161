//! Services: where they run, when they start, how they are.

use std::{collections::BTreeMap, time::Duration};

use aifb_schema::{
    control::{FromCoordinator, NodeOrder, ReplicaChange, ReplicaEvent, ReplicaStatus},
    names::env,
    recipe::{Nodes, Recipe, StartOrder},
    run::{Endpoint, State},
};
use serde_json::Value;

use super::{Coordinator, record};
use crate::clock;

/// How long the news of health waits for its record.
const RECORD_FIRST: Duration = Duration::from_millis(200);

/// How a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplicaState {
    /// Not yet ordered.
    Pending,
    /// Ordered.
    Starting,
    Healthy,
    Unhealthy,
    Restarting,
    Failed,
    Stopped,
}

impl ReplicaState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// One replica of a service; of a service across nodes, its part on one node.
#[derive(Debug)]
pub(super) struct Replica {
    /// Index in the recipe.
    pub(super) service: usize,
    pub(super) number: u32,
    pub(super) node: String,
    pub(super) state: ReplicaState,
    restarts: u32,
    pub(super) endpoint: Option<Endpoint>,
}

impl Replica {
    pub(super) fn status(&self, recipe: &Recipe) -> ReplicaStatus {
        ReplicaStatus {
            service: name_of(recipe, self.service),
            replica: self.number,
            node: self.node.clone(),
            state: self.state.as_str().to_owned(),
            restarts: self.restarts,
            url: self.endpoint.as_ref().map(|endpoint| endpoint.url.clone()),
        }
    }

    /// Whether its process may still run.
    pub(super) fn alive(&self) -> bool {
        use ReplicaState::{Healthy, Restarting, Starting, Unhealthy};
        matches!(self.state, Starting | Healthy | Unhealthy | Restarting)
    }
}

/// All replicas of a recipe on the nodes of the first component.
pub(super) fn place(recipe: &Recipe, components: &[Vec<String>]) -> Vec<Replica> {
    let nodes = components.first().map_or(&[][..], Vec::as_slice);
    let mut replicas = Vec::new();
    for (index, service) in recipe.services.iter().enumerate() {
        let count = match service.nodes {
            _ if service.is_external() => 1,
            Nodes::Head | Nodes::Others => 1,
            Nodes::All => nodes.len(),
            Nodes::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        for (number, node) in (0..).zip(nodes.iter().take(count)) {
            replicas.push(Replica {
                service: index,
                number,
                node: node.clone(),
                state: ReplicaState::Pending,
                restarts: 0,
                endpoint: None,
            });
        }
    }
    replicas
}

pub(super) fn name_of(recipe: &Recipe, index: usize) -> String {
    recipe.services.get(index).map(|service| service.name.to_string()).unwrap_or_default()
}

impl Coordinator {
    /// Starts what is due: nothing before all agents are up, one service after the other where
    /// the recipe wants that.
    pub(super) fn advance_start(&mut self) {
        if self.record.state == State::Launching {
            if !self.all_up() {
                return;
            }
            let agents = match self.nodes.len() {
                1 => "1 agent".to_owned(),
                count => format!("{count} agents"),
            };
            self.enter(State::Starting, &format!("{agents} up, starting services"));
        }
        if self.record.state != State::Starting {
            return;
        }
        for index in 0..self.context.recipe.services.len() {
            self.start_service(index);
            let sequential = self.context.recipe.start == StartOrder::Sequential;
            if sequential && !self.service_healthy(index) {
                return;
            }
        }
        if self.replicas.iter().all(|replica| replica.state == ReplicaState::Healthy) {
            self.all_healthy();
        }
    }

    fn start_service(&mut self, index: usize) {
        let name = name_of(&self.context.recipe, index);
        let of_service = |replica: &&Replica| replica.service == index;
        let nodes: Vec<String> =
            self.replicas.iter().filter(of_service).map(|replica| replica.node.clone()).collect();
        let addresses: Vec<String> = nodes
            .iter()
            .filter_map(|name| self.nodes.iter().find(|node| node.name == *name))
            .map(|node| node.address.clone())
            .collect();
        let mut orders = Vec::new();
        for replica in &mut self.replicas {
            if replica.service == index && replica.state == ReplicaState::Pending {
                replica.state = ReplicaState::Starting;
                let order = NodeOrder::StartReplica {
                    service: name.clone(),
                    replica: replica.number,
                    nodes: nodes.clone(),
                    addresses: addresses.clone(),
                };
                orders.push((replica.node.clone(), order));
            }
        }
        for (node, order) in orders {
            self.order(&node, order);
        }
    }

    fn service_healthy(&self, index: usize) -> bool {
        let mut of_service = self.replicas.iter().filter(|replica| replica.service == index);
        of_service.all(|replica| replica.state == ReplicaState::Healthy)
    }

    fn all_healthy(&mut self) {
        self.record.healthy_epoch_ns = Some(clock::epoch_ns());
        self.healthy_since = Some(std::time::Instant::now());
        self.enter(State::Healthy, "every service is healthy");
        // The script's first line may read the record: it is written first, unless the file system
        // hangs.
        let (files, environment) = (self.context.files.clone(), self.script_environment());
        tokio::task::spawn_local(async move {
            let _hanging = tokio::time::timeout(RECORD_FIRST, files.flush()).await;
            record::say(&FromCoordinator::Ready { environment });
        });
        self.advance_loads();
    }

    /// What happened to a replica.
    pub(super) fn replica_event(&mut self, node: &str, event: ReplicaEvent) {
        let recipe = &self.context.recipe;
        let Some(at) = self.replicas.iter().position(|replica| {
            replica.number == event.replica
                && replica.node == node
                && name_of(recipe, replica.service) == event.service
        }) else {
            tracing::warn!(node, event.service, event.replica, "report about an unknown replica");
            return;
        };
        let message = summary(&event.change);
        let mut fields = BTreeMap::from([("replica".to_owned(), Value::from(event.replica))]);
        if let ReplicaChange::Started { pid } = &event.change {
            fields.insert("pid".to_owned(), Value::from(*pid));
        }
        self.event_on(node, "service", &event.service, &message, fields);
        let over = self.over();
        let Some(replica) = self.replicas.get_mut(at) else { return };
        let across = recipe.services.get(replica.service).is_some_and(|service| service.across);
        match event.change {
            ReplicaChange::Started { .. } => {
                // Only the head of a service across nodes is probed; the others work for it.
                replica.state = if across && replica.number > 0 {
                    ReplicaState::Healthy
                } else {
                    ReplicaState::Starting
                };
            }
            ReplicaChange::Healthy { endpoint } => {
                replica.state = ReplicaState::Healthy;
                replica.endpoint = Some(endpoint);
            }
            ReplicaChange::Unhealthy { .. } => replica.state = ReplicaState::Unhealthy,
            ReplicaChange::Restarting { count, reason } => {
                replica.state = ReplicaState::Restarting;
                replica.restarts = count;
                let name = event.service;
                self.warn(&format!("service {name} on {node} was restarted ({count}): {reason}"));
            }
            ReplicaChange::Failed { failure } => {
                replica.state = ReplicaState::Failed;
                if !over {
                    self.fail(failure);
                }
            }
            ReplicaChange::Stopped => replica.state = ReplicaState::Stopped,
        }
    }

    /// The replicas of a node that is gone.
    pub(super) fn lose_replicas(&mut self, node: &str) {
        for replica in self.replicas.iter_mut().filter(|replica| replica.node == node) {
            if replica.alive() {
                replica.state = ReplicaState::Failed;
            }
        }
    }

    /// Endpoints of a service, one for each replica that clients may ask.
    pub(super) fn endpoints(&self, service: &str) -> Vec<Endpoint> {
        let recipe = &self.context.recipe;
        self.replicas
            .iter()
            .filter(|replica| name_of(recipe, replica.service) == service)
            .filter_map(|replica| replica.endpoint.clone())
            .collect()
    }

    /// Variables for the script: of the first service, of each by its name, and all URLs.
    fn script_environment(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let mut urls = Vec::new();
        for (index, service) in self.context.recipe.services.iter().enumerate() {
            let endpoints = self.endpoints(service.name.as_str());
            urls.extend(endpoints.iter().map(|endpoint| endpoint.url.clone()));
            let Some(endpoint) = endpoints.first() else { continue };
            let upper = service.name.env_part();
            let mut put = |name: String, value: &str| variables.insert(name, value.to_owned());
            if index == 0 {
                put(env::SERVICE_NAME.to_owned(), service.name.as_str());
                put(env::SERVICE_HOSTNAME.to_owned(), &endpoint.host);
                put(env::SERVICE_PORT.to_owned(), &endpoint.port.to_string());
                put(env::SERVICE_URL.to_owned(), &endpoint.url);
            }
            put(format!("SERVICE_{upper}_HOSTNAME"), &endpoint.host);
            put(format!("SERVICE_{upper}_PORT"), &endpoint.port.to_string());
            put(format!("SERVICE_{upper}_URL"), &endpoint.url);
            for (name, port) in &endpoint.ports {
                let name = name.to_ascii_uppercase();
                put(format!("SERVICE_{upper}_PORT_{name}"), &port.to_string());
                if index == 0 {
                    put(format!("{}_{name}", env::SERVICE_PORT), &port.to_string());
                }
            }
        }
        variables.insert(env::SERVICE_URLS.to_owned(), urls.join(","));
        variables
    }
}

/// A change in one line.
fn summary(change: &ReplicaChange) -> String {
    match change {
        ReplicaChange::Started { .. } => "started".to_owned(),
        ReplicaChange::Healthy { endpoint } => format!("healthy at {}", endpoint.url),
        ReplicaChange::Unhealthy { reason } => format!("unhealthy: {reason}"),
        ReplicaChange::Restarting { count, reason } => format!("restart {count}: {reason}"),
        ReplicaChange::Failed { failure } => format!("failed: {}", failure.reason),
        ReplicaChange::Stopped => "stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_go_to_the_first_nodes() {
        let text = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, program: /x}\n  - \
                    {name: b, kind: container, program: /x, nodes: 2}\n  - {name: c, kind: \
                    container, program: /x, nodes: all}\n";
        let recipe = aifb_schema::recipe::parse(text, &[]).unwrap();
        let nodes = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
        let replicas = place(&recipe, &[nodes, vec!["m1".to_owned()]]);
        let placed: Vec<(usize, u32, &str)> = replicas
            .iter()
            .map(|replica| (replica.service, replica.number, replica.node.as_str()))
            .collect();
        assert_eq!(
            placed,
            [(0, 0, "n1"), (1, 0, "n1"), (1, 1, "n2"), (2, 0, "n1"), (2, 1, "n2"), (2, 2, "n3")]
        );
    }
}
