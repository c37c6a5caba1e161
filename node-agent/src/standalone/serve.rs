//! `/metrics` of a sampler without a run.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::Shared;
use crate::http::accepted;

/// Scrapers at a time: each costs a descriptor and some KiB.
const CONNECTIONS: usize = 64;

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Opens the port, before anything is recorded.
///
/// # Errors
/// The address is taken, or not of this machine.
pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on '{address}'"))
}

/// Answers until the program ends.
pub(super) async fn serve(listener: TcpListener, handle: Shared) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor left, most likely: one may be free again in a moment.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        accepted::prepare(&stream);
        let handle = Rc::clone(&handle);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let answer = answer(&handle, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off has its reasons.
            let _broken = connection.await;
            drop(place);
        });
    }
}

fn answer(handle: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let known = request.uri().path() == "/metrics" && request.method() == Method::GET;
    let (status, kind, bytes) = match &*handle.borrow() {
        Some(handle) if known => {
            let (kind, bytes) = handle.metrics(accept.unwrap_or_default());
            (StatusCode::OK, kind, bytes)
        }
        Some(_) => (StatusCode::NOT_FOUND, "text/plain", b"only GET /metrics\n".to_vec()),
        None => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", b"ending\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
