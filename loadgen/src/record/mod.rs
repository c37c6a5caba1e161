//! Records: what was seen of each request, kept in files of the run folder.
//!
//! The loop that sends and receives only appends to memory. Once a second it hands its rows through
//! a bounded queue to one writer thread, which counts their times in histograms and writes both, so
//! a slow file system never delays a request; what cannot be kept is counted.

pub(crate) mod checkpoint;
mod columns;
pub(crate) mod live;
pub(crate) mod operations;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod series;
pub(crate) mod start;
pub(crate) mod tally;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use aifb_schema::result::SeriesPoint;
use aifb_stats::{histogram::Histogram, stopping::Figures};
use checkpoint::{ClientState, StoppedBy, WorkerRecord, WorkloadRecord};
use live::Live;
use row::Row;
use series::Series;
use tally::{Histograms, Limits, Tally};
use writer::Writer;

use crate::{error::Fatal, fault::Class, plan::Phase};

/// Rows kept in memory while the writer is busy: about 60 MB; then rows are dropped and counted.
const ROWS_WAITING_MAX: usize = 200_000;

/// Seconds of the series kept in memory while the writer is busy: an hour.
const SECONDS_WAITING_MAX: usize = 3_600;

/// Rows file of a rank.
pub(crate) fn rows_path(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("worker-{rank}.arrows"))
}

/// Checkpoint file of a rank.
pub(crate) fn checkpoint_path(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("worker-{rank}.hdr"))
}

/// Figures that other threads may read at any time.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Sent, measured part.
    pub(crate) sent: AtomicU64,
    /// Succeeded, measured part.
    pub(crate) ok: AtomicU64,
    /// Failed, measured part.
    pub(crate) failed: AtomicU64,
    /// In flight now, warm-up included.
    pub(crate) in_flight: AtomicU64,
    /// Output tokens, measured part.
    pub(crate) output_tokens: AtomicU64,
    /// Measured requests that are due; 0 where that is not known.
    pub(crate) planned: AtomicU64,
    /// Sent in the warm-up.
    pub(crate) warmup: AtomicU64,
    /// Times of those that succeeded in the measured part; renewed at the end of each request.
    pub(crate) live: Live,
    /// Times that ended since somebody looked last, of the metric that is watched: (nanoseconds,
    /// how many).
    pub(crate) recent: Mutex<Vec<(u64, u64)>>,
    /// 0 before the start, 1 warm-up, 2 measured part, 3 drain.
    pub(crate) phase: AtomicU64,
}

impl Progress {
    /// Takes the times that ended since the last call.
    pub(crate) fn take_recent(&self) -> Vec<(u64, u64)> {
        self.recent.lock().map(|mut recent| std::mem::take(&mut *recent)).unwrap_or_default()
    }

    /// The figures of now, for the rules that may end the load.
    pub(crate) fn figures(&self, at_ms: u64, recent: Vec<(u64, u64)>) -> Figures {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Figures {
            at_ms,
            sent: of(&self.sent),
            ok: of(&self.ok),
            failed: of(&self.failed),
            in_flight: of(&self.in_flight),
            output_tokens: of(&self.output_tokens),
            recent,
        }
    }

    /// The word for `phase`.
    pub(crate) fn phase_word(&self) -> &'static str {
        match self.phase.load(Ordering::Relaxed) {
            1 => "warmup",
            2 => "measure",
            3 => "drain",
            _ => "ready",
        }
    }
}

/// What is handed to the writer at a time.
#[derive(Debug, Default)]
struct Batch {
    rows: Vec<Row>,
    /// Of rows that found no room.
    dropped: Histograms,
    series: Vec<SeriesPoint>,
}

/// The memory side of the records.
pub(crate) struct Recorder {
    batch: Box<Batch>,
    writer: Writer,
    tally: Tally,
    limits: Limits,
    in_flight: u64,
    examples: BTreeMap<Class, String>,
    dropped: u64,
    progress: Arc<Progress>,
    template: WorkerRecord,
    series: Series,
    watched: Option<Watched>,
}

/// The times of a metric since the last hand-over.
struct Watched {
    metric: &'static str,
    times: Histogram,
}

/// Different times that wait to be looked at: more than a histogram has from 1 ms to an hour.
const RECENT_MAX: usize = 20_000;

