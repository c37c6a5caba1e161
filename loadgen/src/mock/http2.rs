//! One HTTP/2 connection of the mock server, by prior knowledge (h2c).
//!
//! Faults of the content and of the status work here too; those of HTTP/1.1's framing have no
//! meaning.

use std::{
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Request as HttpRequest, Response,
    body::{Body, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc};

use super::{
    fault::Fault,
    http1::REQUEST_BYTES_MAX,
    play::{End, Sink, play},
    protocol::Request,
    script::{Answer, Field, Whole},
    server::Server,
};
use crate::clock::mono_ns;

/// What a client of HTTP/2 begins with; no method of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI ";

/// Parts of a body that wait for the client to take them.
const WAITING: usize = 16;

/// Streams of a connection: above what any test opens.
const STREAMS_MAX: u32 = 100_000;

/// Whether the connection begins as HTTP/2 does; takes nothing from it.
pub(super) async fn speaks(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut begin).await?;
        let seen = begin.get(..count).unwrap_or_default();
        if count == 0 || !PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        // A part of it: the rest is on its way.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Runs futures on the server's only thread.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Answers until the peer ends the connection.
pub(super) async fn talk(server: Rc<Server>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let server = Rc::clone(&server);
        async move { respond(server, request).await }
    });
    // An error of a connection is its peer's business.
    let _ignored = http2::Builder::new(Here)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A stream was reset instead of answered.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset as asked for")
    }
}
impl std::error::Error for Reset {}

async fn respond(
    server: Rc<Server>,
    request: HttpRequest<Incoming>,
) -> Result<Response<Parts>, Reset> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| Reset)?.to_bytes();
    let arrived = mono_ns();
    let (method, path) = (head.method.as_str(), head.uri.path());
    let decision = server.decide(&Request { method, path, body: &body });
    let (sender, receiver) = mpsc::channel(WAITING);
    let part_of_load = matches!(decision.answer, Answer::Served(_) | Answer::Stream(_));
    if part_of_load {
        server.first_request(arrived);
        if decision.faults.has(Fault::Drop) {
            return Err(Reset);
        }
        if decision.faults.has(Fault::Hang) {
            std::future::pending::<()>().await;
        }
    }
    let (status, kind, headers) = match &decision.answer {
        Answer::Plain(whole) | Answer::Served(whole) => {
            (whole.status, whole.content_type, whole.headers.as_slice())
        }
        Answer::Stream(script) | Answer::Aside(script) => ("200", script.content_type, &[][..]),
    };
    let status = status.get(..3).and_then(|code| code.parse::<u16>().ok()).unwrap_or(200);
    let mut response = Response::builder().status(status).header("content-type", kind);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    tokio::task::spawn_local(async move {
        let mut sink = Channel(sender);
        let (schedule, slot) = match &decision.answer {
            Answer::Served(whole) => server.admit(arrived, whole.events).await,
            Answer::Stream(script) => server.admit(arrived, script.events()).await,
            _ => (server.schedule(arrived), None),
        };
        let sent = match &decision.answer {
            Answer::Plain(whole) => sink.whole(whole).await,
            Answer::Served(whole) => {
                server.alarms.until(schedule.over(whole.events)).await;
                sink.whole(whole).await
            }
            Answer::Stream(script) | Answer::Aside(script) => {
                let own = (&server.alarms, &server.truth);
                match play(script, schedule, decision.faults, own, &mut sink).await {
                    Ok(End::BrokenOff) => sink.0.send(Err(Reset)).await.map_err(|_| closed()),
                    Ok(End::Whole) => sink.trailers(&script.trailers).await,
                    Err(error) => Err(error),
                }
            }
        };
        if let (Err(_), Some(mut slot)) = (sent, slot) {
            slot.abandon();
        }
    });
    response.body(Parts(receiver)).map_err(|_| Reset)
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

struct Channel(mpsc::Sender<Result<Frame<Bytes>, Reset>>);

impl Channel {
    async fn whole(&mut self, whole: &Whole) -> io::Result<()> {
        self.part(&whole.body).await?;
        self.trailers(&whole.trailers).await
    }

    /// Sends the fields after the body, if there are any.
    async fn trailers(&mut self, fields: &[Field]) -> io::Result<()> {
        if fields.is_empty() {
            return Ok(());
        }
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let value = value.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            map.insert(*name, value);
        }
        self.0.send(Ok(Frame::trailers(map))).await.map_err(|_| closed())
    }
}

impl Sink for Channel {
    async fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.0.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).await.map_err(|_| closed())
    }
}

/// A body that comes in parts.
struct Parts(mpsc::Receiver<Result<Frame<Bytes>, Reset>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        self.0.poll_recv(cx)
    }
}
