//! The thread of remote write: takes ticks, forms requests, and understands the answers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Config, Figures, Message, Note, Noted,
    backlog::{Backlog, FILE_MAX, Waiting},
    series::AllSeries,
    wire::{self, Row},
};
use crate::{clock, http};

/// Longest time for one request; a receiver on the cluster's network answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after a failure, and the longest after several: a receiver that comes back is found soon,
/// one that is overloaded is not pressed.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Values of one request: Prometheus' own clients send 2000, and a node's tick has a few hundred.
const ROWS_MAX: usize = 4_000;

/// Older values are not sent: receivers refuse what is an hour older than their newest, and some
/// ask for it again for ever.
const OLDEST: Duration = Duration::from_secs(45 * 60);

/// How far ahead of this clock a value may be: the stale markers stand one millisecond behind the
/// last tick. Receivers accept the future and then refuse the present.
const AHEAD: Duration = Duration::from_secs(1);

/// Bytes of an answer that are looked at.
const ANSWER_MAX: u64 = 4096;

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of it is stored.
    Taken,
    /// Ask again later.
    Later,
    /// Something in it is wrong, and nothing of it is stored.
    Wrong,
    /// Nothing of the kind will ever be taken.
    Never,
}

/// What the status and the text of an answer mean.
pub(super) fn understand(status: u16, text: &str) -> Answer {
    // Said with 400 or 500, depending on the release; true for ever in any case.
    let too_old = ["too old", "out of bounds", "out of order", "duplicate sample", "too far"];
    match status {
        200..=299 => Answer::Taken,
        400 | 413 | 422 => Answer::Wrong,
        429 | 500..=599 if too_old.iter().any(|words| text.contains(words)) => Answer::Wrong,
        408 | 429 | 500..=599 => Answer::Later,
        _ => Answer::Never,
    }
}

/// The state of the thread.
pub(super) struct Sender {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
    figures: Arc<Figures>,
    series: AllSeries,
    backlog: Backlog,
    /// Parts of the request that is under way, in order.
    parts: VecDeque<Vec<Row>>,
    last_ms: i64,
    retry_at: Option<Instant>,
    backoff: Duration,
    /// When the last word must have been sent.
    until: Option<Instant>,
    note: Note,
}

impl Sender {
    pub(super) fn new(config: Config, figures: Arc<Figures>) -> Self {
        let common = config.common.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let series = AllSeries::new(common.collect());
        Self::of(config, figures, series)
    }

    /// With series that are there already.
    pub(super) fn of(config: Config, figures: Arc<Figures>, series: AllSeries) -> Self {
        Self {
            agent: http::agent(PATIENCE),
            url: config.url,
            token: config.token,
            figures,
            series,
            backlog: Backlog::new(&config.spool, FILE_MAX),
            parts: VecDeque::new(),
            last_ms: i64::MIN,
            retry_at: None,
            backoff: BACKOFF_MIN,
            until: None,
            note: config.note,
        }
    }

