//! The writer of `samples.bin`: its own thread behind a bounded queue, so that a slow file system
//! delays no tick.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use aifb_schema::samples::MAGIC;
use anyhow::{Context as _, bail};

/// Chunks (one tick each, some KiB) that may wait for the file system: four minutes at one
/// sample a second, half a minute at ten, and about a MiB. Above that ticks become gaps.
const QUEUE_CHUNKS: usize = 256;

/// Longest wait for the last bytes. Slurm kills what is left of a step after `KillWait` (30 s by
/// default, 5 s in our tests); the agent has more to do in that time.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Where the sampler puts its chunks.
#[derive(Debug)]
pub(super) struct Recorder {
    queue: Option<SyncSender<Vec<u8>>>,
    ended: Receiver<()>,
    lost: Arc<AtomicU32>,
}

/// Where bytes go at an offset; a file, or in tests something that fails.
pub(super) trait Target: Send + 'static {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Those of the file system; any part of the bytes may have been written.
    fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes sure that all is stored.
    ///
    /// # Errors
    /// Those of the file system.
    fn flush(&self) -> io::Result<()>;
}

impl Target for File {
    fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Recorder {
    /// Makes the file and starts its writer.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("making the record of samples '{}'", path.display()))?;
        Self::start(file)
    }

    pub(super) fn start(target: impl Target) -> anyhow::Result<Self> {
        let (queue, chunks) = sync_channel(QUEUE_CHUNKS);
        let (end, ended) = channel();
        let lost = Arc::new(AtomicU32::new(0));
        let writer = Writer { target, offset: 0, lost: Arc::clone(&lost) };
        thread::Builder::new()
            .name("samples".into())
            .spawn(move || {
                writer.run(&chunks);
                drop(end);
            })
            .context("starting the writer of samples")?;
        Ok(Self { queue: Some(queue), ended, lost })
    }

    /// Hands a chunk over. False: there is no room, the chunk is lost.
    pub(super) fn push(&self, chunk: Vec<u8>) -> bool {
        match self.queue.as_ref().map(|queue| queue.try_send(chunk)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// Chunks that the file system refused since the last call.
    pub(super) fn take_lost(&self) -> u32 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// If the file system refused a chunk at the end, or takes too long.
    pub(super) fn close(mut self) -> anyhow::Result<()> {
        drop(self.queue.take());
        match self.ended.recv_timeout(CLOSE_WAIT) {
            Err(RecvTimeoutError::Timeout) => {
                bail!("the file system did not take the last samples within {CLOSE_WAIT:?}")
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => match self.take_lost() {
                0 => Ok(()),
                lost => bail!("the file system refused the last {lost} chunks of samples"),
            },
        }
    }
}

struct Writer<T> {
    target: T,
    offset: u64,
    lost: Arc<AtomicU32>,
}

impl<T: Target> Writer<T> {
    fn run(mut self, chunks: &Receiver<Vec<u8>>) {
        let mut head = MAGIC.to_vec();
        while let Ok(chunk) = chunks.recv() {
            head.extend_from_slice(&chunk);
            // A write that fails half way leaves a torn tail, which the next one overwrites.
            match self.target.put(&head, self.offset) {
                Ok(()) => {
                    self.offset += head.len() as u64;
                    head.clear();
                }
                Err(_) => {
                    head.truncate(if self.offset == 0 { MAGIC.len() } else { 0 });
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if self.target.flush().is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use aifb_schema::samples::{self, Frame, Sample};

    use super::*;

    /// A disk that is full while `full` says so, and stops while `held`.
    #[derive(Clone, Default)]
    struct Disk(Arc<(Mutex<DiskState>, Condvar)>);

    #[derive(Default)]
    struct DiskState {
        bytes: Vec<u8>,
        full: bool,
        held: bool,
        writes: u32,
    }

    impl Target for Disk {
        fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let mut state = self.0.0.lock().unwrap();
            state.writes += 1;
            self.0.1.notify_all();
            while state.held {
                state = self.0.1.wait(state).unwrap();
            }
            let offset = usize::try_from(offset).unwrap();
            state.bytes.truncate(offset);
            let part = if state.full { bytes.len() / 2 } else { bytes.len() };
            state.bytes.extend_from_slice(&bytes[..part]);
            if state.full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk {
        fn set(&self, change: impl Fn(&mut DiskState)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        fn wait_for_writes(&self, count: u32) {
            let state = self.0.0.lock().unwrap();
            let waited = Duration::from_secs(20);
            let reached = |state: &mut DiskState| state.writes < count;
            let (_state, end) = self.0.1.wait_timeout_while(state, waited, reached).unwrap();
            assert!(!end.timed_out(), "fewer than {count} writes");
        }
    }

    fn chunk(tick: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Frame::Sample(Sample { epoch_ns: tick, ..Sample::default() }).encode(&mut bytes);
        bytes
    }

    fn ticks(disk: &Disk) -> Vec<u64> {
        let state = disk.0.0.lock().unwrap();
        let recording = samples::read(&state.bytes).unwrap();
        assert_eq!(recording.torn_bytes, 0);
        recording.samples.iter().map(|sample| sample.epoch_ns).collect()
    }

    #[test]
    fn a_full_disk_loses_only_what_was_written_meanwhile() {
        let disk = Disk::default();
        disk.set(|state| state.full = true);
        let recorder = Recorder::start(disk.clone()).unwrap();
        assert!(recorder.push(chunk(0)));
        disk.wait_for_writes(1);
        disk.set(|state| state.full = false);
        assert!(recorder.push(chunk(1)) && recorder.push(chunk(2)));
        disk.wait_for_writes(3);
        assert_eq!(recorder.take_lost(), 1);
        disk.set(|state| state.full = true);
        assert!(recorder.push(chunk(3)));
        disk.wait_for_writes(4);
        disk.set(|state| state.full = false);
        assert!(recorder.push(chunk(4)));
        disk.wait_for_writes(5);
        assert_eq!(recorder.take_lost(), 1);
        recorder.close().unwrap();
        assert_eq!(ticks(&disk), [1, 2, 4]);
    }

    #[test]
    fn a_file_system_that_hangs_blocks_nobody() {
        let disk = Disk::default();
        disk.set(|state| state.held = true);
        let recorder = Recorder::start(disk.clone()).unwrap();
        assert!(recorder.push(chunk(0)));
        disk.wait_for_writes(1);
        let taken = (1..1000).take_while(|tick| recorder.push(chunk(*tick))).count();
        assert_eq!(taken, QUEUE_CHUNKS);
        let error = recorder.close().unwrap_err().to_string();
        assert!(error.contains("did not take the last samples within 2s"), "{error}");
        disk.set(|state| state.held = false);
    }
}
