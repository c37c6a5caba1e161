//! Shipping logs to Loki: every line of every file once, in order, whatever dies meanwhile.
//!
//! ```text
//! file ── stream: read from offset ── cut: entries ── checkpoint: bounds ── push ── 204 ── offset
//! ```
//!
//! **The files are the spool.** Services write their logs into files that are only appended to,
//! so no copy of a line is made. A batch is a pure function (`cut`) of a range of the file and of
//! a few numbers; these are on record (`checkpoint`) before the first byte leaves the node. So a
//! shipper that was killed makes the same batch again, with the same times, and Loki takes an
//! entry of the same time and text for the one it has. While the receiver does not answer, nothing
//! is read: what waits is in the file. Only 204 moves a stream on.
//!
//! One thread does it all, with one request at a time; a stream that has to wait does not hold up
//! the others. The thread's memory does not grow with what waits.

mod backoff;
mod buffers;
mod checkpoint;
mod cli;
mod cut;
mod json;
mod pack;
mod proto;
mod protobuf;
mod push;
mod quarantine;
mod rank;
mod run_folder;
mod source;
mod stamp;
mod stream;
#[cfg(test)]
mod tests_stream;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aifb_schema::logs::LogLedger;

use crate::logging::SharedLogging;
use buffers::Buffers;
use checkpoint::{Checkpoint, State};
use push::Client;
use quarantine::Quarantine;
use stream::{Stream, Tools, Turn};

pub(crate) use cli::{Arguments, main};
pub(crate) use push::Target;
pub(crate) use run_folder::{agent_source, service_sources};
pub(crate) use source::Source;

/// Time between two looks at the files.
const POLL: Duration = Duration::from_millis(100);

/// Time between two looks for new files.
const FIND_EVERY: Duration = Duration::from_secs(1);

/// Files that are shipped by one shipper: each has an open descriptor, and a process has
/// 1024.
const STREAMS_MAX: usize = 512;

/// Until a file is sent if the shipper ends by itself: the user may lose patience.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Without new bytes for this long a file counts as complete, if the shipper ends then.
const IDLE: Duration = Duration::from_millis(600);

/// What is shipped, and where to.
#[derive(Debug)]
pub(crate) struct Config {
    /// How far it is; made if need be.
    pub(crate) checkpoint: PathBuf,
    /// Lines that were refused for good.
    pub(crate) quarantine: PathBuf,
    /// The receiver.
    pub(crate) target: Target,
    /// What is left out.
    pub(crate) logging: SharedLogging,
    /// The first files; more may come.
    pub(crate) sources: Vec<Source>,
    /// A folder whose log files are shipped, with labels for each.
    pub(crate) folder: Option<(PathBuf, BTreeMap<String, String>)>,
    /// Whether it ends when everything is sent and the files do not grow any more.
    pub(crate) until_idle: bool,
}

enum Command {
    Watch(Vec<Source>),
    /// Nothing more is written: send the rest until this instant.
    Stop(Instant),
}

/// A running shipper.
#[derive(Debug)]
pub(crate) struct Handle {
    commands: Sender<Command>,
    ledger: Arc<Mutex<LogLedger>>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Ships these files too.
    pub(crate) fn watch(&self, sources: Vec<Source>) {
        // In the ledger from now on: the thread may wait for an answer for a while.
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for source in &sources {
            if !ledger.streams.iter().any(|stream| stream.file == source.name) {
                ledger.streams.push(State::new(&source.name).ledger(0));
            }
        }
        drop(ledger);
        let _ended = self.commands.send(Command::Watch(sources));
    }

