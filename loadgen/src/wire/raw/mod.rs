//! HTTP/1.1 read directly from the socket: the accurate mode. One stamp for each read, taken
//! before the bytes are looked at; nothing is allocated for a request but its body.

pub(crate) mod decode;

use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::Method;
use tokio::io::AsyncWrite;

use super::{
    Fields, Head, Reply, Request, Target, io::Io, open::Noted, receiver::Receiver, socket::Socket,
};
use crate::{
    driver::{Class, Fault},
    record::row::Seen,
};
use decode::{Broken, Decoder, Progress, Sink};

/// A body up to this length is copied behind its head, which costs less than a second part of a
/// write.
const COPY_MAX: usize = 32 * 1024;

thread_local! {
    /// Memory of the head that is being written.
    static HEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection.
pub(super) struct Raw {
    io: Io,
    target: Rc<Target>,
    decoder: Decoder,
    /// The last answer was read to its end, and the server keeps the connection.
    clean: bool,
}

impl Raw {
    /// On an open connection.
    pub(super) fn new(io: Io, target: Rc<Target>) -> Self {
        Self { io, target, decoder: Decoder::default(), clean: true }
    }

    /// Whether another request can be sent: the last one ended well and the peer has not closed.
    pub(super) fn usable(&self) -> bool {
        self.clean && self.io.is_idle()
    }

    /// Sends a request and hands the answer to `reply`.
    pub(super) async fn exchange(
        &mut self,
        request: &Request,
        reply: &mut impl Reply,
        seen: &mut Seen,
    ) -> Result<(), Fault> {
        self.clean = false;
        let mut sending = Sending::new(request, &self.target)?;
        let socket = self.io.socket().clone();
        let noted = Noted::begin(socket.clone(), seen);
        let mut receiver = Receiver::new(reply, noted.seen);
        self.decoder.begin(request.route.method == Method::HEAD);
        let result = poll_fn(|cx| self.turn(cx, &socket, &mut sending, &mut receiver)).await;
        HEAD.set(sending.head);
        result?;
        socket.rest();
        receiver.end(socket.last_read_ns())
    }

    /// Sends and receives what can be.
    fn turn<R: Reply>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Socket,
        sending: &mut Sending<'_>,
        receiver: &mut Receiver<'_, R>,
    ) -> Poll<Result<(), Fault>> {
        // While a long body is on its way the server may already refuse it: both directions go
        // on. Where writing fails, reading tells more.
        let _ignored = sending.poll(cx, &mut self.io);
        loop {
            let Self { io, decoder, .. } = self;
            let taken = io.poll_take(cx, |bytes| {
                let mut sink = Taking { receiver, at_ns: socket.last_read_ns() };
                (!bytes.is_empty()).then(|| decoder.feed(bytes, &mut sink))
            });
            let Poll::Ready(taken) = taken else {
                socket.waits();
                return Poll::Pending;
            };
            match taken {
                Ok(Some(Ok(Progress::More))) => {}
                Ok(Some(Ok(Progress::Done { surplus }))) => {
                    self.clean = !surplus && sending.done && self.decoder.keep_alive();
                    return Poll::Ready(Ok(()));
                }
                Ok(Some(Err(fault))) => return Poll::Ready(Err(fault)),
                Ok(None) if self.decoder.eof() => return Poll::Ready(Ok(())),
                Ok(None) => {
                    let why = sending.failed.as_ref().map(ToString::to_string);
                    let why = why.unwrap_or_else(|| "the server closed the connection".to_owned());
                    return Poll::Ready(Err(broken(socket, why)));
                }
                // Encrypted connections that end without a last word.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof && self.decoder.eof() =>
                {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(broken(socket, error.to_string()))),
            }
        }
    }
}

/// The fault of a connection that ended too early.
fn broken(socket: &Socket, why: String) -> Fault {
    let class = if socket.answered() { Class::TruncatedStream } else { Class::ResetBeforeResponse };
    Fault::new(class, why)
}

/// A request on its way.
struct Sending<'a> {
    head: Vec<u8>,
    /// What was not copied behind the head.
    body: &'a [u8],
    /// Bytes of both that were written.
    at: usize,
    done: bool,
    failed: Option<io::Error>,
}

impl<'a> Sending<'a> {
    fn new(request: &'a Request, target: &Target) -> Result<Self, Fault> {
        let mut head = HEAD.take();
        head.clear();
        let route = &request.route;
        head.extend_from_slice(route.method.as_str().as_bytes());
        head.push(b' ');
        let path = head.len();
        request.push_path(target, &mut head);
        // A blank or a line end in it would make another request of it.
        if !head.get(path..).unwrap_or_default().iter().all(u8::is_ascii_graphic) {
            let path = request.path_at(target);
            return Err(Fault::new(Class::Send, format!("'{path}' cannot be a path")));
        }
        head.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, _, line) in target.defaults() {
            if !route.overrides(name) {
                head.extend_from_slice(line);
            }
        }
        head.extend_from_slice(route.lines());
        if request.tells_length() {
            // Writing to memory cannot fail.
            let _ignored = write!(head, "content-length: {}\r\n", request.body.len());
        }
        head.extend_from_slice(b"\r\n");
        let mut body = &request.body[..];
        if body.len() <= COPY_MAX {
            head.extend_from_slice(body);
            body = &[];
        }
        Ok(Self { head, body, at: 0, done: false, failed: None })
    }

    /// Writes what can be written.
    fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<()> {
        if self.done || self.failed.is_some() {
            return Poll::Ready(());
        }
        while self.at < self.head.len() + self.body.len() {
            let written = match self.head.get(self.at..) {
                Some(head) if self.body.is_empty() => Pin::new(&mut *io).poll_write(cx, head),
                Some(head) => {
                    let parts = [IoSlice::new(head), IoSlice::new(self.body)];
                    Pin::new(&mut *io).poll_write_vectored(cx, &parts)
                }
                None => {
                    let rest = self.body.get(self.at - self.head.len()..).unwrap_or_default();
                    Pin::new(&mut *io).poll_write(cx, rest)
                }
            };
            match ready!(written) {
                Ok(0) => self.failed = Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.at += count,
                Err(error) => self.failed = Some(error),
            }
            if self.failed.is_some() {
                return Poll::Ready(());
            }
        }
        match ready!(Pin::new(io).poll_flush(cx)) {
            Ok(()) => self.done = true,
            Err(error) => self.failed = Some(error),
        }
        Poll::Ready(())
    }
}

/// Hands what is decoded of one read on with its stamp.
struct Taking<'a, 'b, R> {
    receiver: &'a mut Receiver<'b, R>,
    at_ns: u64,
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::new(Class::Parse, broken.0)
    }
}

impl<R: Reply> Sink for Taking<'_, '_, R> {
    type Error = Fault;

    fn head(&mut self, head: &Head<'_>) -> Result<(), Fault> {
        self.receiver.head(head)
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.receiver.body(bytes, self.at_ns)
    }

    fn trailers(&mut self, fields: &Fields<'_>) -> Result<(), Fault> {
        self.receiver.trailers(fields)
    }
}
