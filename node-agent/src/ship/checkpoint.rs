//! How far each stream is, kept so that a killed shipper goes on where it was.
//!
//! A file of JSON lines that is appended to: before a batch is sent its exact bounds are on
//! record, and what was acknowledged goes with the next line. A torn last line was never acted
//! upon. It is written anew when it has grown.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aifb_schema::{logs::LogStream, recipe::Logging};
use serde::{Deserialize, Serialize};

use crate::disk::own_file;

/// Bytes after which the file is written anew: minutes at the highest rate, and read in
/// milliseconds.
const BYTES_MAX: u64 = 1024 * 1024;

/// Bytes that are read of one: far above what is ever written.
const READ_MAX: u64 = 64 * 1024 * 1024;

/// How long the lock of a killed shipper may take to be gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// How far one stream is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The source's name.
    pub(super) file: String,
    /// Inode of the file that `offset` counts in; 0: none yet.
    pub(super) inode: u64,
    /// Bytes that are dealt with.
    pub(super) offset: u64,
    /// Time of the last entry.
    pub(super) last_ns: u64,
    /// Lines read, the batch's included.
    pub(super) read: u64,
    /// Lines stored by the receiver.
    pub(super) acknowledged: u64,
    /// Lines refused for good.
    pub(super) quarantined: u64,
    /// Lines left out by `logging`.
    pub(super) filtered: u64,
    /// Pieces of lines that were too long.
    pub(super) pieces: u64,
    /// How often the file was replaced or cut.
    pub(super) replaced: u64,
    /// Length of the quarantine file when this was written.
    pub(super) quarantine_bytes: u64,
    /// What is being sent.
    pub(super) batch: Option<Batch>,
}

/// What is being sent: all that is needed to make the same bytes from the file again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Batch {
    /// Where it ends; it begins at the stream's offset.
    pub(super) end: u64,
    /// Time of lines that show none.
    pub(super) arrival_ns: u64,
    /// What is left out.
    pub(super) logging: Logging,
    /// Time of its last entry.
    pub(super) last_ns: u64,
    /// Lines in it.
    pub(super) lines: u64,
    /// Lines of those that are left out.
    pub(super) filtered: u64,
}

impl State {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }

    /// Whether its numbers can be those of one file: others reckon with them.
    fn adds_up(&self) -> bool {
        const MOST: u64 = u64::MAX / 4;
        let counts = [self.read, self.acknowledged, self.quarantined, self.filtered, self.last_ns];
        counts.iter().all(|count| *count < MOST)
            && self.batch.as_ref().is_none_or(|batch| {
                batch.end > self.offset
                    && batch.filtered <= batch.lines
                    && batch.lines <= self.read
                    && batch.last_ns.max(batch.arrival_ns) < MOST
            })
    }

    /// What became of the lines, with the file's size at the last look.
    pub(super) fn ledger(&self, bytes: u64) -> LogStream {
        LogStream {
            file: self.file.clone(),
            bytes: bytes.max(self.offset),
            bytes_done: self.offset,
            lines_read: self.read,
            lines_acknowledged: self.acknowledged,
            lines_quarantined: self.quarantined,
            lines_spooled: self.batch.as_ref().map_or(0, |batch| batch.lines),
            lines_filtered: self.filtered,
            pieces: self.pieces,
            replaced: self.replaced,
        }
    }
}

/// The checkpoint file, locked.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    file: File,
    bytes: u64,
    known: BTreeMap<String, State>,
}

