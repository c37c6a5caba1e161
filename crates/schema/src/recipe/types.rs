//! The types of a recipe. Field names are the recipe's keys; the documentation of each becomes
//! part of the JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    kind::ServiceKind,
    load_types::Load,
    log_types::{Logging, Loki},
    receiver_types::Receiver,
};
use crate::units::{Name, Size, Span};

/// A whole recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of the recipe format: 1.
    pub aifb: u32,
    /// Name of the benchmark.
    pub name: Name,
    /// What it is about, free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Options for sbatch by their long names, without dashes. Used by `aifb run`; under plain
    /// sbatch compared with the allocation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slurm: BTreeMap<String, SlurmValue>,
    /// What is measured.
    pub services: Vec<Service>,
    /// How load is put on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load: Vec<Load>,
    /// Values to go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// What is sampled and who may see it.
    #[serde(default)]
    pub monitor: Monitor,
    /// Which log lines are sent and written by the agents, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Reports to write at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report: Vec<ReportFormat>,
    /// How services start: all at once, or one after the other.
    #[serde(default)]
    pub start: StartOrder,
    /// Container runtime; absent: the first of apptainer and singularity on PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
}

/// Value of an sbatch option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, a number, true or false")]
pub enum SlurmValue {
    /// A flag: `exclusive: true`. False leaves it out.
    Flag(bool),
    /// A number: `nodes: 2`.
    Number(i64),
    /// A text: `time: "01:00:00"`.
    Text(String),
}

/// How services start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartOrder {
    /// All at once.
    #[default]
    Parallel,
    /// Each after the one before it is healthy, in the order of the recipe.
    Sequential,
}

/// A container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Apptainer.
    Apptainer,
    /// SingularityCE, or the older name of Apptainer.
    Singularity,
}

/// A service: what is started and measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Name, unique within the recipe.
    pub name: Name,
    /// Preset for command, port, health and set-up; every key can be overridden.
    pub kind: ServiceKind,
    /// Container image: a path of a .sif file, or docker:// or oras:// reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A binary to run without a container, instead of `image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Model: a path or a name that the service understands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Program inside the image with its first arguments, instead of the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments after the preset's own. Placeholders: {port} {port:NAME} {host} {data} {model}
    /// {node_rank} {nodes} {head}.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment of the service; nothing else of the job's environment reaches a container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// Binds `source[:target[:ro]]` of the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<String>,
    /// Where it runs.
    #[serde(default = "Nodes::head")]
    pub nodes: Nodes,
    /// One replica on each of its nodes (default), or one service that spans them.
    #[serde(default)]
    pub across: bool,
    /// GPUs of each replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// CPUs of each replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory of each replica, checked against the allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Port, or `auto` for a free one.
    #[serde(default)]
    pub port: Port,
    /// Further ports by name, each `auto` or a number, for {port:NAME}; for kind external they say
    /// where else it listens. Those of the preset are there too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, Port>,
    /// Address of a service that already runs, for kind `external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When it counts as healthy; absent fields come from the preset.
    #[serde(default)]
    pub health: Health,
    /// What happens when it exits by itself.
    #[serde(default)]
    pub restart: Restart,
    /// How long it may take to end after SIGTERM before it is killed.
    #[serde(default = "Service::default_stop", skip_serializing_if = "Service::is_default_stop")]
    pub stop: Span,
    /// Folder for its data ({data}); absent: `data` in its folder of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Its own Prometheus metrics, which are kept with the run; absent: those of the preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<EngineMetrics>,
    /// Scheme of its URL; absent: the preset's, else `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Commands run once for each data folder, as the service is run, before it starts; absent:
    /// those of the preset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Vec<String>>,
    /// A path that exists where `before` has no work left, such as a database made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_unless: Option<String>,
    /// Commands run as the service is run, after the first good probe and before it counts as
    /// healthy; absent: those of the preset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Vec<String>>,
}

/// Where a service shows its own Prometheus metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineMetrics {
    /// Path of the page.
    #[serde(default = "EngineMetrics::usual_path")]
    pub path: String,
    /// Name of one of its further ports; absent: its main port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The page is asked for by https, with these files; `{}`: as this node trusts. Without it https
    /// is spoken on the main port of a service whose `url` says https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<EngineTls>,
}

/// TLS of a page of metrics. Files are read on the replica's node; relative paths start in the folder
/// of the submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineTls {
    /// File with the certificates (PEM) of the authorities that are trusted, instead of the
    /// system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// File with the client's certificate chain (PEM), for servers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// File with the private key (PEM) of `cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Takes any certificate: the server may be anybody.
    #[serde(default)]
    pub insecure: bool,
}

impl EngineMetrics {
    fn usual_path() -> String {
        "/metrics".to_owned()
    }
}

impl Service {
    /// Below the smallest usual KillWait (5 s in tests, 30 s by default).
    fn default_stop() -> Span {
        Span::secs(3)
    }

    fn is_default_stop(span: &Span) -> bool {
        *span == Self::default_stop()
    }
}

/// A value of a service's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EnvValue {
    /// Plain text; `generate` under a secret's name asks for a random value.
    Text(String),
    /// Read on the node from a file of the user.
    SecretFile {
        /// Its path, `~/` allowed.
        secret_file: String,
    },
    /// Taken on the node from the job's environment.
    SecretEnv {
        /// Name of the variable.
        secret_env: String,
    },
}

/// Text that asks for a random secret.
pub const GENERATE: &str = "generate";

