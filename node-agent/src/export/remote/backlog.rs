//! Ticks that wait to be sent, oldest first: in memory while there are few, then in a file.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::wire::Row;

/// Bytes that wait in memory: three minutes of a node with 400 series at one sample a second.
const MEMORY_MAX: usize = 1 << 20;

/// Bytes that wait in the file: at ten samples a second of 400 series half an hour has 86 MB.
pub(super) const FILE_MAX: u64 = 128 << 20;

/// Bytes of the head of a tick: its time.
const HEAD: usize = 8;

/// Bytes of a value: number of the series, and value.
const VALUE: usize = 12;

/// All values of one tick.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waiting {
    /// Milliseconds since 1970.
    pub(super) ms: i64,
    /// Series and value.
    pub(super) values: Vec<(u32, f64)>,
}

impl Waiting {
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.values.iter().map(|(series, value)| Row {
            series: *series,
            ms: self.ms,
            value: *value,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + VALUE * self.values.len());
        bytes.extend_from_slice(&self.ms.to_le_bytes());
        for (series, value) in &self.values {
            bytes.extend_from_slice(&series.to_le_bytes());
            // The bits, for the NaN that ends a series is a certain one.
            bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (ms, rest) = bytes.split_first_chunk::<HEAD>()?;
        let value = |bytes: &[u8]| {
            let (series, value) = bytes.split_first_chunk::<4>()?;
            let (value, _) = value.split_first_chunk::<8>()?;
            Some((u32::from_le_bytes(*series), f64::from_bits(u64::from_le_bytes(*value))))
        };
        let values = rest.chunks_exact(VALUE).filter_map(value).collect();
        Some(Self { ms: i64::from_le_bytes(*ms), values })
    }
}

/// The queue. What is in memory is older than what is in the file.
#[derive(Debug)]
pub(super) struct Backlog {
    memory: VecDeque<Vec<u8>>,
    memory_bytes: usize,
    file: Option<Ring>,
    /// Values dropped since the last query.
    dropped: u64,
}

impl Backlog {
    /// With a file in `folder`; without one where that cannot be made.
    pub(super) fn new(folder: &Path, file_max: u64) -> Self {
        let file = Ring::create(folder, file_max)
            .inspect_err(|error| {
                tracing::warn!(folder = %folder.display(), %error, "cannot create the spool file \
                 for remote write");
            })
            .ok();
        Self { memory: VecDeque::new(), memory_bytes: 0, file, dropped: 0 }
    }

    /// Adds a tick. Where there is no room the oldest makes it.
    pub(super) fn push(&mut self, tick: &Waiting) {
        let bytes = tick.encode();
        let file_used = self.file.as_ref().is_some_and(|file| !file.frames.is_empty());
        if !file_used && self.memory_bytes + bytes.len() <= MEMORY_MAX {
            self.memory_bytes += bytes.len();
            self.memory.push_back(bytes);
            return;
        }
        let kept = self.file.as_mut().is_some_and(|file| {
            self.dropped += file.make_room(bytes.len());
            file.push(&bytes).is_ok()
        });
        if !kept {
            self.dropped += values_of(bytes.len());
        }
    }

