//! `result.json` of a load repeat, and `report.json` of a run, version 1.
//!
//! Keys name their units; a distribution or value that was not measured is absent, never zero.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::search::{ProbeRecord, SearchResult};

/// Version of both formats.
pub const RESULT_VERSION: u32 = 1;

/// Requests of the measured part. `sent = ok + failed + cancelled + unfinished`, exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Requests due; open loops only. `planned = sent + unsent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<u64>,
    /// Sent.
    pub sent: u64,
    /// Successful.
    pub ok: u64,
    /// Failed: an error, an invalid response or none.
    pub failed: u64,
    /// Ended by the load generator at the end of the drain.
    pub cancelled: u64,
    /// Their worker was lost.
    pub unfinished: u64,
    /// Due but not sent; open loops only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent: Option<u64>,
    /// Sent during the warm-up; in no other count.
    pub warmup: u64,
}

impl Counts {
    /// Whether the invariants hold.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.sent == self.ok + self.failed + self.cancelled + self.unfinished
            && match (self.planned, self.unsent) {
                (Some(planned), Some(unsent)) => planned == self.sent + unsent,
                (None, None) => true,
                _ => false,
            }
    }

    /// Adds another load's counts.
    pub fn add(&mut self, other: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        self.planned = sum(self.planned, other.planned);
        self.unsent = sum(self.unsent, other.unsent);
        self.sent += other.sent;
        self.ok += other.ok;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.unfinished += other.unfinished;
        self.warmup += other.warmup;
    }
}

/// A distribution in the base unit that its key names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation; absent below two values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stddev: Option<f64>,
    /// Smallest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// A doubt about a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// `client_saturated`, `client_stall`, `rate_not_delivered`, `too_few_samples`,
    /// `incomplete`, `clock_error`, `cached_prompts`, `delayed_ack_plateau`, `met_by_files`.
    pub kind: String,
    /// The observed value and the limit.
    pub message: String,
}

/// The result of one load at one point in one repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadResult {
    /// Version of the format: 1.
    pub version: u32,
    /// Load name.
    pub load: String,
    /// Point of the sweep.
    pub point: u32,
    /// Values of the point by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Repeat from 0.
    pub repeat: u32,
    /// Service that was measured.
    pub service: String,
    /// Driver name.
    pub driver: String,
    /// Requests.
    pub counts: Counts,
    /// Distributions and rates by name (docs/reference/result.md).
    pub metrics: Metrics,
    /// The same by operation: `chat`, `select`, `insert`, ….
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub operations: BTreeMap<String, OperationResult>,
    /// The same requests by the definitions of other programs; only where every row was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparable: Option<Box<Comparable>>,
    /// The main figures under the names of earlier benchmarks; only where every row was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatible: Option<Box<Compatible>>,
    /// The values by which a search decides, if the load is a probe of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Box<ProbeRecord>>,
    /// What the search found whose best probe this is (`aifb-loadgen run --search`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Box<SearchResult>>,
    /// Failures by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u64>,
    /// One example message for each class of failure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub error_examples: BTreeMap<String, String>,
    /// Doubts.
    pub verdicts: Vec<Verdict>,
    /// Whether it includes every worker.
    pub complete: bool,
    /// Why the measured part ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_because: Option<StoppedBecause>,
    /// Ranks that were lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_workers: Vec<u32>,
    /// `rows` or `histograms`: what percentiles come from.
    pub source: String,
    /// The plan.
    pub plan: PlanRecord,
    /// Resources used by the clients.
    pub client: ClientRecord,
    /// Wall clock of the start of the measured part.
    pub measure_start_epoch_ns: u64,
    /// Wall clock of its end.
    pub measure_end_epoch_ns: u64,
}

/// Why the measured part of a load ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoppedBecause {
    /// `time`, `requests` or `trace`: its plan was completed; `errors`, `saturation` or `steady`:
    /// this rule of `stop` was fulfilled; `interrupted`: it was stopped from outside.
    pub rule: String,
    /// The observed value and the limit; absent if the plan was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl StoppedBecause {
    /// Whether the load found out that the service does not do what is wanted.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self.rule.as_str(), "errors" | "saturation")
    }
}

/// What was planned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRecord {
    /// Seed.
    pub seed: u64,
    /// SHA-256 over all workers' send times, in the order of ranks.
    pub hash: String,
    /// SHA-256 of the workload: the dataset, its files and the seed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload_hash: String,
    /// Workers.
    pub workers: u32,
    /// Files that the plan was made from: datasets, traces, tokenizers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PlanFile>,
    /// Entries of the dataset's file that can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Entries of the dataset's file that cannot be used, or do not have the requested length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries_left_out: Option<u64>,
    /// Measured requests whose entry had been used before in the measured part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries_reused: Option<u64>,
    /// Share of the prompts' tokens that belong to a prefix of an earlier request: what a prefix
    /// cache can reuse according to the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_reuse_ratio: Option<f64>,
}

