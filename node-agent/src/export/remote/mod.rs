//! Prometheus remote write 1.0: every sample of this node, from a thread of its own.
//!
//! ```text
//! ticker ─bounded queue─▶ thread: numbers, ends of series ─▶ backlog ─▶ request ─▶ receiver
//!                          full: the tick is a gap           memory, file   ▲ 5xx, 429, no answer: later
//!                                                                           └ 400: halves, to the culprit
//! ```
//!
//! What the receiver has refused for good is dropped and counted; what it has not answered is kept
//! for at least half an hour. At the end of the run every series is ended by a stale marker, so
//! that it does not seem to live for five more minutes. An agent that is killed cannot do that: the
//! labels of its series are in a file of its node, and the process that sees its end does it
//! (`stale_series`).

mod backlog;
mod sender;
mod series;
mod stale_series;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use aifb_schema::metric;
use anyhow::Context as _;

use crate::sample::{Batch, Sink, Source, Tick};
use sender::Sender;
pub(crate) use stale_series::{SentTo, StaleSeries};

/// Ticks that may wait for the thread while it waits for an answer: 25 s at ten samples a second,
/// and an answer takes at most 5 s.
const QUEUE: usize = 256;

/// Time for what is left at the end: an agent has a few seconds between Slurm's SIGTERM and its
/// SIGKILL, and more to do in them.
pub(crate) const FLUSH: Duration = Duration::from_secs(2);

/// Where samples are sent, and as whose.
pub(crate) struct Config {
    /// The receiver's URL.
    pub(crate) url: String,
    /// Sent as `Authorization: Bearer`.
    pub(crate) token: Option<String>,
    /// Labels of every series.
    pub(crate) common: Vec<(&'static str, String)>,
    /// Folder on a disk of this node, for what waits.
    pub(crate) spool: PathBuf,
    /// Told which series there are; it must not wait.
    pub(crate) note: Note,
}

/// What is to be known if this agent is killed.
pub(crate) enum Noted {
    /// Labels of further series: lines, each a JSON list of pairs.
    Series(Vec<u8>),
    /// All of them have ended.
    Ended,
}

/// Keeps what is noted.
pub(crate) type Note = Box<dyn FnMut(Noted) + Send>;

enum Message {
    Tick(Batch),
    /// No further tick; all must be sent by then.
    End(Instant),
}

/// A running remote write.
pub(crate) struct RemoteWrite {
    queue: SyncSender<Message>,
    figures: Arc<Figures>,
    ended: Receiver<()>,
    until: Option<Instant>,
}

/// What it has done so far.
#[derive(Debug, Default)]
struct Figures {
    sent: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    dropped: AtomicU64,
    requests_ok: AtomicU64,
    requests_refused: AtomicU64,
    requests_failed: AtomicU64,
    /// Nanoseconds; 0 before the first tick was taken.
    lag_ns: AtomicU64,
    spool_bytes: AtomicU64,
}

impl RemoteWrite {
    /// Starts the thread; where samples are to go, and its own figures.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(config: Config) -> anyhow::Result<(Self, Own)> {
        let (queue, messages) = sync_channel(QUEUE);
        let (end, ended) = channel();
        let figures = Arc::new(Figures::default());
        let sender = Sender::new(config, Arc::clone(&figures));
        thread::Builder::new()
            .name("remote-write".into())
            .spawn(move || {
                sender.run(&messages);
                drop(end);
            })
            .context("starting remote write")?;
        let own = Own(Arc::clone(&figures));
        Ok((Self { queue, figures, ended, until: None }, own))
    }
}

impl Sink for RemoteWrite {
    fn take(&mut self, batch: Batch) {
        let values = (batch.sampled.len() + batch.published.len()) as u64;
        if self.queue.try_send(Message::Tick(batch)).is_err() {
            self.figures.dropped.fetch_add(values, Relaxed);
        }
    }

    fn end(&mut self) {
        let until = Instant::now() + FLUSH;
        self.until = Some(until);
        // A thread that finds no such word ends when the queue is closed.
        let _no_room = self.queue.try_send(Message::End(until));
    }

    fn wait(&mut self) {
        let left =
            self.until.map_or(FLUSH, |until| until.saturating_duration_since(Instant::now()));
        // Nothing is ever sent here: the other end is dropped.
        let _ended = self.ended.recv_timeout(left);
    }
}

/// The figures of remote write, as values of every tick.
pub(crate) struct Own(Arc<Figures>);

impl Source for Own {
    fn collect(&mut self, tick: &mut Tick<'_>) {
        let figures = &self.0;
        for (outcome, count) in [
            ("sent", &figures.sent),
            ("refused", &figures.refused),
            ("late", &figures.late),
            ("dropped", &figures.dropped),
        ] {
            tick.put_u64(&metric::EXPORT_SAMPLES, &[("outcome", outcome)], count.load(Relaxed));
        }
        for (outcome, count) in [
            ("ok", &figures.requests_ok),
            ("refused", &figures.requests_refused),
            ("failed", &figures.requests_failed),
        ] {
            tick.put_u64(&metric::EXPORT_REQUESTS, &[("outcome", outcome)], count.load(Relaxed));
        }
        tick.put_u64(&metric::EXPORT_SPOOL, &[], figures.spool_bytes.load(Relaxed));
        let lag = Duration::from_nanos(figures.lag_ns.load(Relaxed));
        if !lag.is_zero() {
            tick.put(&metric::EXPORT_LAG, &[], lag.as_secs_f64());
        }
    }
}