    /// Takes the oldest tick.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        if let Some(bytes) = self.memory.pop_front() {
            self.memory_bytes -= bytes.len();
            return Waiting::decode(&bytes);
        }
        loop {
            match self.file.as_mut()?.pop()? {
                Ok(bytes) => return Waiting::decode(&bytes),
                Err(lost) => self.dropped += lost,
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.file.as_ref().is_none_or(|file| file.frames.is_empty())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.memory_bytes as u64 + self.file.as_ref().map_or(0, |file| file.used)
    }

    /// Values that were left out since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

/// Values of an encoded tick.
fn values_of(bytes: usize) -> u64 {
    (bytes.saturating_sub(HEAD) / VALUE) as u64
}

/// A file without a name, written round and round; nothing of it is left however the agent ends.
#[derive(Debug)]
struct Ring {
    file: File,
    max: u64,
    /// Where the oldest frame begins, and where the next will.
    head: u64,
    tail: u64,
    used: u64,
    /// Lengths of the frames in it.
    frames: VecDeque<u32>,
}

impl Ring {
    fn create(folder: &Path, max: u64) -> io::Result<Self> {
        let path = folder.join(format!(".aifb-spool-{}", std::process::id()));
        let file =
            File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        Ok(Self { file, max, head: 0, tail: 0, used: 0, frames: VecDeque::new() })
    }

    /// Makes room for as many bytes; how many values had to go for it.
    fn make_room(&mut self, bytes: usize) -> u64 {
        let mut dropped = 0;
        while self.used + bytes as u64 > self.max {
            let Some(oldest) = self.forget() else { break };
            dropped += values_of(oldest);
        }
        dropped
    }

    /// Appends, where there is room.
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.used + length > self.max {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let until_end = usize::try_from(self.max - self.tail).unwrap_or(usize::MAX);
        let (first, second) = bytes.split_at(bytes.len().min(until_end));
        self.file.write_all_at(first, self.tail)?;
        self.file.write_all_at(second, 0)?;
        self.tail = (self.tail + length) % self.max;
        self.used += length;
        self.frames.push_back(u32::try_from(length).unwrap_or(u32::MAX));
        Ok(())
    }

    /// The oldest; of one that cannot be read, how many values it had.
    fn pop(&mut self) -> Option<Result<Vec<u8>, u64>> {
        let length = *self.frames.front()? as usize;
        let at = self.head;
        self.forget()?;
        let mut bytes = vec![0; length];
        let until_end = usize::try_from(self.max - at).unwrap_or(usize::MAX);
        let (first, second) = bytes.split_at_mut(length.min(until_end));
        let read =
            self.file.read_exact_at(first, at).and_then(|()| self.file.read_exact_at(second, 0));
        if self.frames.is_empty() {
            // Gives the disk back what a long outage took.
            let _still_there = self.file.set_len(0);
            (self.head, self.tail) = (0, 0);
        }
        Some(read.map(|()| bytes).map_err(|_| values_of(length)))
    }

    /// Leaves the oldest out; its length.
    fn forget(&mut self) -> Option<usize> {
        let length = self.frames.pop_front()?;
        self.head = (self.head + u64::from(length)) % self.max;
        self.used -= u64::from(length);
        Some(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(ms: i64, values: u32) -> Waiting {
        Waiting {
            ms,
            values: (0..values).map(|series| (series, f64::from(series) + 0.5)).collect(),
        }
    }

    fn drain(backlog: &mut Backlog) -> Vec<i64> {
        std::iter::from_fn(|| backlog.pop()).map(|tick| tick.ms).collect()
    }

    #[test]
    fn nothing_is_lost_between_memory_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(folder.path(), FILE_MAX);
        let large = u32::try_from(MEMORY_MAX / VALUE / 4).unwrap();
        let (mut sent, mut expected) = (Vec::new(), 0..);
        for round in 1..6 {
            for _ in 0..round * 3 {
                backlog.push(&tick(expected.next().unwrap(), large));
            }
            for _ in 0..round * 2 {
                let taken = backlog.pop().unwrap();
                assert_eq!(taken.values, tick(0, large).values);
                sent.push(taken.ms);
            }
        }
        assert!(backlog.bytes() > 4 * u64::from(large) * 12, "{}", backlog.bytes());
        sent.extend(drain(&mut backlog));
        assert_eq!(sent, (0..45).collect::<Vec<i64>>());
        assert!(backlog.is_empty() && backlog.bytes() == 0);
        assert_eq!(backlog.take_dropped(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the file has a name");
    }

    #[test]
    fn at_the_bound_the_oldest_of_the_file_goes_and_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let quarter = u32::try_from(MEMORY_MAX / VALUE / 4).unwrap();
        let frame = tick(0, quarter).encode().len() as u64;
        // Three frames fit memory; of two and a half in the file the third wraps around.
        let mut backlog = Backlog::new(folder.path(), frame * 5 / 2);
        for ms in 0..8 {
            backlog.push(&tick(ms, quarter));
        }
        assert_eq!(backlog.take_dropped(), 3 * u64::from(quarter));
        assert_eq!(drain(&mut backlog), [0, 1, 2, 6, 7]);
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let quarter = u32::try_from(MEMORY_MAX / VALUE / 4).unwrap();
        let frame = tick(0, quarter).encode().len() as u64;
        let mut backlog = Backlog::new(folder.path(), frame * 2);
        for ms in 0..5 {
            backlog.push(&tick(ms, quarter));
        }
        assert_eq!(backlog.take_dropped(), 0);
        let full = File::options().read(true).write(true).open("/dev/full").unwrap();
        let file = backlog.file.as_mut().unwrap();
        let disk = std::mem::replace(&mut file.file, full);
        backlog.push(&tick(5, quarter));
        // The oldest that went for it, and itself.
        assert_eq!(backlog.take_dropped(), 2 * u64::from(quarter));
        backlog.file.as_mut().unwrap().file = disk;
        assert_eq!(drain(&mut backlog), [0, 1, 2, 4]);
    }

    #[test]
    fn the_end_of_a_series_keeps_its_bits() {
        let stale = Waiting { ms: 5, values: vec![(7, super::super::wire::STALE)] };
        let back = Waiting::decode(&stale.encode()).unwrap();
        assert_eq!(back.values[0].1.to_bits(), 0x7ff0_0000_0000_0002);
    }

    #[test]
    fn without_a_file_memory_is_the_bound() {
        let mut backlog = Backlog::new(Path::new("/nonexistent"), FILE_MAX);
        let half = u32::try_from(MEMORY_MAX / VALUE / 2 - 1).unwrap();
        for ms in 0..3 {
            backlog.push(&tick(ms, half));
        }
        assert_eq!(backlog.take_dropped(), u64::from(half));
        assert_eq!(drain(&mut backlog), [0, 1]);
    }
}
