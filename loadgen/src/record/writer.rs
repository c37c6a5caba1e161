//! The thread that writes the files.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::{
    Batch, checkpoint, checkpoint::WorkerRecord, checkpoint_path, row::Row, rows, rows::RowWriter,
    rows_path, series, tally::Histograms,
};
use aifb_schema::result::SeriesPoint;

use crate::{error::Fatal, sys};

/// Batches that may wait for the writer: with one a second, a file system may pause this many
/// seconds before rows gather in memory.
const QUEUE: usize = 4;

/// Longest wait for the files at the end: a parallel file system that recovers a server takes
/// minutes, and a job has seconds.
const FINISH_MAX: Duration = Duration::from_secs(20);

struct Message {
    batch: Box<Batch>,
    record: WorkerRecord,
    last: bool,
}

/// The writer thread, seen from the loop.
pub(super) struct Writer {
    queue: SyncSender<Message>,
    /// Emptied batches, to be used again.
    spare: Receiver<Box<Batch>>,
    /// The final record, with what the writer knows.
    ended: Receiver<WorkerRecord>,
}

impl Writer {
    /// Opens the files and starts the thread.
    pub(super) fn start(folder: &Path, template: &WorkerRecord) -> Result<Self, Fatal> {
        let rank = template.rank;
        let path = rows_path(folder, rank);
        let fail = |path: &Path, error: std::io::Error| {
            Fatal::loadgen(format!("opening record file '{}': {error}", path.display()))
        };
        let offset = template.client.epoch_minus_mono_ns.to_string();
        let metadata = HashMap::from([
            (rows::EPOCH_MINUS_MONO.to_owned(), offset),
            ("rank".to_owned(), rank.to_string()),
        ]);
        let rows = RowWriter::create(&path, metadata).map_err(|error| fail(&path, error))?;
        let path = series::path(folder, rank);
        let series = File::create(&path).map_err(|error| fail(&path, error))?;
        let path = checkpoint_path(folder, rank);
        checkpoint::write(&path, template, &Histograms::default())
            .map_err(|error| fail(&path, error))?;
        let (queue, messages) = sync_channel(QUEUE);
        let (give_back, spare) = sync_channel(QUEUE + 1);
        let (end, ended) = sync_channel(1);
        let state = State {
            rows: Some(rows),
            series: Some(series),
            path,
            histograms: Histograms::default(),
            written: 0,
            lost: 0,
            error: None,
        };
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                // Where it shares a CPU with the loop, no request waits for it.
                sys::go_behind();
                state.run(&messages, &give_back, &end);
            })
            .map_err(|error| Fatal::loadgen(format!("starting the record thread: {error}")))?;
        Ok(Self { queue, spare, ended })
    }

    /// Takes `batch` if there is room; gives back what to go on with: an empty batch, or the same
    /// one.
    pub(super) fn offer(&self, batch: Box<Batch>, record: WorkerRecord) -> Box<Batch> {
        match self.queue.try_send(Message { batch, record, last: false }) {
            Ok(()) => self.spare.try_recv().unwrap_or_default(),
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => message.batch,
        }
    }

    /// Hands over the last batch and waits for the files.
    pub(super) fn finish(self, batch: Box<Batch>, record: WorkerRecord) -> WorkerRecord {
        let deadline = Instant::now() + FINISH_MAX;
        let mut unwritten = record.clone();
        unwritten.rows_dropped += u64::try_from(batch.rows.len()).unwrap_or(0);
        unwritten.write_error =
            Some(format!("the file system did not take the records within {FINISH_MAX:?}"));
        let mut message = Message { batch, record, last: true };
        loop {
            message = match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(message)) if Instant::now() < deadline => message,
                Err(_) => return unwritten,
            };
            thread::sleep(Duration::from_millis(5));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match self.ended.recv_timeout(left) {
            Ok(record) => record,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => unwritten,
        }
    }
}

/// What the thread has.
struct State {
    /// Absent after an error: a stream that broke off in a batch cannot be continued.
    rows: Option<RowWriter>,
    /// A line a second; absent after an error.
    series: Option<File>,
    path: PathBuf,
    histograms: Histograms,
    written: u64,
    lost: u64,
    error: Option<String>,
}

impl State {
    fn run(
        mut self,
        messages: &Receiver<Message>,
        give_back: &SyncSender<Box<Batch>>,
        end: &SyncSender<WorkerRecord>,
    ) {
        while let Ok(Message { mut batch, record, last }) = messages.recv() {
            self.histograms.merge(&batch.dropped);
            batch.rows.iter().for_each(|row| self.histograms.add(row));
            if !last {
                // Before the rows: whoever reads the files after a crash finds in the checkpoint
                // at least what the rows know, in flight included.
                self.checkpoint(record.clone(), batch.rows.len());
            }
            self.append(&batch.rows);
            self.append_series(&batch.series);
            batch.series.clear();
            batch.rows.clear();
            batch.dropped.clear();
            // Full or gone: then this batch's memory is simply freed.
            let _ignored = give_back.try_send(batch);
            if last {
                if let Some(rows) = self.rows.take() {
                    let closed = rows.finish();
                    self.note(closed);
                }
                let record = self.checkpoint(record, 0);
                // Nobody waits any more when the deadline is over.
                let _ignored = end.try_send(record);
                return;
            }
        }
    }

    /// Writes the checkpoint as it is when `coming` rows have been written.
    fn checkpoint(&mut self, mut record: WorkerRecord, coming: usize) -> WorkerRecord {
        record.rows = self.written + u64::try_from(coming).unwrap_or(0);
        record.rows_dropped += self.lost;
        record.write_error.clone_from(&self.error);
        let replaced = checkpoint::write(&self.path, &record, &self.histograms);
        self.note(replaced);
        record.write_error.clone_from(&self.error);
        record
    }

    fn append(&mut self, new: &[Row]) {
        let count = u64::try_from(new.len()).unwrap_or(0);
        if count == 0 {
            return;
        }
        let Some(rows) = &mut self.rows else {
            self.lost += count;
            return;
        };
        match rows.append(new) {
            Ok(()) => self.written += count,
            Err(error) => {
                self.rows = None;
                self.lost += count;
                self.note(Err(error));
            }
        }
    }

    fn append_series(&mut self, points: &[SeriesPoint]) {
        let Some(file) = &mut self.series else { return };
        let mut lines = Vec::new();
        for point in points {
            // Numbers and words always make JSON.
            if let Ok(mut line) = serde_json::to_vec(point) {
                line.push(b'\n');
                lines.append(&mut line);
            }
        }
        let written = file.write_all(&lines);
        if written.is_err() {
            // A line that broke off would spoil those behind it.
            self.series = None;
        }
        self.note(written);
    }

    fn note(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.error.get_or_insert_with(|| {
                format!("writing beside '{}': {error}", self.path.display())
            });
        }
    }
}
