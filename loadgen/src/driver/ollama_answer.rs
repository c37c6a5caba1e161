//! Answers of Ollama's own API.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{
    error_text::Said,
    llm::{Filled, or_default, read},
    ollama::say,
    vectors::{self, Length},
};
use crate::{
    fault::{Class, Fault},
    record::row::{Seen, TokenSource},
    wire::{
        Head, Reply,
        events::{Events, Ndjson},
        reply::{Answer, Answered},
    },
};

/// A streamed answer to a prompt or a chat.
#[derive(Debug, Default)]
pub(crate) struct Generated(Ndjson<Stream>);

impl Reply for Generated {
    fn head(&mut self, head: &Head<'_>, _: &mut Seen) -> Result<(), Fault> {
        if head.is("application/x-ndjson") || head.is("application/json") {
            return Ok(());
        }
        let kind = head.content_type().unwrap_or_default();
        Err(Fault::new(
            Class::Parse,
            format!("the response is '{kind}', expected application/x-ndjson"),
        ))
    }

    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        self.0.body(bytes, at_ns, seen)
    }

    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        self.0.end(at_ns, seen)
    }
}

/// An answer that is not streamed: nothing is known about its parts.
pub(super) fn whole() -> Answered<impl Answer> {
    Answered::new(|body: &[u8], _: u64, seen: &mut Seen| {
        let line: Line = read("answer", body)?;
        line.fault()?;
        line.note(seen);
        if !line.done {
            return Err(Fault::new(Class::TruncatedStream, "the response has no done"));
        }
        if !line.has_content() && line.eval_count.unwrap_or(0) == 0 {
            return Err(Fault::new(Class::EmptyResponse, "the response has no content"));
        }
        Ok(())
    })
}

/// The lines of an answer while they come in.
#[derive(Debug, Default)]
struct Stream {
    /// The last line was seen.
    done: bool,
}

impl Events for Stream {
    fn event(&mut self, data: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let line: Line = read("line", data)?;
        line.fault()?;
        seen.event(at_ns);
        if line.has_output() {
            seen.first_output_ns.get_or_insert(at_ns);
        }
        if line.has_content() {
            seen.content(at_ns);
        }
        if line.done {
            self.done = true;
            seen.done_ns = Some(at_ns);
            line.note(seen);
        }
        Ok(())
    }

    fn end(&mut self, _: u64, seen: &mut Seen) -> Result<(), Fault> {
        let events = u64::from(seen.content_events);
        let counted = seen.output_tokens.unwrap_or(0);
        if seen.output_tokens.is_none() {
            (seen.output_tokens, seen.token_source) = (Some(events), Some(TokenSource::Chunks));
        }
        if !self.done {
            return Err(Fault::new(
                Class::TruncatedStream,
                format!("the stream ended after {events} content lines without done"),
            ));
        }
        if events == 0 && counted == 0 {
            return Err(Fault::new(Class::EmptyResponse, "the response has no content"));
        }
        Ok(())
    }
}

/// The parts of a line that matter.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    response: Filled,
    #[serde(default)]
    thinking: Filled,
    #[serde(default, deserialize_with = "or_default")]
    message: Message,
    #[serde(default, deserialize_with = "or_default")]
    done: bool,
    #[serde(default)]
    eval_count: Option<u64>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
    #[serde(default)]
    error: Option<Said>,
}

#[derive(Default, Deserialize)]
struct Message {
    #[serde(default)]
    content: Filled,
    #[serde(default)]
    thinking: Filled,
    #[serde(default)]
    tool_calls: Filled,
}

impl Line {
    fn fault(&self) -> Result<(), Fault> {
        match &self.error {
            None => Ok(()),
            Some(error) => Err(Fault::new(Class::ErrorEventIn200, error.to_string())),
        }
    }

    /// Whether it has output for the user: text or a tool call.
    fn has_output(&self) -> bool {
        self.response.0 || self.message.content.0 || self.message.tool_calls.0
    }

    /// Whether it has anything that was generated: output, or the thinking before it.
    fn has_content(&self) -> bool {
        self.has_output() || self.thinking.0 || self.message.thinking.0
    }

