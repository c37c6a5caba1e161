//! Answers of OpenAI's completions and chat completions.
//!
//! Content is non-empty text, reasoning or a tool call: the role event that opens a chat, empty
//! deltas and the usage event are not. The number of tokens is the server's (`usage`, or
//! llama.cpp's `timings`); without one it is the number of content events and says so.

use serde::Deserialize;

use super::{
    error_text::Said,
    llm::{Filled, few, or_default, read},
    openai_quick,
};
use crate::{
    fault::{Class, Fault},
    record::row::{Seen, TokenSource},
    wire::{
        events::{Events, Sse, no_stream},
        reply::Answered,
    },
};

/// A streamed answer.
pub(crate) type Streamed = Sse<Stream>;

/// An answer that is not streamed: nothing is known about its parts.
pub(super) fn whole() -> Answered<impl crate::wire::reply::Answer> {
    Answered::new(|body: &[u8], _: u64, seen: &mut Seen| {
        let event: Event = read("answer", body)?;
        if let Some(fault) = event.fault() {
            return Err(fault);
        }
        let filled = event.choices.iter().any(Choice::has_content);
        let finished = event.choices.iter().any(|choice| choice.finish_reason.0);
        let counts = Counts { usage: event.usage, timings: event.timings };
        counts.note(seen);
        if !filled && counts.output().unwrap_or(0) == 0 {
            let class = if finished || !event.choices.is_empty() {
                Class::EmptyResponse
            } else {
                // No choices at all: this is not a completion.
                Class::Parse
            };
            return Err(Fault::new(class, "the response has no content"));
        }
        Ok(())
    })
}

/// What a server counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    usage: Option<Usage>,
    timings: Option<Timings>,
}

impl Counts {
    fn output(self) -> Option<u64> {
        let usage = self.usage.and_then(|usage| usage.completion_tokens);
        usage.or_else(|| self.timings.and_then(|timings| timings.predicted_n))
    }

    /// Notes the counts, as far as there are any.
    fn note(self, seen: &mut Seen) {
        seen.output_tokens = self.output();
        seen.token_source = self.output().map(|_| TokenSource::Usage);
        let usage = self.usage.and_then(|usage| usage.prompt_tokens);
        seen.input_tokens = usage.or_else(|| self.timings.and_then(Timings::input));
        let cached = self.usage.and_then(|usage| usage.prompt_tokens_details?.cached_tokens);
        seen.cached_tokens = cached.or_else(|| self.timings.and_then(|timings| timings.cache_n));
    }
}

/// A streamed answer while it comes in.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// `[DONE]` was seen.
    done: bool,
    /// A choice has a finish reason.
    finished: bool,
    counts: Counts,
}

impl Events for Stream {
    fn event(&mut self, data: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            seen.done_ns = Some(at_ns);
            return Ok(());
        }
        if let Some(quick) = openai_quick::look(data) {
            seen.event(at_ns);
            seen.choice(at_ns);
            if quick.output {
                seen.first_output_ns.get_or_insert(at_ns);
            }
            if quick.output || quick.reasoning {
                seen.content(at_ns);
                seen.received(at_ns, quick.sent_ns);
            }
            return Ok(());
        }
        let event: Event = read("event", data)?;
        if let Some(fault) = event.fault() {
            return Err(fault);
        }
        seen.event(at_ns);
        if !event.choices.is_empty() {
            seen.choice(at_ns);
        }
        if event.choices.iter().any(Choice::has_output) {
            seen.first_output_ns.get_or_insert(at_ns);
        }
        if event.choices.iter().any(Choice::has_content) {
            seen.content(at_ns);
            seen.received(at_ns, event.sent_ns);
            if seen.content_events == 1 {
                // Servers that count event by event (vLLM's continuous_usage_stats).
                seen.first_chunk_tokens = event.usage.and_then(|usage| usage.completion_tokens);
            }
        }
        self.finished |= event.choices.iter().any(|choice| choice.finish_reason.0);
        self.counts.usage = event.usage.or(self.counts.usage);
        self.counts.timings = event.timings.or(self.counts.timings);
        Ok(())
    }

    fn end(&mut self, _: u64, seen: &mut Seen) -> Result<(), Fault> {
        let events = u64::from(seen.content_events);
        self.counts.note(seen);
        if seen.output_tokens.is_none() {
            (seen.output_tokens, seen.token_source) = (Some(events), Some(TokenSource::Chunks));
        }
        if !self.done && !self.finished {
            return Err(Fault::new(
                Class::TruncatedStream,
                format!("the stream ended after {events} content events without [DONE]"),
            ));
        }
        // Tokens may have no text of their own (a part of a character, say): where the server
        // says that it made some, the answer is whole, and its time to first token is absent.
        if events == 0 && self.counts.output().unwrap_or(0) == 0 {
            return Err(Fault::new(Class::EmptyResponse, "the response has no content"));
        }
        Ok(())
    }

    fn instead(&self, body: &[u8]) -> Fault {
        let said = read("answer", body).map(|event: Event| event.fault());
        said.map_or_else(|fault| fault, |error| error.unwrap_or_else(no_stream))
    }
}

