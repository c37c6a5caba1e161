//! Private files (0600), as all parts of the agent write and read them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Bytes of a secret's file: a token has some hundred.
const SECRET_MAX: u64 = 64 * 1024;

/// Options for a file that is made if need be, with mode 0600.
pub(crate) fn own_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

/// Replaces a file by rename, so that it never shows a half; `mode` holds for a new file.
///
/// # Errors
/// The system refuses.
pub(crate) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let mut file = own_file().write(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// The secret in a file, without the end of its line.
///
/// # Errors
/// It cannot be read, is no file, or has nothing that can be a secret.
pub(crate) fn read_secret(path: &Path) -> io::Result<String> {
    // Not to be held up by a FIFO.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    file.take(SECRET_MAX).read_to_string(&mut text)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.contains('\0') {
        return Err(io::Error::other("it is empty or not text"));
    }
    Ok(text.to_owned())
}