impl Checkpoint {
    /// Opens or makes one.
    ///
    /// # Errors
    /// It cannot be read or written, or another shipper uses it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let begun = Instant::now();
        let file = loop {
            let file = own_file().read(true).append(true).open(path)?;
            lock(&file, begun)?;
            // The one that had the lock may have put another file in its place meanwhile, which it
            // has locked, too.
            if fs::metadata(path).is_ok_and(|there| is_file(&file, &there)) {
                break file;
            }
        };
        let known = read(&file)?;
        let mut checkpoint = Self { path: path.to_owned(), file, bytes: 0, known };
        checkpoint.rewrite()?;
        Ok(checkpoint)
    }

    /// Streams that are on record.
    pub(super) fn names(path: &Path) -> Vec<String> {
        let states = File::open(path).and_then(|file| read(&file)).unwrap_or_default();
        states.into_keys().collect()
    }

    /// How far this stream is.
    pub(super) fn state(&self, file: &str) -> State {
        self.known.get(file).cloned().unwrap_or_else(|| State::new(file))
    }

    /// Length of the quarantine file, as far as it is on record.
    pub(super) fn quarantine_bytes(&self) -> u64 {
        self.known.values().map(|state| state.quarantine_bytes).max().unwrap_or(0)
    }

    /// Puts a state on record.
    ///
    /// # Errors
    /// The system refuses; the record is as it was.
    pub(super) fn record(&mut self, state: &State) -> io::Result<()> {
        let mut line = serde_json::to_vec(state)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        self.known.insert(state.file.clone(), state.clone());
        self.bytes += line.len() as u64;
        if written.is_err() || self.bytes > BYTES_MAX {
            // After an error the last line may be half there.
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        for state in self.known.values() {
            serde_json::to_writer(&mut text, state)?;
            text.push(b'\n');
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.path.with_file_name(format!(".{name}.new"));
        let mut file = own_file().write(true).truncate(true).open(&temporary)?;
        lock(&file, Instant::now())?;
        file.write_all(&text)?;
        fs::rename(&temporary, &self.path)?;
        self.file = file;
        self.bytes = text.len() as u64;
        Ok(())
    }
}

fn is_file(file: &File, there: &fs::Metadata) -> bool {
    file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
}

/// Locks a file for this process. A file system without locks is taken as it is.
fn lock(file: &File, begun: Instant) -> io::Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another shipper uses it"));
            }
            Err(TryLockError::Error(error)) => {
                let none = [libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOLCK];
                return match error.raw_os_error() {
                    Some(code) if none.contains(&code) => Ok(()),
                    _ => Err(error),
                };
            }
        }
    }
}

/// The last state of every stream; invalid lines, or lines that no shipper can have written, are
/// passed over.
fn read(file: &File) -> io::Result<BTreeMap<String, State>> {
    let mut text = Vec::new();
    file.take(READ_MAX).read_to_end(&mut text)?;
    let states =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let states = states.filter(State::adds_up);
    Ok(states.map(|state| (state.file.clone(), state)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        for offset in [1, 2, 3] {
            checkpoint.record(&State { offset, ..State::new("a") }).unwrap();
        }
        checkpoint.record(&State { offset: 9, ..State::new("b") }).unwrap();
        drop(checkpoint);
        let mut torn = fs::read(&path).unwrap();
        torn.truncate(torn.len() - 5);
        fs::write(&path, &torn).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!((checkpoint.state("a").offset, checkpoint.state("b").offset), (3, 0));
        assert_eq!(Checkpoint::names(&path), ["a"]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "written anew");
    }

    /// Who waits for the lock of a file that is replaced meanwhile must not take the old one's lock
    /// for that of the new one.
    #[test]
    fn a_shipper_that_rewrites_it_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        let of_other = path.clone();
        let other = thread::spawn(move || Checkpoint::open(&of_other).map(drop));
        let begun = Instant::now();
        while !other.is_finished() {
            checkpoint.rewrite().unwrap();
            thread::sleep(Duration::from_millis(1));
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        let refused = other.join().unwrap().unwrap_err();
        assert!(refused.to_string().contains("another shipper"), "{refused}");
    }

    #[test]
    fn it_is_its_owners_alone_and_what_cannot_be_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let batch = |end, lines, filtered| {
            let logging = Logging::default();
            Some(Batch { end, arrival_ns: 1, logging, last_ns: 1, lines, filtered })
        };
        let good = State { offset: 5, read: 3, batch: batch(9, 2, 1), ..State::new("good") };
        let states = [
            good.clone(),
            State { offset: 5, read: 3, batch: batch(4, 2, 1), ..State::new("end") },
            State { offset: 5, read: 3, batch: batch(9, 1, 2), ..State::new("filtered") },
            State { last_ns: u64::MAX, ..State::new("time") },
        ];
        let lines = states.iter().map(|state| serde_json::to_string(state).unwrap() + "\n");
        fs::write(&path, lines.collect::<String>()).unwrap();
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(Checkpoint::names(&path), ["good"]);
        checkpoint.record(&good).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_stays_small_and_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        for offset in 0..10_000 {
            checkpoint.record(&State { offset, ..State::new("a") }).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= BYTES_MAX + 1024);
        assert!(Checkpoint::open(&path).unwrap_err().to_string().contains("another shipper"));
        drop(checkpoint);
        assert_eq!(Checkpoint::open(&path).unwrap().state("a").offset, 9999);
    }
}
