//! Options of `run` for requests to a model, besides the prompt.

use std::collections::BTreeMap;

use aifb_schema::{
    recipe::{Load, Ollama, check_model},
    units::Span,
};
use clap::Args;
use serde_json::Value;

use crate::error::Fatal;

/// Options of the drivers for models.
#[derive(Debug, Args)]
pub(crate) struct ModelOptions {
    /// Request responses without streaming (LLM drivers).
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Further members of each request body, a JSON object such as '{"temperature": 0.7}'.
    #[arg(long, value_name = "JSON")]
    pub(crate) extra: Option<String>,
    /// Tools that the model may call, as a JSON list in the API's format (chat drivers).
    #[arg(long, value_name = "JSON")]
    pub(crate) tools: Option<String>,
    /// Texts per request: inputs of an embedding, documents of a rerank.
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<u32>,
    /// Dimension of the vectors (openai-embeddings).
    #[arg(long, value_name = "N")]
    pub(crate) dimensions: Option<u32>,
    /// Pull the model before the start if the server does not have it (Ollama).
    #[arg(long)]
    pub(crate) pull: bool,
    /// Time for which the server keeps the model loaded after a request: 10m, or -1 without limit
    /// (Ollama).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) keep_alive: Option<String>,
    /// Time limit for pulling and loading the model (Ollama).
    #[arg(long, value_name = "TIME")]
    pub(crate) load_deadline: Option<Span>,
}

impl ModelOptions {
    /// Writes the options into a load.
    ///
    /// # Errors
    /// If one is not JSON of the right kind, or has no meaning for the driver.
    pub(crate) fn apply(&self, load: &mut Load) -> Result<(), Fatal> {
        load.stream = self.no_stream.then_some(false);
        load.batch = self.batch;
        load.dimensions = self.dimensions;
        if let Some(text) = &self.extra {
            load.extra = serde_json::from_str::<BTreeMap<String, Value>>(text)
                .map_err(|error| wrong("--extra", error, r#"'{"temperature": 0.7}'"#))?;
        }
        if let Some(text) = &self.tools {
            load.tools = serde_json::from_str(text)
                .map_err(|error| wrong("--tools", error, r#"'[{"type": "function", …}]'"#))?;
        }
        let default = Ollama::default();
        let ollama = Ollama {
            pull: self.pull,
            deadline: self.load_deadline.unwrap_or(default.deadline),
            keep_alive: self.keep_alive.clone(),
            ..default.clone()
        };
        load.ollama = (ollama != default).then_some(ollama);
        check_model(load).map_err(|complaint| {
            let fatal = Fatal::usage(complaint.message);
            match complaint.hint {
                Some(hint) => fatal.hint(hint),
                None => fatal,
            }
        })
    }
}

fn wrong(option: &str, error: serde_json::Error, example: &str) -> Fatal {
    Fatal::usage(format!("reading {option}: {error}"))
        .hint(format!("for example {option} {example}"))
}
