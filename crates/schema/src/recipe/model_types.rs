//! The part of a load that says what is asked of a language model besides the prompt.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::load_types::Driver;
use crate::units::Span;

/// What Ollama does before the start and between requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ollama {
    /// Pulls the model before the start, where the server does not have it.
    #[serde(default)]
    pub pull: bool,
    /// Longest time for pulling and loading the model.
    #[serde(default = "Ollama::default_deadline")]
    pub deadline: Span,
    /// Loads the model before the start, so that no request waits for that.
    #[serde(default = "yes")]
    pub warm_up: bool,
    /// How long the server keeps the model after a request: a time such as 10m, or -1 for ever.
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

impl Driver {
    /// Whether it asks a model of a service.
    #[must_use]
    pub fn asks_model(self) -> bool {
        self.has_tokens()
            || matches!(
                self,
                Self::OpenaiEmbeddings | Self::Rerank | Self::OllamaEmbed | Self::KserveHttp
            )
    }

    /// Whether its answers are made of tokens: texts that a model generates.
    #[must_use]
    pub fn has_tokens(self) -> bool {
        matches!(
            self,
            Self::OpenaiCompletions
                | Self::OpenaiChat
                | Self::OllamaGenerate
                | Self::OllamaChat
                | Self::KserveGrpc
                | Self::TritonGenerate
        )
    }

    /// Whether it asks a model in the form of a chat.
    #[must_use]
    pub fn chats(self) -> bool {
        matches!(self, Self::OpenaiChat | Self::OllamaChat)
    }

    /// Whether a request has several texts.
    #[must_use]
    pub fn batches(self) -> bool {
        matches!(self, Self::OpenaiEmbeddings | Self::Rerank | Self::OllamaEmbed)
    }

    /// Whether it speaks Ollama's own API.
    #[must_use]
    pub fn is_ollama(self) -> bool {
        matches!(self, Self::OllamaGenerate | Self::OllamaChat | Self::OllamaEmbed)
    }

    /// Texts of a request where the recipe does not say: one, or documents enough to rank.
    #[must_use]
    pub fn default_batch(self) -> u32 {
        if self == Self::Rerank { 10 } else { 1 }
    }
}

/// Most texts of one request: servers refuse more than a few thousand.
pub const BATCH_MAX: u32 = 8192;

/// Most numbers of a vector: the largest models in use have 16384.
pub const DIMENSIONS_MAX: u32 = 65_536;
