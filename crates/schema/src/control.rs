//! Messages between launcher, agents, load workers and `aifb`. All are JSON; the line protocols
//! have one message a line, at most [`LINE_MAX`] bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    live::Times,
    recipe::Load,
    result::NodeClock,
    run::{Endpoint, Failure, RunRecord, State},
};

/// Bytes of one message line: the largest carries the 64 KiB recipe, escaped.
pub const LINE_MAX: usize = 1024 * 1024;

/// Time between heartbeats of an agent to the coordinator, milliseconds. A node counts as lost
/// after [`LOST_AFTER_MS`] without one.
pub const HEARTBEAT_MS: u64 = 500;

/// Silence after which a node (or, seen from an agent, the coordinator) counts as lost.
pub const LOST_AFTER_MS: u64 = 4_000;

/// First line on every agent's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStart {
    /// [`crate::names::PROTOCOL`].
    pub protocol: u32,
    /// The run's token: 64 hexadecimal digits. Never logged.
    pub token: String,
    /// The recipe as it is run ([`crate::recipe::Resolved`]): the folder may not be shared.
    pub recipe: serde_json::Value,
    /// Absolute path of the run folder, made by the launcher.
    pub run_dir: String,
    /// What the launcher wrote into run.json.
    pub run: RunRecord,
    /// Folder of our programs.
    pub bin: String,
    /// Environment of the job, for `program:` services and `secret_env` (cleaned of Slurm's step
    /// variables, so that a service sees the same in every launch mode).
    pub environment: BTreeMap<String, String>,
    /// The job's script, if it runs on the first node: by its end the coordinator tells the end of
    /// a job from its cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ProcessId>,
}

/// A process of a node, named for good: pids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start of the process, clock ticks since boot.
    pub start_ticks: u64,
}

/// Second line on every agent's standard input: where the coordinator listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorAt {
    /// `address:port`.
    pub coordinator: String,
}

/// Lines of the coordinator's standard output, read by the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromCoordinator {
    /// It listens; the launcher tells the other agents.
    At {
        /// `address:port`.
        address: String,
    },
    /// Every service is healthy; variables for the script.
    Ready {
        /// `SERVICE_*` and `AIFB_*`.
        environment: BTreeMap<String, String>,
    },
    /// The run failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// The run reached this final state; nothing follows.
    Ended {
        /// The state.
        state: State,
    },
}

/// What an agent tells the coordinator, `POST /v1/join` once and `POST /v1/poll` from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Node name as Slurm knows it.
    pub node: String,
    /// Address on which its services are reached.
    pub address: String,
    /// `address:port` of its own HTTP server.
    pub http: String,
    /// Orders up to this number were received.
    pub received: u64,
    /// Number of this report among those that carry something, from 1; 0 for one that carries
    /// nothing. A number that was seen before is a repetition and not taken in again.
    #[serde(default)]
    pub sequence: u64,
    /// What happened to its service replicas since the last report.
    #[serde(default)]
    pub events: Vec<ReplicaEvent>,
    /// Messages of its load workers, in order.
    #[serde(default)]
    pub workers: Vec<WorkerMessage>,
    /// What makes the run less than it should be, such as records that a full disk did not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// A measurement of its clock against the coordinator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockOffset>,
    /// What its samples show that the run's record should tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Trouble>,
    /// The agent ends after this report.
    #[serde(default)]
    pub leaving: bool,
}

/// Something that happened on a node: a lost GPU or an error of one, a process killed for want of memory, a clock set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Wall clock of the node's sample that shows it.
    pub epoch_ns: u64,
    /// What it is about: `gpu`, `memory` or `clock`.
    pub subject: String,
    /// What happened, for people.
    pub message: String,
    /// The same for programs, where there is more to it than the subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// A node's CLOCK_MONOTONIC against the coordinator's: theirs + `offset_ns` = the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// At the smallest round trip of the measurement.
    pub offset_ns: i64,
    /// Half of that round trip: the true offset lies within this distance.
    pub error_ns: u64,
    /// When, on the node's CLOCK_MONOTONIC.
    pub measured_mono_ns: u64,
}

/// The coordinator's answer to a report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOrders {
    /// Orders with their numbers, increasing; repeated until received.
    pub orders: Vec<(u64, NodeOrder)>,
}

