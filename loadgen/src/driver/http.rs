//! Plain HTTP requests: all the same, or made from templates.

use std::rc::Rc;

use aifb_schema::recipe::{HttpExpect, HttpRequest};
use bytes::Bytes;
use hyper::{Method, Uri, header::HeaderName};
use memchr::memmem::Finder;

use super::{protocol::Protocol, template::Template};
use crate::{
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::{Ask, Phase},
    record::row::Seen,
    wire::{Reply, Request, Route, Wire},
};

/// The protocol.
pub(crate) struct Http {
    route: Rc<Route>,
    /// Where each request has a path of its own.
    path: Option<Template>,
    body: Body,
    expected: Rc<Expected>,
}

/// What an answer has to look like.
#[derive(Debug)]
struct Expected {
    status: Option<u16>,
    contains: Option<Finder<'static>>,
}

/// Bodies of requests.
enum Body {
    Fixed(Bytes),
    Made(Template),
}

impl Protocol for Http {
    async fn prepare(job: &Job, _: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let wanted = load.http.clone().unwrap_or_default();
        let wrong = |what: &str, value: &str, why: &str| {
            Fatal::usage(format!("load '{}': http {what} '{value}': {why}", load.name))
        };
        let template = |what: &str, text: &str| {
            Template::new(text, load.seed).map_err(|why| wrong(what, text, &why))
        };
        let HttpRequest { method, path, headers, body, expect } = wanted;
        let HttpExpect { status, contains } = expect.unwrap_or_default();
        let verb: Method =
            method.parse().map_err(|_| wrong("method", &method, "it is not a method"))?;
        // The URL may have a path of its own, and the default "/" adds nothing to it.
        let joined = match path.as_str() {
            "/" => String::new(),
            path => format!("/{}", path.trim_start_matches('/')),
        };
        let made = template("path", &joined)?;
        let example = made.fill(Ask { phase: Phase::Measure, id: 0, item: 0, turn: 0 });
        let plain = example.bytes().all(|byte| byte.is_ascii_graphic());
        if !example.is_empty() && (!plain || example.parse::<Uri>().is_err()) {
            return Err(wrong("path", &path, "it is not a path")
                .hint("escape spaces and special characters, such as %20"));
        }
        let (fixed, path) = match made.fixed() {
            Some(fixed) => (fixed.to_owned(), None),
            None => (String::new(), Some(made)),
        };
        let mut route = Route::new(verb, fixed).carries_payload();
        for (name, value) in &headers {
            let key: HeaderName =
                name.parse().map_err(|_| wrong("header", name, "it is not a header name"))?;
            let value = value
                .parse()
                .map_err(|_| wrong("header", name, "its value has invalid characters"))?;
            route = route.header(key, value);
        }
        let made = template("body", &body.unwrap_or_default())?;
        let body = match made.fixed() {
            Some(fixed) => Body::Fixed(Bytes::from(fixed.to_owned())),
            None => Body::Made(made),
        };
        let contains = contains.map(|text| Finder::new(text.as_bytes()).into_owned());
        let expected = Rc::new(Expected { status, contains });
        Ok(Self { route: route.ready(), path, body, expected })
    }

    fn operation(&self, _: Ask) -> &'static str {
        "http"
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        let body = match &self.body {
            Body::Fixed(body) => body.clone(),
            Body::Made(template) => Bytes::from(template.fill(ask)),
        };
        Ok(match &self.path {
            None => self.route.request(body),
            Some(path) => self.route.request_at(path.fill(ask), body),
        })
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        Checked::new(&self.expected)
    }
}

/// An answer that may have to look like something.
struct Checked {
    expected: Rc<Expected>,
    found: bool,
    /// End of what has come, where the text may have begun.
    tail: Vec<u8>,
}

impl Checked {
    fn new(expected: &Rc<Expected>) -> Self {
        let found = expected.contains.is_none();
        Self { expected: Rc::clone(expected), found, tail: Vec::new() }
    }
}

impl Reply for Checked {
    fn accepts(&self, status: u16) -> bool {
        match self.expected.status {
            Some(expected) => status == expected,
            None => (200..300).contains(&status),
        }
    }

    fn body(&mut self, bytes: &[u8], _: u64, seen: &mut Seen) -> Result<(), Fault> {
        if let Some(payload) = &mut seen.payload_bytes {
            *payload += u64::try_from(bytes.len()).unwrap_or(0);
        }
        let (false, Some(finder)) = (self.found, &self.expected.contains) else { return Ok(()) };
        let keep = finder.needle().len().saturating_sub(1);
        // First across the border, then in what came.
        let head = bytes.get(..keep.min(bytes.len())).unwrap_or_default();
        self.tail.extend_from_slice(head);
        self.found = finder.find(&self.tail).is_some() || finder.find(bytes).is_some();
        if bytes.len() > keep {
            self.tail.clear();
            self.tail.extend_from_slice(bytes.get(bytes.len() - keep..).unwrap_or_default());
        } else {
            let surplus = self.tail.len().saturating_sub(keep);
            self.tail.drain(..surplus);
        }
        Ok(())
    }

    fn end(&mut self, _: u64, _: &mut Seen) -> Result<(), Fault> {
        match &self.expected.contains {
            Some(finder) if !self.found => Err(Fault::new(
                Class::VerifyMismatch,
                format!(
                    "the response does not contain '{}'",
                    String::from_utf8_lossy(finder.needle())
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(needle: &'static str, pieces: &[&[u8]]) -> bool {
        let expected = Expected { status: None, contains: Some(Finder::new(needle)) };
        let mut reply = Checked::new(&Rc::new(expected));
        // A request with a body of 3 bytes.
        let mut seen = Seen { payload_bytes: Some(3), ..Seen::default() };
        for piece in pieces {
            reply.body(piece, 0, &mut seen).unwrap();
            assert!(reply.tail.len() < needle.len().max(1), "bounded");
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert_eq!(seen.payload_bytes, Some(3 + bytes as u64), "payload of both directions");
        reply.end(0, &mut Seen::default()).is_ok()
    }

    #[test]
    fn a_text_is_found_wherever_reads_end() {
        let text = b"one two three";
        for needle in ["one", "two", "three", "e t", "one two three", "o", "e"] {
            for a in 0..=text.len() {
                for b in a..=text.len() {
                    let pieces = [&text[..a], &text[a..b], &text[b..]];
                    assert!(contains(needle, &pieces), "{needle} {a} {b}");
                }
            }
            let single: Vec<&[u8]> = text.chunks(1).collect();
            assert!(contains(needle, &single), "{needle} byte by byte");
        }
        for needle in ["four", "onetwo", "threee", "eno"] {
            for a in 0..=text.len() {
                assert!(!contains(needle, &[&text[..a], &text[a..]]), "{needle} {a}");
            }
        }
    }
}
