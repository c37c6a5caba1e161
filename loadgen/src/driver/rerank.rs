//! Rerank, as Jina and Cohere define it and vLLM and llama-server serve it: documents, best
//! first, for a query. Each index and score is checked.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use super::{
    llm::{self, Asked, or_default, read},
    protocol::Protocol,
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
pub(crate) struct Rerank {
    route: Rc<Route>,
    asked: Asked,
    before: String,
    after: String,
    expected: Expected,
}

/// What an answer has to have.
#[derive(Debug, Clone, Copy)]
struct Expected {
    documents: usize,
    /// Fewer than there are documents if only the best were requested.
    results: usize,
}

impl Protocol for Rerank {
    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let model = llm::json(&llm::model(job, wire).await);
        let documents = usize::try_from(llm::batch(load)).unwrap_or(usize::MAX);
        let best = load.llm().extra.get("top_n").and_then(Value::as_u64).filter(|best| *best > 0);
        let best = best.map_or(documents, |best| usize::try_from(best).unwrap_or(documents));
        Ok(Self {
            route: Route::post("/rerank").under("/v1").json().accept("application/json").ready(),
            asked: Asked::new(job)?,
            before: format!(r#"{{"model":{model},"query":"#),
            after: format!("{}}}", llm::members(&[], &load.llm().extra)),
            expected: Expected { documents, results: best.min(documents) },
        })
    }

    fn operation(&self, _: Ask) -> &'static str {
        "rerank"
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        let query = self.asked.query(ask);
        let documents = self.asked.texts(ask);
        let body =
            [self.before.as_str(), &query, r#","documents":"#, &documents, &self.after].concat();
        Ok(self.route.request(body))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        Answered::new(self.expected)
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "or_default")]
    results: Vec<Ranked>,
    #[serde(default)]
    usage: Option<Usage>,
    /// Where Cohere has its counts.
    #[serde(default)]
    meta: Option<Meta>,
    #[serde(default)]
    error: Option<super::error_text::Said>,
}

#[derive(Deserialize)]
struct Ranked {
    index: usize,
    relevance_score: f64,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    tokens: Option<MetaTokens>,
}

#[derive(Deserialize)]
struct MetaTokens {
    #[serde(default)]
    input_tokens: Option<u64>,
}

impl Answer for Expected {
    fn answer(&mut self, body: &[u8], _: u64, seen: &mut Seen) -> Result<(), Fault> {
        let body: Body = read("answer", body)?;
        if let Some(error) = body.error {
            return Err(Fault::new(Class::ErrorEventIn200, error.to_string()));
        }
        let usage = body.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
        let meta = || body.meta.as_ref()?.tokens.as_ref()?.input_tokens;
        seen.input_tokens = usage.or_else(meta);
        let wrong = |text: String| Err(Fault::new(Class::VerifyMismatch, text));
        if body.results.is_empty() {
            return Err(Fault::new(Class::EmptyResponse, "the response has no results"));
        }
        if body.results.len() != self.results {
            return wrong(format!("{} results, expected {}", body.results.len(), self.results));
        }
        let mut known = vec![false; self.documents];
        for Ranked { index, relevance_score } in body.results {
            match known.get_mut(index) {
                Some(before) if !*before => *before = true,
                Some(_) => return wrong(format!("document {index} is ranked twice")),
                None => return wrong(format!("there is no document {index}")),
            }
            if !relevance_score.is_finite() {
                return wrong(format!("document {index} has the score {relevance_score}"));
            }
        }
        seen.items = u64::try_from(self.documents).ok();
        Ok(())
    }
}

/// Whether `data` is a good answer to a request with two texts.
pub(super) fn reads(data: &[u8]) -> bool {
    Expected { documents: 2, results: 2 }.answer(data, 0, &mut Seen::default()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let read = |body: &str| {
            let (mut expected, mut seen) = (Expected { documents: 3, results: 2 }, Seen::default());
            let result = expected.answer(body.as_bytes(), 0, &mut seen);
            assert_eq!(seen.items, result.is_ok().then_some(3));
            (result.map_err(|fault| fault.class), seen.input_tokens)
        };
        let results = |a: u32, b: u32| {
            format!(
                r#""results":[{{"index":{a},"relevance_score":0.9,"document":{{"text":"x"}}}},
                {{"index":{b},"relevance_score":-2}}]"#
            )
        };
        let vllm = format!(r#"{{{},"usage":{{"total_tokens":9}}}}"#, results(2, 0));
        assert_eq!(read(&vllm), (Ok(()), Some(9)));
        let cohere = format!(r#"{{{},"meta":{{"tokens":{{"input_tokens":5}}}}}}"#, results(0, 1));
        assert_eq!(read(&cohere), (Ok(()), Some(5)));
        for (body, class) in [
            (format!("{{{}}}", results(1, 1)), Class::VerifyMismatch),
            (format!("{{{}}}", results(1, 3)), Class::VerifyMismatch),
            (r#"{"results":[{"index":0,"relevance_score":1}]}"#.into(), Class::VerifyMismatch),
            (r#"{"results":[{"index":0}]}"#.into(), Class::Parse),
            (r#"{"results":[]}"#.into(), Class::EmptyResponse),
            (r#"{"error":{"message":"no"}}"#.into(), Class::ErrorEventIn200),
        ] {
            assert_eq!(read(&body).0, Err(class), "{body}");
        }
    }
}
