//! Drivers: one for each protocol. A driver says how to connect, how to do one operation, and
//! what it saw; it knows nothing of arrival, phases or files.
//!
//! A new driver is a file here, a line in [`crate::registry`], and a word in the recipe. Protocols
//! over HTTP are a [`protocol::Protocol`]; others, which bring their own connections, a
//! [`Driver`].

mod alternative;
pub(crate) mod any;
pub(crate) mod command;
pub(crate) mod embeddings;
mod error_text;
#[cfg(test)]
#[path = "../../../docs/developer/example_driver.rs"]
pub(crate) mod example_driver;
pub(crate) mod http;
pub(crate) mod kserve;
mod llm;
pub(crate) mod ollama;
pub(crate) mod ollama_answer;
pub(crate) mod openai;
pub(crate) mod openai_answer;
mod openai_quick;
pub(crate) mod postgresql;
pub(crate) mod protocol;
pub(crate) mod rerank;
mod template;
mod vectors;

use crate::{error::Fatal, fault::Fault, job::Job, plan::Ask, record::row::Seen};

/// One protocol with its own connections; [`any::own`] makes what the loop sees of it.
pub(crate) trait Driver: Sized + 'static {
    /// What is kept between requests.
    type Connection: 'static;

    /// Makes ready all that requests need, before the start: addresses, bodies, tables (rank 0).
    async fn prepare(job: &Job) -> Result<Self, Fatal>;

    /// Endpoints that requests are spread over.
    fn targets(&self) -> usize;

    /// Opens a connection to one of them.
    async fn connect(&self, target: usize) -> Result<Self::Connection, Fault>;

    /// Whether a kept connection may be used again: asked after each operation and, cheaply,
    /// before each reuse.
    fn usable(&self, connection: &Self::Connection) -> bool;

    /// Name of the operation that `ask` is.
    fn operation(&self, ask: Ask) -> &'static str;

    /// Does one operation and notes what happened. When it fails with no byte of an answer on a
    /// connection that was used before, it is sent once more on a new one.
    async fn operate(
        &self,
        connection: &mut Self::Connection,
        ask: Ask,
        seen: &mut Seen,
    ) -> Result<(), Fault>;

    /// Whether opening connections before the start makes sense.
    fn opens_ahead(&self) -> bool {
        true
    }
}

/// For fuzz targets: an answer with a vector or a score for each text.
pub(crate) fn fuzz_lists(data: &[u8]) -> bool {
    embeddings::reads(data) | rerank::reads(data) | ollama_answer::reads(data)
}
