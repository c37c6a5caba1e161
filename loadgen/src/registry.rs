//! Which driver a recipe's word names.

#[cfg(test)]
mod example;

use std::rc::Rc;

use aifb_schema::recipe::Driver as Word;

use crate::{
    drive,
    driver::{command, embeddings, http, kserve, ollama, openai, postgresql, protocol, rerank},
    error::Fatal,
    job::{Job, Link},
    record::checkpoint::WorkerRecord,
};

/// Runs the job with the driver that its recipe names.
pub(crate) async fn run(job: Rc<Job>, link: Link) -> Result<WorkerRecord, Fatal> {
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
