//! OpenAI's completions and chat completions.

use serde::Deserialize;

use super::{
    super::{
        fault::Fault,
        script::{Answer, DUE, SENT, Script, Template, Whole},
    },
    Lines, Request, Settings, words,
};

/// The parts of a request that matter.
#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    stream_options: Option<Options>,
    #[serde(default)]
    prompt: Option<super::Texts>,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct Message {
    /// A text, parts of several kinds, or null.
    #[serde(default)]
    content: serde_json::Value,
}

/// Answers completions, and says which model there is.
pub(super) fn answer(request: &Request<'_>, settings: &Settings<'_>) -> Option<Answer> {
    if request.method == "GET" && request.path == "/v1/models" {
        let id = settings.model_name();
        let model = serde_json::json!({"id": id, "object": "model", "owned_by": "aifb"});
        let list = serde_json::json!({"object": "list", "data": [model]});
        return Some(Answer::Plain(Whole::json(list.to_string(), 0)));
    }
    let chat = request.posts(&["/v1/chat/completions"]);
    if !chat && !request.posts(&["/v1/completions"]) {
        return None;
    }
    let wanted: Wanted = match request.json() {
        Ok(wanted) => wanted,
        Err(wrong) => return Some(Answer::Plain(wrong)),
    };
    if settings.lacks(wanted.model.as_deref()) {
        let text = r#"{"error":{"message":"no such model","type":"NotFoundError","code":404}}"#;
        return Some(Answer::Plain(Whole::status("404 Not Found", text, 0)));
    }
    let completion = Completion::new(chat, &wanted, settings);
    Some(if wanted.stream {
        Answer::Stream(completion.script())
    } else {
        Answer::Served(Whole::json(completion.whole(), completion.events()))
    })
}

/// One answer.
struct Completion<'a> {
    chat: bool,
    settings: &'a Settings<'a>,
    lines: Lines,
    tokens: u64,
    input: u64,
    usage: bool,
    /// What each event begins with.
    before: String,
}

