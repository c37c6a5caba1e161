//! Following a run while it goes on: new events, progress of loads, the end.

use std::time::{Duration, Instant};

use aifb_runfolder::read;
use aifb_schema::{
    control::LoadStatus,
    run::{Event, RunRecord},
};

use crate::{
    agent_client::AgentClient,
    error::Result,
    observe::{Liveness, liveness, view},
    store::RunFolder,
};

/// Pause between two looks.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Pause between two questions whether a run without news still lives: they cost Slurm work.
const LIVENESS_EVERY: Duration = Duration::from_secs(10);

/// Bytes of events taken at one look.
const EVENTS_BYTES: u64 = 1024 * 1024;

/// Follows one run.
#[derive(Debug)]
pub(crate) struct Follower {
    run: RunFolder,
    events: read::Follow,
    progress: Vec<LoadStatus>,
    checked: Instant,
}

/// What one look brought.
#[derive(Debug)]
pub(crate) struct News {
    /// Events since the last look.
    pub(crate) events: Vec<Event>,
    /// Loads whose numbers changed since the last look.
    pub(crate) loads: Vec<LoadStatus>,
    /// run.json as it is now, with what only a reader can know.
    pub(crate) run: RunRecord,
    /// Whether nothing will follow.
    pub(crate) over: bool,
}

impl Follower {
    /// From the beginning of the run on.
    pub(crate) fn new(run: RunFolder) -> Self {
        let events = read::Follow::new(run.files().events_path());
        Self { run, events, progress: Vec::new(), checked: Instant::now() }
    }

    /// The folder that is followed.
    pub(crate) fn folder(&self) -> &RunFolder {
        &self.run
    }

    /// Looks once.
    ///
    /// # Errors
    /// If run.json cannot be read.
    pub(crate) fn look(&mut self) -> Result<News> {
        // State first: every event up to it is then in the file already.
        let mut record = self.run.record()?;
        let mut over = record.state.is_final();
        let mut loads = Vec::new();
        if !over {
            match AgentClient::of(&self.run).and_then(|client| client.status()) {
                Ok(status) => {
                    self.checked = Instant::now();
                    loads = status
                        .loads
                        .iter()
                        .filter(|load| !self.progress.contains(load))
                        .cloned()
                        .collect();
                    self.progress = status.loads;
                }
                Err(_) if self.checked.elapsed() >= LIVENESS_EVERY => {
                    over = matches!(
                        liveness(&self.run, &mut record),
                        Liveness::Lost | Liveness::Ended
                    );
                    self.checked = Instant::now();
                }
                Err(_) => {}
            }
        }
        Ok(News { events: self.events(), loads, run: record, over })
    }

    /// Events that were added since the last look.
    fn events(&mut self) -> Vec<Event> {
        let mut events: Vec<Event> = self.events.added(EVENTS_BYTES).unwrap_or_default();
        events.retain(|event| !event.fields.contains_key("offset_ns"));
        events
    }
}

/// An event as one line: seconds since the start of the run, what, where.
pub(crate) fn event_line(event: &Event, run: &RunRecord) -> String {
    let since = view::length(event.epoch_ns.saturating_sub(run.started_epoch_ns));
    let Event { kind, subject, message, node, .. } = event;
    format!("{since:>8}  {kind} {subject}: {message} ({node})")
}

/// A load's progress as one line.
pub(crate) fn load_line(load: &LoadStatus, run: &RunRecord) -> String {
    let since = view::length(view::now_epoch_ns().saturating_sub(run.started_epoch_ns));
    let name = view::load_name(&load.load, load.point, load.repeat);
    format!("{since:>8}  load {name}: {}", view::progress_text(load))
}
