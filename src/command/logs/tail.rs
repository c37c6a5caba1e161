//! A log that is read from its end on: its last lines, and what is added to it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use aifb_schema::{
    log_line::{Before, Joins, counts_as, level},
    recipe::LogLevel,
};

/// Bytes read at once, and those from the end that the last lines are looked for in: room for a
/// thousand long lines. A longer line is shown in pieces.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A line that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Without what would move the cursor or change the terminal.
    pub(super) text: String,
    /// Its level, or that of the line that it belongs to.
    pub(super) level: Option<LogLevel>,
}

/// Which lines are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// Lines from the end with which the first look starts.
    pub(super) first: usize,
    /// Only lines at or above it; with one the last lines are looked for in the whole file.
    pub(super) level: Option<LogLevel>,
    /// Whether lines may belong to the one before, as stack traces do.
    pub(super) join: bool,
}

/// One log.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) name: String,
    pub(super) path: PathBuf,
    shown: Shown,
    /// Where the next look starts; absent before the first.
    offset: Option<u64>,
    joins: Joins,
    before: Option<Before>,
}

impl Tail {
    pub(super) fn new(name: String, path: PathBuf, shown: Shown) -> Self {
        Self { name, path, shown, offset: None, joins: Joins::default(), before: None }
    }

    /// Gives all new whole lines to `each`; with `all` also one without an end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn look(&mut self, all: bool, mut each: impl FnMut(Line)) -> std::io::Result<()> {
        if self.offset.is_some() {
            return self.read(all, &mut each);
        }
        let mut last = VecDeque::new();
        let first = self.shown.first;
        self.read(all, &mut |line| {
            if last.len() >= first {
                last.pop_front();
            }
            if first > 0 {
                last.push_back(line);
            }
        })?;
        last.into_iter().for_each(each);
        Ok(())
    }

    /// Reads up to where the file ends now.
    fn read(&mut self, all: bool, each: &mut dyn FnMut(Line)) -> std::io::Result<()> {
        let mut log = File::open(&self.path)?;
        let length = log.metadata()?.len();
        let near_end = match self.shown.level {
            None => length.saturating_sub(CHUNK_BYTES),
            Some(_) => 0,
        };
        let mut cut = self.offset.is_none() && near_end > 0;
        let mut offset = self.offset.unwrap_or(near_end);
        while offset < length {
            log.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            log.by_ref().take(CHUNK_BYTES.min(length - offset)).read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let taken = match whole {
                Some(_) if all && offset + bytes.len() as u64 == length => bytes.len(),
                Some(whole) => whole,
                // Too long to wait for its end.
                None if all || bytes.len() as u64 == CHUNK_BYTES => bytes.len(),
                None => break,
            };
            bytes.truncate(taken);
            offset += bytes.len() as u64;
            self.offset = Some(offset);
            if bytes.is_empty() {
                break;
            }
            let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            // The first line near the end is most often a part of one.
            let lines = text.split(|byte| *byte == b'\n');
            for line in lines.skip(usize::from(std::mem::take(&mut cut) && whole.is_some())) {
                self.line(line, each);
            }
        }
        self.offset = Some(offset);
        Ok(())
    }

    fn line(&mut self, line: &[u8], each: &mut dyn FnMut(Line)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let joined = self.shown.join && self.joins.belongs(line, self.before);
        let before = self.before.filter(|_| joined);
        let level = before.map_or_else(|| level(line), |before| before.level);
        self.before = Some(Before { level, several: before.is_some() });
        if self.shown.level.is_none_or(|lowest| counts_as(level) >= lowest) {
            each(Line { text: printable(line), level });
        }
    }
}

/// A service's line without what would move the cursor or change the terminal.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|c| *c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    const ALL: Shown = Shown { first: usize::MAX, level: None, join: true };

    fn texts(tail: &mut Tail, all: bool) -> Vec<String> {
        let mut texts = Vec::new();
        tail.look(all, |line| texts.push(line.text)).unwrap();
        texts
    }

    #[test]
    fn a_log_is_followed_by_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        let mut tail = Tail::new("x".into(), path.clone(), Shown { first: 1, ..ALL });
        assert_eq!(texts(&mut tail, false), ["two"]);
        assert!(texts(&mut tail, false).is_empty());
        let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(b"ee\n\x1b[31mred\r\n\nlast").unwrap();
        assert_eq!(texts(&mut tail, false), ["three", "[31mred", ""]);
        assert_eq!(texts(&mut tail, true), ["last"]);
        assert!(texts(&mut tail, true).is_empty());
    }

    /// Neither a line that is longer than what is read at once nor many at the end are lost.
    #[test]
    fn nothing_is_lost_in_long_lines_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        fs::write(&path, "one\n").unwrap();
        let mut tail = Tail::new("x".into(), path.clone(), ALL);
        assert_eq!(texts(&mut tail, false), ["one"]);
        let chunk = usize::try_from(CHUNK_BYTES).unwrap();
        let long = "x".repeat(2 * chunk + 5);
        let many: String = (0..chunk / 2).map(|number| format!("{number}\n")).collect();
        let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(format!("{long}\n{many}").as_bytes()).unwrap();
        let shown = texts(&mut tail, true);
        assert_eq!(shown.concat().len(), long.len() + many.len() - chunk / 2);
        assert_eq!(shown.last().unwrap(), &(chunk / 2 - 1).to_string());
        // From the end of a large file whole lines only.
        let mut tail = Tail::new("x".into(), path, ALL);
        let first: usize = texts(&mut tail, true)[0].parse().unwrap();
        assert!(first > 0 && first < chunk / 2);
    }

    #[test]
    fn lines_below_a_level_are_left_out_with_what_belongs_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let noise = "INFO all is well\n".repeat(100_000);
        let text = format!(
            "ERROR first\n{noise}plain\nDEBUG d\n  of d\nWARNING w\nERROR e\nTraceback (most recent \
             call last):\n  File x\nValueError: no\nINFO i\n  of i\n"
        );
        fs::write(&path, text).unwrap();
        let of = |level, first, join| {
            let shown = Shown { first, level: Some(level), join };
            texts(&mut Tail::new("x".into(), path.clone(), shown), true)
        };
        let trace = ["ERROR e", "Traceback (most recent call last):", "  File x", "ValueError: no"];
        assert_eq!(of(LogLevel::Error, 9, true), [&["ERROR first"][..], &trace].concat());
        assert_eq!(
            of(LogLevel::Warning, 9, true),
            [&["ERROR first", "WARNING w"][..], &trace].concat()
        );
        assert_eq!(of(LogLevel::Error, 2, true), ["  File x", "ValueError: no"]);
        assert_eq!(of(LogLevel::Error, 9, false), ["ERROR first", "ERROR e"]);
        let infos = of(LogLevel::Info, 9, true);
        assert_eq!(infos[0], "INFO all is well");
        assert!(infos.ends_with(&["INFO i".into(), "  of i".into()]), "{infos:?}");
        assert!(!infos.iter().any(|line| line.contains("of d")), "{infos:?}");
    }
}
