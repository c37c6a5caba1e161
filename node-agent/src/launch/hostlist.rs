//! Slurm's short form of node lists: `n[1-3,05],gpu[001-002]-ib`.

/// Most nodes of a list: twice the largest Slurm cluster known.
const NODES_MAX: usize = 65_536;

/// All names in their order; `None` for a text that is no such list.
pub(crate) fn expand(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for part in split_outside_brackets(list)? {
        expand_one(part, "", &mut names)?;
    }
    (!names.is_empty()).then_some(names)
}

/// The parts between commas that stand in no brackets.
fn split_outside_brackets(list: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut inside, mut start) = (false, 0);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'[' if !inside => inside = true,
            b']' if inside => inside = false,
            b'[' | b']' => return None,
            b',' if !inside => {
                parts.push(list.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list.get(start..)?);
    (!inside).then_some(parts)
}

/// Expands the first brackets of `part` and then the rest, each name beginning with `before`.
fn expand_one(part: &str, before: &str, names: &mut Vec<String>) -> Option<()> {
    let Some((prefix, rest)) = part.split_once('[') else {
        let name = format!("{before}{part}");
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) || names.len() >= NODES_MAX {
            return None;
        }
        names.push(name);
        return Some(());
    };
    let (ranges, after) = rest.split_once(']')?;
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (width, first, last) = (first.len(), number(first)?, number(last)?);
        if last < first || usize::try_from(last - first).ok()? >= NODES_MAX {
            return None;
        }
        for index in first..=last {
            expand_one(after, &format!("{before}{prefix}{index:0width$}"), names)?;
        }
    }
    Some(())
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `16(x3),8` as one number a node.
pub(crate) fn expand_counts(text: &str) -> Option<Vec<u64>> {
    let mut counts = Vec::new();
    for part in text.split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (number(count)?, number(times.strip_suffix(')')?)?),
            None => (number(part)?, 1),
        };
        let times = usize::try_from(times).ok().filter(|times| *times <= NODES_MAX)?;
        counts.extend(std::iter::repeat_n(count, times));
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_expand_in_order() {
        for (list, names) in [
            ("n1", &["n1"][..]),
            ("n[1-3]", &["n1", "n2", "n3"]),
            ("n[08-10,2],m-x", &["n08", "n09", "n10", "n2", "m-x"]),
            ("r[1-2]n[0-1]-ib", &["r1n0-ib", "r1n1-ib", "r2n0-ib", "r2n1-ib"]),
        ] {
            assert_eq!(expand(list).as_deref(), Some(&names.map_to_owned()[..]), "{list}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in ["", "n[1-", "n]1[", "n[[1]]", "n[3-1]", "n[a]", "n[1-99999999]", "a b", "a,"] {
            assert_eq!(expand(list), None, "{list}");
        }
    }

    #[test]
    fn counts_expand() {
        assert_eq!(expand_counts("16(x2),8"), Some(vec![16, 16, 8]));
        assert_eq!(expand_counts("16(x"), None);
    }

    trait MapToOwned {
        fn map_to_owned(&self) -> Vec<String>;
    }

    impl MapToOwned for [&str] {
        fn map_to_owned(&self) -> Vec<String> {
            self.iter().map(|&name| name.to_owned()).collect()
        }
    }
}
