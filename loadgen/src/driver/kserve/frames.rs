//! gRPC's framing: each message behind a flag and its length.

use crate::fault::{Class, Fault};

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Largest message that is taken: as large as a whole answer over HTTP may be.
const MESSAGE_BYTES_MAX: usize = crate::wire::reply::WHOLE_MAX;

/// A message with its prefix; not compressed.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
    framed.push(0);
    // Requests are far below 4 GiB: their tensors are bounded.
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The begin of a message whose end has not come.
    kept: Vec<u8>,
}

impl Frames {
    /// Takes bytes; calls `each` with every message that is complete.
    ///
    /// # Errors
    /// If a message is compressed or too long, or the first error of `each`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.kept.is_empty() {
            let rest = messages(bytes, each)?;
            self.kept.extend_from_slice(rest);
            return Ok(());
        }
        self.kept.extend_from_slice(bytes);
        let rest = messages(&self.kept, each)?.len();
        let used = self.kept.len() - rest;
        self.kept.drain(..used);
        Ok(())
    }

    /// Whether the stream ends between two messages.
    pub(crate) fn is_whole(&self) -> bool {
        self.kept.is_empty()
    }
}

/// Calls `each` with all whole messages; gives what is left.
fn messages<'a>(
    mut bytes: &'a [u8],
    each: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<&'a [u8], Fault> {
    while let Some(([flag, length @ ..], rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if *flag != 0 {
            return Err(Fault::new(
                Class::Parse,
                "a compressed message, although none was requested",
            ));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(Fault::new(
                Class::Parse,
                format!("a message is longer than {} MiB", MESSAGE_BYTES_MAX / 1024 / 1024),
            ));
        }
        let Some((message, rest)) = rest.split_at_checked(length) else { break };
        each(message)?;
        bytes = rest;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(Vec<Vec<u8>>, bool), Class> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames
                .feed(piece, &mut |message| {
                    found.push(message.to_vec());
                    Ok(())
                })
                .map_err(|fault| fault.class)?;
        }
        Ok((found, frames.is_whole()))
    }

    #[test]
    fn messages_split_at_every_byte() {
        let stream = [frame(b"one"), frame(b""), frame(&[7; 300])].concat();
        let expected = vec![b"one".to_vec(), Vec::new(), vec![7; 300]];
        for at in 0..=stream.len() {
            let (a, b) = stream.split_at(at);
            assert_eq!(read(&[a, b]), Ok((expected.clone(), true)), "{at}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single), Ok((expected, true)));
        let (cut, _) = stream.split_at(stream.len() - 1);
        assert!(!read(&[cut]).unwrap().1);
    }

    #[test]
    fn hostile_prefixes_are_refused() {
        assert_eq!(read(&[&[1, 0, 0, 0, 0]]), Err(Class::Parse));
        assert_eq!(read(&[&[0, 255, 255, 255, 255]]), Err(Class::Parse));
        // A long message is not believed before it comes: nothing is reserved for it.
        let mut frames = Frames::default();
        frames.feed(&[0, 7, 255, 255, 255], &mut |_| Ok(())).unwrap();
        assert!(frames.kept.capacity() < 1024);
    }
}
