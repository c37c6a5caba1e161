//! Compressed responses, although `identity` was requested: gzip is decompressed as it arrives, so
//! that events keep the stamps of their reads; any other coding is refused.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use crate::fault::{Class, Fault};

/// Bytes that an answer may unpack to whatever it takes packed: the longest event.
const FREE_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes for each packed one beyond it. Text packs to a tenth, a repeated word to a hundredth; a
/// thousandth is made to fill a memory.
const TIMES_MAX: u64 = 200;

/// Unpacks one answer.
pub(super) struct Unpack {
    decoder: MultiGzDecoder<Bounded>,
    packed: u64,
}

impl Unpack {
    /// What a `content-encoding` needs; `None` for identity.
    ///
    /// # Errors
    /// If it is not understood.
    pub(super) fn of(coding: Option<&str>) -> Result<Option<Self>, Fault> {
        match coding.map(str::trim) {
            None | Some("") => Ok(None),
            Some(word) if word.eq_ignore_ascii_case("identity") => Ok(None),
            Some(word)
                if word.eq_ignore_ascii_case("gzip") || word.eq_ignore_ascii_case("x-gzip") =>
            {
                let decoder = MultiGzDecoder::new(Bounded::default());
                Ok(Some(Self { decoder, packed: 0 }))
            }
            Some(word) => Err(Fault::new(
                Class::Parse,
                format!(
                    "the response has content-encoding '{word}', although identity was requested"
                ),
            )),
        }
    }

    /// Unpacks what was read; `take` gets what came of it.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        take: impl FnOnce(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.packed = self.packed.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let most = self.packed.saturating_mul(TIMES_MAX).saturating_add(FREE_BYTES);
        self.decoder.get_mut().most = most;
        self.decoder.write_all(bytes).and_then(|()| self.decoder.flush()).map_err(broken)?;
        self.give(take)
    }

    /// The body is complete.
    pub(super) fn end(
        &mut self,
        take: impl FnOnce(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        // An answer without a body is no archive either.
        if self.packed > 0 {
            // What was wrong with it would have shown before: only its end can be missing.
            self.decoder.try_finish().map_err(|error| {
                Fault::new(Class::TruncatedStream, format!("decompressing the response: {error}"))
            })?;
        }
        self.give(take)
    }

    fn give(&mut self, take: impl FnOnce(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let unpacked = self.decoder.get_mut();
        if unpacked.text.is_empty() {
            return Ok(());
        }
        let result = take(&unpacked.text);
        unpacked.text.clear();
        result
    }
}

fn broken(error: io::Error) -> Fault {
    Fault::new(Class::Parse, format!("decompressing the response: {error}"))
}

/// What was unpacked of one read.
#[derive(Debug, Default)]
struct Bounded {
    text: Vec<u8>,
    total: u64,
    most: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.total = self.total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.total > self.most {
            return Err(io::Error::other(format!(
                "it is more than {TIMES_MAX} times as long as its compressed form"
            )));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn pack(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(pieces: &[&[u8]]) -> (Vec<u8>, Result<(), Class>) {
        let mut unpack = Unpack::of(Some("GZIP")).unwrap().unwrap();
        let mut text = Vec::new();
        let mut result = Ok(());
        for piece in pieces {
            result = result.and_then(|()| {
                unpack.feed(piece, |bytes| {
                    text.extend_from_slice(bytes);
                    Ok(())
                })
            });
        }
        let result = result.and_then(|()| {
            unpack.end(|bytes| {
                text.extend_from_slice(bytes);
                Ok(())
            })
        });
        (text, result.map_err(|fault| fault.class))
    }

    #[test]
    fn packed_text_comes_out_whatever_the_reads() {
        let text = "data: grüße\n\n".repeat(50);
        let mut packed = pack(text.as_bytes());
        packed.extend_from_slice(&pack(b"and more"));
        let expected = format!("{text}and more").into_bytes();
        for at in 0..=packed.len() {
            let (a, b) = packed.split_at(at);
            assert_eq!(unpack(&[a, b]), (expected.clone(), Ok(())), "split at {at}");
        }
        assert_eq!(unpack(&[]), (Vec::new(), Ok(())));
    }

    /// An event is out with the read that brings its last byte, where the server flushes it.
    #[test]
    fn each_event_comes_out_at_once() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let mut unpack = Unpack::of(Some("gzip")).unwrap().unwrap();
        let mut fed = 0;
        for event in ["data: a\n\n", "data: b\n\n"] {
            encoder.write_all(event.as_bytes()).unwrap();
            encoder.flush().unwrap();
            let packed = encoder.get_ref();
            let mut text = Vec::new();
            let take = |bytes: &[u8]| {
                text.extend_from_slice(bytes);
                Ok(())
            };
            unpack.feed(&packed[fed..], take).unwrap();
            fed = packed.len();
            assert_eq!(text, event.as_bytes());
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused() {
        let packed = pack(b"hello, hello, hello");
        assert_eq!(unpack(&[&packed[..packed.len() - 9]]).1, Err(Class::TruncatedStream));
        assert_eq!(unpack(&[b"no archive at all"]).1, Err(Class::Parse));
        for word in ["br", "deflate", "gzip, gzip"] {
            assert_eq!(Unpack::of(Some(word)).err().unwrap().class, Class::Parse, "{word}");
        }
        assert!(
            Unpack::of(Some("identity")).unwrap().is_none() && Unpack::of(None).unwrap().is_none()
        );
    }

    #[test]
    fn a_bomb_is_bounded() {
        let packed = pack(&vec![0; 256 * 1024 * 1024]);
        let mut unpack = Unpack::of(Some("gzip")).unwrap().unwrap();
        let mut largest = 0;
        let fault = packed.chunks(64 * 1024).find_map(|piece| {
            let result = unpack.feed(piece, |bytes| {
                largest = largest.max(bytes.len());
                Ok(())
            });
            result.err()
        });
        let fault = fault.unwrap();
        assert!(fault.class == Class::Parse && fault.message.contains("200 times"), "{fault}");
        assert!(largest < 64 * 1024 * 1024, "{largest}");
    }
}