impl Recorder {
    /// Opens both files of this worker in `folder`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn create(
        folder: &Path,
        template: WorkerRecord,
        progress: Arc<Progress>,
    ) -> Result<Self, Fatal> {
        let writer = Writer::start(folder, &template)?;
        progress.planned.store(template.planned.unwrap_or(0), Ordering::Relaxed);
        Ok(Self {
            batch: Box::default(),
            writer,
            tally: Tally::default(),
            limits: Limits::default(),
            in_flight: 0,
            examples: BTreeMap::new(),
            dropped: 0,
            progress,
            template,
            series: Series::default(),
            watched: None,
        })
    }

    /// Sets what requests are judged by, once the start is known.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Keeps the times of a metric for those who watch them, from second to second.
    pub(crate) fn watch(&mut self, metric: Option<&'static str>) {
        self.watched = metric.map(|metric| Watched { metric, times: Histogram::new() });
    }

    /// Shows the watched times of the last second.
    fn show_times(&mut self) {
        let Some(watched) = &mut self.watched else { return };
        // Whoever looks just now gets them a second later.
        let Ok(mut recent) = self.progress.recent.try_lock() else { return };
        if recent.len() < RECENT_MAX {
            recent.extend(watched.times.buckets());
        }
        watched.times.clear();
    }

    /// Notes what is planned now, and what was asked of it.
    pub(crate) fn set_planned(&mut self, planned: Option<u64>, workload: WorkloadRecord) {
        self.progress.planned.store(planned.unwrap_or(0), Ordering::Relaxed);
        self.template.planned = planned;
        self.template.workload = workload;
    }

    /// A request is being sent.
    pub(crate) fn begin(&mut self, row: &Row) {
        self.in_flight += 1;
        self.tally.begin(row, &self.limits);
    }

    /// A request is over.
    pub(crate) fn end(&mut self, row: Row, message: Option<String>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.tally.end(&row, &self.limits);
        if let (Some(class), Some(message)) = (row.error, message) {
            self.examples.entry(class).or_insert(message);
        }
        if row.phase == Phase::Measure && row.outcome == row::Outcome::Ok {
            self.note_times(&row);
        }
        if self.batch.rows.len() < ROWS_WAITING_MAX {
            self.batch.rows.push(row);
        } else {
            self.batch.dropped.add(&row);
            self.dropped += 1;
        }
    }

    /// Notes the times of a successful measured request that are told while the load runs.
    fn note_times(&mut self, row: &Row) {
        self.progress.live.add(row);
        row.client_lag().into_iter().for_each(|ns| self.series.lag(ns));
        if let Some(watched) = &mut self.watched {
            let time = if watched.metric == "e2e" { row.e2e() } else { row.ttft() };
            time.into_iter().for_each(|ns| watched.times.record(ns));
        }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Makes the figures of now visible to other threads.
    pub(crate) fn publish(&self) {
        let set = |place: &AtomicU64, value| place.store(value, Ordering::Relaxed);
        set(&self.progress.sent, self.tally.sent);
        set(&self.progress.ok, self.tally.ok);
        set(&self.progress.failed, self.tally.failed);
        set(&self.progress.in_flight, self.in_flight);
        set(&self.progress.output_tokens, self.tally.output_tokens);
        set(&self.progress.warmup, self.tally.warmup);
    }

    fn record(&self, client: ClientState) -> WorkerRecord {
        WorkerRecord {
            tally: self.tally.clone(),
            rows_dropped: self.dropped,
            examples: self.examples.clone(),
            client,
            ..self.template.clone()
        }
    }

    /// Notes the second that ends `elapsed_ns` after the start.
    fn note_second(&mut self, client: &ClientState, elapsed_ns: u64) {
        let point = self.series.point(elapsed_ns, &self.tally, self.in_flight, client.cpu_ns);
        if self.batch.series.len() < SECONDS_WAITING_MAX {
            self.batch.series.push(point);
        }
    }

    /// Hands everything to the writer, if it has room; keeps it otherwise. `elapsed_ns` after the
    /// start a second ends.
    pub(crate) fn flush(&mut self, client: ClientState, elapsed_ns: u64) {
        self.note_second(&client, elapsed_ns);
        self.show_times();
        let record = self.record(client);
        self.batch = self.writer.offer(std::mem::take(&mut self.batch), record);
    }

    /// Hands the rest to the writer and waits until the files are whole.
    pub(crate) fn finish(
        mut self,
        client: ClientState,
        elapsed_ns: u64,
        (stopped, stopped_by): (Option<String>, Option<StoppedBy>),
    ) -> WorkerRecord {
        self.note_second(&client, elapsed_ns);
        let mut record = self.record(client);
        record.ended = true;
        record.stopped = stopped;
        record.stopped_by = stopped_by;
        self.writer.finish(self.batch, record)
    }
}
