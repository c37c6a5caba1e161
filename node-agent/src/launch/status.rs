//! Descriptor 3: what the caller learns, `KEY=VALUE\0` records, then `READY\0` or
//! `FAILED <code> <text>\0`.

use std::{fs::File, io::Write};

use aifb_schema::{
    launch_status::{READY_RECORD, STATUS_FD, failed_record, variable_record},
    run::Failure,
};

use crate::{
    problem::{self, complain},
    sys,
};

/// The caller's end, until the answer is given.
#[derive(Debug)]
pub(crate) struct Status {
    pipe: Option<File>,
    /// Whether somebody listened at the start: then the words are his to print.
    heard: bool,
}

impl Status {
    /// Takes over the inherited pipe, if there is one.
    pub(crate) fn take() -> Self {
        let pipe = sys::take_inherited(STATUS_FD);
        Self { heard: pipe.is_some(), pipe }
    }

    /// Gives a variable to the script.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        if let Some(record) = variable_record(name, value) {
            self.record(&record);
        }
    }

    /// The script may start; nothing follows.
    pub(crate) fn ready(&mut self) {
        self.record(READY_RECORD);
        self.pipe = None;
    }

    /// The script must not start; nothing follows. Without a listener the reason goes to standard
    /// error.
    pub(crate) fn failed(&mut self, failure: &Failure, run_dir: Option<&str>) {
        let text = format!("aifb: {}", Self::text(failure, run_dir));
        if self.heard {
            self.record(&failed_record(failure.exit_code, &text));
            self.pipe = None;
        } else {
            complain(&text);
        }
    }

    /// A failure as people read it.
    pub(crate) fn text(failure: &Failure, run_dir: Option<&str>) -> String {
        let folder = run_dir.map(|folder| format!("\n  run folder: {folder}"));
        format!("{}{}", failure.render(), folder.unwrap_or_default())
    }

    /// Whether somebody listened at the start.
    pub(crate) fn is_heard(&self) -> bool {
        self.heard
    }

    /// Says something on the way to people who started the launcher by hand.
    pub(crate) fn say(&self, text: &str) {
        if !self.heard {
            complain(&format!("{}: {text}", problem::PROGRAM));
        }
    }

    fn record(&mut self, record: &[u8]) {
        if let Some(pipe) = &mut self.pipe
            && pipe.write_all(record).is_err()
        {
            // Nobody listens any more; the run goes on.
            self.pipe = None;
        }
    }
}
