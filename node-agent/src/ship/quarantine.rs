//! Lines that the receiver refused for good, with its reason: a file of JSON lines.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::disk::own_file;

/// Bytes after which no more is taken: then the stream waits, and its file keeps the lines.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A line of the file.
#[derive(Debug, Serialize)]
pub(super) struct Refused<'a> {
    /// The source's name.
    pub(super) file: &'a str,
    /// The entry's time.
    pub(super) time_ns: u64,
    /// Lines that it was.
    pub(super) lines: u64,
    /// The receiver's message.
    pub(super) reason: &'a str,
    /// The entry; absent when its file is gone.
    pub(super) text: Option<Cow<'a, str>>,
}

/// The file, made with the first line.
#[derive(Debug)]
pub(super) struct Quarantine {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Quarantine {
    /// Of which `bytes` are on record; what is behind will be written again.
    pub(super) fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, file: None, bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds entries, all or none of them; how many lines they are.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn add<'a>(
        &mut self,
        entries: impl Iterator<Item = Refused<'a>>,
    ) -> io::Result<u64> {
        let (mut text, mut lines) = (Vec::new(), 0);
        for entry in entries {
            serde_json::to_writer(&mut text, &entry)?;
            text.push(b'\n');
            lines += entry.lines;
        }
        if text.is_empty() {
            return Ok(0);
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                // What is behind was written and never on record, or in part only.
                let file = own_file().write(true).truncate(false).open(&self.path)?;
                file.set_len(self.bytes)?;
                file
            }
        };
        file.seek(SeekFrom::Start(self.bytes))?;
        file.write_all(&text)?;
        self.file = Some(file);
        self.bytes += text.len() as u64;
        Ok(lines)
    }
}
