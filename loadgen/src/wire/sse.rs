//! Server-sent events (WHATWG HTML, "Server-sent events", 9.2.6): lines end with LF, CR or CRLF;
//! `data:` lines of one event are joined with LF; comments and other fields are passed over.
//!
//! Knows no sockets: bytes in, events out, in pieces of any size.

use std::borrow::Cow;

/// Largest event: a token with its log probabilities takes a few KiB, an answer that comes in one
/// event some MiB. Beyond it the server is broken or hostile.
pub(crate) const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An event exceeds [`EVENT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// A stream of events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// A line whose end has not come yet.
    line: Vec<u8>,
    /// Data of the event that has not ended yet.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Bytes of the mark that may start a stream have been looked for.
    begun: bool,
}

impl Parser {
    /// Takes bytes; calls `event` with the data of each event that is complete.
    ///
    /// # Errors
    /// If an event is too long, or the first error of `event`.
    pub(crate) fn feed<E: From<TooLong>>(
        &mut self,
        mut bytes: &[u8],
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        loop {
            if let Some((data, rest)) = self.whole(bytes) {
                bytes = rest;
                event(data)?;
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else { break };
            let (head, tail) = bytes.split_at(end);
            let (line_end, rest) = tail.split_at(1);
            bytes = rest;
            if line_end == b"\r" {
                match bytes.strip_prefix(b"\n") {
                    Some(rest) => bytes = rest,
                    None => self.after_cr = bytes.is_empty(),
                }
            }
            self.line_end(head, event)?;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
            return Err(TooLong.into());
        }
        Ok(())
    }

    /// An event that has come whole, as nearly all do: one `data:` line and an empty one. Gives its
    /// data and what follows; the same as line by line would.
    fn whole<'b>(&self, bytes: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        if self.has_data || !self.begun || !self.line.is_empty() {
            return None;
        }
        let line = bytes.strip_prefix(b"data: ")?;
        let end = memchr::memchr2(b'\n', b'\r', line)?;
        let (data, rest) = line.split_at(end);
        // At the end of a longer event its length is looked at.
        let rest = rest.strip_prefix(b"\n\n")?;
        (data.len() <= EVENT_BYTES_MAX).then_some((data, rest))
    }

    /// The stream has ended: an event without its empty line counts too, because some servers
    /// leave it out after the last one.
    ///
    /// # Errors
    /// The error of `event`.
    pub(crate) fn finish<E: From<TooLong>>(
        &mut self,
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.line.is_empty() {
            self.line_end(b"", event)?;
        }
        if self.has_data { self.dispatch(event) } else { Ok(()) }
    }

    fn line_end<E: From<TooLong>>(
        &mut self,
        tail: &[u8],
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut line: Cow<'_, [u8]> = if self.line.is_empty() {
            Cow::Borrowed(tail)
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(tail);
            Cow::Owned(line)
        };
        if !self.begun {
            self.begun = true;
            if let Some(rest) = line.strip_prefix(b"\xef\xbb\xbf") {
                line = Cow::Owned(rest.to_vec());
            }
        }
        let result = self.line(&line, event);
        if let Cow::Owned(mut line) = line {
            // Its memory serves the next split line.
            line.clear();
            self.line = line;
        }
        result
    }

    fn line<E: From<TooLong>>(
        &mut self,
        line: &[u8],
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if line.is_empty() {
            return if self.has_data { self.dispatch(event) } else { Ok(()) };
        }
        let value = match line.strip_prefix(b"data") {
            Some(b"") => &[],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return Ok(()),
        };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        if self.data.len() + value.len() > EVENT_BYTES_MAX {
            return Err(TooLong.into());
        }
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn dispatch<E>(&mut self, event: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let result = event(&self.data);
        self.data.clear();
        self.has_data = false;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Stop {
        TooLong,
        Asked,
    }

    impl From<TooLong> for Stop {
        fn from(_: TooLong) -> Self {
            Self::TooLong
        }
    }

    fn events(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        let mut each = |data: &[u8]| -> Result<(), Stop> {
            found.push(data.to_vec());
            Ok(())
        };
        for piece in pieces {
            parser.feed(piece, &mut each).unwrap();
        }
        parser.finish(&mut each).unwrap();
        found
    }

    const HOSTILE: &[(&str, &[&str])] = &[
        ("data: a\n\ndata: b\n\n", &["a", "b"]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
        ("data: a\r\rdata: b\r\r", &["a", "b"]),
        ("data: a\r\ndata: b\n\rdata: c\n\n", &["a\nb", "c"]),
        (": ping\n\ndata: a\n\n: ping\n\n\n\n", &["a"]),
        ("event: x\nid: 1\nretry: 5\ndata: a\n\n", &["a"]),
        ("data:a\ndata:  b\ndata:\n\n", &["a\n b\n"]),
        ("data\n\ndata\ndata\n\n", &["", "\n"]),
        ("\u{feff}data: a\n\n", &["a"]),
        ("data: \u{feff}a\n\n", &["\u{feff}a"]),
        ("data: grüße 🦀\n\n", &["grüße 🦀"]),
        ("database: no\ndataa: no\nda: no\n\ndata: a", &["a"]),
        ("data: [DONE]\n", &["[DONE]"]),
        ("", &[]),
        ("\n\r\n\r", &[]),
        ("no colon at all", &[]),
    ];

    #[test]
    fn hostile_streams_split_at_every_byte() {
        for (stream, expected) in HOSTILE {
            let bytes = stream.as_bytes();
            let expected: Vec<Vec<u8>> = expected.iter().map(|e| e.as_bytes().to_vec()).collect();
            assert_eq!(events(&[bytes]), expected, "{stream:?}");
            for at in 0..=bytes.len() {
                let (a, b) = bytes.split_at(at);
                assert_eq!(events(&[a, b]), expected, "{stream:?} split at {at}");
                assert_eq!(
                    events(&[a, b"", b]),
                    expected,
                    "{stream:?} with an empty piece at {at}"
                );
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(events(&single), expected, "{stream:?} byte by byte");
        }
    }

    #[test]
    fn endless_events_are_bounded() {
        let piece = vec![b'x'; 1024 * 1024];
        for start in [&b"data: "[..], b"", b": "] {
            let mut parser = Parser::default();
            let mut each = |_: &[u8]| -> Result<(), Stop> { Ok(()) };
            parser.feed(start, &mut each).unwrap();
            let end = (0..20).find_map(|_| parser.feed(&piece, &mut each).err());
            assert_eq!(end, Some(Stop::TooLong));
        }
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        let mut each = |_: &[u8]| -> Result<(), Stop> { Ok(()) };
        let end = (0..20).find_map(|_| parser.feed(&line, &mut each).err());
        assert_eq!(end, Some(Stop::TooLong), "many lines of one event");
    }

    #[test]
    fn an_error_of_the_receiver_ends_it() {
        let mut parser = Parser::default();
        let result = parser.feed(b"data: a\n\ndata: b\n\n", &mut |_: &[u8]| Err(Stop::Asked));
        assert_eq!(result, Err(Stop::Asked));
    }
}