    /// Notes the server's counts.
    fn note(&self, seen: &mut Seen) {
        seen.output_tokens = self.eval_count;
        seen.token_source = self.eval_count.map(|_| TokenSource::Usage);
        seen.input_tokens = self.prompt_eval_count;
    }
}

/// The answer to an embedding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Embedded {
    pub(super) vectors: usize,
}

#[derive(Deserialize)]
struct Embeddings {
    #[serde(default, deserialize_with = "or_default")]
    embeddings: Vec<Length>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
    #[serde(default)]
    error: Option<Said>,
}

impl Answer for Embedded {
    fn answer(&mut self, body: &[u8], _: u64, seen: &mut Seen) -> Result<(), Fault> {
        let body: Embeddings = read("answer", body)?;
        if let Some(error) = body.error {
            return Err(Fault::new(Class::ErrorEventIn200, error.to_string()));
        }
        seen.input_tokens = body.prompt_eval_count;
        vectors::check(&body.embeddings, self.vectors, None)?;
        seen.items = u64::try_from(body.embeddings.len()).ok();
        Ok(())
    }
}

/// Time between two lines about the progress of a pull.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What the server says while it pulls a model.
#[derive(Debug)]
pub(super) struct Pulled {
    model: String,
    success: bool,
    said: Option<Instant>,
}

#[derive(Deserialize)]
struct Progress {
    #[serde(default)]
    status: String,
    #[serde(default)]
    total: Option<u64>,
    #[serde(default)]
    completed: Option<u64>,
    #[serde(default)]
    error: Option<Said>,
}

impl Pulled {
    pub(super) fn new(model: &str) -> Self {
        Self { model: model.to_owned(), success: false, said: None }
    }
}

impl Events for Pulled {
    fn event(&mut self, data: &[u8], _: u64, _: &mut Seen) -> Result<(), Fault> {
        let progress: Progress = read("line", data)?;
        if let Some(error) = progress.error {
            return Err(Fault::new(Class::ErrorEventIn200, error.to_string()));
        }
        self.success |= progress.status == "success";
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            let mib = |bytes: u64| bytes / 1024 / 1024;
            let part = match (progress.completed, progress.total) {
                (Some(completed), Some(total)) => {
                    format!(", {} of {} MiB", mib(completed), mib(total))
                }
                _ => String::new(),
            };
            say(&format!("pulling model '{}': {}{part}", self.model, progress.status));
        }
        Ok(())
    }

    fn end(&mut self, _: u64, _: &mut Seen) -> Result<(), Fault> {
        if self.success {
            return Ok(());
        }
        Err(Fault::new(Class::TruncatedStream, "the server did not report success"))
    }
}

