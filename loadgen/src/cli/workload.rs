//! Options of `run` for dataset, arrivals and stop rules. Each sets a key of the recipe's load and
//! is parsed and checked like that key.

use std::path::PathBuf;

use aifb_schema::recipe::{self, Load};
use clap::Args;
use serde_json::{Value, json};

use crate::error::Fatal;

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
    /// Source of the prompts: synthetic, ids, sharegpt:FILE or jsonl:FILE.
    #[arg(long, value_name = "KIND", default_value = "synthetic")]
    pub(crate) dataset: String,
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
    /// Set any key of the recipe's load, such as stop.steady.for=20s or dataset.shuffle=false.
    /// Repeatable.
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
}

impl WorkloadOptions {
    /// Completes `arrival`, the recipe's value for the rate or concurrency.
    pub(crate) fn arrival(&self, arrival: &mut Value) -> Result<(), Fatal> {
        if let Some(trace) = &self.trace {
            *arrival = json!({"trace": trace, "speed": self.speed.unwrap_or(1.0)});
        }
        if let Some(burstiness) = self.burstiness {
            set(arrival, &format!("burstiness={burstiness}"))?;
        }
        match &self.ramp_from {
            Some(from) => set(arrival, &format!("ramp.from={from}")),
            None => Ok(()),
        }
    }

    /// The load with what these options say, checked by the recipe's rules.
    pub(crate) fn apply(&self, load: &Load) -> Result<Load, Fatal> {
        let mut value = serde_json::to_value(load).map_err(|error| wrong(&error))?;
        if let Value::Object(keys) = &mut value {
            keys.insert("dataset".to_owned(), self.dataset());
        }
        for (path, given) in [
            ("dataset.input_tokens", &self.input_tokens),
            ("dataset.output_tokens", &self.output_tokens),
            ("dataset.turns.count", &self.turns),
            ("stop.errors", &self.stop_errors),
            ("stop.steady.metric", &self.stop_steady),
        ] {
            if let Some(given) = given {
                set(&mut value, &format!("{path}={given}"))?;
            }
        }
        if self.stop_saturation {
            set(&mut value, "stop.saturation={}")?;
        }
        for one in &self.set {
            set(&mut value, one)?;
        }
        let load: Load = serde_json::from_value(value).map_err(|error| wrong(&error))?;
        match recipe::check_workload(&load).into_iter().next() {
            None => Ok(load),
            Some(complaint) => {
                let fatal = Fatal::usage(complaint.message);
                Err(match complaint.hint {
                    Some(hint) => fatal.hint(hint),
                    None => fatal,
                })
            }
        }
    }

    fn dataset(&self) -> Value {
        let (kind, file) = match (&self.prompt, self.dataset.split_once(':')) {
            (Some(_), _) => ("prompt", None),
            (None, Some((kind, file))) => (kind, Some(file)),
            (None, None) => (self.dataset.as_str(), None),
        };
        let prefix = self
            .prefix_tokens
            .map(|tokens| json!({"tokens": tokens, "groups": self.prefix_groups}));
        let mut keys = serde_json::Map::new();
        for (key, given) in [
            ("kind", Some(json!(kind))),
            ("prompt", self.prompt.as_ref().map(|prompt| json!(prompt))),
            ("file", file.map(|file| json!(file))),
            ("tokenizer", self.tokenizer.as_ref().map(|path| json!(path))),
            ("prefix", prefix),
        ] {
            if let Some(given) = given {
                keys.insert(key.to_owned(), given);
            }
        }
        Value::Object(keys)
    }
}

fn set(value: &mut Value, one: &str) -> Result<(), Fatal> {
    recipe::apply_set(value, one).map_err(|complaint| {
        let fatal = Fatal::usage(format!("reading '{one}': {}", complaint.message));
        match complaint.hint {
            Some(hint) => fatal.hint(hint),
            None => fatal,
        }
    })
}

fn wrong(error: &serde_json::Error) -> Fatal {
    Fatal::usage(format!("reading the options: {}", error.to_string().replace('`', "'")))
}
