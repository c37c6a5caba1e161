//! Cutting what was read of a log into entries: lines, joined where they belong together, each
//! with its time and level.
//!
//! A pure function of the bytes and of [`How`]: what a killed shipper was sending is made again,
//! byte for byte, from the file and the few numbers in its checkpoint.

use aifb_schema::{
    log_line::{Before, Joins, counts_as, level},
    recipe::{LogLevel, Logging},
};
use memchr::memchr;

use super::{rank::rank, stamp::Stamps};

/// Longest text of an entry: Loki takes 256 KiB and refuses what is longer. A longer line becomes
/// several entries.
pub(super) const TEXT_MAX: usize = 256_000;

/// The same for bytes that are not UTF-8, each of which may become three.
const TEXT_MAX_INVALID: usize = TEXT_MAX / 3;

/// Bytes that joined lines may have together: the longest stack traces have some ten KiB.
const JOINED_MAX: usize = 64 * 1024;

/// Entries of one batch: at 50 bytes each, what is read at once.
const ENTRIES_MAX: usize = 10_000;

/// How far before the write a line's own time may be: what is older is no time of a log line, and
/// Loki takes nothing older either.
const PAST_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;

/// How far behind the write: clocks of containers are the node's, but file servers round.
const FUTURE_NS: u64 = 2_000_000_000;

/// How the bytes are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Whether lines that belong to the one before are joined to it.
    pub(super) join: bool,
    /// Time of the stream's last entry so far.
    pub(super) last_ns: u64,
    /// When the bytes were written, at the latest: the time of lines that show none.
    pub(super) arrival_ns: u64,
    /// What is left out.
    pub(super) logging: Logging,
    /// Whether a last line without its end is taken.
    pub(super) whole: bool,
    /// Whether the last entry is left for later, as lines that belong to it may follow.
    pub(super) hold: bool,
}

/// One line of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where its text begins.
    pub(super) start: usize,
    /// Where its text ends, without the line's end.
    pub(super) end: usize,
    /// Where the next entry begins.
    next: usize,
    /// Its time, above that of the entry before.
    pub(super) time_ns: u64,
    /// Its level, where it shows one.
    pub(super) level: Option<LogLevel>,
    /// Where the rank of the process that wrote it stands, if it shows one.
    pub(super) rank: Option<(usize, usize)>,
    /// Lines of the file that it is.
    pub(super) lines: u64,
    /// Whether it is sent.
    pub(super) kept: bool,
}

/// The sums of a cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Bytes that the entries cover.
    pub(super) bytes: usize,
    /// Lines in them.
    pub(super) lines: u64,
    /// Lines of those that are not sent.
    pub(super) filtered: u64,
    /// Pieces of lines that were too long.
    pub(super) pieces: u64,
    /// Time of the last entry.
    pub(super) last_ns: u64,
}

/// Cuts `bytes` into `entries`, which is emptied before.
pub(super) fn cut(bytes: &[u8], how: &How, stamps: &mut Stamps, entries: &mut Vec<Entry>) -> Sums {
    entries.clear();
    let mut cutter = Cutter { bytes, how, stamps, entries, joins: Joins::default() };
    let mut at = 0;
    let mut pieces = 0;
    while cutter.entries.len() < ENTRIES_MAX {
        let Some((line, next)) = cutter.line(at) else { break };
        pieces += cutter.add(at, line, next);
        at = next;
    }
    if how.hold && (entries.len() > 1 || bytes.len() <= JOINED_MAX) {
        entries.pop();
    }
    let mut sums = Sums { pieces, last_ns: how.last_ns, ..Sums::default() };
    for entry in entries.iter() {
        sums.bytes = entry.next;
        sums.lines += entry.lines;
        sums.filtered += if entry.kept { 0 } else { entry.lines };
        sums.last_ns = entry.time_ns;
    }
    sums
}

struct Cutter<'a> {
    bytes: &'a [u8],
    how: &'a How,
    stamps: &'a mut Stamps,
    entries: &'a mut Vec<Entry>,
    joins: Joins,
}

