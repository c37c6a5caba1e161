//! Opening a connection, and its stamps.

use std::{future::Future as _, pin::Pin, rc::Rc, sync::Arc};

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{
    Target,
    driven::chain,
    io::Io,
    socket::{Seal, Socket},
    target::{Place, Secure},
};
use crate::{
    clock::mono_ns,
    fault::{Class, Fault},
    record::row::Seen,
};

/// What opening a connection took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Opened {
    /// Of it, the TLS handshake.
    pub(super) tls_ns: Option<u64>,
}

/// Opens a connection to a target, with TLS where its URL says so.
pub(super) async fn open(target: &Target) -> Result<(Io, Opened), Fault> {
    let socket = match &target.place {
        Place::Tcp(address) => Socket::connect(*address).await?,
        Place::Unix(path) => Socket::connect_unix(path).await?,
    };
    if let Some(server) = &target.acks {
        socket.acks().hurry_for(Rc::clone(server));
    }
    let Some(Secure { config, name }) = &target.secure else {
        return Ok((Io::Plain(socket), Opened::default()));
    };
    let from = mono_ns();
    let tls = handshake(socket, config, name.clone()).await?;
    Ok((tls, Opened { tls_ns: Some(mono_ns().saturating_sub(from)) }))
}

async fn handshake(
    socket: Socket,
    config: &Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
) -> Result<Io, Fault> {
    socket.seal(Seal::Tls);
    let wanted = config.alpn_protocols.first().cloned();
    let mut connect = TlsConnector::from(Arc::clone(config)).connect(name, socket.clone());
    let shaken = std::future::poll_fn(|cx| {
        let polled = Pin::new(&mut connect).poll(cx);
        if polled.is_pending() {
            // The server may send its part in pieces.
            socket.waits();
        }
        polled
    });
    let tls =
        shaken.await.map_err(|error| Fault::new(Class::Tls, format!("TLS: {}", chain(&error))))?;
    // A server that does not announce it is assumed to support HTTP/1.1 only.
    if wanted.as_deref() == Some(b"h2") && tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(Fault::new(Class::Tls, "TLS: the server does not offer HTTP/2"));
    }
    Ok(Io::Tls(Box::new(tls)))
}

/// Copies the socket's stamps when a request is over, however it ends.
pub(super) struct Noted<'a> {
    socket: Socket,
    pub(super) seen: &'a mut Seen,
}

impl<'a> Noted<'a> {
    /// A request begins.
    pub(super) fn begin(socket: Socket, seen: &'a mut Seen) -> Self {
        socket.begin();
        Self { socket, seen }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.socket.note(self.seen);
    }
}