/// What an agent is told to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeOrder {
    /// Start this replica and watch it until it is healthy.
    StartReplica {
        /// Service name.
        service: String,
        /// Replica number from 0; for a service across nodes the node's rank in it.
        replica: u32,
        /// Nodes of the service, the head first.
        nodes: Vec<String>,
        /// Addresses of these nodes, in the same order.
        addresses: Vec<String>,
    },
    /// Stop this replica.
    StopReplica {
        /// Service name.
        service: String,
        /// Replica number.
        replica: u32,
        /// Milliseconds between SIGTERM and SIGKILL, where less than the recipe's `stop` is left.
        grace_ms: u64,
    },
    /// A message for a load worker of this node.
    ToWorker {
        /// Which worker.
        worker: WorkerId,
        /// The message.
        message: ToWorker,
    },
    /// A load has entered its measured phase, or none is in it any more.
    Measuring {
        /// Whether one is.
        now: bool,
    },
    /// Stop everything and end.
    Finish,
}

/// What happened to a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaEvent {
    /// Service name.
    pub service: String,
    /// Replica number.
    pub replica: u32,
    /// What.
    pub change: ReplicaChange,
}

/// States of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReplicaChange {
    /// Its process runs.
    Started {
        /// Process id on its node.
        pid: u32,
    },
    /// It answers.
    Healthy {
        /// Where.
        endpoint: Endpoint,
    },
    /// It no longer answers, though its process lives.
    Unhealthy {
        /// What the probe said.
        reason: String,
    },
    /// It is started again.
    Restarting {
        /// How often that makes.
        count: u32,
        /// Why.
        reason: String,
    },
    /// It failed for good.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// It was stopped as asked.
    Stopped,
}

/// Names one load worker of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId {
    /// Load name.
    pub load: String,
    /// Slurm step (`<job>.<step>`) or, in a local run, the parent's process id: tells two
    /// concurrent steps of one load apart.
    pub step: String,
    /// Rank within the step.
    pub rank: u32,
}

/// A worker's message on its way to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerMessage {
    /// Who.
    pub worker: WorkerId,
    /// What.
    pub message: FromWorker,
}

/// Lines from a load worker to the agent of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromWorker {
    /// First line.
    Join {
        /// [`crate::names::PROTOCOL`].
        protocol: u32,
        /// Who.
        worker: WorkerId,
        /// Workers of the load.
        size: u32,
        /// Point of the sweep; absent: the next one.
        point: Option<u32>,
        /// Repeat from 0; absent: the next free one.
        repeat: Option<u32>,
        /// Workers of all steps together, where several steps are one load; `size` is the same
        /// then, and ranks are dealt out anew.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whole: Option<u32>,
    },
    /// Connections are open, files are open, the plan is made.
    Ready {
        /// SHA-256 of this worker's send times.
        plan_hash: String,
        /// SHA-256 of what is asked, files included: equal for all workers of a load.
        #[serde(default)]
        workload_hash: String,
    },
    /// Once a second while it runs.
    Delta(Delta),
    /// Everything is written.
    Done {
        /// Whether this worker's part is whole.
        complete: bool,
    },
    /// The leader wrote result.json.
    ResultWritten,
    /// This worker gives up; the load fails.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Sent by the agent itself when a worker's connection ended without `Done`.
    Lost,
}

/// Progress of one worker since the start of the measured part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// `warmup`, `measure` or `drain`.
    pub phase: String,
    /// Seconds since the start.
    pub elapsed_ms: u64,
    /// Requests sent so far.
    pub sent: u64,
    /// Requests that succeeded so far.
    pub ok: u64,
    /// Requests that failed so far.
    pub failed: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Output tokens received so far.
    pub output_tokens: u64,
    /// Requests that this worker will send in all, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u64>,
    /// Successful requests so far that took at most each of [`crate::live::TOTAL`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub durations: Vec<u64>,
    /// Their times, added up.
    #[serde(default)]
    pub durations_ns: u64,
    /// Their times to first token so far, by [`crate::live::TTFT`]; absent where there is none.
    #[serde(default, skip_serializing_if = "Times::is_empty")]
    pub ttft: Times,
    /// The gaps between their tokens, by [`crate::live::INTER_TOKEN`].
    #[serde(default, skip_serializing_if = "Times::is_empty")]
    pub inter_token: Times,
    /// Their client lags, by [`crate::live::CLIENT_LAG`].
    #[serde(default, skip_serializing_if = "Times::is_empty")]
    pub client_lag: Times,
    /// Times that ended since the last of these messages, as (nanoseconds, how many): those of the
    /// metric that the load's rule for a steady state looks at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<(u64, u64)>,
}