impl<'a> Completion<'a> {
    fn new(chat: bool, wanted: &Wanted, settings: &'a Settings<'a>) -> Self {
        let texts = wanted.messages.iter().filter_map(|message| message.content.as_str());
        let input = texts.map(words).sum::<u64>()
            + wanted.prompt.as_ref().map_or(0, |prompt| prompt.count().1);
        let has = |fault| settings.faults.has(fault);
        let asked = wanted.stream_options.as_ref().is_some_and(|options| options.include_usage);
        let forced = has(Fault::UsageOnly) || has(Fault::UsageInFinish) || has(Fault::UsageInEach);
        let (id, object) = if chat {
            ("chatcmpl-1", "chat.completion.chunk")
        } else {
            ("cmpl-1", "text_completion")
        };
        let model = serde_json::Value::from(wanted.model.as_deref().unwrap_or("mock"));
        Self {
            chat,
            settings,
            lines: Lines { ndjson: false, faults: settings.faults },
            tokens: settings.tokens(wanted.max_completion_tokens.or(wanted.max_tokens)),
            input,
            usage: (asked || forced) && !has(Fault::NoUsage),
            before: format!(r#"{{"id":"{id}","object":"{object}","created":1,"model":{model}"#),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.settings.faults.has(fault)
    }

    /// Events that a stream has.
    fn events(&self) -> u64 {
        self.tokens.div_ceil(self.settings.per_event())
    }

    /// An event with one choice.
    fn choice(&self, part: &str, finish: &str, more: &str) -> String {
        let before = &self.before;
        self.lines.event(&format!(
            r#"{before},"choices":[{{"index":0,{part},"logprobs":null,"finish_reason":{finish}}}]{more}}}"#
        ))
    }

    fn usage(&self, output: u64) -> String {
        let (input, total) = (self.input, self.input + output);
        format!(
            r#","usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total}}}"#
        )
    }

    /// `count` tokens as a part of a choice.
    fn part(&self, count: u64, reasoning: bool) -> String {
        let text = self.settings.token().repeat(usize::try_from(count).unwrap_or(1));
        let (newer, tools) = (self.has(Fault::ReasoningNew), self.has(Fault::Tools));
        match (self.chat, reasoning, newer, tools) {
            (false, ..) => format!(r#""text":"{text}""#),
            (true, true, true, _) => format!(r#""delta":{{"reasoning":"{text}"}}"#),
            (true, true, false, _) => format!(r#""delta":{{"reasoning_content":"{text}"}}"#),
            (true, false, _, true) => format!(
                r#""delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":"{text}"}}}}]}}"#
            ),
            (true, false, _, false) => format!(r#""delta":{{"content":"{text}"}}"#),
        }
    }

    fn script(&self) -> Script {
        let per_event = self.settings.per_event();
        let error = r#"{"error":{"message":"asked for","type":"Internal","code":500}}"#;
        let part = if self.chat { r#""delta":{"content":"~"}"# } else { r#""text":"~""# };
        let content = format!(r#"{{"choices":[{{"index":0,{part}}}]}}"#);
        let (middle, ends_in_middle) = self.lines.middle(error, &content);
        let mut script = Script {
            content_type: "text/event-stream; charset=utf-8",
            opening: self.lines.start().into_bytes(),
            middle,
            ends_in_middle,
            closing: self.closing().into_bytes(),
            ..Script::default()
        };
        if self.chat {
            self.open_chat(&mut script);
        }
        if let Some(fat) = self.lines.fat() {
            let part = if self.chat { r#""delta":{}"# } else { r#""text":"""# };
            let event = self.choice(part, "null", &format!(r#","padding":"{fat}""#));
            script.opening.extend(event.into_bytes());
        }
        self.content(per_event, &mut script);
        script
    }

    /// The role, which comes with the first content or long before it.
    fn open_chat(&self, script: &mut Script) {
        let delta = if self.has(Fault::NullFirst) {
            r#""delta":{"role":"assistant","content":null,"reasoning_content":null,"tool_calls":null}"#
        } else if self.has(Fault::Tools) {
            r#""delta":{"role":"assistant","content":null,"tool_calls":[]}"#
        } else {
            r#""delta":{"role":"assistant","content":""}"#
        };
        let more = if self.has(Fault::NullFirst) { r#","usage":null"# } else { "" };
        let role = self.choice(delta, "null", more).into_bytes();
        if self.has(Fault::RoleFirst) || self.has(Fault::NullFirst) {
            script.early = std::mem::take(&mut script.opening);
            script.early.extend(role);
        } else {
            script.opening.extend(role);
        }
    }

    fn content(&self, per_event: u64, script: &mut Script) {
        let template = |tokens: u64, reasoning: bool, so_far: u64| {
            let usage =
                if self.has(Fault::UsageInEach) { self.usage(so_far) } else { String::new() };
            let more = format!(r#","due_ns":{DUE},"sent_ns":{SENT}{usage}"#);
            Template::new(self.choice(&self.part(tokens, reasoning), "null", &more))
        };
        let (whole, rest) = (self.tokens / per_event, self.tokens % per_event);
        let thinks = self.has(Fault::Reasoning) || self.has(Fault::ReasoningNew);
        let thoughts = if thinks { whole.div_ceil(2) } else { 0 };
        if self.has(Fault::UsageInEach) {
            for event in 0..whole {
                let so_far = (event + 1) * per_event;
                script.push(template(per_event, event < thoughts, so_far), 1);
            }
        } else {
            script.push(template(per_event, true, 0), thoughts);
            script.push(template(per_event, false, 0), whole - thoughts);
        }
        script.push(template(rest, false, self.tokens), u64::from(rest > 0));
    }

    /// What comes after the last content.
    fn closing(&self) -> String {
        let mut text = String::new();
        let in_finish = self.usage && self.has(Fault::UsageInFinish);
        if !self.has(Fault::NoDone) {
            let part = if self.chat { r#""delta":{}"# } else { r#""text":"""# };
            let usage = if in_finish { self.usage(self.tokens) } else { String::new() };
            text.push_str(&self.choice(part, r#""length""#, &usage));
        }
        if self.usage && !in_finish {
            let usage = self.usage(self.tokens);
            let before = &self.before;
            text.push_str(&self.lines.event(&format!(r#"{before},"choices":[]{usage}}}"#)));
        }
        if !self.has(Fault::NoDone) {
            text.push_str(&self.lines.event("[DONE]"));
        }
        text
    }

    /// The whole answer, when it is not streamed.
    fn whole(&self) -> String {
        let text = self.settings.token().repeat(usize::try_from(self.tokens).unwrap_or(0));
        let (part, object) = match (self.chat, self.has(Fault::Tools) && self.tokens > 0) {
            (false, _) => (format!(r#""text":"{text}""#), "text_completion"),
            (true, true) => (
                format!(
                    r#""message":{{"role":"assistant","content":null,"tool_calls":[{{"id":"call_1","type":"function","function":{{"name":"f","arguments":"{text}"}}}}]}}"#
                ),
                "chat.completion",
            ),
            (true, false) => (
                format!(r#""message":{{"role":"assistant","content":"{text}"}}"#),
                "chat.completion",
            ),
        };
        let usage = if self.has(Fault::NoUsage) { String::new() } else { self.usage(self.tokens) };
        format!(
            r#"{{"id":"1","object":"{object}","created":1,"model":"mock","choices":[{{"index":0,{part},"finish_reason":"length"}}]{usage}}}"#
        )
    }
}
