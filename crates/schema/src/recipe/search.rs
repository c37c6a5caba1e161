//! The part of a load that asks for a search instead of one level.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Rate, Share, Span};

/// Search for the highest load within limits: each probe is the load at a different rate (or
/// concurrency).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Limits by name: `ttft`, `tpot`, `e2e`, `total` with `_p50`, `_p90`, `_p95` or `_p99`
    /// (a time), and `attainment` (the share of requests within the load's `slo`).
    pub slo: BTreeMap<String, SearchLimit>,
    /// Lowest load: a rate for an open load, a number in flight for a closed one.
    pub from: Level,
    /// Largest load.
    pub to: Level,
    /// The search ends when the highest load that passes and the lowest that fails are this close.
    #[serde(default = "Search::default_within")]
    pub within: Share,
    /// Maximum number of probes.
    #[serde(default = "Search::default_probes")]
    pub probes: u32,
    /// Length of the measured part of each probe.
    #[serde(default = "Search::default_probe")]
    pub probe: Span,
}

impl Search {
    fn default_within() -> Share {
        Share::PERCENT_3
    }
    fn default_probes() -> u32 {
        10
    }
    fn default_probe() -> Span {
        Span::secs(20)
    }
}

/// A load's size: `20/s`, or a number of requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a rate such as 20/s, or a number of requests in flight")]
pub enum Level {
    /// Requests in flight.
    Concurrency(u32),
    /// Requests a second.
    Rate(Rate),
}

impl Level {
    /// As a number.
    #[must_use]
    pub fn get(self) -> f64 {
        match self {
            Self::Concurrency(count) => f64::from(count),
            Self::Rate(rate) => rate.get(),
        }
    }
}

/// A limit of a search: a time or a share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a time such as 500ms, or a share such as 0.99")]
pub enum SearchLimit {
    /// A share, for `attainment`.
    Share(f64),
    /// A time.
    Time(Span),
}

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// A quantile of a metric, in seconds: (metric, share of requests that may be beyond).
    Quantile(&'static str, f64),
    /// The share of good requests.
    Attainment,
}

/// Metrics that can be limited.
pub const SEARCH_METRICS: [&str; 4] = ["ttft", "tpot", "e2e", "total"];

impl Target {
    /// What a limit's name means; `None` for one that means nothing.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        if name == "attainment" {
            return Some(Self::Attainment);
        }
        let (metric, quantile) = name.rsplit_once('_')?;
        let metric = SEARCH_METRICS.into_iter().find(|known| *known == metric)?;
        let allowed = match quantile {
            "p50" => 0.5,
            "p90" => 0.1,
            "p95" => 0.05,
            "p99" => 0.01,
            _ => return None,
        };
        Some(Self::Quantile(metric, allowed))
    }
}
