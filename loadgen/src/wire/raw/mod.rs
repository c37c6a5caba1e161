//! HTTP/1.1 read directly from the socket: the accurate mode. One stamp for each read, taken
//! before the bytes are looked at.
//!
//! `hub` knows which connections have something, `decode` takes HTTP apart, and `flow` is one
//! request with its answer, from the first byte to the last.

pub(crate) mod decode;
mod flow;
mod hub;

use std::{cell::RefCell, future::poll_fn, io::Write as _, rc::Rc, task::Poll};

use hyper::Method;

use super::{Reply, Request, Target, io::Io};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
};
use flow::{Flow, Line};
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

    /// Sends a request, hands the answer to what `reply` makes and gives that back. Nothing of it
    /// is kept here meanwhile.
    pub(super) async fn exchange<R: Reply + 'static>(
        &mut self,
        request: &Request,
        reply: impl FnOnce() -> R,
        seen: &mut Seen,
    ) -> Result<R, Fault> {
        self.clean = false;
        let bytes = written(request, &self.target)?;
        let Some(line) = self.line.take() else {
            return Err(Fault::new(Class::Send, "the connection was abandoned"));
        };
        let bodiless = request.route.method == Method::HEAD;
        let flow = Flow::begin(line, bytes, bodiless, reply(), std::mem::take(seen));
        let flight = Flight { flow: Some(flow), seen };
        flight.end().await?;
        let landed = flight.land();
        let (line, reply) = landed.ok_or_else(|| Fault::new(Class::Send, "it did not end"))?;
        (self.clean, self.line) = (line.is_some(), line);
        Ok(reply)
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

/// A request in flight, whose stamps come back however it ends.
struct Flight<'a, R: Reply + 'static> {
    /// Absent once it has landed.
    flow: Option<Rc<RefCell<Flow<R>>>>,
    seen: &'a mut Seen,
}

impl<R: Reply + 'static> Flight<'_, R> {
    /// Waits for the end.
    async fn end(&self) -> Result<(), Fault> {
        poll_fn(|cx| match &self.flow {
            Some(flow) => flow.borrow_mut().end(cx.waker()),
            None => Poll::Ready(Ok(())),
        })
        .await
    }

    /// The connection, where it can be used again, and the answer.
    fn land(mut self) -> Option<(Option<Line>, R)> {
        // The hub holds it only while it calls it.
        let mut flow = Rc::try_unwrap(self.flow.take()?).ok()?.into_inner();
        *self.seen = flow.leave();
        Some(flow.into_parts())
    }
}

impl<R: Reply + 'static> Drop for Flight<'_, R> {
    fn drop(&mut self) {
        if let Some(flow) = &self.flow {
            *self.seen = flow.borrow_mut().leave();
        }
    }
}