    /// What became of the lines so far.
    pub(crate) fn ledger(&self) -> LogLedger {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing more is written: what is left is sent within this time, and then it ends.
    pub(crate) fn stop(&self, within: Duration) {
        let _ended = self.commands.send(Command::Stop(Instant::now() + within));
    }

    pub(crate) fn ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts shipping.
///
/// # Errors
/// The checkpoint cannot be used, or no thread can be started.
pub(crate) fn start(config: Config) -> io::Result<Handle> {
    let checkpoint = Checkpoint::open(&config.checkpoint).map_err(|error| {
        let path = config.checkpoint.display();
        io::Error::other(format!("opening checkpoint '{path}': {error}"))
    })?;
    let ledger = Arc::new(Mutex::new(LogLedger::default()));
    let (commands, orders) = channel();
    let mut shipper = Shipper {
        client: Client::new(config.target),
        quarantine: Quarantine::new(config.quarantine, checkpoint.quarantine_bytes()),
        checkpoint,
        buffers: Buffers::new(),
        logging: config.logging,
        folder: config.folder,
        found: None,
        streams: Vec::new(),
        left_out: 0,
        trouble: None,
        until_idle: config.until_idle,
        ledger: Arc::clone(&ledger),
    };
    shipper.add(config.sources);
    shipper.find();
    shipper.publish();
    let thread =
        thread::Builder::new().name("shipper".into()).spawn(move || shipper.run(&orders))?;
    Ok(Handle { commands, ledger, thread })
}

struct Shipper {
    client: Client,
    checkpoint: Checkpoint,
    quarantine: Quarantine,
    buffers: Buffers,
    logging: SharedLogging,
    folder: Option<(PathBuf, BTreeMap<String, String>)>,
    /// When the folder was last searched.
    found: Option<Instant>,
    streams: Vec<Stream>,
    /// Files beyond the bound, and of the folder what cannot be looked at.
    left_out: u64,
    trouble: Option<String>,
    until_idle: bool,
    ledger: Arc<Mutex<LogLedger>>,
}

impl Shipper {
    fn run(mut self, orders: &Receiver<Command>) {
        let mut deadline: Option<Instant> = None;
        loop {
            let more = self.round(deadline.is_some());
            let over = |deadline: Instant| self.finished() || deadline <= Instant::now();
            if deadline.is_some_and(over) {
                return;
            }
            if self.until_idle && deadline.is_none() && !more && self.idle() {
                // Only last lines without their end are left, and what they wait for.
                deadline = Some(Instant::now() + FOREVER);
                continue;
            }
            match orders.recv_timeout(if more { Duration::ZERO } else { POLL }) {
                Ok(Command::Watch(sources)) => self.add(sources),
                Ok(Command::Stop(at)) => {
                    deadline = Some(at);
                    self.streams.iter_mut().for_each(Stream::hurry);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One turn of every stream; whether there is more to do at once.
    fn round(&mut self, last: bool) -> bool {
        if self.found.is_some_and(|at| at.elapsed() >= FIND_EVERY) {
            self.find();
        }
        let (mut more, mut changed) = (false, false);
        let mut tools = Tools {
            client: &self.client,
            checkpoint: &mut self.checkpoint,
            quarantine: &mut self.quarantine,
            buffers: &mut self.buffers,
            logging: self.logging.get(),
            last,
        };
        for stream in &mut self.streams {
            let turn = stream.turn(&mut tools);
            changed |= turn != Turn::Waits;
            more |= turn == Turn::Done;
        }
        self.note_trouble();
        if changed {
            self.publish();
        }
        more
    }

    /// Says when something begins to fail, and when nothing does any more.
    fn note_trouble(&mut self) {
        let failing =
            self.streams.iter().find_map(|stream| Some((stream.name(), stream.failed()?)));
        match (&self.trouble, failing) {
            (None, Some((file, reason))) => {
                tracing::warn!(file, reason, "logs wait to be sent");
            }
            (Some(_), None) => tracing::info!("logs are sent again"),
            _ => {}
        }
        self.trouble = failing.map(|(_, reason)| reason.to_owned());
    }

    /// Whether everything that is there is dealt with, last lines without their end included.
    fn finished(&self) -> bool {
        self.streams.iter().all(Stream::finished)
    }

    /// Whether nothing is being sent and no file grows.
    fn idle(&self) -> bool {
        self.streams.iter().all(|stream| stream.quiet_for().is_some_and(|quiet| quiet >= IDLE))
    }

    fn find(&mut self) {
        let Some((root, labels)) = &self.folder else { return };
        let found = source::find(root);
        let new: Vec<Source> = found
            .files
            .into_iter()
            .filter(|(name, _)| !self.streams.iter().any(|stream| stream.name() == name))
            .map(|(name, path)| {
                let mut labels = labels.clone();
                labels.insert("file".into(), name.clone());
                Source { name, path, labels, metadata: BTreeMap::new(), join: true, rotates: true }
            })
            .collect();
        self.left_out = found.passed_over;
        self.found = Some(Instant::now());
        self.add(new);
    }

    fn add(&mut self, sources: Vec<Source>) {
        for source in sources {
            if self.streams.iter().any(|stream| stream.name() == source.name) {
                continue;
            }
            if self.streams.len() >= STREAMS_MAX {
                self.left_out += 1;
                continue;
            }
            let state = self.checkpoint.state(&source.name);
            self.streams.push(Stream::new(source, state));
        }
    }

    fn publish(&self) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.url.clear();
        ledger.url.push_str(self.client.url());
        ledger.streams.clear();
        ledger.streams.extend(self.streams.iter().map(Stream::ledger));
        ledger.files_left_out = self.left_out;
        ledger.trouble.clone_from(&self.trouble);
    }
}
