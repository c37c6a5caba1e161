//! Protocols: each knows its paths and turns a request into an answer. None knows sockets, time
//! or capacity.
//!
//! A new protocol is a file with a function [`Protocol`], and its name in [`PROTOCOLS`].

mod embeddings;
mod kserve;
mod kserve_grpc;
mod lines;
mod ollama;
mod openai;
mod rerank;

use std::cell::Cell;

use serde::Deserialize;

use super::{
    fault::{Fault, Faults},
    script::{Answer, Whole},
};
pub(super) use lines::Lines;

/// The protocols, tried in this order.
const PROTOCOLS: &[Protocol] = &[
    openai::answer,
    embeddings::answer,
    rerank::answer,
    ollama::answer,
    kserve::answer,
    kserve_grpc::answer,
];

/// Answers a request, or says that its path is not one of the protocol's.
pub(super) type Protocol = fn(&Request<'_>, &Settings<'_>) -> Option<Answer>;

/// A request without its headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Path without the query.
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Whether it is a POST to one of these paths.
    pub(super) fn posts(&self, paths: &[&str]) -> bool {
        self.method == "POST" && paths.contains(&self.path)
    }

    /// The body as JSON, or the answer to one that is not.
    pub(super) fn json<T: Deserialize<'a>>(&self) -> Result<T, Whole> {
        serde_json::from_slice(self.body).map_err(|error| {
            let text = serde_json::json!({"error": {"message": error.to_string()}});
            Whole::status("400 Bad Request", text.to_string(), 0)
        })
    }
}

/// The server's options, and the fault of this request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    /// The only model.
    pub(super) model: Option<&'a str>,
    /// Tokens of each response, regardless of the request.
    pub(super) tokens: Option<u64>,
    pub(super) tokens_per_event: u64,
    /// Numbers in a vector.
    pub(super) dimension: usize,
    /// Whether the model still has to be pulled (Ollama).
    pub(super) missing: &'a Cell<bool>,
    pub(super) faults: Faults,
}

impl Settings<'_> {
    /// Name of the model where a request names none.
    pub(super) fn model_name(&self) -> &str {
        self.model.unwrap_or("mock")
    }

    /// Whether there is no such model.
    pub(super) fn lacks(&self, wanted: Option<&str>) -> bool {
        self.model.is_some() && self.model != wanted
    }

    /// Tokens of an answer to a request that wants this many.
    pub(super) fn tokens(&self, wanted: Option<u64>) -> u64 {
        if self.faults.has(Fault::Empty) {
            return 0;
        }
        // Nobody's answer is longer than this; a larger number would only fill memory.
        self.tokens.or(wanted).unwrap_or(16).min(TOKENS_MAX)
    }

    /// Tokens of an event.
    pub(super) fn per_event(&self) -> u64 {
        if self.faults.has(Fault::MultiToken) { 4 } else { self.tokens_per_event.max(1) }
    }

    /// The text of a token.
    pub(super) fn token(&self) -> &'static str {
        if self.faults.has(Fault::SplitUtf8) { "grüße🦀 " } else { "tok " }
    }
}

/// Most tokens of an answer: the longest contexts in use.
const TOKENS_MAX: u64 = 10_000_000;

/// The answer to any request.
pub(super) fn answer(request: &Request<'_>, settings: &Settings<'_>) -> Answer {
    let found = PROTOCOLS.iter().find_map(|protocol| protocol(request, settings));
    found.unwrap_or_else(|| {
        if matches!(request.path, "/" | "/health") {
            Answer::Plain(Whole::json(r#"{"status":"ok"}"#, 0))
        } else {
            Answer::Plain(Whole::status("404 Not Found", r#"{"error":"no such path"}"#, 0))
        }
    })
}

/// Words of a text: about its tokens.
fn words(text: &str) -> u64 {
    u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX)
}

/// One text or several; numbers are tokens already.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
    Tokens(Vec<u64>),
    ManyTokens(Vec<Vec<u64>>),
}

impl Texts {
    /// How many texts, and their tokens together.
    fn count(&self) -> (usize, u64) {
        let tokens = |list: &[u64]| u64::try_from(list.len()).unwrap_or(u64::MAX);
        match self {
            Self::One(text) => (1, words(text)),
            Self::Many(texts) => (texts.len(), texts.iter().map(|text| words(text)).sum()),
            Self::Tokens(list) => (1, tokens(list)),
            Self::ManyTokens(lists) => (lists.len(), lists.iter().map(|list| tokens(list)).sum()),
        }
    }
}

/// Vectors as a model would give them: as many as requested, or one less, or one too short.
fn vectors(count: usize, settings: &Settings<'_>) -> Vec<Vec<f64>> {
    let count = count.saturating_sub(usize::from(settings.faults.has(Fault::ShortList)));
    let count = if settings.faults.has(Fault::Empty) { 0 } else { count };
    let dimension = settings.dimension;
    let mut vectors: Vec<Vec<f64>> =
        (0..count).map(|row| (0..dimension).map(|column| value(row, column)).collect()).collect();
    if settings.faults.has(Fault::OddList)
        && let Some(last) = vectors.last_mut()
    {
        last.pop();
    }
    vectors
}

/// A number between -1 and 1 that depends on its place.
fn value(row: usize, column: usize) -> f64 {
    let mixed = (row * 31 + column * 17) % 201;
    f64::from(u32::try_from(mixed).unwrap_or(0)) / 100.0 - 1.0
}
