//! One file on its way to the receiver.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    time::{Duration, Instant},
};

use aifb_schema::{logs::LogStream, recipe::Logging};

use super::{
    backoff::Backoff,
    buffers::Buffers,
    checkpoint::{Batch, Checkpoint, State},
    cut::{How, cut},
    push::{Client, Outcome},
    quarantine::{Quarantine, Refused},
    source::{Rendered, Source},
    stamp::Stamps,
};
use crate::clock;

/// Bytes read at once, and so about the size of a request: large enough for 20 MB/s, small enough
/// for the agent's memory.
const READ_BYTES: usize = 512 * 1024;

/// How long a last line waits for lines that belong to it.
const JOIN_WAIT: Duration = Duration::from_millis(300);

/// Age from which Loki refuses entries by default (reject_old_samples_max_age).
const OLD_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;

/// What a turn of a stream needs.
pub(super) struct Tools<'a> {
    pub(super) client: &'a Client,
    pub(super) checkpoint: &'a mut Checkpoint,
    pub(super) quarantine: &'a mut Quarantine,
    pub(super) buffers: &'a mut Buffers,
    /// What is left out.
    pub(super) logging: Logging,
    /// Whether nothing more is written to the files.
    pub(super) last: bool,
}

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is nothing to send.
    Idle,
    /// Something was done; there may be more to do at once.
    Done,
    /// Something was done, and nothing more is there yet.
    CaughtUp,
    /// It has to wait before the next try.
    Waits,
    /// This try failed, for this reason.
    Failed(String),
}

/// One file on its way.
#[derive(Debug)]
pub(super) struct Stream {
    source: Source,
    rendered: Rendered,
    state: State,
    /// What `state` has that the checkpoint has not.
    unrecorded: bool,
    file: Option<File>,
    /// Size at the last look, and when it last grew.
    bytes: u64,
    grown: Instant,
    arrival_ns: u64,
    /// Another file has taken its place: nothing more comes to this one.
    left: bool,
    /// Why the last try failed.
    failed: Option<String>,
    /// Parts of the batch that are still to be sent; the last one is next. Empty: not started.
    todo: Vec<(usize, usize)>,
    /// Entries of the batch that were refused for good, and why.
    refused: Vec<(usize, String)>,
    backoff: Backoff,
    stamps: Stamps,
}

impl Stream {
    pub(super) fn new(source: Source, state: State) -> Self {
        Self {
            rendered: Rendered::new(&source),
            source,
            bytes: state.offset,
            state,
            unrecorded: false,
            file: None,
            grown: Instant::now(),
            arrival_ns: 0,
            left: false,
            failed: None,
            todo: Vec::new(),
            refused: Vec::new(),
            backoff: Backoff::default(),
            stamps: Stamps::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.source.name
    }

    pub(super) fn ledger(&self) -> LogStream {
        self.state.ledger(self.bytes)
    }

    /// How long the file has not grown; absent while something is being sent.
    pub(super) fn quiet_for(&self) -> Option<Duration> {
        self.state.batch.is_none().then(|| self.grown.elapsed())
    }

    /// Whether everything is dealt with, and on record as that. Of a file that cannot be read nobody
    /// knows.
    pub(super) fn finished(&self) -> bool {
        self.state.batch.is_none()
            && self.bytes <= self.state.offset
            && !self.unrecorded
            && self.failed.is_none()
    }

    /// Why the last try failed; absent where it did not.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// It need not wait any longer before its next try.
    pub(super) fn hurry(&mut self) {
        self.backoff.succeeded();
    }

    /// Sends what is there, one request at most.
    pub(super) fn turn(&mut self, tools: &mut Tools<'_>) -> Turn {
        if !self.backoff.due() {
            return Turn::Waits;
        }
        let done = self.try_turn(tools).unwrap_or_else(|error| {
            Turn::Failed(format!("'{}': {error}", self.source.path.display()))
        });
        self.failed = None;
        if let Turn::Failed(reason) = &done {
            self.failed = Some(reason.clone());
            self.backoff.failed();
        }
        done
    }

    fn try_turn(&mut self, tools: &mut Tools<'_>) -> io::Result<Turn> {
        self.look(tools.quarantine)?;
        let made = match &self.state.batch {
            Some(_) => {
                self.make_again(tools.buffers)?;
                true
            }
            None => self.make(tools)?,
        };
        if made {
            return self.send(tools);
        }
        if self.unrecorded {
            self.record(tools)?;
        }
        Ok(Turn::Idle)
    }

    fn record(&mut self, tools: &mut Tools<'_>) -> io::Result<()> {
        self.state.quarantine_bytes = tools.quarantine.bytes();
        let path = |error| io::Error::other(format!("keeping the checkpoint: {error}"));
        tools.checkpoint.record(&self.state).map_err(path)?;
        self.unrecorded = false;
        Ok(())
    }

    /// Finds the file and its size.
    fn look(&mut self, quarantine: &mut Quarantine) -> io::Result<()> {
        if self.file.is_none() && !self.open(quarantine)? {
            return Ok(());
        }
        let Some(file) = &self.file else { return Ok(()) };
        let there = fs::metadata(&self.source.path);
        let found = match there {
            Ok(found) if found.ino() == self.state.inode => found,
            other => {
                // The file that is open is read to its end before the one that took its place.
                let own = file.metadata()?;
                self.left = self.source.rotates;
                let read = self.state.batch.is_none() && own.len() <= self.state.offset;
                if other.is_ok() && read {
                    self.file = None;
                    return self.look(quarantine);
                }
                own
            }
        };
        self.measure(&found, quarantine)
    }

    fn measure(&mut self, found: &Metadata, quarantine: &mut Quarantine) -> io::Result<()> {
        let needed = self.state.batch.as_ref().map_or(self.state.offset, |batch| batch.end);
        if found.len() < needed {
            self.start_over(quarantine)?;
            self.bytes = 0;
        }
        if found.len() != self.bytes {
            self.grown = Instant::now();
        }
        self.bytes = found.len();
        let written =
            found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
        self.arrival_ns = u64::try_from(written).unwrap_or(0).min(clock::epoch_ns());
        Ok(())
    }

    /// Opens the file at the source's path; whether there is one.
    fn open(&mut self, quarantine: &mut Quarantine) -> io::Result<bool> {
        // A FIFO in its place must not hold up the other streams.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = File::options().read(true).custom_flags(flags).open(&self.source.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if self.source.rotates && self.state.inode != 0 && self.state.inode != found.ino() {
            self.start_over(quarantine)?;
        }
        self.state.inode = found.ino();
        self.left = false;
        self.file = Some(file);
        Ok(true)
    }

