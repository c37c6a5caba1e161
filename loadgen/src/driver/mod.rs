//! Drivers: one for each protocol. A driver says how to connect, how to do one operation, and
//! what it saw; it knows nothing of arrival, phases or files.
//!
//! A new driver is a file here, a line in [`run`], and a word in the recipe. Protocols over HTTP
//! are a [`protocol::Protocol`]; others, which bring their own connections, a [`Driver`].

mod asked;
mod class;
mod command;
mod either;
mod embeddings;
#[cfg(test)]
mod example;
#[cfg(test)]
#[path = "../../../docs/developer/example_driver.rs"]
mod example_driver;
mod http;
pub(crate) mod kserve;
mod ollama;
pub(crate) mod ollama_answer;
mod openai;
pub(crate) mod openai_answer;
mod openai_quick;
mod postgresql;
pub(crate) mod protocol;
mod rerank;
mod said;
mod template;
mod vectors;

use std::rc::Rc;

use aifb_schema::recipe;

pub(crate) use class::{Class, Fault};

use crate::{
    drive,
    error::Fatal,
    plan::Phase,
    record::{checkpoint::WorkerRecord, row::Seen},
    worker::{Job, Link},
};

/// Which request: enough to make its content from the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Phase it belongs to.
    pub(crate) phase: Phase,
    /// Number within the phase, over all workers.
    pub(crate) id: u64,
    /// Which item of the workload: a prompt or a conversation ([`crate::workload`]).
    pub(crate) item: u64,
    /// Which request of a conversation, from 0.
    pub(crate) turn: u32,
}

impl Ask {
    /// Request `id` of a phase, which asks an item of its own.
    pub(crate) fn new(phase: Phase, id: u64) -> Self {
        let mut ask = Self { phase, id, item: 0, turn: 0 };
        ask.item = ask.key();
        ask
    }

    /// A number that no other request of the load has.
    pub(crate) fn key(self) -> u64 {
        match self.phase {
            Phase::Warmup => self.id | 1 << 63,
            Phase::Measure => self.id,
        }
    }
}

/// One protocol.
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

/// Runs the job with the driver that its recipe names.
pub(crate) async fn run(job: Rc<Job>, link: Link) -> Result<WorkerRecord, Fatal> {
    use recipe::Driver as Word;
    match job.plan.load.driver {
        Word::OpenaiChat | Word::OpenaiCompletions => over_http::<openai::OpenAi>(job, link).await,
        Word::OpenaiEmbeddings => over_http::<embeddings::Embeddings>(job, link).await,
        Word::Rerank => over_http::<rerank::Rerank>(job, link).await,
        Word::OllamaGenerate | Word::OllamaChat | Word::OllamaEmbed => {
            over_http::<ollama::Ollama>(job, link).await
        }
        Word::KserveHttp => over_http::<kserve::Http>(job, link).await,
        Word::KserveGrpc => over_http::<kserve::Grpc>(job, link).await,
        Word::TritonGenerate => over_http::<kserve::Generate>(job, link).await,
        Word::Http => over_http::<http::Http>(job, link).await,
        Word::Command => drive::run::<command::Command>(job, link).await,
        Word::Postgresql => drive::run::<postgresql::Postgresql>(job, link).await,
    }
}

async fn over_http<P: protocol::Protocol>(job: Rc<Job>, link: Link) -> Result<WorkerRecord, Fatal> {
    drive::run::<protocol::HttpDriver<P>>(job, link).await
}

/// For fuzz targets: an answer with a vector or a score for each text.
pub(crate) fn fuzz_lists(data: &[u8]) -> bool {
    embeddings::reads(data) | rerank::reads(data) | ollama_answer::reads(data)
}