/// The parts of an event, or of a whole answer, that matter; anything else is skipped without
/// being kept.
#[derive(Deserialize)]
struct Event {
    #[serde(default, deserialize_with = "few")]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    timings: Option<Timings>,
    #[serde(default)]
    error: Option<Said>,
    /// When it was sent, from a server of ours.
    #[serde(default)]
    sent_ns: Option<u64>,
}

impl Event {
    /// The error that it is.
    fn fault(&self) -> Option<Fault> {
        let error = self.error.as_ref()?;
        Some(Fault::new(Class::ErrorEventIn200, error.to_string()))
    }
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: Filled,
    #[serde(default, deserialize_with = "or_default")]
    delta: Delta,
    /// In place of `delta` where the answer is not streamed.
    #[serde(default, deserialize_with = "or_default")]
    message: Delta,
    #[serde(default)]
    finish_reason: Filled,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Filled,
    /// As DeepSeek, vLLM and llama.cpp name it.
    #[serde(default)]
    reasoning_content: Filled,
    /// As newer vLLM and OpenRouter name it.
    #[serde(default)]
    reasoning: Filled,
    #[serde(default)]
    tool_calls: Filled,
}

impl Choice {
    /// Whether it has output for the user: text or a tool call.
    fn has_output(&self) -> bool {
        let parts = [&self.delta, &self.message];
        self.text.0 || parts.iter().any(|part| part.content.0 || part.tool_calls.0)
    }

