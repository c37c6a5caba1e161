//! Memory that all streams of a shipper use in turn, so that it does not grow with their number or
//! with what waits.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

use aifb_schema::recipe::LokiEncoding;

use super::{cut::Entry, json, pack, proto, source::Rendered};

/// What was read of a file, what was cut from it, and how it is sent.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Part of the file.
    pub(super) bytes: Vec<u8>,
    /// What is sent of it.
    pub(super) entries: Vec<Entry>,
    body: Vec<u8>,
    packed: Vec<u8>,
    packer: snap::raw::Encoder,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            entries: Vec::new(),
            body: Vec::new(),
            packed: Vec::new(),
            packer: snap::raw::Encoder::new(),
        }
    }

    /// Reads at most `length` bytes from `offset` on.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn read(&mut self, file: &File, offset: u64, length: usize) -> io::Result<()> {
        self.bytes.resize(length, 0);
        let mut filled = 0;
        while let Some(rest) = self.bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    /// The body of a request with the entries `from` to `to`.
    ///
    /// # Errors
    /// It is too large for its form, which no batch is.
    pub(super) fn request(
        &mut self,
        (from, to): (usize, usize),
        encoding: LokiEncoding,
        rendered: &Rendered,
        labels: &BTreeMap<String, String>,
    ) -> io::Result<&[u8]> {
        let entries = self.entries.get(from..to).unwrap_or_default();
        match encoding {
            LokiEncoding::Json => {
                json::request(&self.bytes, entries, labels, rendered, &mut self.body)?;
                Ok(&self.body)
            }
            LokiEncoding::Protobuf => {
                self.body.clear();
                self.body.resize(pack::HEAD, 0);
                proto::request(&self.bytes, entries, rendered, &mut self.body);
                pack::pack(&mut self.body, &mut self.packer, &mut self.packed)
            }
        }
    }
}