/// A file that a plan was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanFile {
    /// Its path on the clients' nodes.
    pub path: String,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// What the clients cost, summed over workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClientRecord {
    /// User and system time.
    pub cpu_seconds: f64,
    /// CPU time for each output token; absent without tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_token: Option<f64>,
    /// Largest resident set of a worker.
    pub peak_rss_bytes: u64,
    /// Whether responses were acknowledged without the kernel's delay if a server may wait for
    /// that, as with Nagle's algorithm; absent for drivers that do not speak HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick_ack: Option<bool>,
    /// Largest difference between the workers' true starts, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_skew_ns: Option<u64>,
    /// Largest error of a clock offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_error_ns: Option<u64>,
    /// Clocks of the nodes against that of the coordinator's node, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clocks: Vec<NodeClock>,
}

/// A node's clock against that of the coordinator's node: measured before the start, once a minute
/// and at the end, each time at the smallest of 32 round trips.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeClock {
    /// Node name.
    pub node: String,
    /// Offset at the start: the coordinator's clock + this = the node's.
    pub offset_ns: i64,
    /// Half the round trip of that measurement: the true offset lies within this distance.
    pub error_ns: u64,
    /// Change of the offset from the first measurement to the last.
    pub drift_ns: i64,
    /// Time between these two.
    pub over_ns: u64,
    /// Measurements.
    pub measurements: u64,
}

/// Metrics of a load; each absent where it does not apply or nothing was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// Length of the measured part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// Successful requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    /// Output tokens per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_second: Option<f64>,
    /// Output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Input tokens, as the server counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Input tokens that the server took from its prefix cache, if it reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_tokens: Option<u64>,
    /// Content events per socket read that returned data: about 1 if each arrived separately; above
    /// that, several arrived at once, and the gaps between them are 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_read: Option<f64>,
    /// `usage` (the server's count), `chunks` (content events) or `mixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_source: Option<String>,
    /// Good requests per second, with an SLO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput_per_second: Option<f64>,
    /// Good requests ÷ requests due (open) or sent (closed), with an SLO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attainment_ratio: Option<f64>,
    /// Scheduled instant to first content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_seconds: Option<Distribution>,
    /// Scheduled instant to first output: content that is not reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttfo_seconds: Option<Distribution>,
    /// Gaps between content events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inter_token_seconds: Option<Distribution>,
    /// Per request: (last content − first content) / (output tokens − 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot_seconds: Option<Distribution>,
    /// Scheduled instant to last content (without streaming: to the end of the response).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2e_seconds: Option<Distribution>,
    /// Scheduled instant to the end of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_seconds: Option<Distribution>,
    /// First byte written to the end of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_seconds: Option<Distribution>,
    /// Send delay: scheduled instant to first byte written, connecting included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_lag_seconds: Option<Distribution>,
    /// From the server's timestamp in a content event to its read: only with `aifb-loadgen mock` on
    /// the same node, whose events have such a timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_lag_seconds: Option<Distribution>,
    /// Where earlier programs kept the total times by operation: read, never written. See
    /// [`LoadResult::with_former_operations`].
    #[serde(default, skip_serializing, rename = "operations")]
    #[schemars(skip)]
    pub former_operations: BTreeMap<String, Distribution>,
}

/// One operation of a load (`chat`, `select`, `insert`, …) over the measured part. Rates divide by
/// the load's `duration_seconds`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationResult {
    /// Requests; absent in results of programs that did not count them by operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<OperationCounts>,
    /// Failures by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u64>,
    /// Successful requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    /// Things that successful requests did: texts embedded or ranked, rows read or changed.
    /// Absent where a request is one thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// The same per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_per_second: Option<f64>,
    /// Bytes of user data that successful requests moved, without protocol; absent where the
    /// driver does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// The same per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes_per_second: Option<f64>,
    /// Bytes written to connections, protocol included, of requests that failed or were cancelled too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes_per_second: Option<f64>,
    /// Bytes read from connections, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes_per_second: Option<f64>,
    /// Planned instant to the end of the answer, of successful requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_seconds: Option<Distribution>,
    /// Planned instant to the failure, of failed requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_total_seconds: Option<Distribution>,
    /// Share of the true nearest neighbours that an answer has, 0 to 1, of successful requests;
    /// absent where nothing is searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<Distribution>,
}

