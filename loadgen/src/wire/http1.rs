//! HTTP/1.1 by hyper.

use std::{pin::Pin, rc::Rc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Uri,
    body::{Body, Frame},
    client::conn::http1::{Connection, SendRequest, handshake},
};

use super::{
    Fields, Head, Reply, Request, Route, Target,
    driven::{Driven, chain},
    io::Io,
    open::Noted,
    receiver::Receiver,
    socket::Socket,
};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
};

/// A connection.
pub(super) struct Http1 {
    socket: Socket,
    /// Inside TLS, where a server may send unsolicited messages.
    sealed: bool,
    sender: SendRequest<Full<Bytes>>,
    target: Rc<Target>,
    driven: Driven<Connection<Io, Full<Bytes>>>,
    /// The last answer was read to its end.
    clean: bool,
    /// The head of the latest route.
    known: Option<(Rc<Route>, (Uri, HeaderMap))>,
}

impl Http1 {
    /// On an open connection.
    pub(super) async fn new(io: Io, target: Rc<Target>) -> Result<Self, Fault> {
        let socket = io.socket().clone();
        let sealed = matches!(io, Io::Tls(_));
        let (sender, connection) = handshake(io)
            .await
            .map_err(|error| Fault::new(Class::ConnectFailed, error.to_string()))?;
        let driven = Driven::new(connection, socket.clone());
        Ok(Self { socket, sealed, sender, target, driven, clean: true, known: None })
    }

    /// Whether another request can be sent: the last one ended well and the peer has not closed.
    pub(super) fn usable(&self) -> bool {
        let idle = if self.sealed { self.socket.is_open() } else { self.socket.is_idle() };
        self.clean && self.driven.alive() && !self.sender.is_closed() && idle
    }

    /// Sends a request and hands the answer to `receiver`.
    pub(super) async fn exchange(
        &mut self,
        request: &Request,
        receiver: &mut Receiver<dyn Reply>,
        seen: &mut Seen,
    ) -> Result<(), Fault> {
        let request = self.request(request)?;
        self.clean = false;
        let noted = Noted::begin(self.socket.clone(), seen);
        if let Err(error) = self.driven.run(self.sender.ready()).await {
            return Err(self.broken(&chain(&error)));
        }
        let response = match self.driven.run(self.sender.send_request(request)).await {
            Ok(response) => response,
            Err(error) => return Err(self.broken(&chain(&error))),
        };
        let (parts, mut body) = response.into_parts();
        let fields = Fields::Map(&parts.headers);
        receiver.head(&Head { status: parts.status.as_u16(), fields }, noted.seen)?;
        // Its values are parts of hyper's read buffer, which could not be used again meanwhile.
        drop(parts);
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            let Some(frame) = self.driven.run(frame).await else { break };
            let frame = frame.map_err(|error| self.broken(&chain(&error)))?;
            match Frame::into_data(frame) {
                Ok(bytes) => receiver.body(&bytes, self.socket.last_read_ns(), noted.seen)?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        receiver.trailers(&Fields::Map(&trailers), noted.seen)?;
                    }
                }
            }
        }
        self.clean = true;
        let end = self.socket.last_read_ns();
        self.socket.rest();
        self.driven.settle().await;
        receiver.end(end, noted.seen)
    }

    /// The request as hyper wants it.
    fn request(&mut self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Fault> {
        let route = &request.route;
        // Of a route without paths of its own, head after head is the same.
        let known = self
            .known
            .as_ref()
            .filter(|(known, _)| request.path.is_none() && Rc::ptr_eq(known, route));
        let head = match known {
            Some((_, head)) => head.clone(),
            None => {
                let head = self.head(request)?;
                if request.path.is_none() {
                    self.known = Some((Rc::clone(route), head.clone()));
                }
                head
            }
        };
        let mut wanted = hyper::Request::new(Full::new(request.body.clone()));
        *wanted.method_mut() = route.method.clone();
        (*wanted.uri_mut(), *wanted.headers_mut()) = head;
        Ok(wanted)
    }

    /// Path and headers of a request.
    fn head(&self, request: &Request) -> Result<(Uri, HeaderMap), Fault> {
        let path = request.path_at(&self.target);
        let uri: Uri = path
            .parse()
            .map_err(|_| Fault::new(Class::Send, format!("'{path}' cannot be a path")))?;
        let route = &request.route;
        let mut headers = HeaderMap::new();
        for (name, value, _) in self.target.defaults() {
            if !route.overrides(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in route.headers() {
            headers.append(name.clone(), value.clone());
        }
        Ok((uri, headers))
    }

    /// The fault of a connection that ended too early.
    fn broken(&self, reason: &str) -> Fault {
        let reason = self.driven.ended().unwrap_or(reason);
        if !self.socket.answered() {
            Fault::new(Class::ResetBeforeResponse, reason)
        } else if NOT_HTTP.iter().any(|words| reason.contains(words)) && !reason.contains("EOF") {
            Fault::new(Class::Parse, reason)
        } else {
            Fault::new(Class::TruncatedStream, reason)
        }
    }
}

/// How hyper speaks of an answer that breaks the protocol, in its head or in the frame of its body;
/// one that only ends too early is another thing.
const NOT_HTTP: &[&str] =
    &["invalid HTTP", "message head is too large", "invalid content-length", "chunk"];
