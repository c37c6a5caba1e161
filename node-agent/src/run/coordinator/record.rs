//! What the coordinator writes down and says.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use aifb_schema::{
    control::{FromCoordinator, Trouble},
    names::file,
    run::{Event, State},
};
use serde_json::Value;

use super::Coordinator;
use crate::event;

impl Coordinator {
    /// Enters a state, with an event and a new run.json.
    pub(super) fn enter(&mut self, state: State, message: &str) {
        if self.record.state == state {
            return;
        }
        self.record.state = state;
        self.event("state", state.as_str(), message);
        self.save();
    }

    /// Writes run.json anew.
    pub(super) fn save(&self) {
        let path = self.context.run_dir.join(file::RUN);
        if let Ok(mut json) = serde_json::to_vec_pretty(&self.record) {
            json.push(b'\n');
            self.context.files.replace(&path, 0o644, json);
        }
    }

    /// Notes a doubt in run.json and the events.
    pub(super) fn warn(&mut self, message: &str) {
        tracing::warn!("{message}");
        self.keep_warning(message.to_owned());
        self.event("warning", "run", message);
    }

    /// Notes what the samples of a node show, with the time of that sample.
    pub(super) fn node_trouble(&mut self, node: &str, trouble: Trouble) {
        let Trouble { epoch_ns, subject, message, mut fields } = trouble;
        self.keep_warning(format!("{node}: {message}"));
        fields.insert("sample_epoch_ns".to_owned(), epoch_ns.into());
        self.event_on(node, "warning", &subject, &message, fields);
    }

    fn keep_warning(&mut self, warning: String) {
        /// Warnings kept in run.json; more of them say nothing new.
        const WARNINGS: usize = 100;
        if self.record.warnings.len() < WARNINGS {
            self.record.warnings.push(warning);
            self.save();
        }
    }

    /// Appends a line to events.jsonl.
    pub(super) fn event(&self, kind: &str, subject: &str, message: &str) {
        self.event_on(self.own_node(), kind, subject, message, BTreeMap::new());
    }

    /// The same for another node, with further values.
    pub(super) fn event_on(
        &self,
        node: &str,
        kind: &str,
        subject: &str,
        message: &str,
        fields: BTreeMap<String, Value>,
    ) {
        tracing::info!(node, kind, subject, "{message}");
        let event = Event { fields, ..event::now(node, kind, subject, message) };
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            self.context.files.append(&self.context.run_dir.join(file::EVENTS), line);
        }
    }
}

/// Writes a line for the launcher. If the launcher is dead, the line is lost. All lines of a run
/// together fit a pipe, so this never waits.
pub(crate) fn say(what: &FromCoordinator) {
    if let Ok(mut line) = serde_json::to_vec(what) {
        line.push(b'\n');
        let mut output = io::stdout().lock();
        let _nobody_listens = output.write_all(&line).and_then(|()| output.flush());
    }
}
