//! Ollama's own API: one JSON object a line.

use serde::Deserialize;

use super::{
    super::{
        fault::Fault,
        script::{Answer, DUE, SENT, Script, Template, Whole},
    },
    Lines, Request, Settings, Texts, vectors, words,
};

/// Constant timestamp: clients ignore it.
const CREATED: &str = "2025-01-01T00:00:00Z";

/// Size of the model that can be pulled, and the parts in which that is told.
const MODEL_BYTES: u64 = 4_000_000_000;
const PULL_PARTS: u64 = 8;

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    model: Option<String>,
    /// An older name of `model`.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    input: Option<Texts>,
    /// Streamed unless it says false.
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    options: Options,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: String,
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    num_predict: Option<i64>,
}

/// Answers everything under /api.
pub(super) fn answer(request: &Request<'_>, settings: &Settings<'_>) -> Option<Answer> {
    let plain = |value: serde_json::Value| Some(Answer::Plain(Whole::json(value.to_string(), 0)));
    let name = settings.model_name();
    match (request.method, request.path) {
        ("GET", "/api/version") => return plain(serde_json::json!({"version": "0.0.0-mock"})),
        ("GET", "/api/tags" | "/api/ps") => {
            let model = serde_json::json!({"name": name, "model": name, "size": MODEL_BYTES});
            let models = if settings.missing.get() { Vec::new() } else { vec![model] };
            return plain(serde_json::json!({"models": models}));
        }
        _ => {}
    }
    if !request.posts(&["/api/generate", "/api/chat", "/api/embed", "/api/pull"]) {
        return None;
    }
    let wanted: Wanted = match request.json() {
        Ok(wanted) => wanted,
        Err(wrong) => return Some(Answer::Plain(wrong)),
    };
    let model = wanted.model.as_deref().or(wanted.name.as_deref());
    if request.path == "/api/pull" {
        return Some(pull(model, &wanted, settings));
    }
    if settings.missing.get() || settings.lacks(model) {
        let model = model.unwrap_or_default();
        let text = serde_json::json!({"error": format!("model '{model}' not found")});
        return Some(Answer::Plain(Whole::status("404 Not Found", text.to_string(), 0)));
    }
    Some(match request.path {
        "/api/embed" => embed(model, &wanted, settings),
        path => generate(path == "/api/chat", model, &wanted, settings),
    })
}

