//! A connection of bytes (TCP, or a Unix socket) that stamps each read and the first write of a
//! request.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::ack::Acks;
use crate::{clock::mono_ns, fault::Fault, record::row::Seen};

/// Bytes read at a time. One buffer serves all connections of a thread, so ten thousand streams
/// cost no more than one.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Age of the last read below which only the runtime's own state of a connection is checked: a
/// close within it cannot be distinguished from one while the request is on its way, which is sent
/// again.
const FRESH_NS: u64 = 50_000;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A connection, shared between the protocol engine above and the driver that reads its stamps.
#[derive(Clone)]
pub(crate) struct Socket(Rc<Inner>);

struct Inner {
    stream: RefCell<Stream>,
    first_write_ns: Cell<Option<u64>>,
    first_read_ns: Cell<Option<u64>>,
    last_read_ns: Cell<u64>,
    reads: Cell<u32>,
    bytes_sent: Cell<u64>,
    bytes_received: Cell<u64>,
    /// Who says that what was read is part of an answer.
    seal: Cell<Seal>,
    acks: Acks,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What may read something that is no part of an answer: tickets, settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    /// Nothing: every byte is part of one.
    None,
    /// TLS, with HTTP/1.1 in it.
    Tls,
    /// HTTP/2.
    Http2,
}

impl Socket {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, Fault> {
        let fault = |error: io::Error| Fault::connect(&error, &address);
        let tcp = TcpStream::connect(address).await.map_err(fault)?;
        tcp.set_nodelay(true).map_err(fault)?;
        Ok(Self::new(Stream::Tcp(tcp)))
    }

    /// Connects to a Unix socket.
    pub(crate) async fn connect_unix(path: &Path) -> Result<Self, Fault> {
        let fault = |error: io::Error| Fault::connect(&error, &path.display());
        let stream = UnixStream::connect(path).await.map_err(fault)?;
        Ok(Self::new(Stream::Unix(stream)))
    }

    fn new(stream: Stream) -> Self {
        Self(Rc::new(Inner {
            stream: RefCell::new(stream),
            first_write_ns: Cell::new(None),
            first_read_ns: Cell::new(None),
            last_read_ns: Cell::new(0),
            reads: Cell::new(0),
            bytes_sent: Cell::new(0),
            bytes_received: Cell::new(0),
            seal: Cell::new(Seal::None),
            acks: Acks::new(),
        }))
    }

    /// When what it brings is acknowledged.
    pub(super) fn acks(&self) -> &Acks {
        &self.0.acks
    }

    /// Forgets the stamps: a new request begins.
    pub(crate) fn begin(&self) {
        self.0.first_write_ns.set(None);
        self.0.first_read_ns.set(None);
        self.0.reads.set(0);
        self.0.bytes_sent.set(0);
        self.0.bytes_received.set(0);
    }

    /// From now on only `seal` says which read has something of an answer in it.
    pub(super) fn seal(&self, seal: Seal) {
        self.0.seal.set(seal);
    }

    /// What was read last had something of an answer in it, as `seal` says.
    pub(super) fn unsealed(&self, seal: Seal) {
        if self.0.seal.get() == seal && self.0.first_read_ns.get().is_none() {
            self.0.first_read_ns.set(Some(self.0.last_read_ns.get()));
        }
    }

    /// When the bytes that are being parsed were read.
    pub(crate) fn last_read_ns(&self) -> u64 {
        self.0.last_read_ns.get()
    }

    /// Whether a byte of the answer was read.
    pub(crate) fn answered(&self) -> bool {
        self.0.first_read_ns.get().is_some()
    }

    /// Adds the stamps since [`Socket::begin`] to what was seen of the request.
    pub(crate) fn note(&self, seen: &mut Seen) {
        // A request that is sent again keeps its first stamp: the time of the first try counts.
        seen.first_write_ns = seen.first_write_ns.or_else(|| self.0.first_write_ns.get());
        seen.first_byte_ns = seen.first_byte_ns.or_else(|| self.0.first_read_ns.get());
        seen.reads = seen.reads.saturating_add(self.0.reads.get());
        seen.bytes_sent += self.0.bytes_sent.get();
        seen.bytes_received += self.0.bytes_received.get();
    }

