//! How events are put into lines: server-sent events, or one JSON object a line.

use super::super::fault::{Fault, Faults};

/// Bytes of the event that is as large as an answer with all log probabilities.
const FAT_BYTES: usize = 1024 * 1024;

/// A way of writing events.
#[derive(Debug, Clone, Copy)]
pub(in crate::mock) struct Lines {
    /// One JSON object a line, instead of server-sent events.
    pub(in crate::mock) ndjson: bool,
    pub(in crate::mock) faults: Faults,
}

impl Lines {
    /// One event with its data.
    pub(in crate::mock) fn event(self, data: &str) -> String {
        let has = |fault| self.faults.has(fault);
        let end = match (has(Fault::Crlf), has(Fault::Cr) && !self.ndjson) {
            (true, _) => "\r\n",
            (false, true) => "\r",
            (false, false) => "\n",
        };
        if self.ndjson {
            let ping = if has(Fault::Pings) { end } else { "" };
            return format!("{ping}{data}{end}");
        }
        let ping = if has(Fault::Pings) {
            format!(": ping{end}{end}event: message{end}id: 7{end}retry: 1000{end}")
        } else {
            String::new()
        };
        let blank = if has(Fault::NoSpace) { "" } else { " " };
        match data.strip_prefix('{').filter(|_| has(Fault::MultiLine)) {
            // The lines are joined with LF, which JSON allows behind a brace.
            Some(rest) => {
                format!("{ping}data:{blank}{{{end}data:{blank}{rest}{end}{end}")
            }
            None => format!("{ping}data:{blank}{data}{end}{end}"),
        }
    }

    /// What comes before all events of a stream.
    pub(in crate::mock) fn start(self) -> String {
        if self.faults.has(Fault::Bom) && !self.ndjson {
            "\u{feff}".to_owned()
        } else {
            String::new()
        }
    }

    /// What a stream has in its middle: an event that is no JSON, or one whose text is no UTF-8
    /// (in place of the '~' of `content`), or an error; with that the stream is over.
    pub(in crate::mock) fn middle(self, error: &str, content: &str) -> (Vec<u8>, bool) {
        if self.faults.has(Fault::ErrorEvent) {
            (self.event(error).into_bytes(), true)
        } else if self.faults.has(Fault::Garbage) {
            (self.event("{broken").into_bytes(), false)
        } else if self.faults.has(Fault::BadUtf8) {
            let event = self.event(content).into_bytes();
            (event.iter().map(|byte| if *byte == b'~' { 0xff } else { *byte }).collect(), false)
        } else {
            (Vec::new(), false)
        }
    }

    /// Text for a member that clients ignore, of [`FAT_BYTES`], if it is wanted.
    pub(in crate::mock) fn fat(self) -> Option<String> {
        self.faults.has(Fault::Fat).then(|| "x".repeat(FAT_BYTES))
    }
}
