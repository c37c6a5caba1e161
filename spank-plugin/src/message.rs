//! What the plugin tells people: a line that says what failed, and one that says what helps.

use std::time::Duration;

use crate::sys::{process, spank};

/// Begins every line of the plugin's own.
const PROGRAM: &str = "aifb_spank";

/// A failure as it is shown: `program: doing what 'value': cause`, then a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    line: String,
    hint: Option<String>,
}

impl Message {
    /// `what` is the text behind the program's name.
    pub(crate) fn new(what: impl AsRef<str>) -> Self {
        Self { line: format!("{PROGRAM}: {}", what.as_ref()), hint: None }
    }

    /// Adds what the reader can do about it.
    pub(crate) fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(format!("hint: {}", hint.as_ref()));
        self
    }

    /// Shows it through Slurm, as an error of the command or daemon that this process is.
    pub(crate) fn log(&self) {
        spank::error(&self.line);
        if let Some(hint) = &self.hint {
            spank::note(hint);
        }
    }

    /// Shows it on standard error, which is the job's output in a task.
    pub(crate) fn print(&self) {
        let hint = self.hint.iter().flat_map(|hint| ["\n", hint]);
        print(&[self.line.as_str()].into_iter().chain(hint).collect::<String>());
    }
}

/// Writes lines to standard error; if that is closed or full, the message is lost.
pub(crate) fn print(text: &str) {
    process::write_error(format!("{}\n", text.trim_end_matches('\n')).as_bytes());
}

/// A duration as people write it: `90s`, `60m`, `250ms`.
pub(crate) fn duration(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) if seconds >= 120 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", time.as_millis()),
    }
}
