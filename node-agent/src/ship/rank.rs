//! The rank that a log line shows, where the processes of an engine write into one file.
//!
//! Known forms: `[rank0]: …` (PyTorch), `(Worker_DP0_TP1 pid=42) …` and `(VllmWorker rank=1 pid=42) …`,
//! coloured or not (vLLM), `[2026-11-27 12:00:00 DP0 TP1] …` (SGLang).

use memchr::{memchr, memmem};

/// Bytes in which a prefix ends.
const PREFIX_MAX: usize = 96;

/// Bytes of a rank: `DP0_PP1_TP2_EP3` and some.
const RANK_MAX: usize = 32;

/// Bytes of `2026-11-27 12:00:00`.
const TIME: usize = 19;

/// Where the rank stands in a line; absent where it shows none. It is ASCII.
pub(super) fn rank(line: &[u8]) -> Option<(usize, usize)> {
    let text = line.get(..PREFIX_MAX).unwrap_or(line);
    let found = match text.first()? {
        b'[' => in_brackets(text.get(1..memchr(b']', text)?)?),
        b'(' => in_parentheses(text.get(1..memchr(b')', text)?)?),
        b'\x1b' => {
            let open = memchr(b'm', text)? + 1;
            let inner = text.get(open..)?.strip_prefix(b"(")?;
            in_parentheses(inner.get(..memchr(b')', inner)?)?)
        }
        _ => None,
    }?;
    let start = found.as_ptr().addr() - line.as_ptr().addr();
    (found.len() <= RANK_MAX).then_some((start, start + found.len()))
}

/// `rank0`, or a time and words such as `DP0 TP1`.
fn in_brackets(text: &[u8]) -> Option<&[u8]> {
    if let Some(number) = text.strip_prefix(b"rank") {
        return is_number(number).then_some(number);
    }
    let (time, rest) = text.split_at_checked(TIME)?;
    let dated = time.first()?.is_ascii_digit() && time.get(10) == Some(&b' ');
    let words = rest.get(memchr(b' ', rest)? + 1..)?;
    (dated && are_coordinates(words, b' ')).then_some(words)
}

/// A process' name and ` pid=…`.
fn in_parentheses(text: &[u8]) -> Option<&[u8]> {
    let name = text.get(..memmem::find(text, b" pid=")?)?;
    if let Some(at) = memmem::find(name, b" rank=") {
        let number = name.get(at + b" rank=".len()..)?;
        return is_number(number).then_some(number);
    }
    let coordinates = name.get(memchr(b'_', name)? + 1..)?;
    are_coordinates(coordinates, b'_').then_some(coordinates)
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Whether each word is capital letters and a number: `DP0`, `TP11`.
fn are_coordinates(text: &[u8], between: u8) -> bool {
    text.split(|byte| *byte == between).all(|word| {
        let letters = word.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        (1..=4).contains(&letters) && word.get(letters..).is_some_and(is_number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<&str> {
        rank(line.as_bytes()).map(|(start, end)| &line[start..end])
    }

    #[test]
    fn ranks_of_engines() {
        for (line, expected) in [
            ("[rank0]: Traceback (most recent call last):", "0"),
            ("[rank12]:[W1127 12:00:00.1 CUDAGuard.h:4] x", "12"),
            ("(Worker_TP1 pid=42) INFO 11-27 12:00:00 x", "TP1"),
            ("(Worker_DP0_TP11_EP3 pid=42) x", "DP0_TP11_EP3"),
            ("\x1b[1;36m(EngineCore_DP0 pid=7)\x1b[0;0m ERROR x", "DP0"),
            ("(VllmWorker rank=3 pid=42) WARNING x", "3"),
            ("[2026-11-27 12:00:00 TP0] Decode batch", "TP0"),
            ("[2026-11-27 12:00:00.123 DP1 TP0] x", "DP1 TP0"),
        ] {
            assert_eq!(shown(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn other_lines_have_none() {
        let long = format!("(Worker_{} pid=1) x", "T".repeat(90));
        let many = format!("(W_{}TP1 pid=1) x", "TP1_".repeat(9));
        for line in [
            "",
            "[",
            "(",
            "\x1b",
            "\x1b[1m",
            "[rank]: x",
            "[ranking] x",
            "[2026-11-27 12:00:00] x",
            "[2026-11-27 12:00:00 main] x",
            "[2026-11-27T12:00:00Z TP0] x",
            "[I 2026-11-27 12:00:00 TP0] x",
            "(APIServer pid=42) INFO x",
            "(APIServer_1 pid=42) INFO x",
            "(Worker_TP1) x",
            "(_ pid=1) x",
            "a (Worker_TP1 pid=42) x",
            "[ü] x",
            &long,
            &many,
        ] {
            assert_eq!(shown(line), None, "{line}");
        }
    }
}
