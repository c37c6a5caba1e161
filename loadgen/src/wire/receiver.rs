//! What all engines do with an answer: its status, the text of an error, the stamps.

use super::{Fields, Head, Reply, unpack::Unpack};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
};

/// Takes an answer from an engine and hands it to a [`Reply`], if its status is 2xx.
///
/// The reply lies in it, as its last part: made with its own type, used as `Receiver<dyn Reply>`.
pub(crate) struct Receiver<R: ?Sized> {
    /// Another status, with the begin of its body.
    refused: Option<(Class, u16, Vec<u8>)>,
    /// Where the body comes packed.
    unpack: Option<Box<Unpack>>,
    reply: R,
}

impl<R: Reply> Receiver<R> {
    /// Hands an answer to `reply`.
    pub(crate) fn new(reply: R) -> Self {
        Self { refused: None, unpack: None, reply }
    }
}

impl Receiver<dyn Reply> {
    /// Status and headers.
    pub(super) fn head(&mut self, head: &Head<'_>, seen: &mut Seen) -> Result<(), Fault> {
        seen.status = Some(head.status);
        self.unpack = Unpack::of(head.fields.text("content-encoding"))?.map(Box::new);
        if !self.reply.accepts(head.status) {
            self.refused = Some((status_class(head.status), head.status, Vec::new()));
            return Ok(());
        }
        self.reply.head(head, seen)
    }

    /// A part of the body, read at `at_ns`.
    pub(super) fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let Self { reply, refused, unpack } = self;
        match unpack {
            Some(unpack) => unpack.feed(bytes, |bytes| give(reply, seen, refused, bytes, at_ns)),
            None => give(reply, seen, refused, bytes, at_ns),
        }
    }

    /// Fields after the body.
    pub(super) fn trailers(&mut self, fields: &Fields<'_>, seen: &mut Seen) -> Result<(), Fault> {
        match &self.refused {
            Some(_) => Ok(()),
            None => self.reply.trailers(fields, seen),
        }
    }

    /// The answer was read to its end at `at_ns`.
    pub(super) fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        seen.end_ns = Some(at_ns);
        if let Self { reply, refused, unpack: Some(unpack) } = self {
            unpack.end(|bytes| give(reply, seen, refused, bytes, at_ns))?;
        }
        match self.refused.take() {
            None => self.reply.end(at_ns, seen),
            Some((class, status, text)) => {
                let text = String::from_utf8_lossy(&text);
                let status = hyper::StatusCode::from_u16(status)
                    .map_or_else(|_| status.to_string(), |status| status.to_string());
                Err(Fault::new(class, format!("{status}: {}", text.trim())))
            }
        }
    }
}

/// Content of the body.
fn give(
    reply: &mut dyn Reply,
    seen: &mut Seen,
    refused: &mut Option<(Class, u16, Vec<u8>)>,
    bytes: &[u8],
    at_ns: u64,
) -> Result<(), Fault> {
    match refused {
        Some((_, _, text)) => {
            keep_some(text, bytes);
            Ok(())
        }
        None => reply.body(bytes, at_ns, seen),
    }
}

/// Bytes of an error's body that are kept for its message.
const ERROR_BODY_BYTES: usize = 400;

fn keep_some(text: &mut Vec<u8>, bytes: &[u8]) {
    let room = ERROR_BODY_BYTES.saturating_sub(text.len());
    text.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
}

fn status_class(status: u16) -> Class {
    match status {
        // A success that is not the one that was expected.
        200..=299 => Class::VerifyMismatch,
        400..=499 => Class::Status4xx,
        500..=599 => Class::Status5xx,
        _ => Class::Status3xx,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::reply::Whole;

    fn head(status: u16) -> Head<'static> {
        Head { status, fields: Fields::List(&[]) }
    }

    #[test]
    fn only_success_reaches_the_reply() {
        let mut seen = Seen::default();
        let mut whole = Receiver::new(Whole::default());
        let receiver: &mut Receiver<dyn Reply> = &mut whole;
        receiver.head(&head(200), &mut seen).unwrap();
        receiver.body(b"yes", 3, &mut seen).unwrap();
        receiver.end(4, &mut seen).unwrap();
        assert_eq!(
            (whole.reply.bytes(), seen.status, seen.end_ns),
            (&b"yes"[..], Some(200), Some(4))
        );
        for (status, class) in
            [(302, Class::Status3xx), (404, Class::Status4xx), (503, Class::Status5xx)]
        {
            let mut seen = Seen::default();
            let mut whole = Receiver::new(Whole::default());
            let receiver: &mut Receiver<dyn Reply> = &mut whole;
            receiver.head(&head(status), &mut seen).unwrap();
            receiver.body(&[b'n'; 1000], 3, &mut seen).unwrap();
            let fault = receiver.end(4, &mut seen).unwrap_err();
            assert_eq!((fault.class, whole.reply.bytes()), (class, &b""[..]));
            assert!(fault.message.len() < 500 && fault.message.contains("nnn"), "{fault}");
        }
    }
}
