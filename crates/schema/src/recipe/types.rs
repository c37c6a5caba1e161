//! The types of a recipe. Field names are the recipe's keys; the documentation of each becomes
//! part of the JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    load_types::Load,
    log_types::{Logging, Loki},
    placement_types::SlurmValue,
    receiver_types::Receiver,
    service_types::Service,
};
use crate::units::{Name, Span};

/// A whole recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of the recipe format: 1.
    pub aifb: u32,
    /// Name of the benchmark.
    pub name: Name,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Options for sbatch by their long names, without dashes. Used by `aifb run`; under plain
    /// sbatch compared with the allocation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slurm: BTreeMap<String, SlurmValue>,
    /// Services to start and measure.
    pub services: Vec<Service>,
    /// Loads: requests that are sent to the services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load: Vec<Load>,
    /// Values of a sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// Sampling and the export of samples, metrics and logs.
    #[serde(default)]
    pub monitor: Monitor,
    /// Which log lines the agents send and write, and until when.
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

impl Recipe {
    /// The types of a document, as it stands.
    pub(super) fn of(document: &Value) -> Result<Self, TypeError> {
        serde_path_to_error::deserialize(document)
    }
}

/// Why a document is not a recipe, and where.
pub(super) type TypeError = serde_path_to_error::Error<serde_json::Error>;

/// A container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Apptainer.
    Apptainer,
    /// SingularityCE, or the older name of Apptainer.
    Singularity,
}

/// Values of a sweep: every combination of `matrix`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Path of a field (`load.chat.arrival.rate`) to its values.
    pub matrix: BTreeMap<String, Vec<Value>>,
    /// Order of points and repeats.
    #[serde(default)]
    pub order: SweepOrder,
}

/// Order of the points of a sweep and their repeats.
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

/// Sampling and the export of samples, metrics and logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Sampling interval: 100ms to 1h.
    #[serde(default = "Monitor::default_sample")]
    pub sample: Span,
    /// Sampling interval while a load is in its measured phase, at least 100ms; default: that of
    /// `sample`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Span>,
    /// Whether `GET /metrics` and `GET /v1/targets` need the run's token.
    #[serde(default)]
    pub metrics_token: bool,
    /// Loki that the logs of services and agents are sent to; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loki: Option<Loki>,
    /// Receiver of every sample, by Prometheus remote write 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_write: Option<Receiver>,
    /// URL of a Pushgateway for the summary of the run; absent: `PUSHGATEWAY_URL`, else port 9091
    /// of `MONITORING_NODE`, of the job's environment, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushgateway: Option<String>,
    /// Folder for a targets file during the run, for Prometheus' file_sd.
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
