//! Ollama's own API: generate, chat and embed. Answers are JSON objects, one a line; the last says
//! `done` and has the server's counts.

use std::{
    io::Write,
    rc::Rc,
    time::{Duration, Instant},
};

use aifb_schema::{
    recipe::{Driver as Word, Ollama as Wanted},
    units::Span,
};
use serde_json::{Map, Value};

use super::{
    alternative::Either,
    llm::{self, Asked},
    ollama_answer::{Embedded, Generated, Pulled, whole},
    protocol::Protocol,
};
use crate::{
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::Ask,
    wire::{Reply, Request, Route, Wire, events::Ndjson, reply::Answered},
};

/// The protocol.
pub(crate) struct Ollama {
    driver: Word,
    stream: bool,
    route: Rc<Route>,
    asked: Asked,
    before: String,
    /// The body after the number of tokens.
    after: String,
    vectors: usize,
}

impl Protocol for Ollama {
    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let wanted = load.llm().ollama.clone().unwrap_or_default();
        let model = llm::model(job, wire).await;
        if job.rank == 0 {
            let until = Instant::now() + wanted.deadline.get();
            let (model, wanted, driver) = (model.as_str(), &wanted, load.driver);
            let servers = (0..wire.targets()).map(|target| Server {
                wire,
                target,
                model,
                wanted,
                driver,
                until,
            });
            let ready = servers.map(|server| async move { server.make_ready().await });
            futures_util::future::try_join_all(ready).await?;
        }
        let stream = load.llm().stream.unwrap_or(true);
        let mut extra: Map<String, Value> = load.llm().extra.clone().into_iter().collect();
        let options = extra.remove("options");
        let mut defaults = vec![("stream", Value::from(stream))];
        defaults.extend(keep_alive(&wanted).map(|value| ("keep_alive", value)));
        if !load.llm().tools.is_empty() {
            defaults.push(("tools", Value::from(load.llm().tools.clone())));
        }
        let generates = load.driver.has_tokens();
        if !generates {
            defaults.retain(|(key, _)| *key != "stream");
        }
        let mut after = String::new();
        if generates {
            let own = options.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
            after.push_str(&llm::members(&[("temperature", Value::from(0))], &own));
            after.push('}');
        } else if let Some(options) = options {
            extra.insert("options".to_owned(), options);
        }
        after.push_str(&llm::members(&defaults, &extra));
        after.push('}');
        let (path, key) = match load.driver {
            Word::OllamaChat => ("/api/chat", "messages"),
            Word::OllamaEmbed => ("/api/embed", "input"),
            _ => ("/api/generate", "prompt"),
        };
        Ok(Self {
            driver: load.driver,
            stream,
            route: Route::post(path).json().ready(),
            asked: Asked::new(job)?,
            before: format!(r#"{{"model":{},"{key}":"#, llm::json(&model)),
            after,
            vectors: usize::try_from(llm::batch(load)).unwrap_or(usize::MAX),
        })
    }

    fn operation(&self, _: Ask) -> &'static str {
        match self.driver {
            Word::OllamaChat => "chat",
            Word::OllamaEmbed => "embedding",
            _ => "generate",
        }
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        let body = if self.driver == Word::OllamaEmbed {
            [self.before.as_str(), &self.asked.texts(ask), &self.after].concat()
        } else {
            let item = self.asked.item(ask);
            let chat = self.driver == Word::OllamaChat;
            let prompt = if chat { item.messages() } else { item.prompt() };
            let tokens = format!(r#","options":{{"num_predict":{}"#, item.output_tokens);
            [self.before.as_str(), &prompt, &tokens, &self.after].concat()
        };
        Ok(self.route.request(body))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        match (self.driver, self.stream) {
            (Word::OllamaEmbed, _) => {
                Either::B(Either::A(Answered::new(Embedded { vectors: self.vectors })))
            }
            (_, true) => Either::A(Generated::default()),
            (_, false) => Either::B(Either::B(whole())),
        }
    }
}

/// How long the model stays, as the API takes it: seconds.
fn keep_alive(wanted: &Wanted) -> Option<Value> {
    let text = wanted.keep_alive.as_deref()?;
    let seconds = text.parse::<i64>().ok();
    let span = || text.parse::<Span>().ok().map(|span| span.get().as_secs_f64());
    seconds.map(Value::from).or_else(|| span().map(Value::from))
}

/// One server before the start.
struct Server<'a> {
    wire: &'a Wire,
    target: usize,
    model: &'a str,
    wanted: &'a Wanted,
    driver: Word,
    /// When it has to be ready.
    until: Instant,
}

/// Longest wait for the list of models.
const LIST_MAX: Duration = Duration::from_secs(10);

impl Server<'_> {
    /// Pulls and loads the model, as far as that is wanted.
    async fn make_ready(&self) -> Result<(), Fatal> {
        if self.wanted.pull && !self.has_model().await {
            let body = serde_json::json!({"model": self.model, "stream": true}).to_string();
            let request = Route::post("/api/pull").json().ready().request(body);
            let pulled = Ndjson::new(Pulled::new(self.model));
            self.wire.ask(self.target, &request, pulled, self.left()).await.map_err(|fault| {
                self.failed(
                    "pulling",
                    &fault,
                    "check the name of the model and the server's access to its registry",
                )
            })?;
            say(&format!("model '{}' is pulled", self.model));
        }
        if !self.wanted.warm_up {
            return Ok(());
        }
        // Without a prompt the server only loads the model.
        let (path, key, empty) = match self.driver {
            Word::OllamaEmbed => ("/api/embed", "input", Value::Array(Vec::new())),
            Word::OllamaChat => ("/api/chat", "messages", Value::Array(Vec::new())),
            _ => ("/api/generate", "prompt", Value::from("")),
        };
        let mut body = serde_json::json!({"model": self.model, key: empty, "stream": false});
        if let (Some(value), Some(object)) = (keep_alive(self.wanted), body.as_object_mut()) {
            object.insert("keep_alive".to_owned(), value);
        }
        let request = Route::post(path).json().ready().request(body.to_string());
        let hint = "pull the model: llm: {ollama: {pull: true}} in the load, or --pull";
        match self.wire.json(self.target, &request, self.left()).await {
            Ok(answer) => match answer.get("error").filter(|error| !error.is_null()) {
                None => Ok(()),
                Some(error) => {
                    let fault = Fault::new(Class::ErrorEventIn200, error.to_string());
                    Err(self.failed("loading", &fault, hint))
                }
            },
            Err(fault) => Err(self.failed("loading", &fault, hint)),
        }
    }

    /// Time that is left.
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether the server has the model already; `latest` is the tag of a name without one.
    async fn has_model(&self) -> bool {
        let request = Route::get("/api/tags").accept("application/json").ready().request("");
        let Ok(answer) = self.wire.json(self.target, &request, LIST_MAX).await else {
            return false;
        };
        let models = answer.get("models").and_then(Value::as_array);
        let tagged = format!("{}:latest", self.model);
        models.into_iter().flatten().any(|model| {
            let name = model.get("name").and_then(Value::as_str).unwrap_or_default();
            name == self.model || name == tagged
        })
    }

    fn failed(&self, what: &str, fault: &Fault, hint: &str) -> Fatal {
        let reason = format!("{what} model '{}': {fault}", self.model);
        Fatal::service(reason).hint(hint)
    }
}

/// Prints progress before the start.
pub(super) fn say(line: &str) {
    // A closed standard error is no reason not to start.
    let _ignored = writeln!(std::io::stderr(), "aifb-loadgen: {line}");
}
