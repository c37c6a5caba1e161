//! The part of a load that says what is asked of a language model besides the prompt.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::units::Span;

/// What is asked of a language model besides the prompt. Each key says which drivers take it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Llm {
    /// Whether answers are streamed, for drivers whose answers are made of tokens; true unless given
    /// (`kserve-grpc`: where the model is decoupled).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Tools that the model may call, in the API's format (chat drivers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// Further members of each request's JSON body, such as {temperature: 0.7}; for Ollama's drivers
    /// those of `options` too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Value>,
    /// Texts per request: inputs of an embedding (default: 1), documents of a rerank (default: 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Numbers in each vector (`openai-embeddings`); absent: as the model has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// For Ollama's drivers: pulling, loading and keeping the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ollama: Option<Ollama>,
}

impl Llm {
    /// The section as it is where the recipe has none.
    pub(super) const DEFAULT: Self = Self {
        stream: None,
        tools: Vec::new(),
        extra: BTreeMap::new(),
        batch: None,
        dimensions: None,
        ollama: None,
    };
}

/// How Ollama's models are pulled, loaded and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ollama {
    /// Pulls the model before the start if the server does not have it.
    #[serde(default)]
    pub pull: bool,
    /// Longest time for pulling and loading the model.
    #[serde(default = "Ollama::default_deadline")]
    pub deadline: Span,
    /// Loads the model before the start, so that no request waits for that.
    #[serde(default = "yes")]
    pub warm_up: bool,
    /// Time for which the server keeps the model loaded after a request, such as 10m, or -1 without
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<String>,
}

impl Ollama {
    /// A model of 40 GB comes in half an hour at 22 MB/s.
    fn default_deadline() -> Span {
        Span::secs(1800)
    }
}

impl Default for Ollama {
    fn default() -> Self {
        Self { pull: false, deadline: Self::default_deadline(), warm_up: true, keep_alive: None }
    }
}

fn yes() -> bool {
    true
}

/// Most texts of one request: servers refuse more than a few thousand.
pub const BATCH_MAX: u32 = 8192;

/// Most numbers of a vector: the largest models in use have 16384.
pub const DIMENSIONS_MAX: u32 = 65_536;
