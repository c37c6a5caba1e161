//! The agent as an HTTP client: of the coordinator, and of services when it probes them.

use std::{cell::RefCell, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};

/// Longest time to connect; on a cluster's network it takes less than a millisecond.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection to one server, made anew when it breaks.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    token: String,
    /// Longest time for an answer.
    patience: Duration,
    connection: RefCell<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, token: String, patience: Duration) -> Self {
        Self { address, token, patience, connection: RefCell::new(None) }
    }

    /// Sends JSON, receives JSON.
    ///
    /// # Errors
    /// No answer in time, or one that is not 200 with the expected JSON.
    pub(crate) async fn post<T: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        message: &T,
    ) -> io::Result<R> {
        let body = serde_json::to_vec(message)?;
        let answer = self.exchange("POST", path, body).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Receives JSON.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub(crate) async fn get<R: DeserializeOwned>(&self, path: &str) -> io::Result<R> {
        let answer = self.exchange("GET", path, Vec::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn exchange(&self, method: &str, path: &str, body: Vec<u8>) -> io::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_LENGTH, body.len())
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        let work = async {
            let kept = self.connection.borrow_mut().take().filter(|sender| !sender.is_closed());
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(self.address).await?,
            };
            let (status, bytes) = send(&mut sender, request).await?;
            *self.connection.borrow_mut() = Some(sender);
            if status == StatusCode::OK {
                return Ok(bytes);
            }
            let text: String = String::from_utf8_lossy(&bytes).trim().chars().take(300).collect();
            Err(io::Error::other(format!("{status}: {text}")))
        };
        timeout(self.patience, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = timeout(CONNECT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        // A broken connection shows in the request that needs it.
        let _broken = connection.await;
    });
    Ok(sender)
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> io::Result<(StatusCode, Bytes)> {
    sender.ready().await.map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), aifb_schema::control::LINE_MAX);
    let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok((status, bytes))
}

/// One `GET` on a connection of its own; the status. The body is not waited for.
///
/// # Errors
/// No answer in time.
pub(crate) async fn probe(
    address: SocketAddr,
    host: &str,
    path: &str,
    patience: Duration,
) -> io::Result<StatusCode> {
    let request = Request::builder()
        .uri(path)
        .header(HOST, host)
        .header(hyper::header::CONNECTION, "close")
        .body(Full::new(Bytes::new()))
        .map_err(io::Error::other)?;
    let work = async {
        let mut sender = connect(address).await?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok(response.status())
    };
    timeout(patience, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
