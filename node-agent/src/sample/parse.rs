//! The few text forms that kernel files have.

use std::io;

use memchr::memmem;

/// What is there is not what the kernel documents.
pub(super) fn not_understood() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// Numbers separated by blanks and line ends, until the first word that is none.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = u64> + '_ {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let mut value = 0_u64;
        let mut digits = 0;
        for byte in rest.get(blanks..)? {
            match byte {
                b'0'..=b'9' => {
                    value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
                    digits += 1;
                }
                byte if byte.is_ascii_whitespace() => break,
                _ => return None,
            }
        }
        rest = rest.get(blanks + digits..)?;
        (digits > 0).then_some(value)
    })
    .fuse()
}

/// What stands behind `key` in the line that begins with it: `key value` or `key: value kB`.
pub(super) fn behind<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let mut from = 0;
    while let Some(at) = memmem::find(text.as_bytes().get(from..)?, key.as_bytes()) {
        let (start, end) = (from + at, from + at + key.len());
        let begins = start == 0 || text.as_bytes().get(start - 1) == Some(&b'\n');
        let rest = text.get(end..)?;
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        if begins && rest.starts_with([' ', '\t']) {
            return rest.lines().next();
        }
        from = end;
    }
    None
}

/// The number behind `key`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    behind(text, key).and_then(|rest| numbers(rest).next())
}

/// The sum of all numbers that stand right behind `mark`.
pub(super) fn sum_behind(text: &str, mark: &str) -> u64 {
    let places = memmem::find_iter(text.as_bytes(), mark.as_bytes());
    let values = places.filter_map(|at| numbers(text.get(at + mark.len()..)?).next());
    values.fold(0, u64::saturating_add)
}

/// Kind and total in µs of the lines `some avg10=… total=<µs>` and `full …` of a pressure file;
/// no total where a line has another form.
pub(super) fn pressure_totals(text: &str) -> impl Iterator<Item = (&str, Option<u64>)> {
    text.lines().map(|line| {
        let kind = line.split_once(' ').map_or(line, |(kind, _)| kind);
        let last = line.rsplit_once('=').filter(|(head, _)| head.ends_with(" total"));
        (kind, last.and_then(|(_, total)| total.parse().ok()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let text = "usage_usec 12\nusage 3\nMemTotal:   17 kB\nnone max\n";
        assert_eq!(keyed(text, "usage"), Some(3));
        assert_eq!(keyed(text, "usage_usec"), Some(12));
        assert_eq!(keyed(text, "MemTotal"), Some(17));
        assert_eq!(keyed(text, "none"), None);
        assert_eq!(keyed(text, "absent"), None);
    }

    #[test]
    fn numbers_end_at_the_first_word_that_is_none() {
        let all = |text: &str| numbers(text).collect::<Vec<_>>();
        assert_eq!(all(" 1\t22\n18446744073709551615 "), [1, 22, u64::MAX]);
        assert_eq!(all("1 2x 3"), [1]);
        for none in ["", " ", "x 1", "-1", "18446744073709551616", "1.5"] {
            assert!(all(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn marks_are_summed_wherever_they_stand() {
        let text = "8:0 rbytes=100 wbytes=7\n8:16 rbytes=5\n8:32 rbytes=x\n";
        assert_eq!(
            [" rbytes=", " wbytes=", " dbytes="].map(|mark| sum_behind(text, mark)),
            [105, 7, 0]
        );
    }
}
