//! Running agents as the launcher sees them: processes to write to, and one queue of what
//! happens.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ExitStatus},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use aifb_schema::control::{FromCoordinator, LINE_MAX};
use nix::sys::signal::{SigSet, Signal};

/// What happens, in the launcher's one queue.
#[derive(Debug)]
pub(crate) enum Happened {
    /// A message of the coordinator.
    Message(FromCoordinator),
    /// A process of ours has ended: which of [`Agents::pids`], and how.
    Exited(usize, Option<ExitStatus>),
    /// A signal came.
    Signal(Signal),
    /// The coordinator does not answer any more.
    Silent(String),
}

/// Entries of the queue: a few lines, ends and signals; more than that waits in the pipes.
const QUEUE: usize = 64;

/// The processes that lead to the agents.
#[derive(Debug)]
pub(crate) struct Agents {
    /// Process ids, one for each component.
    pub(crate) pids: Vec<u32>,
    inputs: Vec<SyncSender<Vec<u8>>>,
    sender: SyncSender<Happened>,
    queue: Receiver<Happened>,
}

impl Agents {
    /// None yet, but signals are listened to: they must be blocked in all threads.
    pub(crate) fn new(signals: SigSet) -> Self {
        let (sender, queue) = sync_channel(QUEUE);
        let to_queue = sender.clone();
        thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if to_queue.send(Happened::Signal(signal)).is_err() {
                    return;
                }
            }
        });
        Self { pids: Vec::new(), inputs: Vec::new(), sender, queue }
    }

    /// Another end of the queue.
    pub(crate) fn sender(&self) -> SyncSender<Happened> {
        self.sender.clone()
    }

    /// Takes over a child that was started with pipes for input and output.
    pub(crate) fn add(&mut self, mut child: Child) {
        let index = self.pids.len();
        self.pids.push(child.id());
        let (input, lines) = sync_channel::<Vec<u8>>(4);
        if let Some(mut pipe) = child.stdin.take() {
            // On a thread: srun reads nothing before its step exists, and a long line would fill
            // the pipe.
            thread::spawn(move || {
                while let Ok(line) = lines.recv() {
                    if pipe.write_all(&line).is_err() {
                        return;
                    }
                }
            });
        }
        self.inputs.push(input);
        let output = child.stdout.take();
        let sender = self.sender.clone();
        thread::spawn(move || {
            if let Some(output) = output {
                read_lines(output, &sender);
            }
            let status = child.wait().ok();
            let _over = sender.send(Happened::Exited(index, status));
        });
    }

    /// Sends a line to all agents. A full queue means that srun has read none of the lines
    /// before: then this one does not matter.
    pub(crate) fn send(&self, line: &[u8]) {
        for input in &self.inputs {
            let _ended = input.try_send(line.to_vec());
        }
    }

    /// The next thing that happens; `None` when the deadline comes first.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Option<Happened> {
        // Without a deadline this still returns now and then; nothing is lost by it.
        let far = Duration::from_secs(3600);
        let left = deadline.map_or(far, |at| at.saturating_duration_since(Instant::now()));
        self.queue.recv_timeout(left).ok()
    }
}

/// Reads the coordinator's lines until the end; anything else on the way is passed over, as
/// srun may print to its output, too.
fn read_lines(output: impl Read, sender: &SyncSender<Happened>) {
    let mut reader = BufReader::new(output);
    let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Ok(said) = serde_json::from_slice(&line)
            && sender.send(Happened::Message(said)).is_err()
        {
            return;
        }
    }
}

/// Lines of srun's that are shown: the first says the cause, the others what came of it.
const WORDS_LINES: usize = 3;

/// What a log says at its end: of the last KiB the first lines, without srun's prefix.
pub(crate) fn last_words(path: &std::path::Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        use std::io::{Seek, SeekFrom};
        let end = file.metadata().map_or(0, |metadata| metadata.len());
        let from = end.saturating_sub(1024);
        let _short = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim_start_matches("srun: ").trim_start_matches("error: ").trim())
        .filter(|line| !line.is_empty())
        .take(WORDS_LINES)
        .collect();
    lines.join("; ")
}
