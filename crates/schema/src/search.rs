//! Records of a search for the largest load that a service bears within its limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One probe of a search, as its load's result has it: what the search decides by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeRecord {
    /// Requests a second, or requests in flight.
    pub level: f64,
    /// Requests a second that were due; a random process has fewer or more than its rate in any
    /// one stretch. Open loads only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_per_second: Option<f64>,
    /// What the limits were and how many requests were beyond each.
    pub objectives: Vec<Objective>,
    /// Answers a second within the measured part, those to requests of the warm-up too: under a
    /// load that is too large, what the service can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_per_second: Option<f64>,
    /// Mean response time of the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_response_seconds: Option<f64>,
    /// How much longer answers took for each second of the measured part: above 0 where requests
    /// pile up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_growth: Option<Growth>,
}

/// A slope and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Growth {
    /// Seconds of response time for each second.
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
    /// The largest load that was within all limits, or what was due in that probe, where a random
    /// process had fewer; absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// The smallest load that was not: the true capacity lies between the two. Absent where none
    /// failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<f64>,
    /// The load at which answers ÷ mean response time is largest: beyond it answers take longer
    /// without many more of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee: Option<f64>,
    /// Repeat whose result is that of the largest load within the limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
    /// Why it ended: `converged`, `the largest load passes`, `the smallest load fails`,
    /// `no probe is left`, `goes on`.
    pub reason: String,
    /// Whether the client is to blame for the upper end: a probe that failed has a verdict on the
    /// client.
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
    /// Whether that is certain: at 95 %, by the number of requests beyond each limit.
    pub certain: bool,
    /// Why it failed, or what was closest.
    pub why: String,
    /// Answers a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_per_second: Option<f64>,
}