    /// Works until the end is requested or the requesting side is dropped; returns whether all was
    /// sent.
    pub(super) fn run(mut self, messages: &Receiver<Message>) -> bool {
        loop {
            match messages.recv_timeout(self.pause()) {
                Ok(Message::Tick(batch)) => {
                    let ms = self.next_ms(batch.epoch_ns);
                    self.take(
                        ms,
                        (batch.sampled.len() + batch.published.len()) as u64,
                        |all, ms| all.tick(ms, &batch),
                    );
                }
                Ok(Message::End(until)) => self.end(until),
                Err(RecvTimeoutError::Disconnected) => {
                    self.end(Instant::now() + super::FLUSH);
                    thread::sleep(self.pause());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.retry_at.is_none_or(|at| Instant::now() >= at) {
                self.send();
            }
            self.figures.dropped.fetch_add(self.backlog.take_dropped(), Relaxed);
            self.figures.spool_bytes.store(self.backlog.bytes(), Relaxed);
            if self.until.is_some_and(|until| self.nothing_left() || Instant::now() >= until) {
                break;
            }
        }
        if self.nothing_left() {
            (self.note)(Noted::Ended);
            return true;
        }
        tracing::warn!(bytes = self.backlog.bytes(), "remote write: some samples were not sent");
        false
    }

    fn nothing_left(&self) -> bool {
        self.parts.is_empty() && self.backlog.is_empty()
    }

    /// How long nothing has to be done unless a message comes.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let left = |at: Instant| at.saturating_duration_since(now);
        let next = match (self.nothing_left(), self.retry_at) {
            (true, _) => PATIENCE,
            (false, None) => Duration::ZERO,
            (false, Some(at)) => left(at),
        };
        self.until.map_or(next, |until| next.min(left(until)))
    }

    /// The time of a tick, unless that is no later than the one before: every series goes forward.
    fn next_ms(&self, epoch_ns: u64) -> Option<i64> {
        let ms = i64::try_from(epoch_ns / 1_000_000).ok()?;
        (ms > self.last_ms).then_some(ms)
    }

    fn take(
        &mut self,
        ms: Option<i64>,
        values: u64,
        make: impl FnOnce(&mut AllSeries, i64) -> Waiting,
    ) {
        let Some(ms) = ms else {
            self.figures.late.fetch_add(values, Relaxed);
            return;
        };
        self.last_ms = ms;
        if self.nothing_left() {
            self.series.forget_ended();
        }
        let tick = make(&mut self.series, ms);
        self.backlog.push(&tick);
        let fresh = self.series.take_fresh();
        if !fresh.is_empty() {
            (self.note)(Noted::Series(fresh));
        }
    }

    /// Ends every series; later than any value of it.
    fn end(&mut self, until: Instant) {
        if self.until.is_none() {
            self.until = Some(until);
            self.retry_at = None;
            let after = self.last_ms.saturating_add(1);
            let ms = self.next_ms(clock::epoch_ns()).unwrap_or(after).max(after);
            self.take(Some(ms), 0, AllSeries::end);
        }
    }

    /// Sends what there is, until something has to be tried again.
    fn send(&mut self) {
        if self.parts.is_empty() {
            self.form();
        }
        while let Some(part) = self.parts.pop_front() {
            match self.post(&part) {
                Answer::Taken => self.taken(&part),
                Answer::Wrong => self.halve(part),
                Answer::Never => self.count(&self.figures.refused, &part),
                Answer::Later => {
                    self.parts.push_front(part);
                    self.retry_at = Some(Instant::now() + self.backoff);
                    self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                    return;
                }
            }
            self.retry_at = None;
            self.backoff = BACKOFF_MIN;
        }
    }

    /// Forms a request of the oldest ticks that are still worth sending.
    fn form(&mut self) {
        let now = Instant::now();
        let now_ms = i64::try_from(clock::epoch_ns() / 1_000_000).unwrap_or(i64::MAX);
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let (oldest, newest) = (now_ms - millis(OLDEST), now_ms + millis(AHEAD));
        let mut rows: Vec<Row> = Vec::new();
        while rows.len() < ROWS_MAX {
            let Some(tick) = self.backlog.pop() else { break };
            let count = tick.values.len() as u64;
            if !(oldest..=newest).contains(&tick.ms) {
                self.figures.late.fetch_add(count, Relaxed);
                continue;
            }
            let before = rows.len();
            rows.extend(tick.rows().filter(|row| self.series.allowed(row.series, now)));
            let muted = count - (rows.len() - before) as u64;
            self.figures.refused.fetch_add(muted, Relaxed);
        }
        if !rows.is_empty() {
            rows.sort_by_key(|row| (row.series, row.ms));
            self.parts.push_back(rows);
        }
    }

    fn taken(&mut self, part: &[Row]) {
        self.count(&self.figures.sent, part);
        part.iter().for_each(|row| self.series.taken(row.series));
        if let Some(newest) = part.iter().map(|row| row.ms).max() {
            let newest_ns = u64::try_from(newest).unwrap_or(0).saturating_mul(1_000_000);
            let lag = clock::epoch_ns().saturating_sub(newest_ns);
            self.figures.lag_ns.store(lag.max(1), Relaxed);
        }
    }

    /// Nothing of a part with a wrong value was stored: its halves follow one by one.
    fn halve(&mut self, mut part: Vec<Row>) {
        if let [only] = part.as_slice() {
            self.series.refused(only.series, Instant::now());
            self.count(&self.figures.refused, &part);
            return;
        }
        let second = part.split_off(part.len() / 2);
        self.parts.push_front(second);
        self.parts.push_front(part);
    }

    fn count(&self, outcome: &std::sync::atomic::AtomicU64, part: &[Row]) {
        outcome.fetch_add(part.len() as u64, Relaxed);
    }

    fn post(&self, part: &[Row]) -> Answer {
        let Ok(body) = wire::encode(part, |series| self.series.labels(series)) else {
            return Answer::Wrong;
        };
        let patience = self.until.map_or(PATIENCE, |until| {
            until.saturating_duration_since(Instant::now()).clamp(BACKOFF_MIN, PATIENCE)
        });
        let mut request = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(patience))
            .build()
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (answer, why) = match request.send(body.as_slice()) {
            Err(error) => (Answer::Later, error.to_string()),
            Ok(mut response) => {
                let status = response.status().as_u16();
                let text = http::beginning(response.body_mut(), ANSWER_MAX);
                let first = text.lines().next().unwrap_or_default();
                (understand(status, &text), format!("{status}: {first}"))
            }
        };
        self.note(answer, &why);
        answer
    }

    fn note(&self, answer: Answer, why: &str) {
        let figures = &self.figures;
        let count = match answer {
            Answer::Taken => &figures.requests_ok,
            Answer::Later => &figures.requests_failed,
            Answer::Wrong | Answer::Never => &figures.requests_refused,
        };
        let before = count.fetch_add(1, Relaxed);
        // The first of a kind, and each thousandth: a receiver that is down is no flood of lines.
        if answer != Answer::Taken && before.is_multiple_of(1000) {
            tracing::warn!(?answer, "remote write: {why}");
        }
    }
}
