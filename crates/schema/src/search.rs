//! Records of a search for the largest load that a service bears within its limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One probe of a search, as its load's result has it: what the search decides by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeRecord {
    /// Requests a second, or requests in flight.
    pub level: f64,
    /// Requests per second that were due; in a given interval a random process may have more or
    /// fewer than its rate. Open loads only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_per_second: Option<f64>,
    /// The limits, and the number of requests over each of them.
    pub objectives: Vec<Objective>,
    /// Responses per second within the measured part, also to requests of the warm-up: under a load
    /// that is too high, the capacity of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_per_second: Option<f64>,
    /// Mean response time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_response_seconds: Option<f64>,
    /// Growth of the response time per second of the measured part: above 0 if requests queue up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_growth: Option<Growth>,
}

/// A slope and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Growth {
    /// Growth of the response time in seconds per second.
    pub slope: f64,
    /// Half the width of the interval.
    pub error: f64,
}

/// One limit, and the requests beyond it. A request that failed, was cancelled or was never sent
/// is beyond every limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Objective {
    /// As in the recipe: `ttft_p99`, `attainment`.
    pub name: String,
    /// The limit: seconds, or for `attainment` a share.
    pub limit: f64,
    /// What was measured, in the same unit; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
    /// Requests beyond the limit.
    pub beyond: u64,
    /// Requests that were due (open) or sent (closed).
    pub of: u64,
    /// Share of them that may be beyond it.
    pub allowed_ratio: f64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SearchResult {
    /// Load name.
    pub load: String,
    /// Point of the sweep.
    pub point: u32,
    /// `1/s` (rate) or `requests in flight` (concurrency).
    pub unit: String,
    /// The highest load that met all limits, or the rate that was due in that probe if a random
    /// process had fewer; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// The lowest load that failed: the true capacity lies between the two. Absent if none failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<f64>,
    /// The load at which throughput ÷ mean response time is largest: above it response times grow
    /// with little gain in throughput.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee: Option<f64>,
    /// Repeat with the result of the highest load within the limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
    /// Why it ended: `converged`, `the largest load passes`, `the smallest load fails`,
    /// `no probe is left`, `goes on`.
    pub reason: String,
    /// Whether the client limited the upper end: a probe that failed has a verdict on the client.
    pub client_limited: bool,
    /// All probes, in their order.
    pub probes: Vec<ProbeOutcome>,
}

/// One probe and what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeOutcome {
    /// Repeat that it was.
    pub repeat: u32,
    /// Load.
    pub level: f64,
    /// Whether it was within all limits.
    pub passed: bool,
    /// Whether that is significant at 95 %, by the number of requests over each limit.
    pub certain: bool,
    /// Why it failed, or the limit that it came closest to.
    pub why: String,
    /// Responses per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_per_second: Option<f64>,
}
