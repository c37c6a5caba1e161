//! The part of a recipe that says how load is put on a service.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Arrival, Dataset, Stop,
    drivers::Driver,
    kserve::Kserve,
    model_types::Llm,
    placement_types::{Nodes, SlurmValue},
    search::Search,
    wire_types::Connection,
};
use crate::{
    error::ValueError,
    units::{Name, Span},
};

/// A load: requests of one kind against one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Name, unique within the recipe.
    pub name: Name,
    /// The service that it sends requests to; optional if there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Protocol.
    pub driver: Driver,
    /// Tasks that share the load.
    #[serde(default = "one")]
    pub clients: u32,
    /// Nodes on which the tasks run.
    #[serde(default = "Nodes::others")]
    pub nodes: Nodes,
    /// sbatch options of a separate component (heterogeneous job) for the clients.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slurm: BTreeMap<String, SlurmValue>,
    /// When requests are sent.
    pub arrival: Arrival,
    /// Lengths of the phases.
    pub phases: Phases,
    /// Stop rules, which can end the load early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Number of repeats.
    #[serde(default = "one")]
    pub repeat: u32,
    /// Search for the highest load within limits, instead of one load; its probes replace the
    /// repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// Prompts, for LLM drivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Dataset>,
    /// SLO: limits that a good request meets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// Seed of all random values.
    #[serde(default)]
    pub seed: u64,
    /// Longest time for one request.
    #[serde(default = "Load::default_timeout")]
    pub timeout: Span,
    /// Model name in requests; absent: the service's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How bytes travel, for drivers over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// What is asked of a language model besides the prompt, for the drivers of OpenAI's and Ollama's
    /// APIs, `rerank`, `triton-generate` and `kserve-grpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm: Option<Llm>,
    /// For driver `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpRequest>,
    /// For driver `postgresql`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgresql: Option<Postgresql>,
    /// For drivers `kserve-http`, `kserve-grpc` and `triton-generate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kserve: Option<Kserve>,
    /// For driver `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// Effect of a verdict on the exit code.
    #[serde(default)]
    pub verdicts: VerdictPolicy,
}

impl Load {
    fn default_timeout() -> Span {
        Span::secs(120)
    }

    /// How bytes travel: the section, or its defaults.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        static DEFAULT: Connection = Connection::DEFAULT;
        self.connection.as_ref().unwrap_or(&DEFAULT)
    }

    /// What is asked of a language model besides the prompt: the section, or its defaults.
    #[must_use]
    pub fn llm(&self) -> &Llm {
        static DEFAULT: Llm = Llm::DEFAULT;
        self.llm.as_ref().unwrap_or(&DEFAULT)
    }
}

fn one() -> u32 {
    1
}

/// How long each part of a load lasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// Warm-up: requests are sent, but excluded from the result.
    #[serde(default = "Phases::none")]
    pub warmup: Span,
    /// Measured.
    pub measure: Measure,
    /// Time to wait for outstanding responses before they are cancelled.
    #[serde(default = "Phases::default_drain")]
    pub drain: Span,
}

impl Phases {
    fn none() -> Span {
        Span::secs(0)
    }
    fn default_drain() -> Span {
        Span::secs(30)
    }
}

