//! The agent's own log: one JSON object a line.

use std::{io, path::PathBuf};

use aifb_schema::recipe::LogLevel;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    filter::{Targets, dynamic_filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::files::Files;
use crate::logging::SharedLogging;

/// Sends all log lines that `logging` lets through to `path` through the writing thread. The
/// variable `AIFB_LOG` says more precisely which.
pub(crate) fn start(files: &Files, path: PathBuf, logging: SharedLogging) {
    let text = std::env::var("AIFB_LOG").ok();
    let asked: Option<Targets> = text.as_ref().and_then(|text| text.parse().ok());
    let misread = text.filter(|_| asked.is_none());
    let own = asked.is_none();
    let filter = dynamic_filter_fn(move |of, _| logging.writes(level(of)) && (!own || is_ours(of)));
    let lines = fmt::layer().json().with_writer(ToFiles { files: files.clone(), path });
    let started = tracing_subscriber::registry().with(asked).with(filter).with(lines).try_init();
    // Only a second call in one process can fail.
    debug_assert!(started.is_ok(), "logging was started twice");
    if let Some(text) = misread {
        tracing::warn!(AIFB_LOG = text, "is invalid; expected for example aifb_agent=debug");
    }
}

fn level(of: &Metadata<'_>) -> LogLevel {
    match *of.level() {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warning,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

/// Libraries are heard from `info` on: below, they tell of every connection.
fn is_ours(of: &Metadata<'_>) -> bool {
    *of.level() <= Level::INFO || (of.target().starts_with("aifb") && *of.level() <= Level::DEBUG)
}

struct ToFiles {
    files: Files,
    path: PathBuf,
}

/// One line being formatted; tracing writes each line in one piece.
struct Line<'a>(&'a ToFiles);

impl<'a> MakeWriter<'a> for ToFiles {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.files.append(&self.0.path, bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
