//! The agent's own log: one JSON object a line.

use std::{io, path::PathBuf};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::files::Files;

/// Sends all log lines to `path` through the writing thread.
pub(crate) fn start(files: &Files, path: PathBuf) {
    let filter = EnvFilter::try_from_env("AIFB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(ToFiles { files: files.clone(), path })
        .try_init();
    // Only a second call in one process can fail.
    debug_assert!(started.is_ok(), "logging was started twice");
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
