//! When the kernel acknowledges what a connection has brought.
//!
//! A server with Nagle's algorithm holds a small part of an answer back until the part before it
//! is acknowledged (RFC 896), and the kernel delays an acknowledgement by 40 ms where it sees no
//! reason to hurry. So quick acknowledgements are enabled (TCP_QUICKACK, tcp(7)) while more data is
//! expected. That is a packet for each read, a third of what a token costs, and a server without
//! the algorithm waits for none of them. Which of the two a server is shows one trial on one
//! connection: a few small parts are left to the kernel's own rule, which acknowledges the second
//! of two that follow each other. When parts came without an acknowledgement in between, the server
//! does not wait, and from then on that rule holds for all its connections. Otherwise nothing
//! changes, and the trial has cost one gap of one answer. A trial in which a large part comes tells
//! nothing; there are not many of those.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::sys::{self, Segments};

/// Parts of an answer before a trial: its head, and whatever comes with it, is none of a stream.
const PARTS_BEFORE: u32 = 3;

/// Parts of a trial: with at most one acknowledgement among them, two followed each other without.
const PARTS: u64 = 3;

/// Most bytes of a part in a trial: less than the smallest segment (RFC 9293, 3.7.1: 536), so that
/// Nagle's algorithm applies to it.
const PART_BYTES_MAX: usize = 512;

/// Trials that may end without telling anything.
const TRIALS: u8 = 3;

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// Nothing; trials that have not been made.
    Untried(u8),
    /// A connection is at its trial; trials that are left then.
    Trying(u8),
    /// It may wait for acknowledgements.
    Waits,
    /// It sends without waiting for them.
    Goes,
}

impl Default for Server {
    fn default() -> Self {
        Self::Untried(TRIALS)
    }
}

/// Whether the kernel has this setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come since the last write: the next write would carry it.
    Quiet,
    /// Something has come; if more is waited for, the peer must not wait for us.
    Owed,
    /// The kernel hurries, where it has to; a write makes it forget that.
    Told,
    /// Left to its own rule for a trial, since so many segments.
    Trial(Segments),
    /// Nothing changes any more before the next write.
    Settled,
}

/// The acknowledgements of one connection.
#[derive(Debug)]
pub(super) struct Acks {
    state: Cell<State>,
    /// Unset: all is left to the kernel.
    server: OnceCell<Rc<Cell<Server>>>,
}

impl Acks {
    /// Left to the kernel.
    pub(super) fn new() -> Self {
        Self { state: Cell::new(State::Quiet), server: OnceCell::new() }
    }

    /// From now on `server`, of which others may know more already, does not wait for them.
    pub(super) fn hurry_for(&self, server: Rc<Cell<Server>>) {
        // Set once, when the connection is opened.
        let _ignored = self.server.set(server);
    }

    /// Something was written, which carries what is owed.
    pub(super) fn sent(&self) {
        self.change(State::Quiet);
    }

    /// Nothing more is waited for.
    pub(super) fn rest(&self) {
        self.change(State::Quiet);
    }

    /// More of an answer is waited for: what has come is acknowledged now, and so is what comes
    /// until the next write.
    pub(super) fn wait(&self, tcp: &TcpStream) {
        if self.state.get() != State::Owed {
            return;
        }
        self.state.set(State::Told);
        if self.server.get().is_some_and(|server| server.get() != Server::Goes) {
            quick(tcp, true);
        }
    }

    /// The `number`th part of an answer was read.
    pub(super) fn read(&self, tcp: &TcpStream, number: u32, bytes: usize) {
        match self.state.get() {
            State::Settled | State::Owed => {}
            State::Quiet => self.state.set(State::Owed),
            State::Told if number < PARTS_BEFORE || bytes > PART_BYTES_MAX => {}
            State::Told => self.streams(tcp),
            // What was held back, perhaps.
            State::Trial(_) if bytes > PART_BYTES_MAX => {
                self.change(State::Told);
                quick(tcp, true);
            }
            State::Trial(since) => self.judge(tcp, since),
        }
    }

    /// Small parts keep coming.
    fn streams(&self, tcp: &TcpStream) {
        let Some(server) = self.server.get() else { return };
        match server.get() {
            Server::Trying(_) => {}
            Server::Waits | Server::Untried(0) => self.state.set(State::Settled),
            Server::Goes => {
                quick(tcp, false);
                self.state.set(State::Settled);
            }
            Server::Untried(left) => {
                quick(tcp, false);
                let Some(segments) = sys::segments(tcp) else { return self.settle(tcp, false) };
                server.set(Server::Trying(left - 1));
                self.state.set(State::Trial(segments));
            }
        }
    }

