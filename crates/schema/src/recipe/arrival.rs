//! When requests are sent: the key `arrival` of a load.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    error::ValueError,
    units::{Rate, Span},
};

/// When requests are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "ArrivalText", into = "ArrivalText")]
pub enum Arrival {
    /// Open: independent of answers. The rate is the total over all tasks.
    Open {
        /// Distribution of the gaps.
        process: Process,
        /// Total over all tasks; with a ramp what it leads to.
        rate: Rate,
        /// A rate that changes.
        ramp: Option<Ramp<Rate>>,
    },
    /// Open: at the times that a file has recorded.
    Trace {
        /// The file.
        file: String,
        /// How many times as fast as it was recorded.
        speed: f64,
    },
    /// Closed: this many requests in flight over all tasks, each followed by the next.
    Closed {
        /// Requests in flight over all tasks; with a ramp what it leads to.
        concurrency: u32,
        /// Pause between an answer and the next request.
        think: Think,
        /// A number in flight that grows.
        ramp: Option<Ramp<u32>>,
    },
}

/// Distribution of the gaps between arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Process {
    /// Independent arrivals: exponential gaps.
    Poisson,
    /// Equal gaps.
    Constant,
    /// Gaps of a gamma distribution with this shape and the mean 1/rate, as vLLM defines its
    /// burstiness: 1 is Poisson, below 1 arrivals come in bursts, above 1 they are more even.
    Gamma(f64),
}

/// Distribution of the gaps between arrivals, without its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Process")]
enum ProcessWord {
    /// Independent arrivals: exponential gaps.
    Poisson,
    /// Equal gaps.
    Constant,
    /// Gaps of a gamma distribution; `burstiness` is its shape.
    Gamma,
}

/// A value that changes over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp<T> {
    /// Value at the start of the measured part (and during the warm-up).
    pub from: T,
    /// How it changes.
    pub shape: RampShape,
    /// Equal steps instead of a continuous change.
    pub steps: Option<u32>,
    /// How long the change takes; absent: the whole measured part.
    pub over: Option<Span>,
}

/// How a value changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RampShape {
    /// By the same amount in equal times.
    #[default]
    Linear,
    /// By the same factor in equal times.
    Exponential,
}

/// Think time between a response and the next request: a time such as `2s`, or `{exponential: 2s}`
/// for exponentially distributed think times with this mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ThinkText", into = "ThinkText")]
pub enum Think {
    /// Always the same.
    Fixed(Span),
    /// Exponentially distributed, this mean.
    Exponential(Span),
}

impl Default for Think {
    fn default() -> Self {
        Self::Fixed(Span::secs(0))
    }
}

