//! `aifb logs show` and `follow`: the files that services and agents write, their end or as they grow.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    thread,
};

use aifb_schema::names::file;
use serde_json::json;

use crate::{
    cli::LogsArgs,
    error::{CommandError, Result},
    follow::{self, Follower},
    output,
    store::{RunFolder, select},
};

/// Bytes taken from the end of a log for its last lines, and at most at one look: room for a
/// thousand long lines.
const CHUNK_BYTES: u64 = 1024 * 1024;

pub(super) fn run(args: &LogsArgs, follow: bool) -> Result<i32> {
    let run = select(&args.run)?;
    let mut tails: Vec<Tail> = Vec::new();
    let mut follower = Follower::new(run.clone());
    loop {
        // Asked before the files are read: what was written before the end is shown.
        let over = !follow || follower.look()?.over;
        for (name, path) in files(&run, args)? {
            if !tails.iter().any(|tail| tail.path == path) {
                tails.push(Tail::new(name, path, args.lines));
            }
        }
        for tail in &mut tails {
            for line in tail.lines(over) {
                if args.json {
                    output::out_json_line(&json!({"file": tail.name, "text": line}));
                } else {
                    output::out(format!("{}: {line}", tail.name));
                }
            }
        }
        if over {
            return Ok(0);
        }
        thread::sleep(follow::EVERY);
    }
}

/// The files that were asked for: name shown and path.
fn files(run: &RunFolder, args: &LogsArgs) -> Result<Vec<(String, PathBuf)>> {
    if args.agent {
        let mut found: Vec<(String, PathBuf)> = run
            .node_folders()
            .into_iter()
            .map(|(node, folder)| (format!("{node}/agent"), folder.join(file::AGENT_LOG)))
            .collect();
        found.insert(0, ("launcher".into(), run.path().join(file::LAUNCH_LOG)));
        found.retain(|(_, path)| path.is_file());
        return Ok(found);
    }
    let folders = run.service_folders();
    let asked = |name: &str| {
        args.service.as_ref().is_none_or(|service| {
            name == service
                || name.strip_prefix(service.as_str()).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    if let Some(service) = &args.service
        && !run
            .recipe()?
            .services
            .iter()
            .any(|known| service.split('.').next() == Some(known.name.as_str()))
    {
        let known: Vec<&str> = folders.iter().map(|(name, _)| name.as_str()).collect();
        return Err(CommandError::usage(
            format!("looking for the logs of service '{service}'"),
            "the run has no such service",
        )
        .hint(format!("services with logs: {}", known.join(", "))));
    }
    let mut found = Vec::new();
    for (name, folder) in folders.iter().filter(|(name, _)| asked(name)) {
        if !args.stderr {
            found.push((format!("{name}/stdout"), folder.join(file::STDOUT)));
        }
        if !args.stdout {
            found.push((format!("{name}/stderr"), folder.join(file::STDERR)));
        }
    }
    found.retain(|(_, path)| path.is_file());
    Ok(found)
}

/// A log that is read from its end on.
struct Tail {
    name: String,
    path: PathBuf,
    /// Where the next look starts; absent before the first.
    offset: Option<u64>,
    /// Lines from the end with which the first look starts.
    first_lines: usize,
}

impl Tail {
    fn new(name: String, path: PathBuf, lines: u32) -> Self {
        let first_lines = usize::try_from(lines).unwrap_or(usize::MAX);
        Self { name, path, offset: None, first_lines }
    }

    /// New whole lines; with `all` also one without an end.
    fn lines(&mut self, all: bool) -> Vec<String> {
        let first = self.offset.is_none();
        let Ok((start, mut bytes)) = read_from(&self.path, self.offset) else { return Vec::new() };
        if !all {
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(whole);
        }
        self.offset = Some(start + bytes.len() as u64);
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(shown).collect();
        let skip = if first { lines.len().saturating_sub(self.first_lines) } else { 0 };
        lines.into_iter().skip(skip).collect()
    }
}

/// What is there from `offset` on, or near the end when that is absent; where it starts.
fn read_from(path: &Path, offset: Option<u64>) -> std::io::Result<(u64, Vec<u8>)> {
    let mut log = File::open(path)?;
    let length = log.metadata()?.len();
    let start = offset.unwrap_or_else(|| length.saturating_sub(CHUNK_BYTES));
    log.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    log.take(CHUNK_BYTES).read_to_end(&mut bytes)?;
    Ok((start, bytes))
}

/// A service's line without what would move the cursor or change the terminal.
fn shown(line: &str) -> String {
    line.chars().filter(|c| *c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn a_log_is_followed_by_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        let mut tail = Tail::new("x".into(), path.clone(), 1);
        assert_eq!(tail.lines(false), ["two"]);
        assert!(tail.lines(false).is_empty());
        let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(b"ee\n\x1b[31mred\nlast").unwrap();
        assert_eq!(tail.lines(false), ["three", "[31mred"]);
        assert_eq!(tail.lines(true), ["last"]);
    }
}