    /// Ends the trial when enough has come.
    fn judge(&self, tcp: &TcpStream, since: Segments) {
        let Some(now) = sys::segments(tcp) else { return self.settle(tcp, false) };
        let brought = now.brought.saturating_sub(since.brought);
        if brought >= PARTS {
            self.settle(tcp, now.sent.saturating_sub(since.sent) <= brought - 2);
        }
    }

    /// Notes what the server does.
    fn settle(&self, tcp: &TcpStream, goes: bool) {
        self.state.set(State::Settled);
        if let Some(server) = self.server.get() {
            server.set(if goes { Server::Goes } else { Server::Waits });
        }
        if !goes {
            quick(tcp, true);
        }
    }

    /// Goes over to another state; an unfinished trial has no outcome.
    fn change(&self, state: State) {
        if let (State::Trial(_), Some(server)) = (self.state.replace(state), self.server.get())
            && let Server::Trying(left) = server.get()
        {
            server.set(Server::Untried(left));
        }
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        self.change(State::Quiet);
    }
}

/// Best effort: without it the delay shows in the figures.
fn quick(tcp: &TcpStream, on: bool) {
    let _ignored = SockRef::from(tcp).set_tcp_quickack(on);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::{Acks, Cell, Rc, Segments, Server, State, sys};
    use crate::wire::socket::Socket;

    const GAP: Duration = Duration::from_millis(3);

    /// Segments that a connection has received, with data or without.
    fn arrived(stream: &TcpStream) -> u64 {
        sys::segments(stream).unwrap().received
    }

    /// A server that sends `answers` of so many small parts each on one connection, each for one
    /// byte; it gives the acknowledgements that it had for each part.
    fn serve(
        nodelay: bool,
        answers: usize,
        parts: usize,
    ) -> (SocketAddr, thread::JoinHandle<Vec<u64>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(nodelay).unwrap();
            let answer = |_| {
                stream.read_exact(&mut [0]).unwrap();
                let before = arrived(&stream);
                for _ in 0..parts {
                    stream.write_all(&[b'.'; 40]).unwrap();
                    thread::sleep(GAP);
                }
                arrived(&stream) - before
            };
            (0..answers).map(answer).collect()
        });
        (address, server)
    }

    /// Reads `answers` of `bytes`; gives how long each took, and what is then known of the server.
    fn ask(address: SocketAddr, answers: usize, bytes: usize) -> (Vec<Duration>, Server) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let known = Rc::<Cell<Server>>::default();
        let times = runtime.block_on(async {
            let mut socket = Socket::connect(address).await.unwrap();
            socket.acks().hurry_for(Rc::clone(&known));
            let mut times = Vec::new();
            for _ in 0..answers {
                let begun = Instant::now();
                socket.begin();
                tokio::io::AsyncWriteExt::write_all(&mut socket, b"?").await.unwrap();
                let mut read = 0;
                while read < bytes {
                    read += std::future::poll_fn(|cx| {
                        let polled = socket.poll_take(cx, 4_096, <[u8]>::len);
                        if polled.is_pending() {
                            socket.waits();
                        }
                        polled
                    })
                    .await
                    .unwrap();
                }
                socket.rest();
                times.push(begun.elapsed());
            }
            times
        });
        (times, known.get())
    }

    /// What must never be is looked for in each of some tries; what a process that is not run for
    /// 40 ms does not see has to be seen in one of them.
    fn tries(nodelay: bool, never: Server, wanted: impl Fn(Server, &[u64]) -> bool) {
        let mut found = Vec::new();
        for _ in 0..10 {
            let (address, server) = serve(nodelay, 3, 40);
            let (times, known) = ask(address, 3, 40 * 40);
            let acks = server.join().unwrap();
            assert_ne!(known, never, "{acks:?} for 40 parts, {times:?}");
            if wanted(known, &acks) {
                return;
            }
            found.push((known, acks, times));
        }
        panic!("{found:?}");
    }

    /// One acknowledgement for two parts is enough for it, once that is known.
    #[test]
    fn a_server_that_does_not_wait_gets_fewer() {
        tries(true, Server::Trying(2), |known, acks| {
            known == Server::Goes && acks.iter().skip(1).all(|acks| *acks <= 30)
        });
    }

    /// Every part is acknowledged at once, but for those of the trials, which are in the first
    /// answer.
    #[test]
    fn a_server_that_waits_gets_all() {
        tries(false, Server::Goes, |_, acks| acks.last().is_some_and(|acks| *acks >= 36));
    }

    /// What a connection leaves undone another can do.
    #[test]
    fn a_trial_that_is_given_up_is_none() {
        let known = Rc::new(Cell::new(Server::Trying(1)));
        let acks = Acks::new();
        acks.hurry_for(Rc::clone(&known));
        acks.state.set(State::Trial(Segments { sent: 1, brought: 1, received: 1 }));
        drop(acks);
        assert_eq!(known.get(), Server::Untried(1));
    }
}