/// Length of the measured part: a time, or a number of requests over all tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "MeasureText", into = "MeasureText")]
pub enum Measure {
    /// A time.
    Time(Span),
    /// A number of requests over all tasks.
    Requests(u64),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a time such as 5m, or {requests: N}")]
enum MeasureText {
    Requests(RequestCount),
    Time(String),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RequestCount {
    requests: u64,
}

impl TryFrom<MeasureText> for Measure {
    type Error = ValueError;
    fn try_from(text: MeasureText) -> Result<Self, ValueError> {
        match text {
            MeasureText::Requests(RequestCount { requests: 0 }) => {
                Err("0 requests: expected at least 1".to_owned().into())
            }
            MeasureText::Requests(RequestCount { requests }) => Ok(Self::Requests(requests)),
            MeasureText::Time(text) => {
                let span: Span = text.parse()?;
                if span.get().is_zero() {
                    return Err("measure: 0s: expected a time above zero".to_owned().into());
                }
                Ok(Self::Time(span))
            }
        }
    }
}

impl From<Measure> for MeasureText {
    fn from(measure: Measure) -> Self {
        match measure {
            Measure::Time(span) => Self::Time(span.to_string()),
            Measure::Requests(requests) => Self::Requests(RequestCount { requests }),
        }
    }
}

/// Limits; a request that meets all of them is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Longest time to first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Span>,
    /// Longest mean inter-token latency of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itl: Option<Span>,
    /// Longest end-to-end time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2e: Option<Span>,
}

/// A program run once a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandLine {
    /// Program and arguments. {id} is the request's number, {host} {port} {url} are the service's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
}

/// A plain HTTP request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRequest {
    /// Method.
    #[serde(default = "HttpRequest::default_method")]
    pub method: String,
    /// Path and query. In path and body `{id}` becomes the number of the request (over all
    /// tasks, from 0), `{seed}` the load's seed, `{random}` a number that follows from both, and
    /// `{random:N}` one below N; `{{id}}` stands for `{id}` itself.
    #[serde(default = "HttpRequest::default_path")]
    pub path: String,
    /// Headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Body, with the placeholders of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Conditions of a successful response; default: any status from 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<HttpExpect>,
}

/// Conditions of a successful response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpExpect {
    /// The only successful status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Text that the body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// Longest text that an answer may have to contain: enough for any mark.
pub const CONTAINS_MAX: usize = 4096;

impl HttpRequest {
    fn default_method() -> String {
        "GET".into()
    }
    fn default_path() -> String {
        "/".into()
    }
}

impl Default for HttpRequest {
    fn default() -> Self {
        Self {
            method: Self::default_method(),
            path: Self::default_path(),
            headers: BTreeMap::new(),
            body: None,
            expect: None,
        }
    }
}

/// SQL load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgresql {
    /// Database.
    #[serde(default = "Postgresql::default_database")]
    pub database: String,
    /// User.
    #[serde(default = "Postgresql::default_user")]
    pub user: String,
    /// Table that is created and used.
    #[serde(default = "Postgresql::default_table")]
    pub table: String,
    /// Rows inserted before the start.
    #[serde(default = "Postgresql::default_rows")]
    pub rows: u64,
    /// Shares of the operations; their sum is 1.
    #[serde(default)]
    pub mix: SqlMix,
}

impl Postgresql {
    fn default_database() -> String {
        "postgres".into()
    }
    fn default_user() -> String {
        "postgres".into()
    }
    fn default_table() -> String {
        "aifb_load".into()
    }
    fn default_rows() -> u64 {
        10_000
    }
}

impl Default for Postgresql {
    fn default() -> Self {
        Self {
            database: Self::default_database(),
            user: Self::default_user(),
            table: Self::default_table(),
            rows: Self::default_rows(),
            mix: SqlMix::default(),
        }
    }
}

/// Shares of SQL operations. If any is given, the others default to 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlMix {
    /// Share of selects by key.
    #[serde(default)]
    pub select: f64,
    /// Share of inserts.
    #[serde(default)]
    pub insert: f64,
    /// Share of updates by key.
    #[serde(default)]
    pub update: f64,
    /// Share of deletes by key.
    #[serde(default)]
    pub delete: f64,
}

impl Default for SqlMix {
    fn default() -> Self {
        Self { select: 0.4, insert: 0.3, update: 0.2, delete: 0.1 }
    }
}

/// Effect of a verdict on the exit code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictPolicy {
    /// It is printed.
    #[default]
    Warn,
    /// The load ends with exit code 6.
    Fail,
}
