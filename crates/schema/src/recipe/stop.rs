//! When a load ends before its time: the key `stop` of a load.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::ValueError,
    units::{Share, Span},
};

/// Rules that end a load before the time or number of requests of `phases.measure`. Each rule is
/// evaluated over the whole load once per second; the result names the rule that ended it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Error budget: end when more requests (or a larger share of them) have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorBudget>,
    /// Number of completed requests before a share of errors is evaluated.
    #[serde(default = "Stop::default_after")]
    pub after: u64,
    /// End when an open load saturates the service: the number of requests in flight keeps growing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<Saturation>,
    /// End when a metric is stable; `phases.measure` is the longest wait for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady: Option<Steady>,
}

impl Stop {
    fn default_after() -> u64 {
        20
    }
}

/// Error budget: the number of failed requests allowed, or a share such as `5%`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BudgetText", into = "BudgetText")]
pub enum ErrorBudget {
    /// A share of the requests that are over.
    Share(Share),
    /// A number.
    Count(u64),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a share such as 5%, or a number of requests such as 100")]
enum BudgetText {
    /// A number.
    Count(u64),
    /// A share.
    Share(String),
}

impl TryFrom<BudgetText> for ErrorBudget {
    type Error = ValueError;
    fn try_from(text: BudgetText) -> Result<Self, ValueError> {
        Ok(match text {
            BudgetText::Count(count) => Self::Count(count),
            BudgetText::Share(text) => Self::Share(text.parse()?),
        })
    }
}

impl From<ErrorBudget> for BudgetText {
    fn from(budget: ErrorBudget) -> Self {
        match budget {
            ErrorBudget::Count(count) => Self::Count(count),
            ErrorBudget::Share(share) => Self::Share(share.to_string()),
        }
    }
}

/// When a service counts as saturated: over the window, the requests in flight grow (99 % sure, by
/// a slope test) by more than this share of the requests that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saturation {
    /// Length of the window.
    #[serde(default = "Saturation::default_window")]
    pub window: Span,
    /// Growth as a share of the arriving requests.
    #[serde(default = "Saturation::default_growth")]
    pub growth: Share,
}

impl Saturation {
    fn default_window() -> Span {
        Span::secs(20)
    }
    fn default_growth() -> Share {
        Share::of(0.05)
    }
}

impl Default for Saturation {
    fn default() -> Self {
        Self { window: Self::default_window(), growth: Self::default_growth() }
    }
}

/// When a metric is stable: over the window, the 95 % interval of its mean and the difference
/// between the first and the second half are within this share of the mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Steady {
    /// The metric, taken once per second.
    pub metric: SteadyMetric,
    /// Share of its mean.
    #[serde(default = "Steady::default_within")]
    pub within: Share,
    /// Length of the window.
    #[serde(rename = "for", default = "Steady::default_window")]
    pub window: Span,
}

impl Steady {
    fn default_within() -> Share {
        Share::of(0.05)
    }
    fn default_window() -> Span {
        Span::secs(10)
    }
}

/// Metrics for the rule `steady`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SteadyMetric {
    /// Successful requests a second.
    Throughput,
    /// Output tokens a second.
    TokenThroughput,
    /// Mean time to first token of the requests that ended in a second.
    Ttft,
    /// 99th percentile of the time to first token of the requests that ended in a second.
    TtftP99,
    /// Mean end-to-end time of the requests that ended in a second.
    E2e,
    /// 99th percentile of the end-to-end time of the requests that ended in a second.
    E2eP99,
}

impl SteadyMetric {
    /// The recipe's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::TokenThroughput => "token_throughput",
            Self::Ttft => "ttft",
            Self::TtftP99 => "ttft_p99",
            Self::E2e => "e2e",
            Self::E2eP99 => "e2e_p99",
        }
    }
}

/// Shortest and longest window of a rule: fewer than five seconds are too few values for an
/// interval, and more than an hour would keep too many.
pub const WINDOW_SECONDS: std::ops::RangeInclusive<u64> = 5..=3_600;
