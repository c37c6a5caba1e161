//! The part of a recipe that says what is started and measured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{kind::ServiceKind, placement_types::Nodes, wire_types::Tls};
use crate::units::{Name, Size, Span};

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
    /// Further ports by name, each `auto` or a number, for {port:NAME}, added to the preset's. For
    /// kind external: where else it listens.
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
    /// Commands run once per data folder, in the service's environment, before it starts; absent:
    /// those of the preset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Vec<String>>,
    /// A path; if it exists, `before` is skipped, such as for a database that was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_unless: Option<String>,
    /// Commands run in the service's environment after the first successful probe, before it counts
    /// as healthy; absent: those of the preset.
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
    pub tls: Option<Tls>,
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
