//! HTTP/1.1 read directly from the socket: the accurate mode. One stamp for each read, taken
//! before the bytes are looked at.
//!
//! `hub` knows which connections have something, `decode` takes HTTP apart, and `flow` is one
//! request with its answer, from the first byte to the last.

pub(crate) mod decode;
mod flow;
mod hub;

use std::{
    io::Write as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::Method;

use super::{Replies, Request, Target, io::Io};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
};
use flow::Line;
pub(crate) use flow::{Begin, InFlight};
pub(super) use hub::Hub;

/// A connection.
pub(super) struct Raw {
    /// Absent while a request is in flight, and after one that was given up.
    line: Option<Line>,
    target: Rc<Target>,
    /// The last answer was read to its end, and the server keeps the connection.
    clean: bool,
}

impl Raw {
    /// On an open connection.
    pub(super) fn new(io: Io, target: Rc<Target>, hub: &Rc<Hub>) -> Self {
        Self { line: Some(Line::new(io, hub)), target, clean: true }
    }

    /// Whether another request can be sent: the last one ended well and the peer has not closed.
    pub(super) fn usable(&self) -> bool {
        self.clean && self.line.as_ref().is_some_and(|line| line.io.is_idle())
    }

    /// Sends a request, as far as that is possible now; its answer goes to the reply that `replies`
    /// makes. Nothing of either is kept here meanwhile.
    ///
    /// # Errors
    /// If it is no request, or the connection was given up.
    pub(super) fn exchange<'a>(
        &'a mut self,
        request: &Request,
        replies: &dyn Replies,
        seen: &'a mut Seen,
    ) -> Result<Flight<'a>, Fault> {
        self.clean = false;
        let bytes = written(request, &self.target)?;
        let Some(line) = self.line.take() else {
            return Err(Fault::new(Class::Send, "the connection was abandoned"));
        };
        let bodiless = request.route.method == Method::HEAD;
        let before = std::mem::take(seen);
        let flow = replies.flow(Begin { line, request: bytes, bodiless, seen: before });
        flow::start(&flow);
        Ok(Flight { raw: self, flow: Some(flow), seen })
    }
}

/// The bytes of a request.
fn written(request: &Request, target: &Target) -> Result<Vec<u8>, Fault> {
    let mut bytes = flow::request_buffer();
    let route = &request.route;
    bytes.extend_from_slice(route.method.as_str().as_bytes());
    bytes.push(b' ');
    let path = bytes.len();
    request.push_path(target, &mut bytes);
    // A blank or a line end in it would make another request of it.
    if !bytes.get(path..).unwrap_or_default().iter().all(u8::is_ascii_graphic) {
        let path = request.path_at(target);
        return Err(Fault::new(Class::Send, format!("'{path}' cannot be a path")));
    }
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, _, line) in target.defaults() {
        if !route.overrides(name) {
            bytes.extend_from_slice(line);
        }
    }
    bytes.extend_from_slice(route.lines());
    if request.tells_length() {
        // Writing to memory cannot fail.
        let _ignored = write!(bytes, "content-length: {}\r\n", request.body.len());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&request.body);
    Ok(bytes)
}

/// Waits for the end of a request in flight, whose stamps come back however it ends.
pub(crate) struct Flight<'a> {
    raw: &'a mut Raw,
    /// Absent once it has ended.
    flow: Option<InFlight>,
    seen: &'a mut Seen,
}

impl Future for Flight<'_> {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(flow) = &self.flow else { return Poll::Pending };
        ready!(flow.borrow_mut().end(cx.waker()))?;
        if let Some(flow) = self.leave() {
            let line = flow.borrow_mut().line();
            (self.raw.clean, self.raw.line) = (line.is_some(), line);
        }
        Poll::Ready(Ok(()))
    }
}

impl Flight<'_> {
    /// Takes back what was seen, once.
    fn leave(&mut self) -> Option<InFlight> {
        let flow = self.flow.take()?;
        *self.seen = flow.borrow_mut().leave();
        Some(flow)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
