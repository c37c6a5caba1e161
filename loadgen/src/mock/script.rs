//! What an answer is, before it is put on a wire: bytes and their places in time.
//!
//! Everything is built when the request is complete; while the answer is streamed only the two
//! stamps of each event are written into it.

/// The answer to a request.
#[derive(Debug)]
pub(in crate::mock) enum Answer {
    /// At once, whatever the load: lists of models, health.
    Plain(Whole),
    /// When the service is over.
    Served(Whole),
    /// Event by event, on the schedule.
    Stream(Script),
    /// The same, but no part of the load: it takes no capacity and has no faults.
    Aside(Script),
}

/// An answer that comes in one piece.
#[derive(Debug)]
pub(in crate::mock) struct Whole {
    /// Status line behind the version.
    pub(in crate::mock) status: &'static str,
    pub(in crate::mock) content_type: &'static str,
    pub(in crate::mock) body: Vec<u8>,
    /// Events that a stream of it would have: it is due when the last of them would be.
    pub(in crate::mock) events: u64,
    /// Further headers.
    pub(in crate::mock) headers: Vec<Field>,
    /// Fields after the body, over HTTP/2.
    pub(in crate::mock) trailers: Vec<Field>,
}

/// A header field.
pub(in crate::mock) type Field = (&'static str, String);

impl Whole {
    /// JSON with status 200.
    pub(in crate::mock) fn json(body: impl Into<Vec<u8>>, events: u64) -> Self {
        Self::status("200 OK", body, events)
    }

    /// JSON with a status.
    pub(in crate::mock) fn status(
        status: &'static str,
        body: impl Into<Vec<u8>>,
        events: u64,
    ) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: body.into(),
            events,
            headers: Vec::new(),
            trailers: Vec::new(),
        }
    }
}

/// An answer that is streamed.
#[derive(Debug, Default)]
pub(in crate::mock) struct Script {
    pub(in crate::mock) content_type: &'static str,
    /// Sent a tenth of the way to the first token.
    pub(in crate::mock) early: Vec<u8>,
    /// Sent in one write with the first content.
    pub(in crate::mock) opening: Vec<u8>,
    /// The content, one event after the other.
    pub(in crate::mock) runs: Vec<Run>,
    /// Sent before the middle event.
    pub(in crate::mock) middle: Vec<u8>,
    /// Whether the answer is over with `middle`.
    pub(in crate::mock) ends_in_middle: bool,
    /// Sent behind the last content.
    pub(in crate::mock) closing: Vec<u8>,
    /// Fields after the body, over HTTP/2.
    pub(in crate::mock) trailers: Vec<Field>,
}

/// Equal events, one after the other.
#[derive(Debug)]
pub(in crate::mock) struct Run {
    pub(in crate::mock) event: Template,
    pub(in crate::mock) count: u64,
}

impl Script {
    /// Events with content.
    pub(in crate::mock) fn events(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Adds `count` events that are equal but for their stamps.
    pub(in crate::mock) fn push(&mut self, event: Template, count: u64) {
        if count > 0 {
            self.runs.push(Run { event, count });
        }
    }
}

/// Marks where [`Template`] puts the stamps: as wide as the largest of them.
pub(in crate::mock) const DUE: &str = "@due@@@@@@@@@@@@@@@@";
pub(in crate::mock) const SENT: &str = "@sent@@@@@@@@@@@@@@@";

/// An event with room for its stamps. A number shorter than its place has blanks in front, which
/// JSON allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::mock) struct Template {
    bytes: Vec<u8>,
    due: Option<usize>,
    sent: Option<usize>,
}

impl Template {
    /// A template from bytes that have [`DUE`] and [`SENT`] in them, or not.
    pub(in crate::mock) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let find = |mark: &str| memchr::memmem::find(&bytes, mark.as_bytes());
        let (due, sent) = (find(DUE), find(SENT));
        Self { bytes, due, sent }
    }

    /// Appends the event with its stamps.
    pub(in crate::mock) fn stamped(&self, due_ns: u64, sent_ns: u64, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(&self.bytes);
        for (at, stamp) in [(self.due, due_ns), (self.sent, sent_ns)] {
            if let Some(at) = at
                && let Some(place) = out.get_mut(from + at..from + at + DUE.len())
            {
                digits(place, stamp);
            }
        }
    }
}

/// Writes a number to the end of `place`, blanks before it.
fn digits(place: &mut [u8], mut number: u64) {
    let mut bytes = place.iter_mut().rev();
    for byte in bytes.by_ref() {
        *byte = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    bytes.for_each(|byte| *byte = b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_numbers_in_their_place() {
        assert_eq!((DUE.len(), SENT.len()), (20, 20), "u64::MAX has 20 digits");
        let template = Template::new(format!(r#"{{"a":"ü","due_ns":{DUE},"sent_ns":{SENT}}}"#));
        for (due, sent) in [(0, 1), (1_234_567, 99), (u64::MAX, u64::MAX - 1)] {
            let mut out = b"before".to_vec();
            template.stamped(due, sent, &mut out);
            let value: serde_json::Value = serde_json::from_slice(&out[6..]).unwrap();
            assert_eq!(
                (value["due_ns"].as_u64(), value["sent_ns"].as_u64()),
                (Some(due), Some(sent))
            );
        }
        let mut out = Vec::new();
        Template::new("no stamps").stamped(1, 2, &mut out);
        assert_eq!(out, b"no stamps");
    }
}
