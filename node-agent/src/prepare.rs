//! `prepare`: reads and checks a recipe as the user, prints its snapshot.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aifb_schema::{
    names::{PROTOCOL, env, exit, limit},
    recipe,
    snapshot::{Snapshot, Wait, sha256_hex},
};

use crate::{
    presets,
    problem::{PROGRAM, complain, print},
};

/// Arguments of `prepare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Recipe file (YAML or JSON).
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Override one field of the recipe, such as load.chat.seed=3; repeatable.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Root of the run folders.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// What the job script waits for.
    #[arg(long, default_value = "healthy", value_parser = ["healthy", "none"])]
    wait: String,
    /// Print the resolved recipe, too: a second line of JSON.
    #[arg(long)]
    resolved: bool,
}

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
    #[error("it has {0} bytes, a recipe at most {max}", max = limit::RECIPE_BYTES)]
    Large(u64),
    /// Not text.
    #[error("it is not UTF-8 text (byte {0})")]
    Utf8(usize),
    /// A NUL, which neither YAML nor an environment variable can hold.
    #[error("it has a NUL byte on line {0}: not a text file")]
    Nul(usize),
}

impl ReadError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "check the path; it is relative to the present folder"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "the file must be readable by you on this node"
            }
            Self::Io(_) => "give the path of a recipe file",
            Self::Kind(_) => "give the path of a file; a recipe is never read from a pipe",
            Self::Large(_) => "the largest example has 3 KiB; data belongs into other files",
            Self::Utf8(_) | Self::Nul(_) => "a recipe is YAML or JSON in UTF-8",
        }
    }
}

/// Runs the command; its exit code.
pub(crate) fn main(arguments: &Arguments) -> i32 {
    match prepare(arguments) {
        Ok(lines) => {
            print(&lines);
            exit::OK
        }
        Err(messages) => {
            complain(&messages);
            exit::USAGE
        }
    }
}

/// The snapshot's line, and that of the resolved recipe where it is asked for; or all that is wrong.
fn prepare(arguments: &Arguments) -> Result<String, String> {
    let shown = arguments.recipe.to_string_lossy().escape_debug().to_string();
    let text = read(&arguments.recipe).map_err(|error| {
        format!("{PROGRAM}: reading recipe '{shown}': {error}\n  hint: {}", error.hint())
    })?;
    let folder = std::env::var_os(env::PRESETS).map(PathBuf::from);
    let presets = presets::known(folder.as_deref())?;
    let resolved = recipe::resolve(&text, &arguments.set, &presets).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(|found| found.render(&shown)).collect();
        lines.join("\n")
    })?;
    let recipe_path = absolute(&arguments.recipe, "recipe")?;
    let from_variable = || std::env::var_os(env::RUNS).filter(|v| !v.is_empty()).map(PathBuf::from);
    let runs = arguments.runs.clone().or_else(from_variable);
    let runs = runs.map(|folder| absolute(&folder, "run folders")).transpose()?;
    let snapshot = Snapshot {
        protocol: PROTOCOL,
        recipe_path,
        sha256: sha256_hex(text.as_bytes()),
        recipe: text,
        sets: arguments.set.clone(),
        runs,
        wait: if arguments.wait == "none" { Wait::None } else { Wait::Healthy },
    };
    let packing = |error: String| {
        format!("{PROGRAM}: packing recipe '{shown}': {error}\n  hint: shorten it; comments count")
    };
    let mut lines = snapshot.encode().map_err(|error| packing(error.to_string()))?;
    if arguments.resolved {
        let json = serde_json::to_string(&resolved).map_err(|error| packing(error.to_string()))?;
        lines.push('\n');
        lines.push_str(&json);
    }
    Ok(lines)
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

fn absolute(path: &Path, what: &str) -> Result<String, String> {
    let wrong = |cause: &str| {
        let shown = path.to_string_lossy().escape_debug().to_string();
        format!("{PROGRAM}: using path '{shown}' for {what}: {cause}")
    };
    let path = std::path::absolute(path).map_err(|error| wrong(&error.to_string()))?;
    let text = path.to_str().ok_or_else(|| wrong("it is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(wrong("it has control characters"));
    }
    Ok(text.to_owned())
}
