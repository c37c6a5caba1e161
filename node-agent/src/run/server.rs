//! The agent's HTTP server.

use std::{convert::Infallible, io::Write as _, rc::Rc, sync::Arc, time::Duration};

use aifb_schema::control::{ClockReading, LINE_MAX, NodeReport};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap,
        HeaderValue,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{context::Context, coordinator::Handle, sampling::Sampling};
use crate::{
    clock,
    http::{accept, accepted},
};

/// Connections at a time: two for each other agent of a thousand nodes, and some that look.
const CONNECTIONS: usize = 4096;

/// How long a client may take to send the head of a request, and so how long an idle connection
/// stays: agents ask twice a second.
const HEAD: Duration = Duration::from_secs(30);

/// What requests are answered from.
pub(crate) struct Server {
    context: Rc<Context>,
    sampling: Sampling,
    /// Present on the first node only.
    coordinator: Option<Handle>,
}

type Answer = Response<Full<Bytes>>;

impl Server {
    pub(crate) fn new(
        context: Rc<Context>,
        sampling: Sampling,
        coordinator: Option<Handle>,
    ) -> Rc<Self> {
        Rc::new(Self { context, sampling, coordinator })
    }

    /// Accepts connections until the agent ends.
    pub(crate) async fn serve(self: Rc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No descriptor left, most likely: one may be free again in a moment.
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            accepted::prepare(&stream);
            let server = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| {
                    let server = Rc::clone(&server);
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection broke");
                }
                drop(place);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        // What Prometheus asks, with which nothing can be done.
        let open = matches!(path.as_str(), "/metrics" | "/v1/targets")
            && !self.context.recipe.monitor.metrics_token;
        if !open && !authorised(request.headers(), &self.context.token) {
            return plain(StatusCode::UNAUTHORIZED, "the run's token is needed");
        }
        match (request.method(), path.as_str()) {
            (&Method::GET, "/metrics") => self.metrics(request.headers()),
            (&Method::GET, "/v1/clock") => {
                json(&ClockReading { mono_ns: clock::mono_ns(), epoch_ns: clock::epoch_ns() })
            }
            (_, "/v1/logging") => self.logging(request).await,
            (_, "/v1/status" | "/v1/targets" | "/v1/join" | "/v1/poll" | "/v1/stop") => {
                match &self.coordinator {
                    Some(coordinator) => ask(coordinator, &path, request).await,
                    None => plain(StatusCode::MISDIRECTED_REQUEST, "not the coordinator"),
                }
            }
            _ => plain(StatusCode::NOT_FOUND, "no such page"),
        }
    }

    /// Shows (GET) or changes (PUT) which log lines this node's agent sends and writes.
    async fn logging(&self, request: Request<Incoming>) -> Answer {
        match *request.method() {
            Method::GET => json(&self.context.logging.get()),
            Method::PUT => {
                let body = Limited::new(request.into_body(), LINE_MAX).collect().await;
                let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                match serde_json::from_slice(&body) {
                    Ok(change) => json(&self.context.logging.change(change)),
                    Err(error) => plain(StatusCode::BAD_REQUEST, &error.to_string()),
                }
            }
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, "wrong method"),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let (kind, bytes) = self.sampling.metrics(text(ACCEPT));
        if !accepts_gzip(text(ACCEPT_ENCODING)) {
            return respond(StatusCode::OK, &kind, bytes);
        }
        let mut answer = respond(StatusCode::OK, &kind, gzip(&bytes));
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        answer
    }
}

/// Whether an `Accept-Encoding` header takes gzip.
fn accepts_gzip(header: &str) -> bool {
    accept::choices(header)
        .any(|choice| choice.name.eq_ignore_ascii_case("gzip") && choice.quality > 0.0)
}

/// Compressed with the least effort: names repeat, and the node's CPU belongs to the job.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    // Writing to memory cannot fail.
    let _infallible = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Requests that the coordinator answers.
async fn ask(coordinator: &Handle, path: &str, request: Request<Incoming>) -> Answer {
    match (request.method(), path) {
        (&Method::GET, "/v1/status") => match coordinator.status().await {
            Some(status) => json(&status),
            None => ending(),
        },
        (&Method::GET, "/v1/targets") => match coordinator.targets().await {
            Some(targets) => json(&targets),
            None => ending(),
        },
        (&Method::POST, "/v1/stop") => {
            let body = Limited::new(request.into_body(), LINE_MAX).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            match serde_json::from_slice(&body) {
                Ok(failure) => coordinator.fail(failure),
                Err(_) => coordinator.stop("stop was requested"),
            }
            json(&serde_json::json!({"stopping": true}))
        }
        (&Method::POST, "/v1/join" | "/v1/poll") => {
            let body = Limited::new(request.into_body(), LINE_MAX).collect().await;
            let Ok(body) = body else {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "the report is too large");
            };
            match serde_json::from_slice::<NodeReport>(&body.to_bytes()) {
                Err(error) => plain(StatusCode::BAD_REQUEST, &format!("not a report: {error}")),
                Ok(report) => match coordinator.report(report).await {
                    Some(Ok(orders)) => json(&orders),
                    Some(Err(refusal)) => plain(StatusCode::CONFLICT, &refusal),
                    None => ending(),
                },
            }
        }
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "wrong method"),
    }
}

fn ending() -> Answer {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the run is ending")
}

/// Whether the request carries the token, compared in constant time.
fn authorised(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let Some(given) = given.and_then(|value| value.strip_prefix(b"Bearer ")) else { return false };
    let different = given.iter().zip(token.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == token.len() && different == 0
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => respond(StatusCode::OK, "application/json", bytes),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    respond(status, "text/plain; charset=utf-8", format!("{text}\n").into_bytes())
}

fn respond(status: StatusCode, kind: &str, bytes: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_asks() {
        for (header, gzip) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(header), gzip, "{header}");
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            authorised(&headers, "abc")
        };
        assert!(with("Bearer abc"));
        for wrong in ["Bearer ab", "Bearer abcd", "Bearer abd", "bearer abc", "Bearer ", "abc"] {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(!authorised(&HeaderMap::new(), "abc"));
    }
}
