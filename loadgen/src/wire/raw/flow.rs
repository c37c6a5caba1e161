//! One request in flight: what is still to be sent, and what its answer has been so far.
//!
//! All that a token needs lies together here; the task that waits for the answer is woken at its
//! end.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::AsyncWrite;

use super::{
    decode::{Broken, Decoder, Progress, Sink},
    hub::{Hub, Taker},
};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
    wire::{Fields, Head, Reply, io::Io, receiver::Receiver},
};

/// Memory for requests above this is not kept.
const KEEP_BYTES_MAX: usize = 1024 * 1024;

thread_local! {
    /// Memory of the request that is being written.
    static REQUEST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Memory for a request.
pub(super) fn request_buffer() -> Vec<u8> {
    let mut buffer = REQUEST.take();
    buffer.clear();
    buffer
}

/// A connection with its place in the hub.
pub(super) struct Line {
    pub(super) io: Io,
    hub: Rc<Hub>,
    place: usize,
}

impl Line {
    pub(super) fn new(io: Io, hub: &Rc<Hub>) -> Self {
        Self { io, place: hub.enter(), hub: Rc::clone(hub) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.hub.leave(self.place);
    }
}

/// A request in flight.
pub(super) struct Flow<R> {
    line: Line,
    decoder: Decoder,
    receiver: Receiver<R>,
    seen: Seen,
    /// What is still to be sent, and from where on.
    sending: Option<(Vec<u8>, usize)>,
    /// Why the request could not be sent whole.
    unsent: Option<io::Error>,
    /// Set at its end.
    over: Option<Result<(), Fault>>,
    /// The connection may be used again.
    clean: bool,
    /// Who waits for the end.
    waker: Option<Waker>,
}

impl<R: Reply + 'static> Flow<R> {
    /// Sends `request`, as far as that is possible now; its answer goes to `reply`. `bodiless` where
    /// it has no body whatever its head says (HEAD).
    pub(super) fn begin(
        line: Line,
        request: Vec<u8>,
        bodiless: bool,
        reply: R,
        seen: Seen,
    ) -> Rc<RefCell<Self>> {
        line.io.socket().begin();
        let mut decoder = Decoder::default();
        decoder.begin(bodiless);
        let (hub, place) = (Rc::clone(&line.hub), line.place);
        let flow = Rc::new(RefCell::new(Self {
            line,
            decoder,
            receiver: Receiver::new(reply),
            seen,
            sending: Some((request, 0)),
            unsent: None,
            over: None,
            clean: false,
            waker: None,
        }));
        if let Some(waker) = hub.give(place, Rc::clone(&flow) as Rc<dyn Taker>) {
            flow.ready(&mut Context::from_waker(&waker));
        }
        flow
    }

    /// How it ended, once; until then `waker` is kept to be woken.
    pub(super) fn end(&mut self, waker: &Waker) -> Poll<Result<(), Fault>> {
        if let Some(result) = self.over.take() {
            return Poll::Ready(result);
        }
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    /// Gives it up, if it has not ended; what was seen of it until then.
    pub(super) fn leave(&mut self) -> Seen {
        self.line.hub.take(self.line.place);
        let mut seen = std::mem::take(&mut self.seen);
        self.line.io.socket().note(&mut seen);
        seen
    }

    /// The connection, where it can be used again, and the answer.
    pub(super) fn into_parts(self) -> (Option<Line>, R) {
        (self.clean.then_some(self.line), self.receiver.into_reply())
    }

    /// Sends and receives what can be. While a long body is on its way the server may already
    /// refuse it: both directions go on, and where writing fails, reading tells more.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.sending.is_some()
            && let Poll::Ready(Err(error)) = self.send(cx)
        {
            self.sending = None;
            self.unsent = Some(error);
        }
        loop {
            let Self { line, decoder, receiver, seen, .. } = self;
            let socket = line.io.socket().clone();
            let taken = line.io.poll_take(cx, |bytes| {
                let mut sink = Taking { receiver, seen, at_ns: socket.last_read_ns() };
                (!bytes.is_empty()).then(|| decoder.feed(bytes, &mut sink))
            });
            let Poll::Ready(taken) = taken else {
                socket.waits();
                return Poll::Pending;
            };
            match taken {
                Ok(Some(Ok(Progress::More))) => {}
                Ok(Some(Ok(Progress::Done { surplus }))) => {
                    let sent = self.sending.is_none() && self.unsent.is_none();
                    self.clean = !surplus && sent && self.decoder.keep_alive();
                    return Poll::Ready(self.complete());
                }
                Ok(Some(Err(fault))) => return Poll::Ready(Err(fault)),
                Ok(None) if self.decoder.eof() => return Poll::Ready(self.complete()),
                Ok(None) => {
                    let why = self.unsent.as_ref().map(ToString::to_string);
                    let why = why.unwrap_or_else(|| "the server closed the connection".to_owned());
                    return Poll::Ready(Err(self.broken(why)));
                }
                // Encrypted connections that end without a last word.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof && self.decoder.eof() =>
                {
                    return Poll::Ready(self.complete());
                }
                Err(error) => return Poll::Ready(Err(self.broken(error.to_string()))),
            }
        }
    }

    /// Sends what can be sent.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((bytes, at)) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let mut io = Pin::new(&mut self.line.io);
        while let Some(rest) = bytes.get(*at..).filter(|rest| !rest.is_empty()) {
            match ready!(io.as_mut().poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *at += count,
            }
        }
        ready!(io.poll_flush(cx))?;
        let kept = self.sending.take().map(|(bytes, _)| bytes);
        REQUEST.set(kept.filter(|b| b.capacity() <= KEEP_BYTES_MAX).unwrap_or_default());
        Poll::Ready(Ok(()))
    }

    /// The answer is complete.
    fn complete(&mut self) -> Result<(), Fault> {
        let socket = self.line.io.socket();
        socket.rest();
        self.receiver.end(socket.last_read_ns(), &mut self.seen)
    }

    /// The fault of a connection that ended too early.
    fn broken(&self, why: String) -> Fault {
        let answered = self.line.io.socket().answered();
        let class = if answered { Class::TruncatedStream } else { Class::ResetBeforeResponse };
        Fault::new(class, why)
    }
}

impl<R: Reply + 'static> Taker for RefCell<Flow<R>> {
    fn ready(&self, cx: &mut Context<'_>) {
        let mut flow = self.borrow_mut();
        if let Poll::Ready(result) = flow.turn(cx) {
            flow.line.hub.take(flow.line.place);
            flow.over = Some(result);
            if let Some(waker) = flow.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Hands what is decoded of one read on with its stamp.
struct Taking<'a, R> {
    receiver: &'a mut Receiver<R>,
    seen: &'a mut Seen,
    at_ns: u64,
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::new(Class::Parse, broken.0)
    }
}

impl<R: Reply> Sink for Taking<'_, R> {
    type Error = Fault;

    fn head(&mut self, head: &Head<'_>) -> Result<(), Fault> {
        self.receiver.head(head, self.seen)
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.receiver.body(bytes, self.at_ns, self.seen)
    }

    fn trailers(&mut self, fields: &Fields<'_>) -> Result<(), Fault> {
        self.receiver.trailers(fields, self.seen)
    }
}