/// Requests of one operation. `sent = ok + failed + cancelled + unfinished`, exactly. The sums over
/// all operations are the load's counts, but for requests of a lost worker whose operation is not
/// known: they are in the load's counts only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationCounts {
    /// Sent.
    pub sent: u64,
    /// Answered as they should be.
    pub ok: u64,
    /// Answered with an error, or not at all.
    pub failed: u64,
    /// Ended by us at the end of the drain.
    pub cancelled: u64,
    /// Their worker was lost.
    pub unfinished: u64,
}

impl LoadResult {
    /// The result with the times by operation in their present place, where an earlier program
    /// wrote it; what that program did not count stays absent.
    #[must_use]
    pub fn with_former_operations(mut self) -> Self {
        for (name, total) in std::mem::take(&mut self.metrics.former_operations) {
            self.operations.entry(name).or_default().total_seconds.get_or_insert(total);
        }
        self
    }
}

/// Declares the times that other programs print: one line each makes the definition, its key in
/// [`Comparable`] and everything that goes through all of them.
macro_rules! comparable_times {
    ($($(#[doc = $doc:literal])+ $variant:ident = $field:ident;)*) => {
        /// A time of a request by the definition of another program. The letters are those of
        /// [`Comparable`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ComparableTime {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl ComparableTime {
            /// All of them, in the order of reports.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its key in [`Comparable`].
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($field),)*
                }
            }
        }

        /// What other programs would have printed for the same requests, each computed from the same
        /// stamps (docs/reference/result.md, "Conversion"). Absent where a request lacks a stamp that the
        /// definition needs. P: planned; Q: taken up by the client; S: first byte written; A1, Ak: first
        /// and last event with a choice; C1, Ck: first and last content; D: the mark that ends the stream
        /// (`[DONE]`), else the end of the body; n: output tokens.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct Comparable {
            $(
                $(#[doc = $doc])+
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<Distribution>,
            )*
            /// Requests within the SLO by vLLM's own times ÷ the time from the first request to the last
            /// response, with an SLO.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub goodput_vllm_per_second: Option<f64>,
            /// Requests within the SLO by sglang's own times ÷ requests sent, with an SLO.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub attainment_sglang_ratio: Option<f64>,
        }

        impl Comparable {
            /// Those times that `of` has; without the figures that need an SLO.
            pub fn of_times(mut of: impl FnMut(ComparableTime) -> Option<Distribution>) -> Self {
                Self {
                    $($field: of(ComparableTime::$variant),)*
                    ..Self::default()
                }
            }

            /// One of the times.
            #[must_use]
            pub fn time(&self, which: ComparableTime) -> Option<&Distribution> {
                match which {
                    $(ComparableTime::$variant => self.$field.as_ref(),)*
                }
            }
        }
    };
}

comparable_times! {
    /// C1 − S: time to first token as the server makes it.
    TtftService = ttft_service_seconds;
    /// A1 − Q: an event without content counts.
    TtftVllm = ttft_vllm_seconds;
    /// C1 − Q. Also AIPerf, GuideLLM, inference-perf, inference-benchmarker.
    TtftSglang = ttft_sglang_seconds;
    /// First event − Q, whatever is in it.
    TtftGenai = ttft_genai_seconds;
    /// C1 − P, as ours.
    TtftMlperf = ttft_mlperf_seconds;
    /// (Ak − A1) / (n − 1).
    TpotVllm = tpot_vllm_seconds;
    /// (D − C1) / (n − 1).
    TpotSglang = tpot_sglang_seconds;
    /// (Ck − Q) / n: the first token is in it.
    TpotGuidellm = tpot_guidellm_seconds;
    /// (D − C1) / (n − 1).
    TpotMlperf = tpot_mlperf_seconds;
    /// (last event − first event) / (n − 1), one value per request.
    ItlGenai = itl_genai_seconds;
    /// (Ck − C1) / (n − tokens of the first chunk, 1 if the server does not report it), one value
    /// per request.
    ItlAiperf = itl_aiperf_seconds;
    /// Gaps between events with a choice, those without content too.
    ItlVllm = itl_vllm_seconds;
    /// Gap between content events ÷ tokens of an event (the request's mean).
    ItlInfperf = itl_infperf_seconds;
    /// Ak − Q.
    E2eVllm = e2e_vllm_seconds;
    /// D − Q.
    E2eSglang = e2e_sglang_seconds;
    /// Ck − Q.
    E2eAiperf = e2e_aiperf_seconds;
    /// D − P: MLPerf's sample latency.
    LatencyMlperf = latency_mlperf_seconds;
    /// (D − Q) / n: inference-perf's normalised time per output token.
    Ntpot = ntpot_seconds;
}

/// The main figures under the names that earlier benchmarks of this factory print.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Compatible {
    /// Scheduled instant to the end of the response, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_time: Option<Interpolated>,
    /// Successful requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<f64>,
    /// Scheduled instant to first content, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<Interpolated>,
    /// For each request: output tokens ÷ time from the scheduled instant to the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_generated_per_second: Option<Interpolated>,
}

