//! What a line of a log tells: its level, and whether it belongs to the one before.
//!
//! Known forms of a level: JSON (`"level":"warn"`), logfmt (`level=warn`), klog (`W1127 12:00:00`), Tornado
//! (`[W 2026-11-27 …`), llama.cpp (`0.00.123.456 W …`), and a word near the start: `WARNING 11-27
//! 12:00:00` (vLLM), `… [42] FATAL:  …` (PostgreSQL), `[warn]` (nginx), `WARN` (Qdrant, Java, Go).

use memchr::memmem;

use crate::recipe::LogLevel;

/// Bytes from the start in which a level may stand: behind a long date, a name and a number.
const LOOKED_AT: usize = 128;

/// Bytes of a JSON line in which its level may stand: most writers put it first.
const LOOKED_AT_JSON: usize = 1024;

/// The level of a line; absent where it shows none.
#[must_use]
pub fn level(line: &[u8]) -> Option<LogLevel> {
    match line.first()? {
        b'{' => in_json(head(line, LOOKED_AT_JSON)),
        letter @ (b'I' | b'W' | b'E' | b'F') if is_klog(line) => of_letter(*letter),
        b'[' if line.get(2) == Some(&b' ') && line.get(3).is_some_and(u8::is_ascii_digit) => {
            of_letter(*line.get(1)?)
        }
        _ => in_text(head(line, LOOKED_AT)),
    }
}

/// The level that a line counts as.
#[must_use]
pub fn counts_as(level: Option<LogLevel>) -> LogLevel {
    level.unwrap_or(LogLevel::Info)
}

fn head(line: &[u8], length: usize) -> &[u8] {
    line.get(..length).unwrap_or(line)
}

fn is_klog(line: &[u8]) -> bool {
    line.get(1..6).is_some_and(|rest| {
        rest.iter().take(4).all(u8::is_ascii_digit) && rest.last() == Some(&b' ')
    })
}

fn of_letter(letter: u8) -> Option<LogLevel> {
    match letter {
        b'D' | b'T' | b'V' => Some(LogLevel::Debug),
        b'I' | b'N' => Some(LogLevel::Info),
        b'W' => Some(LogLevel::Warning),
        b'E' | b'F' | b'C' => Some(LogLevel::Error),
        _ => None,
    }
}

fn in_json(head: &[u8]) -> Option<LogLevel> {
    const KEYS: [&[u8]; 4] = [b"\"level\"", b"\"severity\"", b"\"levelname\"", b"\"lvl\""];
    let value = KEYS.iter().find_map(|key| {
        let after = head.get(memmem::find(head, key)? + key.len()..)?;
        after.trim_ascii_start().strip_prefix(b":")
    })?;
    let value = value.trim_ascii_start();
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let end = value.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(value.len());
    of_word(value.get(..end)?)
}

/// A word in capitals, or one behind `level=`, or one in brackets or before a colon.
fn in_text(head: &[u8]) -> Option<LogLevel> {
    let clocked = head.first().is_some_and(u8::is_ascii_digit);
    let mut at = 0;
    while let Some(start) = head.get(at..)?.iter().position(u8::is_ascii_alphabetic) {
        let start = at + start;
        let rest = head.get(start..)?;
        let length =
            rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
        at = start + length;
        let word = rest.get(..length)?;
        let before = start.checked_sub(1).and_then(|at| head.get(at));
        if (word.len() > 1 || clocked)
            && counts(word, before, head.get(at))
            && let Some(level) = of_word(word)
        {
            return Some(level);
        }
    }
    None
}

/// Whether a word may be a level for how it stands in its line.
fn counts(word: &[u8], before: Option<&u8>, after: Option<&u8>) -> bool {
    let capitals = word.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    match word {
        // PostgreSQL's, and no name of a variable.
        b"LOG" => after == Some(&b':'),
        // llama.cpp, behind its clock.
        [_] => before == Some(&b' ') && after == Some(&b' ') && capitals,
        _ => {
            (capitals && !matches!(after, Some(b'_' | b'=' | b'-')) && before != Some(&b'_'))
                || (before == Some(&b'=') && !capitals)
                || (before == Some(&b'[') && after == Some(&b']'))
                || (after == Some(&b':') && before.is_none())
        }
    }
}

