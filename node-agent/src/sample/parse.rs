//! The few text forms that kernel files have.

use std::io;

/// What is there is not what the kernel documents.
pub(super) fn not_understood() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// Numbers of a line, separated by blanks, until the first that is none.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split_ascii_whitespace().map_while(|word| word.parse().ok())
}

/// The number behind `key` in lines of `key value` (or `key: value kB`).
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    let [value] = keyed_all(text, [key]);
    value
}

/// The numbers behind several keys, in one pass over the text: it ends with the last key found.
pub(super) fn keyed_all<const N: usize>(text: &str, keys: [&str; N]) -> [Option<u64>; N] {
    let mut values = [None; N];
    let mut missing = N;
    for line in text.lines() {
        let end = line.find([' ', '\t', ':']).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let places = keys.iter().zip(&mut values);
        let Some((_, value)) =
            places.into_iter().find(|(key, value)| **key == word && value.is_none())
        else {
            continue;
        };
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        if !rest.starts_with([' ', '\t']) {
            continue;
        }
        *value = numbers(rest).next();
        missing -= usize::from(value.is_some());
        if missing == 0 {
            break;
        }
    }
    values
}

/// Kind and total in µs of the lines `some avg10=… total=<µs>` and `full …` of a pressure file;
/// no total where a line has another form.
pub(super) fn pressure_totals(text: &str) -> impl Iterator<Item = (&str, Option<u64>)> {
    text.lines().map(|line| {
        let kind = line.split_once(' ').map_or(line, |(kind, _)| kind);
        (kind, line.rsplit_once("total=").and_then(|(_, total)| total.parse().ok()))
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
        let several = keyed_all(text, ["MemTotal", "absent", "usage", "none"]);
        assert_eq!(several, [Some(17), None, Some(3), None]);
    }
}