/// A distribution by the rules of those benchmarks: percentile p lies at index (n − 1)·p/100 of
/// the sorted values, interpolated between its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interpolated {
    /// Values.
    pub count: u64,
    /// Mean.
    pub average: f64,
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Sample standard deviation (n − 1); 0 for one value.
    pub stddev: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// One line of `series.jsonl`: what happened in a second, all workers together, counted from the
/// common start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeriesPoint {
    /// Seconds from the start to the beginning of this one.
    pub second: u64,
    /// Seconds that it covers: more than one if a client was stalled.
    pub seconds: u64,
    /// Requests of the warm-up that were sent.
    pub warmup: u64,
    /// Requests of the measured part that were sent.
    pub sent: u64,
    /// Of these, successful.
    pub ok: u64,
    /// Failed: an error, an invalid response or none.
    pub failed: u64,
    /// Ended by the load generator.
    pub cancelled: u64,
    /// Failures by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u64>,
    /// Bytes written by requests that ended, the warm-up's too.
    pub sent_bytes: u64,
    /// Bytes read by them.
    pub received_bytes: u64,
    /// Output tokens of answers that ended, the warm-up's too.
    pub output_tokens: u64,
    /// Requests in flight at the end of the second.
    pub in_flight: u64,
    /// CPU time of the clients.
    pub client_cpu_seconds: f64,
    /// 99th percentile of the send delay of the requests that ended; of the worst worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_lag_p99_seconds: Option<f64>,
}

impl SeriesPoint {
    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.warmup += other.warmup;
        self.sent += other.sent;
        self.ok += other.ok;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        for (class, count) in &other.errors {
            *self.errors.entry(class.clone()).or_default() += count;
        }
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.output_tokens += other.output_tokens;
        self.in_flight += other.in_flight;
        self.client_cpu_seconds += other.client_cpu_seconds;
        self.client_lag_p99_seconds =
            match (self.client_lag_p99_seconds, other.client_lag_p99_seconds) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
    }
}

/// Resource figures of one node over the run (or the measured part, where there is one).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeResources {
    /// Node name.
    pub node: String,
    /// Samples that the figures come from.
    pub samples: u64,
    /// Missing samples: ticks that were skipped or could not be written.
    pub gaps: u64,
    /// Time from the first of the samples to the last.
    pub seconds: f64,
    /// CPU time of the whole node in which a CPU worked (neither idle nor waiting for I/O).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_cpu_seconds: Option<f64>,
    /// CPU time of the job on the node, all of its steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_cpu_seconds: Option<f64>,
    /// Largest memory in use on the node: total minus what the kernel calls available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_memory_max_bytes: Option<u64>,
    /// Largest memory that the kernel charged to the job on the node, page cache included: what
    /// its memory limit applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_memory_max_bytes: Option<u64>,
    /// Bytes received by the node's network devices, without loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_received_bytes: Option<u64>,
    /// Bytes sent by the node's network devices, without loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_sent_bytes: Option<u64>,
    /// Bytes read from the node's own disks, by all processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes: Option<u64>,
    /// Bytes written to the node's own disks, by all processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_written_bytes: Option<u64>,
    /// CPU time of each service on the node: its process tree, reaped children included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_cpu_seconds: BTreeMap<String, f64>,
    /// Largest memory of each service on the node: anonymous memory of its process tree and the
    /// largest part of files and shared memory that one of its processes has resident.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_memory_max_bytes: BTreeMap<String, u64>,
    /// CPU time of the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_cpu_seconds: Option<f64>,
    /// Largest resident set of the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_memory_max_bytes: Option<u64>,
}

/// A time span of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// Its start.
    pub start_epoch_ns: u64,
    /// Its end.
    pub end_epoch_ns: u64,
}

/// The report of a run, made from its folder by `aifb report`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of the format: 1.
    pub version: u32,
    /// run.json, with what its reader found out besides: that the recorder was lost, what Slurm
    /// recorded.
    pub run: crate::run::RunRecord,
    /// State: as recorded, or `failed` when the recorder was lost.
    pub state: crate::run::State,
    /// One result for each load, point and repeat.
    pub results: Vec<LoadResult>,
    /// What the searches for the largest load found, one for each load and point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchResult>,
    /// Sum over all results.
    pub counts: Counts,
    /// Metrics, only where there is a single result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Load repeats that were started and have no result, as `<load>/p<point>/r<repeat>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Resource figures by node.
    pub nodes: Vec<NodeResources>,
    /// The time that these figures cover: from the start of the first measured part to the end
    /// of the last. Absent: the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Warnings: lost parts, gaps, differences.
    pub warnings: Vec<String>,
}
