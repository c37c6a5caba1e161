//! Reads the files of a user that are recipes or presets: small texts, and never a pipe.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use aifb_schema::names::limit;

/// Why a file cannot be a recipe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not a regular file.
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    /// Too large.
    #[error("it has {0} bytes; the limit is {max}", max = limit::RECIPE_BYTES)]
    Large(u64),
    /// Not text.
    #[error("it is not UTF-8 text (byte {0})")]
    Utf8(usize),
    /// A NUL, which neither YAML nor an environment variable can hold.
    #[error("it has a NUL byte on line {0}: not a text file")]
    Nul(usize),
}

impl ReadError {
    /// What would be right.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "check the path; it is relative to the current folder"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "the file must be readable by you on this node"
            }
            Self::Io(_) => "give the path of a recipe file",
            Self::Kind(_) => "give the path of a file; a recipe is never read from a pipe",
            Self::Large(_) => "the largest example has 3 KiB; put data in separate files",
            Self::Utf8(_) | Self::Nul(_) => "a recipe is YAML or JSON in UTF-8",
        }
    }
}

/// Reads a recipe without ever waiting for a pipe or device.
///
/// # Errors
/// Why it cannot be a recipe.
pub(crate) fn read(path: &Path) -> Result<String, ReadError> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        return Err(ReadError::Kind(match kind {
            kind if kind.is_dir() => "a folder",
            kind if kind.is_fifo() => "a pipe",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        }));
    }
    if metadata.len() > limit::RECIPE_BYTES {
        return Err(ReadError::Large(metadata.len()));
    }
    let mut bytes = Vec::new();
    // Files of /proc and growing files say less than they have.
    file.take(limit::RECIPE_BYTES + 1).read_to_end(&mut bytes)?;
    let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if count > limit::RECIPE_BYTES {
        return Err(ReadError::Large(count));
    }
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        let line = 1 + bytes.iter().take(at).filter(|&&byte| byte == b'\n').count();
        return Err(ReadError::Nul(line));
    }
    String::from_utf8(bytes).map_err(|error| ReadError::Utf8(error.utf8_error().valid_up_to()))
}