impl JsonSchema for Think {
    fn schema_name() -> Cow<'static, str> {
        "Think".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let span = generator.subschema_for::<Span>();
        json_schema!({
            "description": "Think time between a response and the next request: a time such as `2s`, or `{exponential: 2s}` for exponentially distributed think times with this mean.",
            "anyOf": [
                span.clone(),
                {
                    "type": "object",
                    "properties": {"exponential": span},
                    "required": ["exponential"],
                    "additionalProperties": false,
                }
            ]
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a time such as 2s, or {exponential: 2s}")]
enum ThinkText {
    Exponential(ExponentialText),
    Fixed(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExponentialText {
    exponential: Span,
}

impl TryFrom<ThinkText> for Think {
    type Error = ValueError;
    fn try_from(text: ThinkText) -> Result<Self, ValueError> {
        Ok(match text {
            ThinkText::Exponential(ExponentialText { exponential }) => {
                Self::Exponential(exponential)
            }
            ThinkText::Fixed(text) => Self::Fixed(text.parse()?),
        })
    }
}

impl From<Think> for ThinkText {
    fn from(think: Think) -> Self {
        match think {
            Think::Fixed(span) => Self::Fixed(span.to_string()),
            Think::Exponential(exponential) => Self::Exponential(ExponentialText { exponential }),
        }
    }
}

/// The recipe's form of [`Arrival`]: `{process, rate}` or `{trace}` (open), `{concurrency,
/// think}` (closed).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ArrivalText {
    /// Distribution of the gaps of an open load; default: poisson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<ProcessWord>,
    /// Shape of the gamma distribution (process gamma): 1 is Poisson, below 1 is burstier, above 1
    /// more regular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burstiness: Option<f64>,
    /// Open model: requests per second over all clients, independent of the responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    /// Closed model: number of requests in flight over all clients; when one ends, the next is
    /// sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    /// Think time of a closed load between a response and the next request; default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    think: Option<Think>,
    /// Ramp: the load changes from this value to `rate` or `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp: Option<RampText>,
    /// Open model: a trace file with the times of requests, read on the clients' nodes: JSON lines
    /// with
    /// `timestamp` in milliseconds (Mooncake's format; also `timestamp_ms`, `timestamp_seconds`)
    /// and, if known, `input_length` and `output_length`; Azure's or `BurstGPT`'s CSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    /// Factor by which the trace is replayed faster; default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
}

/// A rate or concurrency that changes over the measured part; during the warm-up it is `from`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ramp")]
struct RampText {
    /// Start value: a rate such as `1/s`, or a number in flight.
    from: RampValue,
    /// End value; may be given here instead of as `rate` or `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<RampValue>,
    /// How it changes.
    #[serde(default)]
    shape: RampShape,
    /// Equal steps instead of a continuous change; the first is `from`, the last `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<u32>,
    /// Length of the ramp; default: the whole measured part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over: Option<Span>,
}

/// A rate, or a number of requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a rate such as 1/s, or a number in flight such as 4")]
enum RampValue {
    /// In flight.
    Slots(u32),
    /// A rate.
    Rate(Rate),
}

/// Most requests in flight of one load: beyond it one service sees only its own queue.
pub const CONCURRENCY_MAX: u32 = 1_000_000;

/// Smallest and largest burstiness: beyond them all arrivals come at once, or evenly.
pub const BURSTINESS: std::ops::RangeInclusive<f64> = 0.01..=1_000.0;

/// Slowest and fastest replay of a trace.
pub const SPEED: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

/// Most steps of a ramp: at a second each they fill more than a quarter of an hour.
pub const STEPS_MAX: u32 = 1_000;

fn wrong<T>(text: impl Into<String>) -> Result<T, ValueError> {
    Err(text.into().into())
}

impl TryFrom<ArrivalText> for Arrival {
    type Error = ValueError;
    fn try_from(text: ArrivalText) -> Result<Self, ValueError> {
        let ArrivalText { process, burstiness, rate, concurrency, think, ramp, trace, speed } =
            text;
        let to = ramp.and_then(|ramp| ramp.to);
        if to.is_some() && (rate.is_some() || concurrency.is_some()) {
            return wrong(
                "the end of the ramp is given twice: choose rate or concurrency, or ramp.to",
            );
        }
        let (rate, concurrency) = match to {
            Some(RampValue::Rate(rate)) => (Some(rate), None),
            Some(RampValue::Slots(slots)) => (None, Some(slots)),
            None => (rate, concurrency),
        };
        if speed.is_some() && trace.is_none() {
            return wrong("speed without a trace: expected trace: FILE");
        }
        if let Some(file) = trace {
            if rate.is_some() || concurrency.is_some() || ramp.is_some() || process.is_some() {
                return wrong("a trace has its own times: choose trace, or rate, or concurrency");
            }
            if think.is_some() || burstiness.is_some() {
                return wrong(
                    "think and burstiness have no meaning for a trace: expected {trace: FILE, speed: 1}",
                );
            }
            let speed = speed.unwrap_or(1.0);
            if !SPEED.contains(&speed) {
                return wrong(format!("speed {speed} is out of range: expected 0.001 to 1000"));
            }
            return Ok(Self::Trace { file, speed });
        }
        match (rate, concurrency) {
            (Some(rate), None) if think.is_none() => {
                let process = with_burstiness(process, burstiness)?;
                let ramp = ramp.map(|ramp| ramp.of_rates()).transpose()?;
                Ok(Self::Open { process, rate, ramp })
            }
            (Some(_), None) => {
                wrong("think belongs to concurrency (closed), not to rate (open): choose one")
            }
            (Some(_), Some(_)) => {
                wrong("both rate (open) and concurrency (closed) are given: choose one")
            }
            (None, Some(_)) if process.is_some() || burstiness.is_some() => {
                wrong("process without a rate: expected rate: 20/s")
            }
            (None, Some(concurrency)) => {
                if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
                    return wrong(format!(
                        "concurrency {concurrency} is out of range: expected 1 to {CONCURRENCY_MAX}"
                    ));
                }
                let ramp = ramp.map(|ramp| ramp.of_slots(concurrency)).transpose()?;
                Ok(Self::Closed { concurrency, think: think.unwrap_or_default(), ramp })
            }
            (None, None) if process.is_some() => {
                wrong("process without a rate: expected rate: 20/s")
            }
            (None, None) if ramp.is_some() => {
                wrong("the ramp has no end: expected ramp: {from: 1/s, to: 20/s}")
            }
            (None, None) => wrong(
                "neither rate nor concurrency: expected {process: poisson, rate: 20/s} or {concurrency: 16}",
            ),
        }
    }
}

fn with_burstiness(
    process: Option<ProcessWord>,
    burstiness: Option<f64>,
) -> Result<Process, ValueError> {
    match (process, burstiness) {
        (Some(ProcessWord::Gamma), None) => {
            wrong("process gamma without its burstiness: expected burstiness: 0.5")
        }
        (Some(ProcessWord::Gamma), Some(shape)) if BURSTINESS.contains(&shape) => {
            Ok(Process::Gamma(shape))
        }
        (Some(ProcessWord::Gamma), Some(shape)) => wrong(format!(
            "burstiness {shape} is out of range: expected {} to {}",
            BURSTINESS.start(),
            BURSTINESS.end()
        )),
        (_, Some(_)) => wrong("burstiness belongs to process gamma: expected process: gamma"),
        (Some(ProcessWord::Constant), None) => Ok(Process::Constant),
        (Some(ProcessWord::Poisson) | None, None) => Ok(Process::Poisson),
    }
}

impl RampText {
    fn with<T>(self, from: T) -> Result<Ramp<T>, ValueError> {
        let Self { shape, steps, over, .. } = self;
        if let Some(steps) = steps
            && !(2..=STEPS_MAX).contains(&steps)
        {
            return wrong(format!(
                "a ramp of {steps} steps is out of range: expected 2 to {STEPS_MAX}"
            ));
        }
        if over.is_some_and(|over| over.get().is_zero()) {
            return wrong("a ramp over 0s: expected a time above zero");
        }
        Ok(Ramp { from, shape, steps, over })
    }

    fn of_rates(self) -> Result<Ramp<Rate>, ValueError> {
        match self.from {
            RampValue::Rate(from) => self.with(from),
            RampValue::Slots(_) => wrong(
                "the ramp starts at a number in flight but leads to a rate: expected from: 1/s",
            ),
        }
    }

    fn of_slots(self, to: u32) -> Result<Ramp<u32>, ValueError> {
        match self.from {
            RampValue::Slots(from) if (1..=to).contains(&from) => self.with(from),
            RampValue::Slots(from) => wrong(format!(
                "the ramp leads from {from} to {to} in flight: expected from 1 up to at most {to}"
            )),
            RampValue::Rate(_) => {
                wrong("the ramp starts at a rate but leads to a number in flight: expected from: 1")
            }
        }
    }

    fn new<T>(ramp: Ramp<T>, value: impl Fn(T) -> RampValue) -> Self {
        let Ramp { from, shape, steps, over } = ramp;
        Self { from: value(from), to: None, shape, steps, over }
    }
}

impl From<Arrival> for ArrivalText {
    fn from(arrival: Arrival) -> Self {
        match arrival {
            Arrival::Open { process, rate, ramp } => {
                let (word, burstiness) = match process {
                    Process::Poisson => (ProcessWord::Poisson, None),
                    Process::Constant => (ProcessWord::Constant, None),
                    Process::Gamma(shape) => (ProcessWord::Gamma, Some(shape)),
                };
                Self {
                    process: Some(word),
                    burstiness,
                    rate: Some(rate),
                    ramp: ramp.map(|ramp| RampText::new(ramp, RampValue::Rate)),
                    ..Self::default()
                }
            }
            Arrival::Trace { file, speed } => {
                Self { trace: Some(file), speed: Some(speed), ..Self::default() }
            }
            Arrival::Closed { concurrency, think, ramp } => Self {
                concurrency: Some(concurrency),
                think: Some(think),
                ramp: ramp.map(|ramp| RampText::new(ramp, RampValue::Slots)),
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Arrival, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in [
            r#"{"rate": "20/s"}"#,
            r#"{"process": "gamma", "burstiness": 0.5, "rate": "20/s"}"#,
            r#"{"process": "constant", "ramp": {"from": "1/s", "to": "20/s", "steps": 4}}"#,
            r#"{"rate": "20/s", "ramp": {"from": "1/s", "shape": "exponential", "over": "30s"}}"#,
            r#"{"concurrency": 64, "ramp": {"from": 1}, "think": {"exponential": "2s"}}"#,
            r#"{"ramp": {"from": 1, "to": 64}, "think": "2s"}"#,
            r#"{"trace": "/data/trace.jsonl", "speed": 2.0}"#,
        ] {
            let arrival = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let again = serde_json::to_string(&arrival).unwrap();
            assert_eq!(read(&again).unwrap(), arrival, "{again}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, cause) in [
            (r#"{"process": "gamma", "rate": "1/s"}"#, "without its burstiness"),
            (r#"{"process": "gamma", "rate": "1/s", "burstiness": 0}"#, "out of range"),
            (r#"{"process": "gamma", "rate": "1/s", "burstiness": -1}"#, "out of range"),
            (r#"{"rate": "1/s", "burstiness": 0.5}"#, "belongs to process gamma"),
            (r#"{"concurrency": 2, "burstiness": 0.5}"#, "without a rate"),
            (r#"{"rate": "1/s", "ramp": {"from": 3}}"#, "leads to a rate"),
            (r#"{"concurrency": 4, "ramp": {"from": "3/s"}}"#, "leads to a number in flight"),
            (r#"{"concurrency": 4, "ramp": {"from": 5}}"#, "from 5 to 4 in flight"),
            (r#"{"rate": "1/s", "ramp": {"from": "3/s", "to": "4/s"}}"#, "given twice"),
            (r#"{"ramp": {"from": "3/s"}}"#, "the ramp has no end"),
            (r#"{"rate": "9/s", "ramp": {"from": "3/s", "steps": 1}}"#, "1 steps"),
            (r#"{"rate": "9/s", "ramp": {"from": "3/s", "over": "0s"}}"#, "over 0s"),
            (r#"{"trace": "x", "rate": "1/s"}"#, "its own times"),
            (r#"{"trace": "x", "speed": 0}"#, "speed 0"),
            (r#"{"rate": "1/s", "speed": 2}"#, "without a trace"),
            (r#"{"concurrency": 4, "think": 3}"#, "expected a time such as 2s"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }
}