impl Cutter<'_> {
    /// The end of the line at `at`, without its end mark, and where the next one begins.
    fn line(&self, at: usize) -> Option<(usize, usize)> {
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        match memchr(b'\n', rest) {
            Some(length) => {
                let bare = rest.get(..length)?;
                let length_shown = length - usize::from(bare.last() == Some(&b'\r'));
                Some((at + length_shown, at + length + 1))
            }
            // Too long to wait for its end.
            None if rest.len() >= TEXT_MAX => {
                let end = at + piece(rest, TEXT_MAX);
                Some((end, end))
            }
            None if self.how.whole => Some((self.bytes.len(), self.bytes.len())),
            None => None,
        }
    }

    /// Adds the line as entries of its own, or to the last one; how many pieces it was cut into.
    fn add(&mut self, start: usize, end: usize, next: usize) -> u64 {
        let Some(line) = self.bytes.get(start..end) else { return 0 };
        // A line is counted where its end is, and at the very end where it has none.
        let lines = u64::from(next > end || line.len() + 4 < TEXT_MAX);
        let before = self.entries.last();
        let before = before.map(|last| Before { level: last.level, several: last.lines > 1 });
        let joined = self.how.join && self.joins.belongs(line, before);
        if let Some(last) = self.entries.last_mut().filter(|_| joined)
            && end - last.start <= JOINED_MAX
        {
            (last.end, last.next) = (end, next);
            last.lines += lines;
            return 0;
        }
        let longest = longest(line);
        let level = level(line);
        let rank = rank(line).map(|(from, to)| (start + from, start + to));
        let own = self.stamps.time_ns(line, self.how.arrival_ns);
        let mut pieces = 0;
        let mut from = start;
        loop {
            let rest = self.bytes.get(from..end).unwrap_or_default();
            let to = if rest.len() > longest { from + piece(rest, longest) } else { end };
            let last = to == end;
            let time_ns = self.time_ns(own);
            self.entries.push(Entry {
                start: from,
                end: to,
                next: if last { next } else { to },
                time_ns,
                level,
                rank,
                lines: if last { lines } else { 0 },
                kept: kept(level, time_ns, self.how.logging),
            });
            if last {
                return if pieces > 0 { pieces + 1 } else { 0 };
            }
            pieces += 1;
            from = to;
        }
    }

    /// A time above that of the entry before: the line's own where that is near the write.
    fn time_ns(&self, own: Option<u64>) -> u64 {
        let arrival = self.how.arrival_ns;
        let near =
            |time: &u64| *time <= arrival + FUTURE_NS && *time >= arrival.saturating_sub(PAST_NS);
        let before = self.entries.last().map_or(self.how.last_ns, |entry| entry.time_ns);
        own.filter(near).unwrap_or(arrival).max(before + 1)
    }
}

/// Bytes that an entry of this line may have.
fn longest(line: &[u8]) -> usize {
    let fits = line.len() <= TEXT_MAX_INVALID || std::str::from_utf8(line).is_ok();
    if fits { TEXT_MAX } else { TEXT_MAX_INVALID }
}

/// Bytes of a piece: at most `longest`, not in the middle of a character.
fn piece(text: &[u8], longest: usize) -> usize {
    let in_character = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (longest - 3..=longest).rev().find(|at| !in_character(at)).unwrap_or(longest)
}

