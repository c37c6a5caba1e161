//! Reading with bounds: JSON records, files of JSON lines, samples.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aifb_schema::samples::{self, Recording};
use serde::de::DeserializeOwned;

/// The beginning of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded {
    /// At most as many bytes as were allowed.
    pub bytes: Vec<u8>,
    /// Whether the file has more of them.
    pub cut: bool,
}

/// What a file of JSON lines has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines<T> {
    /// The lines that could be read, in their order.
    pub values: Vec<T>,
    /// Whole lines that are not what they should be.
    pub unreadable: u64,
    /// Bytes after the last line end: the writer is at it, or was ended in the middle of a line.
    pub torn_bytes: u64,
    /// Whether the file has more than was read.
    pub cut: bool,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { values: Vec::new(), unreadable: 0, torn_bytes: 0, cut: false }
    }
}

impl<T: DeserializeOwned> Lines<T> {
    /// The lines in these bytes. Empty lines count as nothing.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (lines, torn) = bytes.split_at(whole);
        let mut found = Self { torn_bytes: torn.len() as u64, ..Self::default() };
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(value) => found.values.push(value),
                Err(_) => found.unreadable += 1,
            }
        }
        found
    }
}

/// Follows a file of JSON lines while it grows.
#[derive(Debug, Clone)]
pub struct Follow {
    path: PathBuf,
    offset: u64,
}

impl Follow {
    /// From the beginning of this file, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), offset: 0 }
    }

    /// The whole lines that were added since the last call, of at most `bytes_max` bytes; lines
    /// that are not what they should be are left out, and a torn last one waits for its end.
    ///
    /// # Errors
    /// The file cannot be read; the next call begins where this one did.
    pub fn added<T: DeserializeOwned>(&mut self, bytes_max: u64) -> io::Result<Vec<T>> {
        let mut file = regular(&self.path)?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))?;
        file.take(bytes_max).read_to_end(&mut bytes)?;
        let lines = Lines::of(&bytes);
        self.offset += bytes.len() as u64 - lines.torn_bytes;
        Ok(lines.values)
    }
}

/// The first `bytes_max` bytes of a regular file. Never waits for a writer, as opening a FIFO
/// would.
///
/// # Errors
/// It cannot be read, or is a folder, a FIFO or a device.
pub fn bounded(path: &Path, bytes_max: u64) -> io::Result<Bounded> {
    let file = regular(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    let cut = bytes.len() as u64 > bytes_max;
    bytes.truncate(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    Ok(Bounded { bytes, cut })
}

fn regular(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if kind.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// The text of a file of at most `bytes_max` bytes.
///
/// # Errors
/// It cannot be read, is larger, or is not UTF-8.
pub fn text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let Bounded { bytes, cut } = bounded(path, bytes_max)?;
    if cut {
        return Err(too_large(bytes_max));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A JSON document of at most `bytes_max` bytes.
///
/// # Errors
/// It cannot be read, is larger, or is not what it should be; files are written by rename, so it
/// is not being written.
pub fn json<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> io::Result<T> {
    let Bounded { bytes, cut } = bounded(path, bytes_max)?;
    if cut {
        return Err(too_large(bytes_max));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A file of JSON lines, up to `bytes_max` bytes.
///
/// # Errors
/// It cannot be read.
pub fn lines<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> io::Result<Lines<T>> {
    let Bounded { bytes, cut } = bounded(path, bytes_max)?;
    let lines = Lines::of(&bytes);
    // What is torn there was cut by this reader.
    Ok(if cut { Lines { torn_bytes: 0, cut, ..lines } } else { lines })
}

/// The samples of a node, up to `bytes_max` bytes, and whether there are more. Its
/// `torn_bytes` are those after the last intact frame.
///
/// # Errors
/// They cannot be read, or the file has no samples.
pub fn recording(path: &Path, bytes_max: u64) -> io::Result<(Recording, bool)> {
    let Bounded { bytes, cut } = bounded(path, bytes_max)?;
    let recording =
        samples::read(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((recording, cut))
}

fn too_large(bytes_max: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bytes_max} bytes"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aifb_schema::samples::{Frame, MAGIC};

    use super::*;

    #[test]
    fn lines_end_where_the_file_is_torn() {
        for (bytes, values, unreadable, torn) in [
            (&b""[..], &[][..], 0, 0),
            (b"1\n2\n", &[1, 2], 0, 0),
            (b"1\n2", &[1], 0, 1),
            (b"1\n\xff\n\n3\n", &[1, 3], 1, 0),
            (b"no end", &[], 0, 6),
        ] {
            let found: Lines<i32> = Lines::of(bytes);
            assert_eq!((found.values.as_slice(), found.unreadable), (values, unreadable));
            assert_eq!(found.torn_bytes, torn, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_is_followed_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut follow = Follow::new(&path);
        assert!(follow.added::<u32>(100).is_err());
        for (text, added) in [("1\n2\n3", &[1, 2][..]), ("1\n2\n33\n", &[33]), ("1\n2\n33\n", &[])]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(follow.added::<u32>(100).unwrap(), added);
        }
    }

    #[test]
    fn a_bound_is_no_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "1\n22\n").unwrap();
        let all: Lines<u32> = lines(&path, 5).unwrap();
        assert_eq!((all.values.as_slice(), all.cut), (&[1, 22][..], false));
        let some: Lines<u32> = lines(&path, 3).unwrap();
        assert_eq!((some.values.as_slice(), some.cut, some.torn_bytes), (&[1][..], true, 0));
        assert_eq!(text(&path, 5).unwrap(), "1\n22\n");
        assert_eq!(text(&path, 4).unwrap_err().to_string(), "larger than 4 bytes");
        fs::write(&path, "[1, 2").unwrap();
        let error = json::<Vec<u32>>(&path, 10).unwrap_err();
        assert!(error.to_string().starts_with("EOF while parsing"), "{error}");
        assert!(json::<Vec<u32>>(&path, 4).unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(bounded(folder.path(), 1).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let error = bounded(Path::new("/dev/null"), 1).unwrap_err();
        assert_eq!(error.to_string(), "not a regular file");
        assert_eq!(
            bounded(&folder.path().join("none"), 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn torn_samples_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.bin");
        let mut bytes = MAGIC.to_vec();
        Frame::End { epoch_ns: 7 }.encode(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let (recording, cut) = super::recording(&path, 1 << 20).unwrap();
        assert!(recording.ended && recording.torn_bytes == 0 && !cut);
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let (recording, _) = super::recording(&path, 1 << 20).unwrap();
        assert!(!recording.ended && recording.torn_bytes == bytes.len() - 1 - MAGIC.len());
        fs::write(&path, "no samples").unwrap();
        let error = super::recording(&path, 1 << 20).unwrap_err();
        assert!(error.to_string().starts_with("not a samples file"), "{error}");
    }
}
