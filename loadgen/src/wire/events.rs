//! Answers that are streams of events: server-sent events, or one JSON text a line.

use super::{
    Head, Reply, Whole, ndjson,
    sse::{self, TooLong},
};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
};

/// What the events of a stream mean; [`Sse`] and [`Ndjson`] make a [`Reply`] of it.
pub(crate) trait Events {
    /// An event is complete; `at_ns` is when its last byte was read.
    fn event(&mut self, data: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault>;

    /// The stream is complete.
    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault>;

    /// The fault that one JSON text in place of server-sent events is: it may say why.
    fn instead(&self, _: &[u8]) -> Fault {
        no_stream()
    }
}

/// The fault that an answer in one piece is, whatever it says.
pub(crate) fn no_stream() -> Fault {
    Fault::new(Class::Parse, "the response is one JSON document, expected a stream of events")
}

impl From<TooLong> for Fault {
    fn from(_: TooLong) -> Self {
        let most = sse::EVENT_BYTES_MAX / 1024 / 1024;
        Self::new(Class::Parse, format!("an event is longer than {most} MiB"))
    }
}

/// A stream of server-sent events; a server that sends one JSON text instead is heard.
#[derive(Debug, Default)]
pub(crate) struct Sse<E> {
    parser: sse::Parser,
    events: E,
    instead: Option<Whole>,
}

impl<E: Events> Sse<E> {
    /// Gives each event's data to `events`.
    pub(crate) fn new(events: E) -> Self {
        Self { parser: sse::Parser::default(), events, instead: None }
    }
}

impl<E: Events> Reply for Sse<E> {
    fn head(&mut self, head: &Head<'_>, _: &mut Seen) -> Result<(), Fault> {
        let refused = expect(head, "text/event-stream");
        if refused.is_err() && head.is("application/json") {
            self.instead = Some(Whole::default());
            return Ok(());
        }
        refused
    }

    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let Self { parser, events, instead } = self;
        if let Some(whole) = instead {
            return whole.body(bytes, at_ns, seen);
        }
        parser.feed(bytes, &mut |data: &[u8]| events.event(data, at_ns, seen))
    }

    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let Self { parser, events, instead } = self;
        if let Some(whole) = instead {
            return Err(events.instead(whole.bytes()));
        }
        parser.finish(&mut |data: &[u8]| events.event(data, at_ns, seen))?;
        events.end(at_ns, seen)
    }
}

/// A stream of JSON texts, one a line.
#[derive(Debug, Default)]
pub(crate) struct Ndjson<E> {
    parser: ndjson::Parser,
    events: E,
}

impl<E: Events> Ndjson<E> {
    /// Gives each line to `events`.
    pub(crate) fn new(events: E) -> Self {
        Self { parser: ndjson::Parser::default(), events }
    }
}

impl<E: Events> Reply for Ndjson<E> {
    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let Self { parser, events } = self;
        parser.feed(bytes, &mut |line: &[u8]| events.event(line, at_ns, seen))
    }

    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let Self { parser, events } = self;
        parser.finish(&mut |line: &[u8]| events.event(line, at_ns, seen))?;
        events.end(at_ns, seen)
    }
}

/// Refuses an answer of another content type; one that does not say is taken at its word.
fn expect(head: &Head<'_>, expected: &str) -> Result<(), Fault> {
    if head.is(expected) {
        return Ok(());
    }
    let kind = head.content_type().unwrap_or_default();
    Err(Fault::new(Class::Parse, format!("the response is '{kind}', expected {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Texts(Vec<(String, u64)>, bool);

    impl Events for Texts {
        fn event(&mut self, data: &[u8], at: u64, _: &mut Seen) -> Result<(), Fault> {
            self.0.push((String::from_utf8_lossy(data).into_owned(), at));
            Ok(())
        }
        fn end(&mut self, _: u64, _: &mut Seen) -> Result<(), Fault> {
            self.1 = true;
            Ok(())
        }
    }

    #[test]
    fn each_event_has_the_time_of_its_last_byte() {
        let mut seen = Seen::default();
        let mut sse = Sse::new(Texts::default());
        sse.body(b"data: a\n\ndata: ", 1, &mut seen).unwrap();
        sse.body(b"b\n\n", 2, &mut seen).unwrap();
        sse.end(3, &mut seen).unwrap();
        assert_eq!(sse.events.0, [("a".into(), 1), ("b".into(), 2)]);
        let mut lines = Ndjson::new(Texts::default());
        lines.body(b"{}\n{\"a\"", 1, &mut seen).unwrap();
        lines.body(b":1}", 2, &mut seen).unwrap();
        lines.end(3, &mut seen).unwrap();
        assert_eq!(lines.events.0, [("{}".into(), 1), ("{\"a\":1}".into(), 3)]);
        assert!(sse.events.1 && lines.events.1);
    }

    #[test]
    fn another_content_type_is_refused() {
        let list = [httparse::Header { name: "content-type", value: b"text/html" }];
        let head = Head { status: 200, fields: super::super::Fields::List(&list) };
        let fault = Sse::new(Texts::default()).head(&head, &mut Seen::default()).unwrap_err();
        assert!(fault.message.contains("'text/html', expected text/event-stream"), "{fault}");
        let list = [httparse::Header { name: "content-type", value: b"application/json" }];
        let head = Head { status: 200, fields: super::super::Fields::List(&list) };
        let (mut sse, mut seen) = (Sse::new(Texts::default()), Seen::default());
        sse.head(&head, &mut seen).unwrap();
        sse.body(b"{}", 1, &mut seen).unwrap();
        let fault = sse.end(1, &mut seen).unwrap_err();
        assert!(fault.message.contains("one JSON document") && !sse.events.1, "{fault}");
    }
}
