//! Options of `run` for dataset, arrivals and stop rules. Each sets a key of the recipe's load and
//! is parsed and checked like that key.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::load::{Settings, given};

/// Dataset, arrivals and stop rules.
#[derive(Debug, Args)]
pub(crate) struct WorkloadOptions {
    /// Shape of the gamma distribution (--process gamma): 1 is Poisson, below 1 is burstier, above 1
    /// more regular.
    #[arg(long, value_name = "SHAPE")]
    pub(crate) burstiness: Option<f64>,
    /// Start with this load and ramp to --rate or --concurrency over the measured part.
    #[arg(long, value_name = "LOAD")]
    pub(crate) ramp_from: Option<String>,
    /// Replay the arrival times of this trace: JSON lines with timestamp (ms), input_length and
    /// output_length, Azure's CSV or BurstGPT's CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Replay the trace faster by this factor.
    #[arg(long, value_name = "FACTOR", requires = "trace")]
    pub(crate) speed: Option<f64>,
    /// Tokens of each synthetic prompt: 512, {uniform: [128, 1024]}, {normal: {mean: 512, stddev:
    /// 64}}, {lognormal: …} or {weighted: [[128, 3], [1024, 1]]} [default: 128].
    #[arg(long, value_name = "LENGTHS")]
    pub(crate) input_tokens: Option<String>,
    /// Tokens to generate for each request, in the form of --input-tokens [default: the lengths in
    /// the dataset's file, else 128].
    #[arg(long, value_name = "LENGTHS")]
    pub(crate) output_tokens: Option<String>,
    /// Send the same prompt in each request, instead of synthetic ones.
    #[arg(long, value_name = "TEXT", conflicts_with = "dataset")]
    pub(crate) prompt: Option<String>,
    /// Source of the prompts: synthetic, ids, sharegpt:FILE or jsonl:FILE [default: synthetic].
    #[arg(long, value_name = "KIND")]
    pub(crate) dataset: Option<String>,
    /// Local tokenizer.json with which tokens are counted.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Tokens of the prefix that synthetic prompts share.
    #[arg(long, value_name = "N")]
    pub(crate) prefix_tokens: Option<u32>,
    /// Number of different prefixes, used in turn.
    #[arg(long, value_name = "N", requires = "prefix_tokens", default_value_t = 1)]
    pub(crate) prefix_groups: u32,
    /// Requests per conversation; each contains the history before it.
    #[arg(long, value_name = "LENGTHS")]
    pub(crate) turns: Option<String>,
    /// End the load when more requests have failed: a number, or a share such as 5%.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) stop_errors: Option<String>,
    /// End the load when the service is saturated.
    #[arg(long)]
    pub(crate) stop_saturation: bool,
    /// End the load when this metric is stable: throughput, token_throughput, ttft, ttft_p99, e2e
    /// or e2e_p99.
    #[arg(long, value_name = "FIGURE")]
    pub(crate) stop_steady: Option<String>,
}

impl WorkloadOptions {
    /// Keys of the load, as far as the options say; `asks` where the driver asks a model.
    pub(crate) fn settings(&self, asks: bool) -> Settings {
        let trace = self.trace.as_ref().map(|trace| {
            let speed = self.speed.unwrap_or(1.0);
            json!({"trace": trace, "speed": speed})
        });
        let (kind, file) = match self.dataset.as_deref().map(|text| (text, text.split_once(':'))) {
            Some((_, Some((kind, file)))) => (Some(kind), Some(file)),
            Some((kind, None)) => (Some(kind), None),
            None if self.prompt.is_some() => (Some("prompt"), None),
            None => ((asks || self.shapes_prompts()).then_some("synthetic"), None),
        };
        let prefix = self
            .prefix_tokens
            .map(|tokens| json!({"tokens": tokens, "groups": self.prefix_groups}));
        given([
            ("arrival", trace),
            ("dataset.kind", kind.map(Value::from)),
            ("dataset.prompt", self.prompt.as_ref().map(|prompt| json!(prompt))),
            ("dataset.file", file.map(Value::from)),
            ("dataset.tokenizer", self.tokenizer.as_ref().map(|path| json!(path))),
            ("dataset.prefix", prefix),
            ("stop.saturation", self.stop_saturation.then(|| json!({}))),
        ])
    }

    /// Whether an option says how prompts look.
    fn shapes_prompts(&self) -> bool {
        let lengths = [&self.input_tokens, &self.output_tokens, &self.turns];
        let shaped = self.prefix_tokens.is_some() || self.tokenizer.is_some();
        shaped || lengths.into_iter().any(Option::is_some)
    }

    /// Keys whose values are texts in the recipe's form: a number, a word, or a map in YAML.
    pub(crate) fn texts(&self) -> Vec<String> {
        let burstiness = self.burstiness.map(|shape| shape.to_string());
        [
            ("arrival.burstiness", &burstiness),
            ("arrival.ramp.from", &self.ramp_from),
            ("dataset.input_tokens", &self.input_tokens),
            ("dataset.output_tokens", &self.output_tokens),
            ("dataset.turns.count", &self.turns),
            ("stop.errors", &self.stop_errors),
            ("stop.steady.metric", &self.stop_steady),
        ]
        .into_iter()
        .filter_map(|(path, given)| Some(format!("{path}={}", given.as_ref()?)))
        .collect()
    }
}
