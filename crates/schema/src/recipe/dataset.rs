//! What LLM drivers ask: the key `dataset` of a load.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Think;
use crate::error::ValueError;

/// Prompts of the LLM drivers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Where prompts come from.
    pub kind: DatasetKind,
    /// Tokens of each prompt (kinds synthetic and ids). If a trace has them, those of the trace are
    /// used.
    #[serde(default = "Lengths::default_tokens")]
    pub input_tokens: Lengths,
    /// Tokens to generate for each request; default: 128, from a file the length of the recorded
    /// answer. If a trace has them, those of the trace are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<Lengths>,
    /// The one prompt (kind prompt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The file (kinds sharegpt and jsonl), read on the clients' nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A prefix that several prompts share (kind synthetic).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Conversations of several requests, each of which contains the history before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// A local `tokenizer.json`: with it, synthetic prompts have exactly the requested number of
    /// tokens, and the tokens of a file's texts are counted. Without one, a short word or four
    /// bytes of a file's text count as a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Token ids are drawn below this number (kind ids).
    #[serde(default = "Dataset::default_vocabulary")]
    pub vocabulary: u32,
    /// Shortest and longest prompt of a file to use, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_tokens: Option<[u32; 2]>,
    /// Whether the entries of a file are shuffled, by the seed.
    #[serde(default = "yes")]
    pub shuffle: bool,
}

fn yes() -> bool {
    true
}

impl Dataset {
    fn default_vocabulary() -> u32 {
        32_000
    }

    /// Output tokens where nothing else says how many.
    pub const DEFAULT_OUTPUT: u32 = 128;
}

impl Default for Dataset {
    fn default() -> Self {
        Self {
            kind: DatasetKind::Synthetic,
            input_tokens: Lengths::default_tokens(),
            output_tokens: None,
            prompt: None,
            file: None,
            prefix: None,
            turns: None,
            tokenizer: None,
            vocabulary: Self::default_vocabulary(),
            keep_tokens: None,
            shuffle: true,
        }
    }
}

/// Where prompts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// Made from the seed, each different.
    Synthetic,
    /// The same prompt each time.
    Prompt,
    /// Numbers of tokens drawn from the seed, instead of text (driver openai-completions).
    Ids,
    /// A ShareGPT file: JSON, a list of conversations `{conversations: [{from, value}]}`.
    Sharegpt,
    /// JSON lines: `{prompt | text | messages, output_tokens?}`.
    Jsonl,
}

impl DatasetKind {
    /// Whether the prompts stand in a file.
    #[must_use]
    pub fn from_file(self) -> bool {
        matches!(self, Self::Sharegpt | Self::Jsonl)
    }
}

/// A prefix that several prompts share, which a service with a prefix cache computes once. It comes
/// before the tokens of `input_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// Its tokens.
    pub tokens: u32,
    /// Number of different prefixes, used in turn.
    #[serde(default = "Prefix::one")]
    pub groups: u32,
}

impl Prefix {
    fn one() -> u32 {
        1
    }
}

/// Conversations: request n + 1 contains request n and the answer to it, and is sent after the
/// response. The answer in the history is the recorded one, or a synthetic one of `output_tokens`,
/// never the one that the service generated: so the plan does not depend on the service's
/// responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Turns {
    /// Requests per conversation; from a file: at most this many.
    pub count: Lengths,
    /// Think time between a response and the next request of the conversation.
    #[serde(default)]
    pub think: Think,
}

/// Numbers of tokens (or turns): `512`, `{uniform: [128, 1024]}`, `{normal: {mean: 512, stddev:
/// 64}}`, `{lognormal: {mean: 512, stddev: 256, max: 4096}}` or `{weighted: [[128, 3], [1024, 1]]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "LengthsText", into = "LengthsText")]
pub enum Lengths {
    /// Always this many.
    Fixed(u32),
    /// From the first to the last, each as likely.
    Uniform(u32, u32),
    /// Normally distributed.
    Normal(Bell),
    /// Log-normally distributed: mean and standard deviation are those of the lengths.
    Lognormal(Bell),
    /// One of these, with its weight.
    Weighted(Vec<(u32, f64)>),
}

/// Mean, standard deviation and limits of a distribution of lengths.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bell {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub stddev: f64,
    /// Lower limit: smaller values are clamped to it.
    #[serde(default = "Bell::least")]
    pub min: u32,
    /// Upper limit: larger values are clamped to it.
    #[serde(default = "Bell::most")]
    pub max: u32,
}

impl Bell {
    fn least() -> u32 {
        1
    }
    fn most() -> u32 {
        LENGTH_MAX
    }
}

/// Most tokens of a prompt or an answer: ten times the longest context of any model.
pub const LENGTH_MAX: u32 = 10_000_000;

