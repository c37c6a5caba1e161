//! An agent's side of the conversation with the coordinator.
//!
//! Two requests are on their way at a time: an empty report that the coordinator holds until it
//! has orders (the heartbeat), and one with news, answered at once. Orders are repeated until a
//! report says that they were received; news carries a number, so that a repetition after a
//! broken connection is not taken in twice.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use aifb_schema::control::{HEARTBEAT_MS, LOST_AFTER_MS, NodeOrder, NodeOrders, NodeReport};
use tokio::sync::{Notify, mpsc};

use super::{client::Client, context::Context, context::Waiting, coordinator::Handle};

/// Longest time for an answer: the coordinator holds an empty report for a heartbeat.
const PATIENCE: Duration = Duration::from_millis(HEARTBEAT_MS + 2_000);

/// Pause after a failed request.
const PAUSE: Duration = Duration::from_millis(100);

/// Consecutive failures that count as silence: a single one may be due to a pause of this process
/// (a suspended job).
const FAILED_MIN: u32 = 3;

/// How long the last report may take when the agent ends.
const LAST_REPORT: Duration = Duration::from_millis(500);

/// Orders on their way to the part that carries them out. The coordinator sends some for each
/// replica and worker; those of a thousand workers of a node fit.
const ORDERS: usize = 4096;

/// The way to the coordinator.
#[derive(Debug)]
pub(crate) enum Link {
    /// It is in this agent.
    Own(Handle),
    /// It is on another node: one connection for each of the two requests.
    Remote {
        /// For the empty report.
        poll: Client,
        /// For news.
        news: Client,
    },
}

impl Link {
    /// To a coordinator elsewhere.
    pub(crate) fn remote(address: SocketAddr, token: &str) -> Self {
        let client = || Client::new(address, token.to_owned(), PATIENCE);
        Self::Remote { poll: client(), news: client() }
    }

    async fn exchange(&self, report: NodeReport, news: bool) -> io::Result<NodeOrders> {
        match self {
            Self::Own(handle) => match handle.report(report).await {
                Some(answer) => answer.map_err(io::Error::other),
                None => Err(io::Error::other("the run is ending")),
            },
            Self::Remote { poll, news: other } => {
                let client = if news { other } else { poll };
                client.post("/v1/poll", &report).await
            }
        }
    }
}

/// The conversation.
pub(crate) struct Peer {
    context: Rc<Context>,
    link: Link,
    http: SocketAddr,
    received: Cell<u64>,
    sequence: Cell<u64>,
    good: Cell<Instant>,
    failed: Cell<u32>,
    lost: Cell<bool>,
    lost_now: Notify,
    orders: mpsc::Sender<NodeOrder>,
}

impl Peer {
    /// The conversation, not yet started, and the orders that it will receive.
    pub(crate) fn new(
        context: Rc<Context>,
        link: Link,
        http: SocketAddr,
    ) -> (Rc<Self>, mpsc::Receiver<NodeOrder>) {
        let (orders, queue) = mpsc::channel(ORDERS);
        let peer = Self {
            context,
            link,
            http,
            received: Cell::new(0),
            sequence: Cell::new(0),
            good: Cell::new(Instant::now()),
            failed: Cell::new(0),
            lost: Cell::new(false),
            lost_now: Notify::new(),
            orders,
        };
        (Rc::new(peer), queue)
    }

    /// Talks until the agent ends.
    pub(crate) async fn talk(self: Rc<Self>) {
        tokio::join!(self.poll(), self.tell());
    }

    /// Whether the coordinator counts as lost.
    pub(crate) fn lost(&self) -> bool {
        self.lost.get()
    }

    /// Resolves when the coordinator is lost.
    pub(crate) async fn wait_lost(&self) {
        let now = self.lost_now.notified();
        if !self.lost.get() {
            now.await;
        }
    }

    /// The heartbeat.
    async fn poll(&self) {
        loop {
            match self.link.exchange(self.report(Waiting::default(), 0), false).await {
                Ok(orders) => self.take(orders).await,
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// News, one report after the other.
    async fn tell(&self) {
        loop {
            let news = self.context.outbox.take().await;
            let sequence = self.next_sequence();
            loop {
                match self.link.exchange(self.report(news.clone(), sequence), true).await {
                    Ok(orders) => {
                        self.take(orders).await;
                        break;
                    }
                    Err(error) => self.failed(&error).await,
                }
                if self.lost.get() {
                    break;
                }
            }
        }
    }

    /// The last report: what is left to tell, and that this agent ends.
    pub(crate) async fn leave(&self) {
        let sequence = self.next_sequence();
        let mut report = self.report(self.context.outbox.take_now(), sequence);
        report.leaving = true;
        let sent = tokio::time::timeout(LAST_REPORT, self.link.exchange(report, true)).await;
        if !matches!(sent, Ok(Ok(_))) {
            tracing::warn!("the coordinator did not accept the last report");
        }
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.set(self.sequence.get() + 1);
        self.sequence.get()
    }

    fn report(&self, news: Waiting, sequence: u64) -> NodeReport {
        NodeReport {
            node: self.context.node.clone(),
            address: self.context.address.to_string(),
            http: self.http.to_string(),
            received: self.received.get(),
            sequence,
            events: news.events,
            workers: news.workers,
            warnings: news.warnings,
            clock: news.clock,
            troubles: news.troubles,
            leaving: false,
        }
    }

    async fn take(&self, orders: NodeOrders) {
        self.good.set(Instant::now());
        self.failed.set(0);
        for (number, order) in orders.orders {
            // Both requests may bring the same order.
            if number == self.received.get() + 1 {
                self.received.set(number);
                if self.orders.send(order).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn failed(&self, error: &io::Error) {
        self.failed.set(self.failed.get().saturating_add(1));
        let silent = self.good.get().elapsed() >= Duration::from_millis(LOST_AFTER_MS);
        if silent && self.failed.get() >= FAILED_MIN && !self.lost.get() {
            tracing::error!(%error, "coordinator lost");
            self.lost.set(true);
            self.lost_now.notify_waiters();
        }
        tokio::time::sleep(PAUSE).await;
    }
}