    /// The file is another one, or cut: it is read from its start. What was being sent is gone.
    fn start_over(&mut self, quarantine: &mut Quarantine) -> io::Result<()> {
        tracing::warn!(file = self.source.name, "log file replaced or truncated");
        if let Some(batch) = &self.state.batch {
            let lost = Refused {
                file: &self.source.name,
                time_ns: batch.last_ns,
                lines: batch.lines - batch.filtered,
                reason: "the file was replaced before these lines were sent",
                text: None,
            };
            self.state.quarantined += quarantine.add(std::iter::once(lost))?;
            self.state.filtered += batch.filtered;
            self.state.last_ns = batch.last_ns;
        }
        self.state.batch = None;
        self.todo.clear();
        self.refused.clear();
        self.state.offset = 0;
        self.state.replaced += 1;
        self.unrecorded = true;
        Ok(())
    }

    fn how(&self, batch: &Batch) -> How {
        How {
            join: self.source.join,
            last_ns: self.state.last_ns,
            arrival_ns: batch.arrival_ns,
            logging: batch.logging,
            whole: true,
            hold: false,
        }
    }

    /// Makes the batch on record once more.
    fn make_again(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        let Some(batch) = &self.state.batch else { return Ok(()) };
        let length = usize::try_from(batch.end - self.state.offset).unwrap_or(usize::MAX);
        if length > READ_BYTES {
            return Err(io::Error::other("the checkpoint names an impossible batch"));
        }
        let how = self.how(batch);
        self.read(length, buffers)?;
        if buffers.bytes.len() < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        cut(&buffers.bytes, &how, &mut self.stamps, &mut buffers.entries);
        buffers.entries.retain(|entry| entry.kept);
        Ok(())
    }

    /// Reads on and puts what is to be sent on record; whether there is anything.
    fn make(&mut self, tools: &mut Tools<'_>) -> io::Result<bool> {
        if self.file.is_none() || self.bytes <= self.state.offset {
            return Ok(false);
        }
        let rest = usize::try_from(self.bytes - self.state.offset).unwrap_or(usize::MAX);
        self.read(rest.min(READ_BYTES), tools.buffers)?;
        let to_end = tools.buffers.bytes.len() >= rest;
        let over = (tools.last || self.left) && to_end;
        let mut batch = Batch {
            end: 0,
            arrival_ns: self.arrival_ns,
            logging: tools.logging,
            last_ns: 0,
            lines: 0,
            filtered: 0,
        };
        let hold = self.source.join && !over && self.grown.elapsed() < JOIN_WAIT;
        let how = How { whole: over, hold, ..self.how(&batch) };
        let entries = &mut tools.buffers.entries;
        let sums = cut(&tools.buffers.bytes, &how, &mut self.stamps, entries);
        entries.retain(|entry| entry.kept);
        if sums.bytes == 0 {
            return Ok(false);
        }
        tools.buffers.bytes.truncate(sums.bytes);
        batch.end = self.state.offset + sums.bytes as u64;
        (batch.lines, batch.filtered, batch.last_ns) = (sums.lines, sums.filtered, sums.last_ns);
        self.state.read += sums.lines;
        self.state.pieces += sums.pieces;
        self.state.batch = Some(batch);
        self.todo.clear();
        self.refused.clear();
        self.unrecorded = true;
        // Nothing of it leaves this node before its bounds are on record.
        if !entries.is_empty() {
            self.record(tools)?;
        }
        Ok(true)
    }

