//! A connection of bytes as engines see it: bare, or inside TLS.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::socket::{READ_BYTES, Seal, Socket};

thread_local! {
    /// What TLS has unpacked.
    static PLAIN: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A connection.
pub(super) enum Io {
    /// Bare.
    Plain(Socket),
    /// Inside TLS.
    Tls(Box<TlsStream<Socket>>),
}

impl Io {
    /// The socket below, with its stamps.
    pub(super) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Whether no unsolicited bytes are pending, as far as can be seen.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_idle(),
            // A server may send tickets for later at any time.
            Self::Tls(tls) => tls.get_ref().0.is_open(),
        }
    }

    /// Reads what is there and hands it to `take`; no bytes are the end.
    pub(super) fn poll_take<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        match self {
            Self::Plain(socket) => socket.poll_take(cx, READ_BYTES, take),
            Self::Tls(tls) => PLAIN.with_borrow_mut(|buffer| {
                let mut place = ReadBuf::new(buffer);
                ready!(Pin::new(&mut **tls).poll_read(cx, &mut place))?;
                if !place.filled().is_empty() {
                    tls.get_ref().0.unsealed(Seal::Tls);
                }
                Poll::Ready(Ok(take(place.filled())))
            }),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => {
                let before = buf.filled().len();
                ready!(Pin::new(&mut **tls).poll_read(cx, buf))?;
                if buf.filled().len() > before {
                    tls.get_ref().0.unsealed(Seal::Tls);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, bufs),
        }
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let most = buf.remaining();
        match &mut *self {
            Self::Plain(socket) => socket.poll_take(cx, most, |bytes| buf.put_slice(bytes)),
            Self::Tls(tls) => PLAIN.with_borrow_mut(|plain| {
                let length = most.min(plain.len());
                let mut place = ReadBuf::new(plain.get_mut(..length).unwrap_or_default());
                ready!(Pin::new(&mut **tls).poll_read(cx, &mut place))?;
                if !place.filled().is_empty() {
                    tls.get_ref().0.unsealed(Seal::Tls);
                }
                buf.put_slice(place.filled());
                Poll::Ready(Ok(()))
            }),
        }
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, bufs)
    }
}