/// Most entries of a weighted list.
pub const WEIGHTS_MAX: usize = 10_000;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number such as 512, {uniform: [128, 1024]}, {normal: {mean: 512, stddev: 64}}, {lognormal: {mean: 512, stddev: 256}} or {weighted: [[128, 3], [1024, 1]]}"
)]
enum LengthsText {
    /// Always this many.
    Fixed(u32),
    /// Drawn from the seed.
    Drawn(Drawn),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Drawn {
    /// From the first to the last, each as likely.
    Uniform((u32, u32)),
    /// Normally distributed.
    Normal(Bell),
    /// Log-normally distributed.
    Lognormal(Bell),
    /// Lengths and their weights.
    Weighted(Vec<(u32, f64)>),
}

impl Lengths {
    fn default_tokens() -> Self {
        Self::Fixed(128)
    }

    /// The largest that can come.
    #[must_use]
    pub fn most(&self) -> u32 {
        match self {
            Self::Fixed(length) => *length,
            Self::Uniform(_, max) => *max,
            Self::Normal(bell) | Self::Lognormal(bell) => bell.max,
            Self::Weighted(list) => list.iter().map(|(length, _)| *length).max().unwrap_or(0),
        }
    }
}

impl TryFrom<LengthsText> for Lengths {
    type Error = ValueError;
    fn try_from(text: LengthsText) -> Result<Self, ValueError> {
        let lengths = match text {
            LengthsText::Fixed(length) => Self::Fixed(length),
            LengthsText::Drawn(Drawn::Uniform((min, max))) => Self::Uniform(min, max),
            LengthsText::Drawn(Drawn::Normal(bell)) => Self::Normal(bell),
            LengthsText::Drawn(Drawn::Lognormal(bell)) => Self::Lognormal(bell),
            LengthsText::Drawn(Drawn::Weighted(list)) => Self::Weighted(list),
        };
        let within = |length: u32| (1..=LENGTH_MAX).contains(&length);
        let bell = |bell: &Bell| {
            within(bell.min)
                && within(bell.max)
                && bell.min <= bell.max
                && bell.mean.is_finite()
                && bell.mean > 0.0
                && bell.stddev.is_finite()
                && bell.stddev >= 0.0
        };
        let (fits, what) = match &lengths {
            Self::Fixed(length) => (within(*length), "a length of tokens".to_owned()),
            Self::Uniform(min, max) => {
                (within(*min) && within(*max) && min <= max, format!("uniform [{min}, {max}]"))
            }
            Self::Normal(b) | Self::Lognormal(b) => (
                bell(b),
                format!("mean {}, stddev {}, min {}, max {}", b.mean, b.stddev, b.min, b.max),
            ),
            Self::Weighted(list) => (
                (1..=WEIGHTS_MAX).contains(&list.len())
                    && list.iter().all(|(length, weight)| {
                        within(*length) && weight.is_finite() && *weight > 0.0
                    }),
                "the weighted list".to_owned(),
            ),
        };
        if fits {
            Ok(lengths)
        } else {
            Err(format!(
                "{what} is out of range: expected lengths from 1 to {LENGTH_MAX}, min not above max, means and weights above zero"
            )
            .into())
        }
    }
}

impl From<Lengths> for LengthsText {
    fn from(lengths: Lengths) -> Self {
        match lengths {
            Lengths::Fixed(length) => Self::Fixed(length),
            Lengths::Uniform(min, max) => Self::Drawn(Drawn::Uniform((min, max))),
            Lengths::Normal(bell) => Self::Drawn(Drawn::Normal(bell)),
            Lengths::Lognormal(bell) => Self::Drawn(Drawn::Lognormal(bell)),
            Lengths::Weighted(list) => Self::Drawn(Drawn::Weighted(list)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_back_and_are_checked() {
        for text in [
            "512",
            r#"{"uniform": [128, 1024]}"#,
            r#"{"normal": {"mean": 512.0, "stddev": 64.0, "min": 1, "max": 1000}}"#,
            r#"{"lognormal": {"mean": 512.0, "stddev": 64.0}}"#,
            r#"{"weighted": [[128, 3.0], [1024, 1.0]]}"#,
        ] {
            let lengths: Lengths = serde_json::from_str(text).unwrap();
            let again = serde_json::to_string(&lengths).unwrap();
            assert_eq!(serde_json::from_str::<Lengths>(&again).unwrap(), lengths, "{again}");
        }
        for text in [
            "0",
            "10000001",
            r#"{"uniform": [5, 4]}"#,
            r#"{"uniform": [0, 4]}"#,
            r#"{"normal": {"mean": -1, "stddev": 64}}"#,
            r#"{"normal": {"mean": 9, "stddev": 1, "min": 5, "max": 4}}"#,
            r#"{"weighted": []}"#,
            r#"{"weighted": [[5, 0]]}"#,
        ] {
            let error = serde_json::from_str::<Lengths>(text).unwrap_err().to_string();
            assert!(error.contains("out of range"), "{text}: {error}");
        }
        for text in [r#""512""#, r#"{"gauss": 3}"#, r#"{"uniform": [1]}"#] {
            let error = serde_json::from_str::<Lengths>(text).unwrap_err().to_string();
            assert!(error.contains("expected a number such as 512"), "{text}: {error}");
        }
    }
}
