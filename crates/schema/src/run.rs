//! Records of the run folder that are JSON: `run.json`, `events.jsonl`, `agent.json`,
//! `endpoint.json`.
//!
//! Times are `*_epoch_ns` (wall clock, nanoseconds since 1970) or `*_mono_ns` (CLOCK_MONOTONIC of
//! the node). Absent fields are unknown, never zero.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::exit;

/// States of a run, in their order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The launcher makes the folder and starts the agents.
    Launching,
    /// Agents are up, services start.
    Starting,
    /// Every service answers its health probe.
    Healthy,
    /// A load runs.
    Measuring,
    /// Phases end, services are stopped.
    Finishing,
    /// All that was asked for was done, or the script ended by itself.
    Completed,
    /// A part failed; `failure` says which and why.
    Failed,
    /// Ended from outside: scancel, time limit, `aifb stop`, an interrupt.
    Cancelled,
}

impl State {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The word that files and screens use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "launching",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Measuring => "measuring",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Who has to act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The user's recipe asks for something wrong.
    Recipe,
    /// Slurm refused or ended something.
    Slurm,
    /// A node or its agent was lost, or lacks something.
    Node,
    /// The service under test.
    Service,
    /// The load generator.
    Loadgen,
}

impl Owner {
    /// The word that files and screens use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recipe => "recipe",
            Self::Slurm => "slurm",
            Self::Node => "node",
            Self::Service => "service",
            Self::Loadgen => "loadgen",
        }
    }

    /// The exit code of a failure of this owner.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Recipe => exit::USAGE,
            Self::Slurm => exit::SLURM,
            Self::Service => exit::SERVICE,
            Self::Node | Self::Loadgen => exit::INCOMPLETE,
        }
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Who has to act: the cause of the failure.
    pub owner: Owner,
    /// What failed: a service, load or node name, or a program.
    pub part: String,
    /// What happened, one line.
    pub reason: String,
    /// Remedy, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Last lines of the service's log, if the service caused the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    /// The exit code that programs use for it ([`crate::names::exit`]).
    pub exit_code: i32,
}

impl Failure {
    /// A failure with its owner's exit code, without hint or log.
    #[must_use]
    pub fn new(owner: Owner, part: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            owner,
            part: part.into(),
            reason: reason.into(),
            hint: None,
            log_tail: None,
            exit_code: owner.exit_code(),
        }
    }

    /// Adds what would help.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As people read it: part, reason and owner in one line, then the hint, then the log's last
    /// lines. No newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("{}: {} (cause: {})", self.part, self.reason, self.owner.as_str());
        if let Some(hint) = &self.hint {
            text.push_str("\n  hint: ");
            text.push_str(hint);
        }
        if let Some(tail) = self.log_tail.as_deref().filter(|tail| !tail.trim().is_empty()) {
            text.push_str("\n  last lines of its log:");
            for line in tail.lines() {
                text.push_str("\n  | ");
                text.push_str(line);
            }
        }
        text
    }
}

/// How the end came, written by the coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// `TERM`, `INT`, `stop` (by request) or absent when the run ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// When.
    pub epoch_ns: u64,
    /// Seconds left of the job's time limit, negative beyond it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_limit: Option<i64>,
}

/// What Slurm itself recorded, asked once by `aifb` after the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobRecord {
    /// Slurm's state word, or `unknown` when neither sacct nor scontrol know the job.
    pub state: String,
    /// Exit code of the job script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the job script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Slurm's reason word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `sacct` or `scontrol`.
    pub source: String,
}

/// The allocation that the run has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Slurm's job id; for a heterogeneous job the leader's. Absent in a local run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Name of the cluster, if Slurm reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Array job and task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<(u32, u32)>,
    /// How often the job was requeued.
    #[serde(default)]
    pub restart_count: u32,
    /// Nodes by component of a heterogeneous job; one component otherwise.
    pub components: Vec<Vec<String>>,
    /// End of the time limit, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time_epoch_s: Option<u64>,
}

