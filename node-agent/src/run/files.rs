//! Writing into the run folder: one thread behind a bounded queue, so that a slow or full file
//! system never holds up the agent.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use aifb_runfolder::write::{self, Appender};
use tokio::sync::oneshot;

/// Entries waiting to be written: at some events a second, many minutes of a hanging file
/// system; at 1 KiB each, 4 MiB.
const QUEUE: usize = 4096;

/// Files kept open for appending: the agent writes its log and, on one node, the events.
const OPEN_MAX: usize = 8;

enum Job {
    Append(PathBuf, Vec<u8>),
    Replace(PathBuf, u32, Vec<u8>),
    Remove(PathBuf),
    Flush(oneshot::Sender<()>),
}

/// The way to the writing thread.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    queue: SyncSender<Job>,
    trouble: Arc<Mutex<Trouble>>,
}

/// What could not be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble {
    /// Entries that found the queue full, or that the system refused.
    pub(crate) lost: u64,
    /// The first reason.
    pub(crate) reason: Option<String>,
}

impl Files {
    /// Starts the thread.
    pub(crate) fn start() -> Self {
        let (queue, jobs) = sync_channel(QUEUE);
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let of_thread = Arc::clone(&trouble);
        thread::spawn(move || write_all(&jobs, &of_thread));
        Self { queue, trouble }
    }

    /// Appends to a file, making it if need be.
    pub(crate) fn append(&self, path: &Path, bytes: Vec<u8>) {
        self.put(Job::Append(path.to_owned(), bytes));
    }

    /// Replaces a file by rename; it never shows a half. `mode` holds for a new file.
    pub(crate) fn replace(&self, path: &Path, mode: u32, bytes: Vec<u8>) {
        self.put(Job::Replace(path.to_owned(), mode, bytes));
    }

    /// Removes a file; one that is not there is no error.
    pub(crate) fn remove(&self, path: &Path) {
        self.put(Job::Remove(path.to_owned()));
    }

    /// Resolves when all that was given before is written. May hang with the file system: give it
    /// a deadline.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        self.put(Job::Flush(done));
        let _writer_gone = wait.await;
    }

    /// What could not be written since the last call.
    pub(crate) fn take_trouble(&self) -> Option<Trouble> {
        let mut trouble = self.trouble.lock().ok()?;
        (trouble.lost > 0).then(|| std::mem::take(&mut *trouble))
    }

    fn put(&self, job: Job) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(job)
        {
            note(&self.trouble, || format!("more than {QUEUE} writes are waiting"));
        }
    }
}

fn note(trouble: &Mutex<Trouble>, reason: impl FnOnce() -> String) {
    if let Ok(mut trouble) = trouble.lock() {
        trouble.lost += 1;
        trouble.reason.get_or_insert_with(reason);
    }
}

fn write_all(jobs: &Receiver<Job>, trouble: &Mutex<Trouble>) {
    let mut open: HashMap<PathBuf, Appender> = HashMap::new();
    while let Ok(job) = jobs.recv() {
        let (path, written) = match job {
            Job::Append(path, bytes) => {
                if open.len() >= OPEN_MAX && !open.contains_key(&path) {
                    open.clear();
                }
                let file =
                    open.entry(path.clone()).or_insert_with(|| Appender::new(&path, write::MODE));
                let written = file.append(&bytes);
                (path, written)
            }
            Job::Replace(path, mode, bytes) => {
                let written = write::replace(&path, mode, &bytes);
                (path, written)
            }
            Job::Remove(path) => {
                let removed = match fs::remove_file(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                };
                (path, removed)
            }
            Job::Flush(done) => {
                let _nobody_waits = done.send(());
                continue;
            }
        };
        if let Err(error) = written {
            note(trouble, || format!("writing '{}': {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_are_written_in_order_and_trouble_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::start();
        let log = folder.path().join("a.log");
        for line in ["1\n", "2\n", "3\n"] {
            files.append(&log, line.into());
        }
        files.replace(&folder.path().join("r.json"), 0o600, b"{}".to_vec());
        files.append(&folder.path().join("missing/x"), b"x".to_vec());
        files.flush().await;
        assert_eq!(fs::read_to_string(&log).unwrap(), "1\n2\n3\n");
        assert_eq!(fs::read_to_string(folder.path().join("r.json")).unwrap(), "{}");
        let trouble = files.take_trouble().unwrap();
        assert_eq!(trouble.lost, 1);
        assert!(trouble.reason.unwrap().contains("missing/x"));
        assert!(files.take_trouble().is_none());
    }
}
