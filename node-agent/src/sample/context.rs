//! What every collector gets besides the tick: room to read into, and where to say what is absent.

use std::{collections::BTreeMap, io};

use nix::errno::Errno;

use super::kernel_file::Buffer;

/// What a collector gets besides the tick.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) buffer: Buffer,
    pub(super) absent: Absent,
    /// Whether this tick also discovers, and reads what is dear.
    pub(super) slow: bool,
}

/// Why sources cannot be read, by source.
#[derive(Debug, Default)]
pub(super) struct Absent(BTreeMap<&'static str, &'static str>);

impl Absent {
    /// Passes a good value on and keeps the reason of a bad one.
    pub(super) fn note<T>(&mut self, source: &'static str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.0.remove(source);
                Some(value)
            }
            Err(error) => {
                self.say(source, reason(&error));
                None
            }
        }
    }

    /// Says why a source has no values.
    pub(super) fn say(&mut self, source: &'static str, reason: &'static str) {
        self.0.insert(source, reason);
    }

    /// The source is there.
    pub(super) fn clear(&mut self, source: &'static str) {
        self.0.remove(source);
    }

    /// Sources without values, and why.
    pub(super) fn all(&self) -> &BTreeMap<&'static str, &'static str> {
        &self.0
    }
}

fn reason(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) {
        return "switched_off";
    }
    match error.kind() {
        io::ErrorKind::NotFound => "not_found",
        io::ErrorKind::PermissionDenied => "permission_denied",
        io::ErrorKind::InvalidData => "not_understood",
        _ => "unreadable",
    }
}