/// `run.json`: what the run is, how far it came, how it ended. Always replaced by rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// [`crate::names::PROTOCOL`] of the writer.
    pub protocol: u32,
    /// [`crate::names::VERSION`] of the writer.
    pub version: String,
    /// Id of the run.
    pub run_id: String,
    /// Name of the recipe.
    pub name: String,
    /// `plugin`, `wrapper` or `local`.
    pub mode: String,
    /// Numeric id of the user.
    pub uid: u32,
    /// How far it came.
    pub state: State,
    /// Where the recipe was read.
    pub recipe_path: String,
    /// SHA-256 of the recipe text, hexadecimal.
    pub recipe_sha256: String,
    /// Overrides, in their order.
    pub sets: Vec<String>,
    /// The allocation.
    pub job: Job,
    /// Where the submission was made.
    pub submit_dir: String,
    /// When the launcher started.
    pub started_epoch_ns: u64,
    /// When every service was healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_epoch_ns: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How the end came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Doubts and differences that did not stop the run (such as a placement other than requested).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What Slurm recorded, added late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm: Option<JobRecord>,
}

impl RunRecord {
    /// The exit code that stands for the end of the run; 0 while it goes on.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match (&self.failure, self.state) {
            (Some(failure), _) => failure.exit_code,
            (None, State::Cancelled) => {
                match self.ended.as_ref().and_then(|end| end.signal.as_deref()) {
                    Some("INT") => exit::INTERRUPTED,
                    Some("TERM") => exit::TERMINATED,
                    _ => exit::OK,
                }
            }
            (None, State::Failed) => exit::INCOMPLETE,
            (None, _) => exit::OK,
        }
    }
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Wall clock.
    pub epoch_ns: u64,
    /// CLOCK_MONOTONIC of the coordinator's node.
    pub mono_ns: u64,
    /// The node it happened on.
    pub node: String,
    /// What: `state`, `service`, `load`, `node`, `warning`.
    pub kind: String,
    /// Which: a state word, a service or load name.
    pub subject: String,
    /// What happened, one line.
    pub message: String,
    /// Further values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// `nodes/<node>/agent.json`: how to reach a node's agent while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentRecord {
    /// [`crate::names::PROTOCOL`].
    pub protocol: u32,
    /// Node name as Slurm knows it.
    pub node: String,
    /// Process id in the node's own numbering.
    pub pid: u32,
    /// `address:port` of its HTTP server.
    pub address: String,
    /// Name of its abstract Unix socket, without the leading NUL.
    pub socket: String,
    /// Whether it is the coordinator.
    pub coordinator: bool,
    /// When it started.
    pub started_epoch_ns: u64,
}

/// `services/<name>[.<replica>]/endpoint.json`: where a replica answers. Written after the first
/// good health probe only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// Service name.
    pub service: String,
    /// Replica number from 0.
    pub replica: u32,
    /// Node it runs on.
    pub node: String,
    /// Address or name that clients use.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Full URL.
    pub url: String,
    /// Further ports by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// When the first probe succeeded.
    pub healthy_epoch_ns: u64,
}

impl Endpoint {
    /// The URL at its port of this name; its own where it has none.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        let Some(port) = self.ports.get(name) else { return self.url.clone() };
        let scheme = self.url.split_once("://").map_or("http", |(scheme, _)| scheme);
        let host = &self.host;
        if host.contains(':') && !host.starts_with('[') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_port_has_its_own_url() {
        let mut endpoint = Endpoint {
            service: "triton".into(),
            replica: 0,
            node: "n1".into(),
            host: "10.0.0.1".into(),
            port: 8000,
            url: "http://10.0.0.1:8000".into(),
            ports: BTreeMap::from([("grpc".into(), 8001)]),
            healthy_epoch_ns: 0,
        };
        assert_eq!(endpoint.url_of("grpc"), "http://10.0.0.1:8001");
        assert_eq!(endpoint.url_of("other"), "http://10.0.0.1:8000");
        endpoint.host = "fd00::1".into();
        endpoint.url = "https://[fd00::1]:8000".into();
        assert_eq!(endpoint.url_of("grpc"), "https://[fd00::1]:8001");
    }

    #[test]
    fn a_failure_shows_owner_hint_and_log() {
        let mut failure =
            Failure::new(Owner::Service, "llm", "exited with code 1").with_hint("look at its args");
        failure.log_tail = Some("no such model\nbye\n".into());
        assert_eq!(failure.exit_code, exit::SERVICE);
        assert_eq!(
            failure.render(),
            "llm: exited with code 1 (cause: service)\n  hint: look at its args\n  last lines of \
             its log:\n  | no such model\n  | bye"
        );
    }
}