/// Whether `data` is a good answer to a request with two texts.
pub(super) fn reads(data: &[u8]) -> bool {
    Embedded { vectors: 2 }.answer(data, 0, &mut Seen::default()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a stream whole, then split in two at every byte; gives what was seen.
    fn read_all(stream: &str) -> (Result<(), Class>, Seen) {
        let parse = |pieces: &[&[u8]]| {
            let (mut reply, mut seen) = (Generated::default(), Seen::default());
            let mut result = Ok(());
            for piece in pieces {
                result = result.and_then(|()| reply.body(piece, 5, &mut seen));
            }
            let result = result.and_then(|()| reply.end(5, &mut seen));
            (result.map_err(|fault| fault.class), seen)
        };
        let whole = parse(&[stream.as_bytes()]);
        for at in 0..stream.len() {
            let (a, b) = stream.as_bytes().split_at(at);
            assert_eq!(parse(&[a, b]), whole, "split at {at}");
        }
        whole
    }

    #[test]
    fn lines_are_understood() {
        let generate = concat!(
            "{\"model\":\"m\",\"response\":\"a\",\"done\":false}\n",
            "{\"model\":\"m\",\"response\":\"\",\"done\":false}\r\n\n",
            "{\"model\":\"m\",\"response\":\" ü\",\"done\":false}\n",
            "{\"model\":\"m\",\"response\":\"\",\"done\":true,\"done_reason\":\"stop\",",
            "\"context\":[1,2],\"eval_count\":2,\"prompt_eval_count\":7,\"eval_duration\":9}\n"
        );
        let (result, seen) = read_all(generate);
        assert_eq!(result, Ok(()));
        assert_eq!(
            (seen.content_events, seen.output_tokens, seen.input_tokens),
            (2, Some(2), Some(7))
        );
        assert_eq!((seen.token_source, seen.done_ns), (Some(TokenSource::Usage), Some(5)));
        assert_eq!(seen.first_choice_ns, None);
        let chat = concat!(
            "{\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n",
            "{\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{}}]}}\n",
            "{\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"eval_count\":9}"
        );
        let (result, seen) = read_all(chat);
        assert_eq!((result, seen.content_events, seen.output_tokens), (Ok(()), 2, Some(9)));
        assert_eq!(seen.input_tokens, None, "absent where the prompt was in the cache");
    }

    #[test]
    fn thinking_is_content_but_no_output() {
        let (mut stream, mut seen) = (Stream::default(), Seen::default());
        for (at, line) in [
            (1, r#"{"response":"","thinking":"hm","done":false}"#),
            (2, r#"{"response":"x","done":false}"#),
            (3, r#"{"response":"","done":true}"#),
        ] {
            stream.event(line.as_bytes(), at, &mut seen).unwrap();
        }
        stream.end(3, &mut seen).unwrap();
        assert_eq!((seen.first_content_ns, seen.first_output_ns), (Some(1), Some(2)));
        assert_eq!((seen.output_tokens, seen.token_source), (Some(2), Some(TokenSource::Chunks)));
    }

    #[test]
    fn faults_have_their_class() {
        let token = "{\"response\":\"a\",\"done\":false}\n";
        for (stream, class) in [
            (token.to_owned(), Class::TruncatedStream),
            (String::new(), Class::TruncatedStream),
            (format!("{token}{{\"error\":\"out of memory\"}}\n"), Class::ErrorEventIn200),
            (format!("{token}{{broken\n"), Class::Parse),
            ("{\"response\":\"\",\"done\":true,\"eval_count\":0}\n".into(), Class::EmptyResponse),
            ("{\"response\":3}\n".into(), Class::Parse),
            ("<html>\n".into(), Class::Parse),
        ] {
            assert_eq!(read_all(&stream).0, Err(class), "{stream}");
        }
    }

    #[test]
    fn answers_that_are_not_streamed_have_counts_alone() {
        let read = |body: &str| {
            let (mut reply, mut seen) = (whole(), Seen::default());
            reply.body(body.as_bytes(), 3, &mut seen).unwrap();
            let result = reply.end(4, &mut seen).map_err(|fault| fault.class);
            (result, seen.output_tokens, seen.first_content_ns)
        };
        let body = r#"{"response":"a b","done":true,"eval_count":2}"#;
        assert_eq!(read(body), (Ok(()), Some(2), None));
        assert_eq!(read(r#"{"response":"a"}"#).0, Err(Class::TruncatedStream));
        assert_eq!(read(r#"{"error":"no"}"#).0, Err(Class::ErrorEventIn200));
        assert_eq!(read(r#"{"response":"","done":true}"#).0, Err(Class::EmptyResponse));
    }

    #[test]
    fn a_pull_has_to_end_well() {
        let read = |lines: &str| {
            let mut reply = Ndjson::new(Pulled::new("m"));
            let mut seen = Seen::default();
            let result = reply.body(lines.as_bytes(), 1, &mut seen);
            result.and_then(|()| reply.end(1, &mut seen)).map_err(|fault| fault.class)
        };
        let start = "{\"status\":\"pulling manifest\"}\n{\"status\":\"pulling\",\"total\":9,\"completed\":3}\n";
        assert_eq!(read(&format!("{start}{{\"status\":\"success\"}}\n")), Ok(()));
        assert_eq!(read(start), Err(Class::TruncatedStream));
        let refused = format!("{start}{{\"error\":\"no such model\"}}\n");
        assert_eq!(read(&refused), Err(Class::ErrorEventIn200));
    }
}
