//! What a protocol does with an answer.

use std::{cell::RefCell, rc::Rc};

use super::{
    Fields, Head,
    raw::{Begin, InFlight},
    receiver::Receiver,
};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
};

/// An answer while it comes in: sees bytes and the time at which they were read, never a socket.
///
/// Only answers of a status that [`Reply::accepts`] come here; others are failures of their class,
/// with the begin of their body as message. The bytes are those of the content: without chunks, unpacked.
pub(crate) trait Reply {
    /// Whether an answer of this status is one.
    fn accepts(&self, status: u16) -> bool {
        (200..300).contains(&status)
    }

    /// Status and headers have come.
    fn head(&mut self, _: &Head<'_>, _: &mut Seen) -> Result<(), Fault> {
        Ok(())
    }

    /// A part of the body has come, of any size, split anywhere.
    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault>;

    /// Fields after the body have come (HTTP/2, or the trailer of a chunked body).
    fn trailers(&mut self, _: &Fields<'_>, _: &mut Seen) -> Result<(), Fault> {
        Ok(())
    }

    /// The answer is complete.
    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault>;
}

/// Makes the reply to one request, in the piece of memory in which its engine wants it: so a request
/// allocates once, and engines are compiled once for all protocols.
pub(crate) trait Replies {
    /// Within a request in flight of the raw engine.
    fn flow(&self, begin: Begin) -> InFlight;

    /// Within what the engines of hyper and h2 hand an answer to.
    fn receiver(&self) -> Box<Receiver<dyn Reply>>;
}

/// A reply that is looked at after its request, before the start.
pub(super) struct Shared<R>(pub(super) Rc<RefCell<R>>);

impl<R: Reply + 'static> Replies for Shared<R> {
    fn flow(&self, begin: Begin) -> InFlight {
        begin.flow(Self(Rc::clone(&self.0)))
    }

    fn receiver(&self) -> Box<Receiver<dyn Reply>> {
        Box::new(Receiver::new(Self(Rc::clone(&self.0))))
    }
}

impl<R: Reply> Reply for Shared<R> {
    fn accepts(&self, status: u16) -> bool {
        self.0.borrow().accepts(status)
    }

    fn head(&mut self, head: &Head<'_>, seen: &mut Seen) -> Result<(), Fault> {
        self.0.borrow_mut().head(head, seen)
    }

    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        self.0.borrow_mut().body(bytes, at_ns, seen)
    }

    fn trailers(&mut self, fields: &Fields<'_>, seen: &mut Seen) -> Result<(), Fault> {
        self.0.borrow_mut().trailers(fields, seen)
    }

    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        self.0.borrow_mut().end(at_ns, seen)
    }
}

/// Largest answer that is kept whole: a batch of a thousand embeddings of 4096 numbers is about
/// 60 MB of JSON.
pub(crate) const WHOLE_MAX: usize = 128 * 1024 * 1024;

/// An answer that is kept whole, whatever it is.
#[derive(Debug, Default)]
pub(crate) struct Whole(Vec<u8>);

impl Whole {
    /// What has come so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What has come.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Reply for Whole {
    fn body(&mut self, bytes: &[u8], _: u64, _: &mut Seen) -> Result<(), Fault> {
        if self.0.len() + bytes.len() > WHOLE_MAX {
            return Err(Fault::new(
                Class::Parse,
                format!("the response is longer than {} MiB", WHOLE_MAX / 1024 / 1024),
            ));
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, _: u64, _: &mut Seen) -> Result<(), Fault> {
        Ok(())
    }
}

/// What one whole answer means; [`Answered`] makes a [`Reply`] of it.
pub(crate) trait Answer {
    /// The whole body; `at_ns` is when its last part was read.
    fn answer(&mut self, body: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault>;
}

impl<F: FnMut(&[u8], u64, &mut Seen) -> Result<(), Fault>> Answer for F {
    fn answer(&mut self, body: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        self(body, at_ns, seen)
    }
}

/// An answer that is read as a whole: bounded by [`WHOLE_MAX`].
#[derive(Debug)]
pub(crate) struct Answered<A> {
    whole: Whole,
    answer: A,
}

impl<A: Answer> Answered<A> {
    /// Gives the whole body to `answer`.
    pub(crate) fn new(answer: A) -> Self {
        Self { whole: Whole::default(), answer }
    }
}

impl<A: Answer> Reply for Answered<A> {
    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        self.whole.body(bytes, at_ns, seen)
    }

    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        self.answer.answer(self.whole.bytes(), at_ns, seen)
    }
}

/// Any answer will do.
#[derive(Debug, Default)]
pub(crate) struct Anything;

impl Reply for Anything {
    fn body(&mut self, _: &[u8], _: u64, _: &mut Seen) -> Result<(), Fault> {
        Ok(())
    }

    fn end(&mut self, _: u64, _: &mut Seen) -> Result<(), Fault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_is_given_once() {
        let mut got = Vec::new();
        let mut seen = Seen::default();
        let mut reply = Answered::new(|body: &[u8], at: u64, seen: &mut Seen| {
            got.push((body.to_vec(), at));
            seen.content(at);
            Ok(())
        });
        reply.body(b"ab", 1, &mut seen).unwrap();
        reply.body(b"c", 2, &mut seen).unwrap();
        reply.end(2, &mut seen).unwrap();
        drop(reply);
        assert_eq!(got, [(b"abc".to_vec(), 2)]);
        assert_eq!(seen.first_content_ns, Some(2));
    }

    #[test]
    fn an_endless_answer_is_bounded() {
        let piece = vec![b'x'; 16 * 1024 * 1024];
        let mut whole = Whole::default();
        let end = (0..10).find_map(|_| whole.body(&piece, 0, &mut Seen::default()).err());
        assert_eq!(end.unwrap().class, Class::Parse);
    }
}