    /// Whether the connection is idle and open: neither closed by the peer nor with bytes that
    /// nobody asked for.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.waiting(), Waiting::Nothing)
    }

    /// Whether the peer has not closed, as far as can be seen below TLS or HTTP/2, which may say
    /// something unasked.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.waiting(), Waiting::End)
    }

    fn waiting(&self) -> Waiting {
        let stream = self.0.stream.borrow();
        let peek = |socket: SockRef<'_>| {
            let mut byte = [MaybeUninit::uninit(); 1];
            socket.peek(&mut byte)
        };
        let fresh = mono_ns().saturating_sub(self.0.last_read_ns.get()) < FRESH_NS;
        let peeked = match &*stream {
            Stream::Tcp(tcp) if fresh => {
                tcp.try_io(Interest::READABLE, || peek(SockRef::from(tcp)))
            }
            Stream::Unix(unix) if fresh => {
                unix.try_io(Interest::READABLE, || peek(SockRef::from(unix)))
            }
            Stream::Tcp(tcp) => peek(SockRef::from(tcp)),
            Stream::Unix(unix) => peek(SockRef::from(unix)),
        };
        match peeked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Waiting::Nothing,
            Ok(1..) => Waiting::Bytes,
            Ok(0) | Err(_) => Waiting::End,
        }
    }

    /// More of an answer is waited for.
    pub(super) fn waits(&self) {
        if let Stream::Tcp(tcp) = &*self.0.stream.borrow() {
            self.0.acks.wait(tcp);
        }
    }

    /// Nothing more is waited for: what has come is acknowledged by the next request.
    pub(super) fn rest(&self) {
        self.0.acks.rest();
    }

    /// Reads what is there into the thread's buffer and hands at most `most` bytes to `take`; no
    /// bytes are the end.
    pub(super) fn poll_take<T>(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        BUFFER.with_borrow_mut(|buffer| {
            let length = most.min(buffer.len());
            let mut place = ReadBuf::new(buffer.get_mut(..length).unwrap_or_default());
            let polled = match &mut *self.0.stream.borrow_mut() {
                Stream::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut place),
                Stream::Unix(unix) => Pin::new(unix).poll_read(cx, &mut place),
            };
            ready!(polled)?;
            self.received(mono_ns(), place.filled().len());
            Poll::Ready(Ok(take(place.filled())))
        })
    }

    fn received(&self, now: u64, count: usize) {
        let inner = &self.0;
        inner.last_read_ns.set(now);
        if count == 0 {
            return;
        }
        if inner.first_read_ns.get().is_none() && inner.seal.get() == Seal::None {
            inner.first_read_ns.set(Some(now));
        }
        inner.reads.set(inner.reads.get().saturating_add(1));
        if let Stream::Tcp(tcp) = &*inner.stream.borrow() {
            inner.acks.read(tcp, inner.reads.get(), count);
        }
        let count = u64::try_from(count).unwrap_or(0);
        inner.bytes_received.set(inner.bytes_received.get() + count);
    }

    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let now = mono_ns();
        let polled = match (&mut *self.0.stream.borrow_mut(), parts) {
            (Stream::Tcp(tcp), [part]) => Pin::new(tcp).poll_write(cx, part),
            (Stream::Tcp(tcp), parts) => Pin::new(tcp).poll_write_vectored(cx, parts),
            (Stream::Unix(unix), [part]) => Pin::new(unix).poll_write(cx, part),
            (Stream::Unix(unix), parts) => Pin::new(unix).poll_write_vectored(cx, parts),
        };
        let count = ready!(polled)?;
        if self.0.first_write_ns.get().is_none() {
            self.0.first_write_ns.set(Some(now));
        }
        self.0.acks.sent();
        let sent = self.0.bytes_sent.get() + u64::try_from(count).unwrap_or(0);
        self.0.bytes_sent.set(sent);
        Poll::Ready(Ok(count))
    }

    fn poll_close(&self) -> Poll<io::Result<()>> {
        let end = std::net::Shutdown::Write;
        let closed = match &*self.0.stream.borrow() {
            Stream::Tcp(tcp) => SockRef::from(tcp).shutdown(end),
            Stream::Unix(unix) => SockRef::from(unix).shutdown(end),
        };
        match closed {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// What a look at the connection finds.
enum Waiting {
    Nothing,
    Bytes,
    End,
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_take(cx, buf.remaining(), |bytes| buf.put_slice(bytes))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close()
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }
}
