//! Which driver a recipe's word names.

#[cfg(test)]
mod example;

use aifb_schema::recipe::Driver as Word;

use crate::{
    driver::{
        any::{AnyDriver, over_http, own},
        command, embeddings, http, kserve, ollama, openai, postgresql, rerank,
    },
    error::Fatal,
    job::Job,
};

/// Makes the driver ready that the job's recipe names.
///
/// # Errors
/// If the service or the recipe does not allow it.
pub(crate) async fn prepare(job: &Job) -> Result<Box<dyn AnyDriver>, Fatal> {
    match job.plan.load.driver {
        Word::OpenaiChat | Word::OpenaiCompletions => over_http::<openai::OpenAi>(job).await,
        Word::OpenaiEmbeddings => over_http::<embeddings::Embeddings>(job).await,
        Word::Rerank => over_http::<rerank::Rerank>(job).await,
        Word::OllamaGenerate | Word::OllamaChat | Word::OllamaEmbed => {
            over_http::<ollama::Ollama>(job).await
        }
        Word::KserveHttp => over_http::<kserve::Http>(job).await,
        Word::KserveGrpc => over_http::<kserve::Grpc>(job).await,
        Word::TritonGenerate => over_http::<kserve::Generate>(job).await,
        Word::Http => over_http::<http::Http>(job).await,
        Word::Command => own::<command::Command>(job).await,
        Word::Postgresql => own::<postgresql::Postgresql>(job).await,
    }
}