fn kept(level: Option<LogLevel>, time_ns: u64, logging: Logging) -> bool {
    counts_as(level) >= logging.level && logging.until.is_none_or(|until| time_ns <= until.epoch_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-27 12:00:00 UTC.
    const NOON: u64 = 1_795_780_800_000_000_000;

    fn how() -> How {
        How {
            join: true,
            last_ns: 0,
            arrival_ns: NOON,
            logging: Logging::default(),
            whole: false,
            hold: false,
        }
    }

    fn texts(bytes: &[u8], how: &How) -> (Vec<String>, Sums) {
        let mut entries = Vec::new();
        let sums = cut(bytes, how, &mut Stamps::default(), &mut entries);
        let text =
            |entry: &Entry| String::from_utf8_lossy(&bytes[entry.start..entry.end]).into_owned();
        (entries.iter().map(text).collect(), sums)
    }

    #[test]
    fn lines_are_whole_and_the_rest_waits() {
        let (found, sums) = texts(b"one\r\n\ntwo\nthr", &how());
        assert_eq!(found, ["one", "", "two"]);
        assert_eq!((sums.bytes, sums.lines), (10, 3));
        let (found, sums) = texts(b"one\nthr", &How { whole: true, ..how() });
        assert_eq!((found.len(), sums.bytes, sums.lines), (2, 7, 2));
        let (found, sums) = texts(b"one\ntwo\n", &How { hold: true, ..how() });
        assert_eq!((found, sums.bytes, sums.lines), (vec!["one".into()], 4, 1));
    }

    #[test]
    fn stack_traces_are_one_entry() {
        let python = "ERROR 11-27 12:00:00 failed\nTraceback (most recent call last):\n  File \"x\"\n\
             ValueError: no\n\nDuring handling of the above exception, another occurred:\n\n\
             Traceback (most recent call last):\n  File \"y\"\nKeyError: 1\nINFO next\n";
        let (found, sums) = texts(python.as_bytes(), &how());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("KeyError: 1"));
        assert_eq!(sums.lines, 11);
        let java = "SEVERE x\n\tat a.B(C.java:1)\nCaused by: y\n\tat d\nnext\n";
        assert_eq!(texts(java.as_bytes(), &how()).0.len(), 2);
        let (found, _) = texts(java.as_bytes(), &How { join: false, ..how() });
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn times_rise_and_equal_lines_differ() {
        let mut entries = Vec::new();
        let text =
            b"x\nx\n2026-11-27T11:59:59Z a\n2026-11-27T12:00:01Z b\n1999-01-01T00:00:00Z c\n";
        cut(text, &how(), &mut Stamps::default(), &mut entries);
        let times: Vec<u64> = entries.iter().map(|entry| entry.time_ns - NOON).collect();
        let second = 1_000_000_000;
        assert_eq!(times, [0, 1, 2, second, second + 1]);
    }

    #[test]
    fn lines_too_long_become_pieces() {
        let mut text = "é".repeat(TEXT_MAX).into_bytes();
        text.push(b'\n');
        let (found, sums) = texts(&text, &how());
        assert_eq!(found.concat().len(), 2 * TEXT_MAX);
        assert!(found.iter().all(|piece| piece.len() <= TEXT_MAX && !piece.contains('\u{fffd}')));
        assert_eq!((sums.lines, sums.pieces), (1, found.len() as u64));
        // Not even its end is there.
        let (found, sums) = texts(&text[..TEXT_MAX + 1], &how());
        assert_eq!((found.len(), sums.lines, sums.bytes), (1, 0, TEXT_MAX));
        let (found, _) = texts(&[0xff; TEXT_MAX], &how());
        assert!(found.iter().all(|piece| piece.len() <= TEXT_MAX), "as it is sent");
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let logging = Logging { level: LogLevel::Warning, until: None };
        let mut entries = Vec::new();
        let text = b"INFO a\nWARNING b\nplain\nERROR c\n  more\n";
        let sums = cut(text, &How { logging, ..how() }, &mut Stamps::default(), &mut entries);
        assert_eq!(entries.iter().filter(|entry| entry.kept).count(), 2);
        assert_eq!((sums.lines, sums.filtered), (5, 2));
        let past = Logging { until: "2026-11-27T11:59:59Z".parse().ok(), ..Logging::default() };
        let sums = cut(text, &How { logging: past, ..how() }, &mut Stamps::default(), &mut entries);
        assert_eq!((sums.lines, sums.filtered), (5, 5));
    }

    #[test]
    fn no_line_can_make_it_panic() {
        let parts: [&[u8]; 12] = [
            b"9999-12-31",
            b"T",
            b" ",
            b":",
            b"12:00:00",
            b"{\"ts\":",
            b"9999999999",
            b"\xff",
            b"\n",
            b"E1127",
            b"\"level\"",
            b"+99:99",
        ];
        let mut random = 1_u64;
        let mut text = Vec::new();
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.extend_from_slice(parts[usize::try_from(random >> 40).unwrap() % parts.len()]);
        }
        let (found, sums) = texts(&text, &How { whole: true, ..how() });
        assert!(!found.is_empty() && sums.bytes == text.len());
    }

    #[test]
    fn ranks_are_found_where_they_stand() {
        let text = b"x\n(Worker_TP1 pid=4) INFO a\n  more\n[rank0]: Traceback\n";
        let mut entries = Vec::new();
        cut(text, &how(), &mut Stamps::default(), &mut entries);
        let rank = |entry: &Entry| entry.rank.map(|(from, to)| &text[from..to]);
        let ranks: Vec<_> = entries.iter().map(rank).collect();
        assert_eq!(ranks, [None, Some(&b"TP1"[..]), Some(&b"0"[..])]);
    }

    /// Whatever was read, what was cut from it is cut the same way once more.
    #[test]
    fn a_batch_is_made_again_from_its_bytes_alone() {
        let line = |n: usize| match n % 7 {
            0 => "\tat deeper\n".to_owned(),
            1 => format!("ERROR {n} \u{20ac}\n"),
            2 => "Traceback (most recent call last):\n".to_owned(),
            3 => "ValueError: x\n".to_owned(),
            4 => "\n".to_owned(),
            _ => format!("2026-11-27T11:00:{:02}Z line {n}\n", n % 60),
        };
        let text: Vec<u8> = (0..200).flat_map(|n| line(n).into_bytes()).collect();
        for length in 0..text.len() {
            for hold in [false, true] {
                let (mut once, mut again) = (Vec::new(), Vec::new());
                let first = How { hold, ..how() };
                let sums = cut(&text[..length], &first, &mut Stamps::default(), &mut once);
                let bytes = &text[..sums.bytes];
                let second = How { whole: true, ..how() };
                let same = cut(bytes, &second, &mut Stamps::default(), &mut again);
                assert_eq!((same, again), (sums, once), "{length}");
            }
        }
    }
}
