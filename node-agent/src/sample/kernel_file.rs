//! A kernel file that is read again and again: opened once, then only `pread`.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// First size of the read buffer: all files but `/proc/stat` of large nodes fit.
const BUFFER_START: usize = 16 * 1024;

/// Largest file: `/proc/stat` of a node with 1024 CPUs and 10 000 interrupts has about 150 KiB.
const FILE_MAX: usize = 4 * 1024 * 1024;

/// A file and, once it could be opened, its descriptor.
#[derive(Debug)]
pub(super) struct KernelFile {
    path: PathBuf,
    file: Option<File>,
    /// Whether the kernel gives all there is at the first read with room for it.
    at_once: bool,
}

impl KernelFile {
    /// Names the file; nothing is opened yet.
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, at_once: false }
    }

    /// Names a file whose text the kernel makes in one piece, so that no second read has to find
    /// its end: attributes of sysfs and cgroups, and those files of `/proc` that are no lists
    /// (kernel: fs/seq_file.c, `single_open`).
    pub(super) fn at_once(path: impl Into<PathBuf>) -> Self {
        Self { at_once: true, ..Self::new(path) }
    }

    /// Reads the whole file into `buffer`.
    ///
    /// # Errors
    /// If it cannot be opened or read; the descriptor is given up, so that the next call opens
    /// the path afresh.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut Buffer) -> io::Result<&'b str> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        let length = buffer.fill(&file, self.at_once)?;
        self.file = Some(file);
        Ok(buffer.text(length))
    }

    /// Gives the descriptor back until the next read.
    pub(super) fn close(&mut self) {
        self.file = None;
    }
}

/// Room for one file's text, used again for every file of a tick.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Text that had to be mended.
    text: String,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BUFFER_START], text: String::new() }
    }

    /// Reads a file that is opened for this one time.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub(super) fn read_once(&mut self, path: &Path) -> io::Result<&str> {
        let length = self.fill(&File::open(path)?, false)?;
        Ok(self.text(length))
    }

    fn fill(&mut self, file: &File, at_once: bool) -> io::Result<usize> {
        let mut length = 0;
        loop {
            if length == self.bytes.len() {
                if length >= FILE_MAX {
                    return Err(io::Error::from(io::ErrorKind::FileTooLarge));
                }
                self.bytes.resize(length * 2, 0);
            }
            let room = self.bytes.get_mut(length..).unwrap_or_default();
            match file.read_at(room, length as u64) {
                Ok(0) => return Ok(length),
                Ok(count) => {
                    let all = at_once && count < room.len();
                    length += count;
                    if all {
                        return Ok(length);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The text; bytes that are no UTF-8 (a process may call itself anything) are replaced.
    fn text(&mut self, length: usize) -> &str {
        let bytes = self.bytes.get(..length).unwrap_or_default();
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => {
                self.text.clear();
                self.text.push_str(&String::from_utf8_lossy(bytes));
                &self.text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_now_and_opens_again_after_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for mut kept in [KernelFile::new(&path), KernelFile::at_once(&path)] {
            let mut buffer = Buffer::new();
            assert_eq!(kept.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::NotFound);
            std::fs::write(&path, "one").unwrap();
            assert_eq!(kept.read(&mut buffer).unwrap(), "one");
            std::fs::write(&path, "a longer text").unwrap();
            assert_eq!(kept.read(&mut buffer).unwrap(), "a longer text");
            for length in [BUFFER_START - 1, BUFFER_START, 100_000] {
                std::fs::write(&path, "x".repeat(length)).unwrap();
                assert_eq!(kept.read(&mut buffer).unwrap().len(), length);
            }
            std::fs::write(&path, b"(\xff) 1").unwrap();
            assert_eq!(kept.read(&mut buffer).unwrap(), "(\u{fffd}) 1");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