/// Whether a variable or key of this name holds a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "token", "secret", "api_key", "apikey", "access_key", "credential"]
        .iter()
        .any(|word| name.contains(word))
        && !name.contains("tokenizer")
        && !name.contains("max_token")
        && !name.contains("tokens")
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let wrong = || {
            D::Error::custom(
                "expected a text, a number, true, false, {secret_file: PATH} or {secret_env: NAME}",
            )
        };
        match Value::deserialize(from)? {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Number(number) => Ok(Self::Text(number.to_string())),
            Value::Bool(flag) => Ok(Self::Text(flag.to_string())),
            Value::Object(map) if map.len() == 1 => match map.into_iter().next() {
                Some((key, Value::String(secret_file))) if key == "secret_file" => {
                    Ok(Self::SecretFile { secret_file })
                }
                Some((key, Value::String(secret_env))) if key == "secret_env" => {
                    Ok(Self::SecretEnv { secret_env })
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// Which nodes of the allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "NodesText", into = "NodesText")]
pub enum Nodes {
    /// The first node.
    Head,
    /// Every node but those of the services; the first node if there is no other.
    Others,
    /// Every node.
    All,
    /// The first N nodes (a service), or N of the others (a load).
    Count(u32),
}

impl Nodes {
    fn head() -> Self {
        Self::Head
    }
    pub(super) fn others() -> Self {
        Self::Others
    }
}

/// A number or a word.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected head, others, all or a number of nodes")]
enum NodesText {
    Count(u32),
    Word(String),
}

impl TryFrom<NodesText> for Nodes {
    type Error = String;
    fn try_from(text: NodesText) -> Result<Self, String> {
        match text {
            NodesText::Count(0) => Err("0 nodes: expected at least 1".into()),
            NodesText::Count(count) => Ok(Self::Count(count)),
            NodesText::Word(word) => match word.as_str() {
                "head" => Ok(Self::Head),
                "others" => Ok(Self::Others),
                "all" => Ok(Self::All),
                _ => Err(format!(
                    "'{}' is not a placement: expected head, others, all or a number of nodes",
                    super::shown(&word)
                )),
            },
        }
    }
}

impl From<Nodes> for NodesText {
    fn from(nodes: Nodes) -> Self {
        match nodes {
            Nodes::Head => Self::Word("head".into()),
            Nodes::Others => Self::Word("others".into()),
            Nodes::All => Self::Word("all".into()),
            Nodes::Count(count) => Self::Count(count),
        }
    }
}

/// A port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "PortText", into = "PortText")]
pub enum Port {
    /// A free one, chosen on the node.
    #[default]
    Auto,
    /// This one.
    Fixed(u16),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected auto or a port from 1 to 65535")]
enum PortText {
    Number(i64),
    Word(String),
}

impl TryFrom<PortText> for Port {
    type Error = String;
    fn try_from(text: PortText) -> Result<Self, String> {
        match text {
            PortText::Word(word) if word == "auto" => Ok(Self::Auto),
            PortText::Number(number) => match u16::try_from(number) {
                Ok(port) if port > 0 => Ok(Self::Fixed(port)),
                _ => Err(format!("port {number} is out of range: expected auto or 1 to 65535")),
            },
            PortText::Word(word) => {
                Err(format!("'{}' is not a port: expected auto or 1 to 65535", super::shown(&word)))
            }
        }
    }
}

impl From<Port> for PortText {
    fn from(port: Port) -> Self {
        match port {
            Port::Auto => Self::Word("auto".into()),
            Port::Fixed(port) => Self::Number(i64::from(port)),
        }
    }
}

/// When a service counts as healthy. At most one of `http`, `tcp`, `exec`, `log`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// This path answers with a status of 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// The port accepts a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// This command, run as the service is run, exits 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A line of the service's output contains this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Time between probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// Longest time to become healthy; prolonged while there is progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// Longest time in all, however much progress there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
}

/// What happens when a service exits by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// The run fails.
    #[default]
    Never,
    /// It is started again, at most three times.
    OnFailure,
}

/// Restarts of a service before it counts as failed.
pub const RESTARTS_MAX: u32 = 3;

/// Values to go through: every combination of `matrix`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Path of a field (`load.chat.arrival.rate`) to its values.
    pub matrix: BTreeMap<String, Vec<Value>>,
    /// In which order points and repeats run.
    #[serde(default)]
    pub order: SweepOrder,
}

/// In which order the points of a sweep and their repeats run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepOrder {
    /// Point after point, each with all its repeats.
    #[default]
    Listed,
    /// Every point once, then every point again: what drifts with time is no difference between
    /// points.
    Alternating,
    /// In an order drawn from the loads' seed: neither time nor the point before is a difference.
    Shuffled,
}

/// What is sampled and who may see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Time between samples: 100ms to 1h.
    #[serde(default = "Monitor::default_sample")]
    pub sample: Span,
    /// Time between samples while a load is in its measured phase, 100ms at least; without it
    /// `sample` holds there, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Span>,
    /// Whether `GET /metrics` and `GET /v1/targets` need the run's token.
    #[serde(default)]
    pub metrics_token: bool,
    /// Loki that the logs of services and agents are sent to; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loki: Option<Loki>,
    /// Where every sample is sent by Prometheus remote write 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_write: Option<Receiver>,
    /// URL of a Pushgateway for the summary of the run; absent: `PUSHGATEWAY_URL`, else port 9091
    /// of `MONITORING_NODE`, of the job's environment, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushgateway: Option<String>,
    /// Folder for a file of targets while the run lives, for Prometheus' file_sd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<String>,
}

impl Monitor {
    fn default_sample() -> Span {
        Span::secs(1)
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            sample: Self::default_sample(),
            burst: None,
            metrics_token: false,
            loki: None,
            remote_write: None,
            pushgateway: None,
            targets: None,
        }
    }
}

/// Reports that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    /// `report.txt`.
    Text,
    /// `report.json`.
    Json,
}
