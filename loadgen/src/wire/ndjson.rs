//! JSON texts, one a line; empty lines are passed over.
//!
//! Knows no sockets: bytes in, lines out, in pieces of any size.

use super::sse::{EVENT_BYTES_MAX, TooLong};

/// A stream of lines.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// A line whose end has not come yet.
    line: Vec<u8>,
}

impl Parser {
    /// Takes bytes; calls `line` with each line that is complete.
    ///
    /// # Errors
    /// If a line is too long, or the first error of `line`.
    pub(crate) fn feed<E: From<TooLong>>(
        &mut self,
        mut bytes: &[u8],
        line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (head, tail) = bytes.split_at(end);
            bytes = tail.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                give(head, line)?;
            } else {
                self.append(head)?;
                give(&self.line, line)?;
                self.line.clear();
            }
        }
        self.append(bytes)
    }

    /// The stream has ended: a line without its end counts too.
    ///
    /// # Errors
    /// The error of `line`.
    pub(crate) fn finish<E>(
        &mut self,
        line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        give(&std::mem::take(&mut self.line), line)
    }

    fn append<E: From<TooLong>>(&mut self, bytes: &[u8]) -> Result<(), E> {
        if self.line.len() + bytes.len() > EVENT_BYTES_MAX {
            return Err(TooLong.into());
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

fn give<E>(text: &[u8], line: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let text = text.trim_ascii();
    if text.is_empty() { Ok(()) } else { line(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        let mut each = |line: &[u8]| -> Result<(), TooLong> {
            found.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        };
        for piece in pieces {
            parser.feed(piece, &mut each).unwrap();
        }
        parser.finish(&mut each).unwrap();
        found
    }

    #[test]
    fn streams_split_at_every_byte() {
        for (stream, expected) in [
            ("{\"a\":1}\n{\"b\":2}\n", &["{\"a\":1}", "{\"b\":2}"][..]),
            ("{\"a\":1}\r\n\r\n\n {\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]),
            ("\n\n", &[]),
            ("grüße\n", &["grüße"]),
        ] {
            let bytes = stream.as_bytes();
            for at in 0..=bytes.len() {
                let (a, b) = bytes.split_at(at);
                assert_eq!(lines(&[a, b]), expected, "{stream:?} split at {at}");
            }
        }
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let piece = vec![b'x'; 1024 * 1024];
        let mut parser = Parser::default();
        let mut each = |_: &[u8]| -> Result<(), TooLong> { Ok(()) };
        let end = (0..20).find_map(|_| parser.feed(&piece, &mut each).err());
        assert_eq!(end, Some(TooLong));
        assert!(parser.line.len() <= EVENT_BYTES_MAX);
    }
}
