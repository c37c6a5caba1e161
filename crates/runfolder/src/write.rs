//! Writing: whole files by rename, files that must not exist yet, appended lines.
//!
//! A file that is not finished has a name of its own in the same folder, which begins with a dot
//! and ends with `.new`. It is made with `O_EXCL`, so that no file and no symbolic link that
//! somebody else put there is written to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Serialize;

/// Mode of a file that others may read where the folder lets them; the umask applies.
pub const MODE: u32 = 0o666;

/// Mode of a file that only its owner may read.
pub const MODE_PRIVATE: u32 = 0o600;

/// Names that are tried for an unfinished file before giving up: others may exist where a process
/// of the same number was killed.
const NAMES_MAX: u32 = 1_000;

/// A file that is being written and takes its place by [`Unfinished::replace`] or
/// [`Unfinished::publish`]. Dropped before that, it is removed.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    path: PathBuf,
    /// Whether the name still has to be removed.
    named: bool,
    target: PathBuf,
}

impl Unfinished {
    /// Begins a file that is to be at `target`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(target: &Path, mode: u32) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Some(name) = target.file_name() else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        let mut tries = 0;
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let own = format!(".{}.{}.{number}.new", name.to_string_lossy(), process::id());
            let path = target.with_file_name(own);
            match options.open(&path) {
                Ok(file) => return Ok(Self { file, path, named: true, target: target.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < NAMES_MAX => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The open file, for what [`Write`] cannot do (locks, say).
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it into its place, whatever was there before; readers see the old file or the new one,
    /// never a part. Gives the open file. The content is not forced to the disk: it survives the
    /// death of any process, not that of the machine.
    ///
    /// # Errors
    /// The system refuses; what was there before stays.
    pub fn replace(mut self) -> io::Result<File> {
        fs::rename(&self.path, &self.target)?;
        self.named = false;
        self.file.try_clone()
    }

    /// Puts it into its place where nothing is yet; of several that try, one succeeds.
    ///
    /// # Errors
    /// `AlreadyExists` where something is there, else what the system says.
    pub fn publish(mut self) -> io::Result<()> {
        // Unlike a rename, a link fails where the name is taken.
        match fs::hard_link(&self.path, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file system without links.
            Err(_) if fs::symlink_metadata(&self.target).is_err() => {
                fs::rename(&self.path, &self.target)?;
                self.named = false;
                Ok(())
            }
            linked => linked,
        }
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.named {
            // Where even that fails, the name shows that it is unfinished.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Replaces a file by rename, so that it never shows a part; a new file has `mode`.
///
/// # Errors
/// The system refuses; what was there before stays.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut new = Unfinished::new(path, mode)?;
    new.write_all(bytes)?;
    new.replace().map(drop)
}

/// The same with a value as indented JSON and a line end.
///
/// # Errors
/// The system refuses, or the value has no JSON.
pub fn replace_json(path: &Path, mode: u32, value: &impl Serialize) -> io::Result<()> {
    replace(path, mode, &pretty(value)?)
}

/// A value as indented JSON with a line end, as files for people have it.
///
/// # Errors
/// The value has no JSON.
pub fn pretty(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// A value as one line of JSON, as [`Appender`] and its readers have it.
///
/// # Errors
/// The value has no JSON.
pub fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes a file that must not exist yet, in its place: for files that nobody reads before their
/// writer says so.
///
/// # Errors
/// `AlreadyExists` where something is there, else what the system says.
pub fn create(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(bytes)
}

/// Writes a file that must not exist yet and is whole when it is seen.
///
/// # Errors
/// `AlreadyExists` where something is there, else what the system says.
pub fn publish(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut new = Unfinished::new(path, mode)?;
    new.write_all(bytes)?;
    new.publish()
}

/// Opens a file to append to, making it if need be; a symbolic link is not followed.
///
/// # Errors
/// The system refuses.
pub fn append(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(mode).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// A file of lines that is appended to. After an entry that could be written in part only, the
/// next one begins a line of its own.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    mode: u32,
    file: Option<File>,
    torn: bool,
}

impl Appender {
    /// Of this file, which is opened, and made if need be, by the first entry.
    #[must_use]
    pub fn new(path: &Path, mode: u32) -> Self {
        Self { path: path.to_owned(), mode, file: None, torn: false }
    }

    /// Appends an entry, which ends with a line end of its own.
    ///
    /// # Errors
    /// The system refuses; a part of the entry may be there. The next entry opens the file anew.
    pub fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => append(&self.path, self.mode)?,
        };
        let written = if self.torn {
            file.write_all(&[b"\n", entry].concat())
        } else {
            file.write_all(entry)
        };
        self.torn = written.is_err();
        self.file = written.is_ok().then_some(file);
        written
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        replace(&path, MODE_PRIVATE, b"old").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut new = Unfinished::new(&path, MODE).unwrap();
        new.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()).len(), 2);
        drop(new);
        assert_eq!((fs::read(&path).unwrap(), names(folder.path()).len()), (b"old".to_vec(), 1));
        replace_json(&path, MODE, &[1]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"[\n  1\n]\n");
        assert_eq!(names(folder.path()), ["run.json"]);
        // Where the target cannot be replaced nothing is left either.
        fs::create_dir_all(folder.path().join("taken/x")).unwrap();
        assert!(replace(&folder.path().join("taken"), MODE, b"").is_err());
        assert_eq!(names(folder.path()), ["run.json", "taken"]);
        assert!(replace(&folder.path().join("none/x"), MODE, b"").is_err());
        assert!(replace(Path::new("/"), MODE, b"").is_err());
    }

    /// Two threads replace one file, a third never reads a mixture.
    #[test]
    fn readers_see_one_of_the_files_that_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        replace(&path, MODE, &[b'a'; 5_000]).unwrap();
        std::thread::scope(|scope| {
            for byte in [b'a', b'b'] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..200 {
                        replace(path, MODE, &vec![byte; 5_000]).unwrap();
                    }
                });
            }
            for _ in 0..500 {
                let bytes = fs::read(&path).unwrap();
                assert_eq!(bytes.len(), 5_000);
                assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            }
        });
        assert_eq!(names(folder.path()), ["x"]);
    }

    #[test]
    fn links_of_others_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let path = folder.path().join("x");
        symlink(&victim, &path).unwrap();
        assert!(append(&path, MODE).is_err());
        assert_eq!(create(&path, MODE, b"1").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(publish(&path, MODE, b"1").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        replace(&path, MODE, b"2").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        // Where names for the unfinished file were guessed, the next free one is taken.
        for number in 0..900 {
            let guessed = format!(".y.{}.{number}.new", process::id());
            symlink(&victim, folder.path().join(guessed)).unwrap();
        }
        replace(&folder.path().join("y"), MODE, b"3").unwrap();
        assert_eq!(fs::read(folder.path().join("y")).unwrap(), b"3");
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn of_several_that_publish_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("start.json");
        publish(&path, MODE, b"first").unwrap();
        let error = publish(&path, MODE, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["start.json"]);
    }

    #[test]
    fn a_torn_entry_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e");
        fs::write(&path, "half").unwrap();
        let mut appender = Appender::new(&path, MODE_PRIVATE);
        appender.torn = true;
        appender.append(b"whole\n").unwrap();
        appender.append(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "half\nwhole\nnext\n");
        let mut nowhere = Appender::new(&folder.path().join("none/x"), MODE);
        assert!(nowhere.append(b"x").is_err());
        assert_eq!(line(&7).unwrap(), b"7\n");
    }
}
