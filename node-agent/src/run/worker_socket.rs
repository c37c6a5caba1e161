//! Load workers of this node: an abstract Unix socket with JSON lines.
//!
//! The agent relays between them and the coordinator. When the coordinator is lost, loads that
//! have started go on and end by themselves; others are refused.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    os::linux::net::SocketAddrExt,
    rc::Rc,
};

use aifb_schema::{
    control::{FromWorker, LINE_MAX, ToWorker, WorkerId, WorkerMessage},
    run::{Failure, Owner},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{clock_offset::CoordinatorClock, context::Context};

/// Messages waiting for one worker: it gets half a dozen in its life.
const QUEUE: usize = 16;

/// Workers of this node and the way to them.
#[derive(Debug)]
pub(crate) struct Workers {
    context: Rc<Context>,
    clock: Rc<CoordinatorClock>,
    there: RefCell<HashMap<WorkerId, Rc<Worker>>>,
    coordinator_lost: Cell<bool>,
}

#[derive(Debug)]
struct Worker {
    queue: mpsc::Sender<ToWorker>,
    started: Cell<bool>,
}

/// A socket name that no other run has, and the socket.
pub(crate) fn bind(run_id: &str) -> io::Result<(String, UnixListener)> {
    let name = format!("aifb-{run_id}-{:08x}", rand::random::<u32>());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    Ok((name, UnixListener::from_std(listener)?))
}

impl Workers {
    pub(crate) fn new(context: Rc<Context>, clock: Rc<CoordinatorClock>) -> Rc<Self> {
        let there = RefCell::new(HashMap::new());
        Rc::new(Self { context, clock, there, coordinator_lost: Cell::new(false) })
    }

    /// Whether a worker is there.
    pub(crate) fn busy(&self) -> bool {
        !self.there.borrow().is_empty()
    }

    /// Accepts workers until the agent ends.
    pub(crate) async fn serve(self: Rc<Self>, listener: UnixListener) {
        let own = nix::unistd::geteuid().as_raw();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a worker");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == own => {
                    let workers = Rc::clone(&self);
                    tokio::task::spawn_local(async move { workers.one(stream).await });
                }
                _ => tracing::warn!("refused a process of another user at the workers' socket"),
            }
        }
    }

    /// A message of the coordinator for a worker here.
    pub(crate) async fn deliver(&self, id: &WorkerId, message: ToWorker) {
        let worker = self.there.borrow().get(id).cloned();
        let Some(worker) = worker else {
            tracing::debug!(?id, "message for a worker that is gone");
            return;
        };
        let message = match message {
            ToWorker::Start { at_mono_ns, .. } => {
                worker.started.set(true);
                let (at_mono_ns, clock_error_ns) = self.clock.translate(at_mono_ns).await;
                ToWorker::Start { at_mono_ns, clock_error_ns }
            }
            other => other,
        };
        if worker.queue.try_send(message).is_err() {
            tracing::warn!(?id, "a worker takes no messages");
        }
    }

    /// From now on nothing starts.
    pub(crate) fn coordinator_lost(&self) {
        self.coordinator_lost.set(true);
        for worker in self.there.borrow().values().filter(|worker| !worker.started.get()) {
            let _gone = worker.queue.try_send(ToWorker::Refused { failure: self.lost_failure() });
        }
    }

    /// Asks all workers to end their loads.
    pub(crate) fn stop_all(&self, reason: &str) {
        for worker in self.there.borrow().values() {
            let _gone =
                worker.queue.try_send(ToWorker::Stop { reason: reason.to_owned(), rule: None });
        }
    }

    fn lost_failure(&self) -> Failure {
        let nodes = self.context.record.job.components.first();
        let node = nodes.and_then(|nodes| nodes.first()).map_or("coordinator", String::as_str);
        Failure::new(Owner::Node, node, "coordinator lost: no load can start or be merged")
            .with_hint("the workers' own files contain their measurements")
    }

    /// One worker from its first line to its last.
    async fn one(&self, stream: UnixStream) {
        let (read, write) = stream.into_split();
        let mut reader = BufReader::new(read);
        let first = match next_line(&mut reader).await {
            Some(message @ FromWorker::Join { .. }) => message,
            _ => return tracing::warn!("the first message of a worker is not a join"),
        };
        let FromWorker::Join { worker: id, .. } = &first else { return };
        let id = id.clone();
        let (queue, messages) = mpsc::channel(QUEUE);
        let worker = Rc::new(Worker { queue, started: Cell::new(false) });
        let sender = tokio::task::spawn_local(send(write, messages));
        let known = self.there.borrow().contains_key(&id);
        let refusal = if self.coordinator_lost.get() {
            Some(self.lost_failure())
        } else if known {
            let reason = format!("rank {} of step {} has already joined", id.rank, id.step);
            Some(Failure::new(Owner::Loadgen, id.load.as_str(), reason))
        } else {
            None
        };
        if let Some(failure) = refusal {
            let _gone = worker.queue.try_send(ToWorker::Refused { failure });
            drop(worker);
            let _sent = sender.await;
            return;
        }
        self.there.borrow_mut().insert(id.clone(), Rc::clone(&worker));
        self.tell(&id, first);
        while let Some(message) = next_line(&mut reader).await {
            let done = matches!(message, FromWorker::Done { .. });
            let lost = self.coordinator_lost.get();
            if matches!(message, FromWorker::Ready { .. }) || (done && !lost) {
                self.clock.refresh().await;
            }
            self.tell(&id, message);
            if done && lost {
                // Nobody merges; its own files are whole.
                let _gone =
                    worker.queue.try_send(ToWorker::Refused { failure: self.lost_failure() });
            }
        }
        self.there.borrow_mut().remove(&id);
        self.tell(&id, FromWorker::Lost);
    }

    fn tell(&self, id: &WorkerId, message: FromWorker) {
        self.context.outbox.worker(WorkerMessage { worker: id.clone(), message });
    }
}

/// The next message; `None` at the end, and for what is none.
async fn next_line(reader: &mut BufReader<OwnedReadHalf>) -> Option<FromWorker> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    let count = reader.take(limit).read_until(b'\n', &mut line).await.ok()?;
    if count == 0 {
        return None;
    }
    serde_json::from_slice(&line)
        .inspect_err(|error| tracing::warn!(%error, "a worker sent an invalid message"))
        .ok()
}

async fn send(mut write: OwnedWriteHalf, mut messages: mpsc::Receiver<ToWorker>) {
    while let Some(message) = messages.recv().await {
        let Ok(mut line) = serde_json::to_vec(&message) else { continue };
        line.push(b'\n');
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}