fn of_word(word: &[u8]) -> Option<LogLevel> {
    const WORDS: [(&[u8], LogLevel); 24] = [
        (b"info", LogLevel::Info),
        (b"debug", LogLevel::Debug),
        (b"warning", LogLevel::Warning),
        (b"error", LogLevel::Error),
        (b"warn", LogLevel::Warning),
        (b"trace", LogLevel::Debug),
        (b"notice", LogLevel::Info),
        (b"log", LogLevel::Info),
        (b"critical", LogLevel::Error),
        (b"fatal", LogLevel::Error),
        (b"panic", LogLevel::Error),
        (b"err", LogLevel::Error),
        (b"crit", LogLevel::Error),
        (b"alert", LogLevel::Error),
        (b"emerg", LogLevel::Error),
        (b"dbg", LogLevel::Debug),
        (b"i", LogLevel::Info),
        (b"w", LogLevel::Warning),
        (b"e", LogLevel::Error),
        (b"d", LogLevel::Debug),
        (b"traceback", LogLevel::Error),
        (b"statement", LogLevel::Error),
        (b"detail", LogLevel::Error),
        (b"hint", LogLevel::Error),
    ];
    let letters = word.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let word = word.get(..letters)?;
    if word.len() > 9 {
        return None;
    }
    WORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, level)| *level)
}

/// Which lines belong to the one before: indented ones, and what Python, Java and Rust write
/// around them.
#[derive(Debug, Default)]
pub struct Joins {
    /// In a Python traceback: the next line that is not indented is its last.
    traceback: bool,
    /// Another traceback of the same error follows.
    chained: bool,
}

/// Beginnings of lines that go on with what was before.
const GO_ON: [&[u8]; 6] = [
    b"Caused by:",
    b"Suppressed:",
    b"stack backtrace:",
    b"note: run with",
    b"During handling of the above",
    b"The above exception was",
];

/// What was before a line.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// Its level.
    pub level: Option<LogLevel>,
    /// Whether it is of several lines already.
    pub several: bool,
}

impl Joins {
    /// Whether `line` belongs to what was before it.
    pub fn belongs(&mut self, line: &[u8], before: Option<Before>) -> bool {
        let begins_traceback = line.starts_with(b"Traceback (most recent call last)");
        let indented = matches!(line.first(), Some(b' ' | b'\t'));
        let goes_on = GO_ON.iter().any(|start| line.starts_with(start));
        let of_error = before.is_some_and(|before| before.level == Some(LogLevel::Error));
        let several = before.is_some_and(|before| before.several);
        let belongs = indented
            || goes_on
            || (line.is_empty() && (several || self.chained))
            || (begins_traceback && (of_error || self.chained))
            || (self.traceback && !begins_traceback);
        if begins_traceback {
            (self.traceback, self.chained) = (true, false);
        } else if !indented && !line.is_empty() {
            self.traceback = false;
            self.chained = goes_on;
        }
        belongs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_the_presets_are_seen() {
        for (line, expected) in [
            ("INFO 11-27 12:00:00 [api_server.py:1] started", Some(LogLevel::Info)),
            ("(EngineCore pid=7) WARNING 11-27 12:00:00 [core.py:2] slow", Some(LogLevel::Warning)),
            ("2026-11-27 12:00:00.123 UTC [42] LOG:  ready", Some(LogLevel::Info)),
            ("2026-11-27 12:00:00.123 UTC [42] FATAL:  no", Some(LogLevel::Error)),
            ("2026-11-27 12:00:00.123 UTC [42] DEBUG1:  x", Some(LogLevel::Debug)),
            ("E1127 12:00:00.123456 1 server.cc:7] bad", Some(LogLevel::Error)),
            ("[W 2026-11-27 12:00:00,123] odd", Some(LogLevel::Warning)),
            ("0.00.123.456 E srv load: no model", Some(LogLevel::Error)),
            (
                r#"{"timestamp":"2026-11-27T12:00:00Z","level":"WARN","m":1}"#,
                Some(LogLevel::Warning),
            ),
            (r#"{"severity": "error", "x": "level"}"#, Some(LogLevel::Error)),
            ("time=2026-11-27T12:00:00Z level=warn msg=x", Some(LogLevel::Warning)),
            ("2026/11/27 12:00:00 [error] 1#1: x", Some(LogLevel::Error)),
            ("2026-11-27T12:00:00.1Z  INFO qdrant: up", Some(LogLevel::Info)),
            ("info: started", Some(LogLevel::Info)),
            ("Traceback (most recent call last):", None),
            ("LOG_LEVEL=debug is set", Some(LogLevel::Debug)),
            ("ERROR_COUNT is 0", None),
            ("no error here", None),
            ("", None),
            ("{", None),
        ] {
            assert_eq!(level(line.as_bytes()), expected, "{line}");
        }
    }
}
