//! OpenAI's embeddings: vLLM, llama-server and others. Each vector is counted and checked.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use super::{
    llm::{self, Asked, or_default, read},
    protocol::Protocol,
    vectors::{self, Length},
};
use crate::{
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::Ask,
    record::row::Seen,
    wire::{
        Reply, Request, Route, Wire,
        reply::{Answer, Answered},
    },
};

/// The protocol.
pub(crate) struct Embeddings {
    route: Rc<Route>,
    asked: Asked,
    before: String,
    after: String,
    expected: Expected,
}

/// What an answer has to have.
#[derive(Debug, Clone, Copy)]
struct Expected {
    vectors: usize,
    dimensions: Option<usize>,
}

impl Protocol for Embeddings {
    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let model = llm::json(&llm::model(job, wire).await);
        let mut defaults = Vec::new();
        if let Some(dimensions) = load.llm().dimensions {
            defaults.push(("dimensions", Value::from(dimensions)));
        }
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            route: Route::post("/embeddings").under("/v1").json().accept(JSON).ready(),
            asked: Asked::new(job)?,
            before: format!(r#"{{"model":{model},"input":"#),
            after: format!("{}}}", llm::members(&defaults, &load.llm().extra)),
            expected: Expected {
                vectors: size(llm::batch(load)),
                dimensions: load.llm().dimensions.map(size),
            },
        })
    }

    fn operation(&self, _: Ask) -> &'static str {
        "embedding"
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        let body = [self.before.as_str(), &self.asked.texts(ask), &self.after].concat();
        Ok(self.route.request(body))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        Answered::new(self.expected)
    }
}

/// Type of the answers.
const JSON: &str = "application/json";

#[derive(Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "or_default")]
    data: Vec<Item>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<super::error_text::Said>,
}

#[derive(Deserialize)]
struct Item {
    embedding: Length,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
}

impl Answer for Expected {
    fn answer(&mut self, body: &[u8], _: u64, seen: &mut Seen) -> Result<(), Fault> {
        let body: Body = read("answer", body)?;
        if let Some(error) = body.error {
            return Err(Fault::new(Class::ErrorEventIn200, error.to_string()));
        }
        seen.input_tokens = body.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
        let lengths: Vec<Length> = body.data.iter().map(|item| item.embedding).collect();
        vectors::check(&lengths, self.vectors, self.dimensions)?;
        seen.items = u64::try_from(lengths.len()).ok();
        Ok(())
    }
}

/// Whether `data` is a good answer to a request with two texts.
pub(super) fn reads(data: &[u8]) -> bool {
    Expected { vectors: 2, dimensions: None }.answer(data, 0, &mut Seen::default()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let read = |body: &str| {
            let (mut expected, mut seen) =
                (Expected { vectors: 2, dimensions: None }, Seen::default());
            let result = expected.answer(body.as_bytes(), 0, &mut seen);
            assert_eq!(seen.items, result.is_ok().then_some(2));
            (result.map_err(|fault| fault.class), seen.input_tokens)
        };
        let good = r#"{"data":[{"index":0,"embedding":[1,2]},{"index":1,"embedding":[3,4.5]}],
            "usage":{"prompt_tokens":7,"total_tokens":7}}"#;
        assert_eq!(read(good), (Ok(()), Some(7)));
        for (body, class) in [
            (r#"{"data":[{"embedding":[1]}]}"#, Class::VerifyMismatch),
            (r#"{"data":[{"embedding":[1]},{"embedding":[null]}]}"#, Class::Parse),
            (r#"{"data":[]}"#, Class::EmptyResponse),
            (r#"{"error":"no"}"#, Class::ErrorEventIn200),
            ("{}", Class::EmptyResponse),
            ("<html>", Class::Parse),
        ] {
            assert_eq!(read(body).0, Err(class), "{body}");
        }
    }
}