    /// Whether it has anything that was generated: output, or the reasoning before it.
    fn has_content(&self) -> bool {
        let parts = [&self.delta, &self.message];
        self.has_output() || parts.iter().any(|part| part.reasoning_content.0 || part.reasoning.0)
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Timings {
    #[serde(default)]
    prompt_n: Option<u64>,
    #[serde(default)]
    predicted_n: Option<u64>,
    /// llama.cpp: input tokens that were in the cache, not in `prompt_n`.
    #[serde(default)]
    cache_n: Option<u64>,
}

impl Timings {
    /// All input tokens: those that were read, and those that were in the cache.
    fn input(self) -> Option<u64> {
        Some(self.prompt_n?.saturating_add(self.cache_n.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Head, Reply};

    /// Feeds a stream whole, then split in two at every byte; gives what was seen (equal in all).
    fn read(stream: &str) -> (Result<(), Class>, Seen) {
        let parse = |pieces: &[&[u8]]| {
            let (mut reply, mut seen) = (Sse::new(Stream::default()), Seen::default());
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

    fn tokens(stream: &str) -> (u32, Option<u64>, Option<TokenSource>) {
        let (result, seen) = read(stream);
        assert_eq!(result, Ok(()), "{stream}");
        (seen.content_events, seen.output_tokens, seen.token_source)
    }

    #[test]
    fn only_content_counts() {
        // llama-server: role event, two tokens, a finishing event with timings, usage apart.
        let chat = concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"H\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"é\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":9},",
            "\"timings\":{\"predicted_n\":2,\"prompt_n\":1}}\n\ndata: [DONE]\n\n"
        );
        assert_eq!(tokens(chat), (2, Some(2), Some(TokenSource::Usage)));
        assert_eq!(read(chat).1.input_tokens, Some(9));
        // Completions with usage in the finishing event and CRLF; several tokens in one event.
        let completion = concat!(
            "data: {\"choices\":[{\"text\":\"a b c\"}]}\r\n\r\n: ping\r\n\r\n",
            "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}],",
            "\"usage\":{\"completion_tokens\":3}}\r\n\r\ndata: [DONE]\r\n\r\n"
        );
        assert_eq!(tokens(completion), (1, Some(3), Some(TokenSource::Usage)));
    }

    #[test]
    fn reasoning_and_tool_calls_are_content() {
        for delta in [
            r#"{"reasoning_content":"x"}"#,
            r#"{"reasoning":"x"}"#,
            r#"{"tool_calls":[{"index":0}]}"#,
            r#"{"content":"x","tool_calls":null}"#,
        ] {
            let stream =
                format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\ndata: [DONE]\n\n");
            assert_eq!(tokens(&stream), (1, Some(1), Some(TokenSource::Chunks)), "{delta}");
        }
        for delta in ["{}", "null", r#"{"content":""}"#, r#"{"tool_calls":[]}"#] {
            let stream =
                format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\ndata: [DONE]\n\n");
            assert_eq!(read(&stream).0, Err(Class::EmptyResponse), "{delta}");
        }
    }

    #[test]
    fn stamps_tell_events_apart() {
        let mut seen = Seen::default();
        let mut reply = Sse::new(Stream::default());
        for (at, event) in [
            (1, r#"{"choices":[{"delta":{"role":"assistant"}}]}"#),
            (2, r#"{"choices":[{"delta":{"reasoning":"hm"}}],"usage":{"completion_tokens":2}}"#),
            (3, r#"{"choices":[{"delta":{"content":"x"}}],"usage":{"completion_tokens":3}}"#),
            (4, r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#),
            (5, r#"{"choices":[],"usage":{"completion_tokens":3}}"#),
            (6, "[DONE]"),
        ] {
            reply.body(format!("data: {event}\n\n").as_bytes(), at, &mut seen).unwrap();
        }
        reply.end(7, &mut seen).unwrap();
        assert_eq!((seen.first_event_ns, seen.last_event_ns), (Some(1), Some(5)));
        assert_eq!((seen.first_choice_ns, seen.last_choice_ns), (Some(1), Some(4)));
        assert_eq!((seen.first_content_ns, seen.last_content_ns), (Some(2), Some(3)));
        assert_eq!((seen.first_output_ns, seen.done_ns), (Some(3), Some(6)));
        assert_eq!((seen.first_chunk_tokens, seen.output_tokens), (Some(2), Some(3)));
    }

    #[test]
    fn tokens_without_text_are_an_answer() {
        let stream = "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}],\
            \"usage\":{\"completion_tokens\":8}}\n\ndata: [DONE]\n\n";
        assert_eq!(tokens(stream), (0, Some(8), Some(TokenSource::Usage)));
        assert_eq!(read(stream).1.first_content_ns, None);
        assert_eq!(read(&stream.replace('8', "0")).0, Err(Class::EmptyResponse));
    }

    #[test]
    fn cached_input_is_told() {
        let usage = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[],\"usage\":\
            {\"prompt_tokens\":9,\"completion_tokens\":1,\"prompt_tokens_details\":\
            {\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";
        let seen = read(usage).1;
        assert_eq!((seen.input_tokens, seen.cached_tokens), (Some(9), Some(4)));
        let nothing = usage.replace("{\"cached_tokens\":4}", "null");
        assert_eq!(read(&nothing).1.cached_tokens, None);
        let timings = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}],\
            \"timings\":{\"predicted_n\":7,\"prompt_n\":3,\"cache_n\":5}}\n\n";
        let seen = read(timings).1;
        assert_eq!((seen.input_tokens, seen.cached_tokens), (Some(8), Some(5)));
    }

    #[test]
    fn timings_count_where_usage_is_missing() {
        let stream = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}],\
            \"timings\":{\"predicted_n\":7,\"prompt_n\":3}}\n\n";
        assert_eq!(tokens(stream), (1, Some(7), Some(TokenSource::Usage)));
    }

    #[test]
    fn faults_have_their_class() {
        let token = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
        for (stream, class) in [
            (token.to_owned(), Class::TruncatedStream),
            (String::new(), Class::TruncatedStream),
            (
                format!("{token}data: {{\"error\":{{\"message\":\"no\"}}}}\n\n"),
                Class::ErrorEventIn200,
            ),
            (format!("{token}data: {{broken\n\n"), Class::Parse),
            (format!("{token}data: {{\"choices\":3}}\n\n"), Class::Parse),
            ("data: [DONE]\n\n".to_owned(), Class::EmptyResponse),
        ] {
            assert_eq!(read(&stream).0, Err(class), "{stream}");
        }
        let (mut reply, mut seen) = (Sse::new(Stream::default()), Seen::default());
        let result = reply.body(b"data: {\"choices\":[{\"text\":\"\xff\"}]}\n\n", 0, &mut seen);
        assert_eq!(result.unwrap_err().class, Class::Parse, "bytes that are no UTF-8");
    }

    #[test]
    fn answers_that_are_not_streamed_have_counts_alone() {
        let read = |body: &str| {
            let (mut reply, mut seen) = (whole(), Seen::default());
            reply.body(body.as_bytes(), 3, &mut seen).unwrap();
            let result = reply.end(4, &mut seen).map_err(|fault| fault.class);
            (result, seen.output_tokens, seen.input_tokens, seen.first_content_ns)
        };
        let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":2}"#;
        for choice in [
            r#""text":"a b""#,
            r#""message":{"role":"assistant","content":"a b"}"#,
            r#""message":{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}"#,
            r#""message":{"role":"assistant","content":"","reasoning_content":"hm"}"#,
        ] {
            let body = format!(r#"{{"choices":[{{{choice},"finish_reason":"stop"}}],{usage}}}"#);
            assert_eq!(read(&body), (Ok(()), Some(2), Some(3), None), "{choice}");
        }
        assert_eq!(read(r#"{"choices":[{"text":"a"}]}"#), (Ok(()), None, None, None));
        for (body, class) in [
            (r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#, Class::EmptyResponse),
            (r#"{"error":{"message":"no"}}"#, Class::ErrorEventIn200),
            ("{}", Class::Parse),
            ("[1]", Class::Parse),
            ("", Class::Parse),
        ] {
            assert_eq!(read(body).0, Err(class), "{body}");
        }
    }

    #[test]
    fn a_json_text_in_place_of_a_stream_is_heard() {
        let list = [httparse::Header { name: "content-type", value: b"application/json" }];
        let head = Head { status: 200, fields: crate::wire::Fields::List(&list) };
        for (body, class, text) in [
            (r#"{"error":{"message":"overloaded"}}"#, Class::ErrorEventIn200, "overloaded"),
            (r#"{"choices":[{"text":"a"}]}"#, Class::Parse, "expected a stream"),
            ("<html>", Class::Parse, "<html>"),
        ] {
            let (mut reply, mut seen) = (Streamed::default(), Seen::default());
            reply.head(&head, &mut seen).unwrap();
            reply.body(body.as_bytes(), 1, &mut seen).unwrap();
            let fault = reply.end(2, &mut seen).unwrap_err();
            assert!(fault.class == class && fault.message.contains(text), "{fault}");
        }
    }

    /// Event by event, the quick look and the full parser see the same.
    #[test]
    fn the_quick_look_sees_what_the_full_parser_sees() {
        let texts = ["\"a\"", "\"\"", "null", "\"gr\u{fc}\u{df}e\"", "\"\\n\"", "3"];
        let rests = ["", ",\"usage\":null", ",\"x\":[1,2.5,{\"y\":\"z\"}]", ",\"x\":01"];
        let mut looked = 0;
        for key in ["content", "reasoning", "reasoning_content", "role", "tool_calls"] {
            for text in texts {
                for rest in rests {
                    for event in [
                        format!("{{\"choices\":[{{\"delta\":{{\"{key}\":{text}}}}}]{rest}}}"),
                        format!("{{\"choices\":[{{\"{key}\":1,\"text\":{text}}}]{rest}}}"),
                    ] {
                        let Some(quick) = openai_quick::look(event.as_bytes()) else { continue };
                        looked += 1;
                        let full: Event = super::read("event", event.as_bytes()).unwrap();
                        let output = full.choices.iter().any(Choice::has_output);
                        let content = full.choices.iter().any(Choice::has_content);
                        let seen = (quick.output, quick.output || quick.reasoning);
                        assert_eq!(seen, (output, content), "{event}");
                        assert!(full.choices.len() == 1 && full.usage.is_none(), "{event}");
                        assert!(!full.choices[0].finish_reason.0 && full.error.is_none());
                    }
                }
            }
        }
        assert!(looked > 60, "{looked}");
    }
}
