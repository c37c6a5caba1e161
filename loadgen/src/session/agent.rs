//! The connection to the agent of this node: JSON lines over an abstract Unix socket.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream as StdStream},
    },
    time::Duration,
};

use aifb_schema::control::{FromWorker, LINE_MAX, ToWorker};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::place::Place;
use crate::error::Fatal;

/// Longest wait until a line is taken: an agent that does not read for this long is as good as
/// lost, and a load that has not started must fail within 5 s.
const SEND_MAX: Duration = Duration::from_secs(4);

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoAgent {
    /// Nobody takes it.
    Unreachable(Fatal),
    /// There is none that would be ours.
    Wrong(Fatal),
}

/// The agent.
pub(super) struct Agent {
    lines: BufReader<OwnedReadHalf>,
    /// Bytes of a line that is not complete: reading may be interrupted at any point.
    partial: Vec<u8>,
    out: OwnedWriteHalf,
    lost: bool,
}

impl Agent {
    /// Connects to the agent of this node and checks that it is ours.
    ///
    /// # Errors
    /// If there is none, or it belongs to another user.
    pub(super) async fn connect(place: &Place) -> Result<Self, NoAgent> {
        let record = place.agent().map_err(NoAgent::Wrong)?;
        let fail = |cause: String| {
            Fatal::node(format!("connecting to the agent on node '{}': {cause}", record.node))
                .hint("check that the run is active: see run.json and the node's agent.log")
        };
        let wrong = |error: io::Error| NoAgent::Wrong(fail(error.to_string()));
        let address = SocketAddr::from_abstract_name(record.socket.as_bytes()).map_err(wrong)?;
        let stream = StdStream::connect_addr(&address)
            .map_err(|error| NoAgent::Unreachable(fail(error.to_string())))?;
        stream.set_nonblocking(true).map_err(wrong)?;
        let stream = UnixStream::from_std(stream).map_err(wrong)?;
        let peer = stream.peer_cred().map_err(wrong)?;
        let own = nix::unistd::geteuid().as_raw();
        if peer.uid() != own {
            let cause = format!("it belongs to user {}, expected {own}", peer.uid());
            return Err(NoAgent::Wrong(fail(cause)));
        }
        let (read, out) = stream.into_split();
        Ok(Self { lines: BufReader::new(read), partial: Vec::new(), out, lost: false })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the agent is lost.
    pub(super) async fn send(&mut self, message: &FromWorker) -> Result<(), Fatal> {
        let mut line = serde_json::to_vec(message).map_err(|error| lost(&error.to_string()))?;
        line.push(b'\n');
        match tokio::time::timeout(SEND_MAX, self.out.write_all(&line)).await {
            Ok(written) => written.map_err(|error| lost(&error.to_string())),
            Err(_) => Err(lost("it does not read its messages")),
        }
    }

    /// Whether the connection has ended; nothing can be received then.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The next message; may be dropped and called again without losing one.
    ///
    /// # Errors
    /// If the agent is lost or sends what is not a message.
    pub(super) async fn receive(&mut self) -> Result<ToWorker, Fatal> {
        let message = self.line().await;
        self.lost |= message.is_err();
        message
    }

    async fn line(&mut self) -> Result<ToWorker, Fatal> {
        loop {
            let buffer = self.lines.fill_buf().await.map_err(|error| lost(&error.to_string()))?;
            if buffer.is_empty() {
                return Err(lost("it closed the connection"));
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            self.partial.extend_from_slice(buffer.get(..taken).unwrap_or_default());
            self.lines.consume(taken);
            if self.partial.len() > LINE_MAX {
                return Err(lost("it sent a line that is too long"));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                return serde_json::from_slice(&line)
                    .map_err(|error| lost(&format!("it sent what is not a message: {error}")));
            }
        }
    }
}

fn lost(cause: &str) -> Fatal {
    Fatal::node(format!("communicating with the agent of this node: {cause}"))
        .hint("see run.json and the agent.log of the node")
}