/// Pulls the model, with progress.
fn pull(model: Option<&str>, wanted: &Wanted, settings: &Settings<'_>) -> Answer {
    let lines = Lines { ndjson: true, faults: settings.faults };
    if settings.lacks(model) {
        let error = r#"{"error":"pull model manifest: file does not exist"}"#;
        return Answer::Plain(Whole::json(error, 0));
    }
    settings.missing.set(false);
    if wanted.stream == Some(false) {
        return Answer::Plain(Whole::json(r#"{"status":"success"}"#, 0));
    }
    let mut script = Script {
        content_type: "application/x-ndjson",
        early: lines.event(r#"{"status":"pulling manifest"}"#).into_bytes(),
        closing: lines.event(r#"{"status":"success"}"#).into_bytes(),
        ..Script::default()
    };
    for part in 1..=PULL_PARTS {
        let completed = MODEL_BYTES / PULL_PARTS * part;
        let line = format!(
            r#"{{"status":"pulling 1234","digest":"sha256:1234","total":{MODEL_BYTES},"completed":{completed}}}"#
        );
        script.push(Template::new(lines.event(&line)), 1);
    }
    Answer::Aside(script)
}

fn embed(model: Option<&str>, wanted: &Wanted, settings: &Settings<'_>) -> Answer {
    let (count, tokens) = wanted.input.as_ref().map_or((0, 0), Texts::count);
    if count == 0 {
        // Without an input the model is only loaded.
        let body = serde_json::json!({"model": model, "embeddings": []});
        return Answer::Plain(Whole::json(body.to_string(), 0));
    }
    let body = serde_json::json!({
        "model": model,
        "embeddings": vectors(count, settings),
        "total_duration": 2_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": tokens,
    });
    Answer::Served(Whole::json(body.to_string(), 1))
}

/// One answer to a prompt or a chat.
struct Generation<'a> {
    chat: bool,
    settings: &'a Settings<'a>,
    lines: Lines,
    model: serde_json::Value,
    tokens: u64,
    input: u64,
}

fn generate(chat: bool, model: Option<&str>, wanted: &Wanted, settings: &Settings<'_>) -> Answer {
    let texts = wanted.messages.iter().map(|message| message.content.as_str());
    let input = texts.chain(wanted.prompt.as_deref()).map(words).sum();
    let asked = wanted.options.num_predict.and_then(|count| u64::try_from(count).ok());
    let mut generation = Generation {
        chat,
        settings,
        lines: Lines { ndjson: true, faults: settings.faults },
        model: serde_json::Value::from(model.unwrap_or("mock")),
        tokens: settings.tokens(asked),
        input,
    };
    let loads = wanted.messages.is_empty() && wanted.prompt.as_deref().unwrap_or("").is_empty();
    if loads {
        // Without a prompt the model is only loaded.
        generation.tokens = 0;
        return Answer::Plain(Whole::json(generation.last("load", ""), 0));
    }
    if wanted.stream == Some(false) {
        let text = settings.token().repeat(usize::try_from(generation.tokens).unwrap_or(0));
        let whole = generation.last("length", &generation.part(&text, false));
        let events = generation.tokens.div_ceil(settings.per_event());
        return Answer::Served(Whole::json(whole, events));
    }
    Answer::Stream(generation.script())
}

impl Generation<'_> {
    fn has(&self, fault: Fault) -> bool {
        self.settings.faults.has(fault)
    }

    /// A text as the member that carries it.
    fn part(&self, text: &str, thinking: bool) -> String {
        match (self.chat, thinking, self.has(Fault::Tools) && !text.is_empty()) {
            (false, true, _) => format!(r#""response":"","thinking":"{text}""#),
            (false, false, _) => format!(r#""response":"{text}""#),
            (true, true, _) => {
                format!(r#""message":{{"role":"assistant","content":"","thinking":"{text}"}}"#)
            }
            (true, false, true) => format!(
                r#""message":{{"role":"assistant","content":"","tool_calls":[{{"function":{{"name":"f","arguments":{{"a":"{text}"}}}}}}]}}"#
            ),
            (true, false, false) => {
                format!(r#""message":{{"role":"assistant","content":"{text}"}}"#)
            }
        }
    }

    fn object(&self, part: &str, more: &str) -> String {
        let model = &self.model;
        format!(r#"{{"model":{model},"created_at":"{CREATED}",{part},{more}}}"#)
    }

    /// The object that ends an answer.
    fn last(&self, reason: &str, part: &str) -> String {
        let (input, output) = (self.input, self.tokens);
        let empty = self.part("", false);
        let part = if part.is_empty() { &empty } else { part };
        let counts = if self.has(Fault::NoUsage) || reason == "load" {
            String::new()
        } else {
            format!(
                r#","total_duration":3000000,"load_duration":1000000,"prompt_eval_count":{input},"prompt_eval_duration":1000000,"eval_count":{output},"eval_duration":1000000"#
            )
        };
        self.object(part, &format!(r#""done":true,"done_reason":"{reason}"{counts}"#))
    }

    fn script(&self) -> Script {
        let per_event = self.settings.per_event();
        let (middle, ends_in_middle) = self.lines.middle(
            r#"{"error":"asked for"}"#,
            &self.object(&self.part("~", false), r#""done":false"#),
        );
        let closing = if self.has(Fault::NoDone) {
            String::new()
        } else {
            self.lines.event(&self.last("length", ""))
        };
        let mut script = Script {
            content_type: "application/x-ndjson",
            middle,
            ends_in_middle,
            closing: closing.into_bytes(),
            ..Script::default()
        };
        if let Some(fat) = self.lines.fat() {
            let more = format!(r#""done":false,"padding":"{fat}""#);
            let event = self.lines.event(&self.object(&self.part("", false), &more));
            script.opening = event.into_bytes();
        }
        let template = |tokens: u64, thinking: bool| {
            let text = self.settings.token().repeat(usize::try_from(tokens).unwrap_or(1));
            let more = format!(r#""done":false,"due_ns":{DUE},"sent_ns":{SENT}"#);
            let object = self.object(&self.part(&text, thinking), &more);
            Template::new(self.lines.event(&object))
        };
        let (whole, rest) = (self.tokens / per_event, self.tokens % per_event);
        let thoughts = if self.has(Fault::Reasoning) { whole.div_ceil(2) } else { 0 };
        script.push(template(per_event, true), thoughts);
        script.push(template(per_event, false), whole - thoughts);
        script.push(template(rest, false), u64::from(rest > 0));
        script
    }
}