impl Delta {
    /// Adds the times of another worker, or of another repeat.
    pub fn add_durations(&mut self, other: &Self) {
        self.durations.resize(self.durations.len().max(other.durations.len()), 0);
        self.durations.iter_mut().zip(&other.durations).for_each(|(sum, count)| *sum += count);
        self.durations_ns += other.durations_ns;
        self.ttft.add(&other.ttft);
        self.inter_token.add(&other.inter_token);
        self.client_lag.add(&other.client_lag);
    }
}

/// Lines from the agent to a load worker of its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// Answer to `Join`, when all workers of the load have joined.
    Plan(Box<LoadPlan>),
    /// Start at this instant of the worker's own CLOCK_MONOTONIC.
    Start {
        /// Nanoseconds.
        at_mono_ns: u64,
        /// Half the round trip of the clock measurement between this node and the coordinator's.
        clock_error_ns: u64,
    },
    /// All workers have ended; the lowest surviving rank merges and writes result.json.
    Merge {
        /// Ranks that were lost.
        lost: Vec<u32>,
        /// Clocks of the other nodes against the coordinator's, from before the start to the end.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        clocks: Vec<NodeClock>,
    },
    /// result.json is there: exit.
    Release,
    /// Stop sending, drain and finish now.
    Stop {
        /// Why.
        reason: String,
        /// The rule of the load that is fulfilled; none where it was stopped by something else,
        /// and so is incomplete.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
    },
    /// The load cannot run.
    Refused {
        /// Why.
        failure: Failure,
    },
}

/// All a worker needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadPlan {
    /// The run.
    pub run_id: String,
    /// Folder of this repeat, made by the coordinator.
    pub folder: String,
    /// The load, with the point's values.
    pub load: Load,
    /// Point of the sweep.
    pub point: u32,
    /// Values of the point by path.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Repeat from 0.
    pub repeat: u32,
    /// Workers.
    pub size: u32,
    /// Rank of the worker that this is for, where it is not the one within its step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Where the service answers, one for each replica.
    pub endpoints: Vec<Endpoint>,
    /// Model name for requests.
    pub model: Option<String>,
    /// Secrets of the service's environment that a client needs (`POSTGRES_PASSWORD`,
    /// `API_KEY`). Kept in memory only.
    pub secrets: BTreeMap<String, String>,
}

/// Answer of `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// run.json as it is now.
    pub run: RunRecord,
    /// Agents.
    pub nodes: Vec<NodeStatus>,
    /// Services.
    pub services: Vec<ReplicaStatus>,
    /// Loads that run or ran.
    pub loads: Vec<LoadStatus>,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Node name.
    pub node: String,
    /// `up`, `left` or `lost`.
    pub state: String,
    /// `address:port` of its HTTP server.
    pub http: String,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Service name.
    pub service: String,
    /// Replica number.
    pub replica: u32,
    /// Node.
    pub node: String,
    /// `pending`, `starting`, `healthy`, `unhealthy`, `restarting`, `failed`, `stopped`.
    pub state: String,
    /// Restarts so far.
    pub restarts: u32,
    /// URL, once healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// One load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadStatus {
    /// Load name.
    pub load: String,
    /// Point.
    pub point: u32,
    /// Repeat.
    pub repeat: u32,
    /// `joining`, `preparing`, `running`, `merging`, `done`, `failed`.
    pub state: String,
    /// Workers: asked for, joined, lost.
    pub workers: (u32, u32, u32),
    /// Sum of the workers' progress.
    pub progress: Delta,
}

/// Answer of `GET /v1/clock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// CLOCK_MONOTONIC.
    pub mono_ns: u64,
    /// Wall clock.
    pub epoch_ns: u64,
}
