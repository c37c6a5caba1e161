//! OpenAI's completions and chat completions: llama-server, vLLM and others.

use std::rc::Rc;

use aifb_schema::recipe::Driver as Word;
use serde_json::Value;

use super::{
    alternative::Either,
    llm::{self, Asked},
    openai_answer::{Streamed, whole},
    protocol::Protocol,
};
use crate::{
    error::Fatal,
    fault::Fault,
    job::Job,
    plan::Ask,
    wire::{Reply, Request, Route, Wire},
    workload::Item,
};

/// The protocol.
pub(crate) struct OpenAi {
    chat: bool,
    stream: bool,
    route: Rc<Route>,
    asked: Asked,
    /// The body before the prompt.
    before: String,
    /// The body after the number of tokens; with and without the wish for exactly so many.
    after: String,
    after_exact: String,
}

impl Protocol for OpenAi {
    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let chat = load.driver == Word::OpenaiChat;
        let wanted = load.llm();
        let stream = wanted.stream.unwrap_or(true);
        let model = llm::json(&llm::model(job, wire).await);
        let key = if chat { "messages" } else { "prompt" };
        let (path, accept) = (
            if chat { "/chat/completions" } else { "/completions" },
            if stream { "text/event-stream" } else { "application/json" },
        );
        let mut defaults = vec![("temperature", Value::from(0))];
        if stream {
            defaults.push(("stream", Value::from(true)));
            defaults.push(("stream_options", serde_json::json!({"include_usage": true})));
        }
        if !wanted.tools.is_empty() {
            defaults.push(("tools", Value::from(wanted.tools.clone())));
        }
        let after = format!("{}}}", llm::members(&defaults, &wanted.extra));
        defaults.push(("ignore_eos", Value::from(true)));
        let after_exact = format!("{}}}", llm::members(&defaults, &wanted.extra));
        Ok(Self {
            chat,
            stream,
            route: Route::post(path).under("/v1").json().accept(accept).ready(),
            asked: Asked::new(job)?,
            before: format!(r#"{{"model":{model},"{key}":"#),
            after,
            after_exact,
        })
    }

    fn operation(&self, _: Ask) -> &'static str {
        if self.chat { "chat" } else { "completion" }
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        Ok(self.route.request(self.body(&self.asked.item(ask))))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        if self.stream { Either::A(Streamed::default()) } else { Either::B(whole()) }
    }
}

impl OpenAi {
    fn body(&self, item: &Item) -> String {
        let prompt = if self.chat { item.messages() } else { item.prompt() };
        let after = if item.exact { &self.after_exact } else { &self.after };
        let tokens = format!(r#","max_tokens":{}"#, item.output_tokens);
        [self.before.as_str(), &prompt, &tokens, after].concat()
    }
}
