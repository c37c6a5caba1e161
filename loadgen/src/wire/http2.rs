//! HTTP/2 by h2, the library below hyper: known beforehand (http://) or agreed on in the TLS
//! handshake (https://). Each request in flight has a connection of its own, so that each read
//! is that of one answer and its stamp is exact.

use std::{future::poll_fn, rc::Rc};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use hyper::{Uri, Version, header};

use super::{
    Fields, Head, Reply, Request, Target,
    driven::{Driven, chain},
    io::Io,
    open::Noted,
    receiver::Receiver,
    socket::{Seal, Socket},
};
use crate::{
    fault::{Class, Fault},
    record::row::Seen,
};

/// Bytes of an answer that the server may send before we have taken them: a reader that is
/// never the one that is waited for.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Longest list of headers.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;

/// A connection.
pub(super) struct Http2 {
    socket: Socket,
    target: Rc<Target>,
    sender: SendRequest<Bytes>,
    driven: Driven<Connection<Io, Bytes>>,
    /// The last answer was read to its end.
    clean: bool,
}

impl Http2 {
    /// On an open connection.
    pub(super) async fn new(io: Io, target: Rc<Target>) -> Result<Self, Fault> {
        let socket = io.socket().clone();
        socket.seal(Seal::Http2);
        let (sender, connection) = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .enable_push(false)
            .handshake(io)
            .await
            .map_err(|error| Fault::new(Class::ConnectFailed, chain(&error)))?;
        let mut driven = Driven::new(connection, socket.clone());
        // Our settings go out now, not with the first request.
        driven.settle().await;
        Ok(Self { socket, target, sender, driven, clean: true })
    }

    /// Whether another request can be sent: the last one ended well and the peer has not closed.
    pub(super) fn usable(&self) -> bool {
        self.clean && self.driven.alive() && self.socket.is_open()
    }

    /// Sends a request and hands the answer to `receiver`.
    pub(super) async fn exchange(
        &mut self,
        request: &Request,
        receiver: &mut Receiver<dyn Reply>,
        seen: &mut Seen,
    ) -> Result<(), Fault> {
        let head = self.head(request)?;
        self.clean = false;
        let noted = Noted::begin(self.socket.clone(), seen);
        let Self { sender, driven, .. } = self;
        if let Err(error) = driven.run(poll_fn(|cx| sender.poll_ready(cx))).await {
            return Err(self.broken(&error));
        }
        let empty = request.body.is_empty();
        let (response, mut stream) = match self.sender.send_request(head, empty) {
            Ok(sent) => sent,
            Err(error) => return Err(self.broken(&error)),
        };
        // It is kept there until the server's window has room; we hold it anyway.
        if !empty && let Err(error) = stream.send_data(request.body.clone(), true) {
            return Err(self.broken(&error));
        }
        let response = match self.driven.run(response).await {
            Ok(response) => response,
            Err(error) => return Err(self.broken(&error)),
        };
        self.socket.unsealed(Seal::Http2);
        let (parts, mut body) = response.into_parts();
        let fields = Fields::Map(&parts.headers);
        receiver.head(&Head { status: parts.status.as_u16(), fields }, noted.seen)?;
        loop {
            let Some(bytes) = self.driven.run(poll_fn(|cx| body.poll_data(cx))).await else {
                break;
            };
            let bytes = bytes.map_err(|error| self.broken(&error))?;
            receiver.body(&bytes, self.socket.last_read_ns(), noted.seen)?;
            // Refused only where the stream has ended meanwhile.
            let _ignored = body.flow_control().release_capacity(bytes.len());
        }
        let trailers = self.driven.run(poll_fn(|cx| body.poll_trailers(cx))).await;
        if let Some(trailers) = trailers.map_err(|error| self.broken(&error))? {
            receiver.trailers(&Fields::Map(&trailers), noted.seen)?;
        }
        let end = self.socket.last_read_ns();
        drop(body);
        self.clean = true;
        self.socket.rest();
        self.driven.settle().await;
        receiver.end(end, noted.seen)
    }

    /// The request as h2 wants it.
    fn head(&self, request: &Request) -> Result<hyper::Request<()>, Fault> {
        let path = request.path_at(&self.target);
        let wrong = |_| Fault::new(Class::Send, format!("'{path}' cannot be a path"));
        let scheme = if self.target.secure.is_some() { "https" } else { "http" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(self.target.authority.as_str())
            .path_and_query(path.as_str())
            .build()
            .map_err(wrong)?;
        let route = &request.route;
        let mut wanted = hyper::Request::new(());
        *wanted.method_mut() = route.method.clone();
        *wanted.uri_mut() = uri;
        *wanted.version_mut() = Version::HTTP_2;
        let headers = wanted.headers_mut();
        for (name, value, _) in self.target.defaults() {
            // The authority says it already.
            if *name != header::HOST && !route.overrides(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in route.headers() {
            headers.append(name.clone(), value.clone());
        }
        if request.tells_length() {
            headers.insert(header::CONTENT_LENGTH, request.body.len().into());
        }
        Ok(wanted)
    }

    /// The fault of a connection that ended too early.
    fn broken(&self, error: &h2::Error) -> Fault {
        let why = chain(error);
        let reason = self.driven.ended().unwrap_or(&why);
        let class = if error.is_library() && !error.is_io() {
            Class::Parse
        } else if self.socket.answered() {
            Class::TruncatedStream
        } else {
            Class::ResetBeforeResponse
        };
        Fault::new(class, reason)
    }
}
