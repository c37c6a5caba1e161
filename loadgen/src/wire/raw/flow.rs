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
    hub::Hub,
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

/// What a request in flight begins with.
pub(crate) struct Begin {
    /// The connection.
    pub(super) line: Line,
    /// The bytes of the request.
    pub(super) request: Vec<u8>,
    /// The answer has no body whatever its head says (HEAD).
    pub(super) bodiless: bool,
    /// What was seen until now.
    pub(super) seen: Seen,
}

/// A request in flight with what its answer is handed to, in one piece of memory: made by
/// [`Begin::flow`] with the reply's own type, used without it.
pub(crate) struct Flow<R: ?Sized> {
    /// Absent once it has been given back.
    line: Option<Line>,
    decoder: Decoder,
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
    /// Last: its size is that of the reply.
    receiver: Receiver<R>,
}

/// A request in flight, whatever its answer is handed to.
pub(crate) type InFlight = Rc<RefCell<Flow<dyn Reply>>>;

impl Begin {
    /// The request in flight; its answer goes to `reply`.
    pub(crate) fn flow<R: Reply + 'static>(self, reply: R) -> InFlight {
        let mut decoder = Decoder::default();
        decoder.begin(self.bodiless);
        Rc::new(RefCell::new(Flow {
            line: Some(self.line),
            decoder,
            seen: self.seen,
            sending: Some((self.request, 0)),
            unsent: None,
            over: None,
            clean: false,
            waker: None,
            receiver: Receiver::new(reply),
        }))
    }
}

/// Sends the request, as far as that is possible now.
pub(super) fn start(flow: &InFlight) {
    let known = flow.borrow().line.as_ref().map(|line| {
        line.io.socket().begin();
        (Rc::clone(&line.hub), line.place)
    });
    if let Some((hub, place)) = known
        && let Some(waker) = hub.give(place, Rc::clone(flow))
    {
        flow.borrow_mut().ready(&mut Context::from_waker(&waker));
    }
}

impl Flow<dyn Reply> {
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
        let mut seen = std::mem::take(&mut self.seen);
        if let Some(line) = &self.line {
            line.hub.take(line.place);
            line.io.socket().note(&mut seen);
        }
        seen
    }

    /// The connection, once, where it can be used again.
    pub(super) fn line(&mut self) -> Option<Line> {
        self.line.take_if(|_| self.clean)
    }

    /// The connection may be ready; it wakes `cx` when it is again.
    pub(super) fn ready(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(result) = self.turn(cx) {
            if let Some(line) = &self.line {
                line.hub.take(line.place);
            }
            self.over = Some(result);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
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
            let Self { line: Some(line), decoder, receiver, seen, .. } = self else {
                return Poll::Pending;
            };
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
        let (Some((bytes, at)), Some(line)) = (&mut self.sending, &mut self.line) else {
            return Poll::Ready(Ok(()));
        };
        let mut io = Pin::new(&mut line.io);
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
        let at_ns = self.line.as_ref().map_or(0, |line| {
            let socket = line.io.socket();
            socket.rest();
            socket.last_read_ns()
        });
        self.receiver.end(at_ns, &mut self.seen)
    }

    /// The fault of a connection that ended too early.
    fn broken(&self, why: String) -> Fault {
        let answered = self.line.as_ref().is_some_and(|line| line.io.socket().answered());
        let class = if answered { Class::TruncatedStream } else { Class::ResetBeforeResponse };
        Fault::new(class, why)
    }
}

/// Hands what is decoded of one read on with its stamp.
struct Taking<'a> {
    receiver: &'a mut Receiver<dyn Reply>,
    seen: &'a mut Seen,
    at_ns: u64,
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::new(Class::Parse, broken.0)
    }
}

impl Sink for Taking<'_> {
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