    fn read(&self, length: usize, buffers: &mut Buffers) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        buffers.read(file, self.state.offset, length)
    }

    /// Sends the next part of the batch that is in the buffers.
    fn send(&mut self, tools: &mut Tools<'_>) -> io::Result<Turn> {
        if self.unrecorded && !tools.buffers.entries.is_empty() {
            self.record(tools)?;
        }
        if self.todo.is_empty() && !tools.buffers.entries.is_empty() {
            self.todo.push((0, tools.buffers.entries.len()));
            self.refused.clear();
        }
        let Some((from, to)) = self.todo.last().copied() else { return self.complete(tools) };
        match self.push(from, to, tools)? {
            Outcome::Stored => {
                self.todo.pop();
            }
            Outcome::Refused(reason) => {
                if let Some(failed) = self.refuse(from, to, &reason, tools) {
                    return Ok(failed);
                }
            }
            Outcome::Retry { reason, after } => {
                self.backoff.asked(after);
                return Ok(Turn::Failed(reason));
            }
        }
        self.backoff.succeeded();
        if self.todo.is_empty() { self.complete(tools) } else { Ok(Turn::Done) }
    }

    /// The part that was sent last is refused: it is halved until the lines at fault are isolated.
    fn refuse(&mut self, from: usize, to: usize, reason: &str, tools: &Tools<'_>) -> Option<Turn> {
        if to - from > 1 && !self.old(from, to, tools) {
            let middle = from + (to - from) / 2;
            tracing::debug!(file = self.source.name, reason, "request refused, halved");
            self.todo.pop();
            self.todo.extend([(middle, to), (from, middle)]);
            return None;
        }
        if tools.quarantine.full() {
            let path = tools.quarantine.path().display();
            return Some(Turn::Failed(format!("the quarantine '{path}' is full")));
        }
        self.todo.pop();
        self.refused.extend((from..to).map(|index| (index, reason.to_owned())));
        None
    }

    /// Whether these entries are all so old that Loki refuses each of them by default: then they
    /// need not be sent one by one to find that out.
    fn old(&self, from: usize, to: usize, tools: &Tools<'_>) -> bool {
        let last = to.checked_sub(1).filter(|last| *last >= from);
        let last = last.and_then(|last| tools.buffers.entries.get(last));
        last.is_some_and(|entry| entry.time_ns.saturating_add(OLD_NS) < clock::epoch_ns())
    }

    fn push(&self, from: usize, to: usize, tools: &mut Tools<'_>) -> io::Result<Outcome> {
        let (form, labels) = (tools.client.encoding(), &self.source.labels);
        let body = tools.buffers.request((from, to), form, &self.rendered, labels)?;
        Ok(tools.client.send(body))
    }

    /// The whole batch is dealt with.
    fn complete(&mut self, tools: &mut Tools<'_>) -> io::Result<Turn> {
        let Buffers { bytes, entries, .. } = &*tools.buffers;
        let refused = self.refused.iter().filter_map(|(index, reason)| {
            let entry = entries.get(*index)?;
            let text = bytes.get(entry.start..entry.end).unwrap_or_default();
            Some(Refused {
                file: &self.source.name,
                time_ns: entry.time_ns,
                lines: entry.lines,
                reason,
                text: Some(String::from_utf8_lossy(text)),
            })
        });
        let quarantined = tools.quarantine.add(refused)?;
        if let Some(batch) = self.state.batch.take() {
            self.state.offset = batch.end;
            self.state.last_ns = batch.last_ns;
            self.state.filtered += batch.filtered;
            self.state.quarantined += quarantined;
            self.state.acknowledged += batch.lines - batch.filtered - quarantined;
        }
        self.refused.clear();
        self.unrecorded = true;
        if quarantined > 0 {
            // Before another stream's record tells the file's length: a shipper that is killed in
            // between would put these lines aside once more, behind what is there.
            self.record(tools)?;
        }
        let behind = self.bytes.saturating_sub(self.state.offset) >= READ_BYTES as u64 / 2;
        Ok(if behind || tools.last { Turn::Done } else { Turn::CaughtUp })
    }
}
