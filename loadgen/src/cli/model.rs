//! Options of `run` for requests to a model, besides the prompt.

use aifb_schema::units::Span;
use clap::Args;
use serde_json::{Map, Value, json};

use super::load::{Settings, given};
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
    /// The load's section `llm`, as far as the options say.
    ///
    /// # Errors
    /// If one is not JSON of the right kind.
    pub(crate) fn settings(&self) -> Result<Settings, Fatal> {
        let extra = self.extra.as_deref().map(|text| {
            serde_json::from_str::<Map<String, Value>>(text)
                .map_err(|error| wrong("--extra", error, r#"'{"temperature": 0.7}'"#))
        });
        let tools = self.tools.as_deref().map(|text| {
            serde_json::from_str::<Vec<Value>>(text)
                .map_err(|error| wrong("--tools", error, r#"'[{"type": "function", …}]'"#))
        });
        Ok(given([
            ("llm.stream", self.no_stream.then_some(Value::Bool(false))),
            ("llm.extra", extra.transpose()?.map(Value::from)),
            ("llm.tools", tools.transpose()?.map(Value::from)),
            ("llm.batch", self.batch.map(Value::from)),
            ("llm.dimensions", self.dimensions.map(Value::from)),
            ("llm.ollama.pull", self.pull.then_some(Value::Bool(true))),
            ("llm.ollama.keep_alive", self.keep_alive.as_ref().map(|time| json!(time))),
            ("llm.ollama.deadline", self.load_deadline.map(|time| json!(time))),
        ]))
    }
}

fn wrong(option: &str, error: serde_json::Error, example: &str) -> Fatal {
    Fatal::usage(format!("reading {option}: {error}"))
        .hint(format!("for example {option} {example}"))
}
