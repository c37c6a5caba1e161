//! Reads a page of metrics: the text format 0.0.4, and what OpenMetrics writes like it.
//!
//! The page comes from a program that may be wrong or hostile: what is not understood is passed
//! over, and nothing grows with it beyond bounds.

use std::collections::HashMap;

use aifb_schema::metric::{Kind, PREFIX};

/// Series that one replica may have: vLLM has some 150 without its buckets.
pub(super) const SERIES_MAX: usize = 400;

/// Bytes of a name, of a label's value and of a description.
const NAME_MAX: usize = 200;
const VALUE_MAX: usize = 256;
const HELP_MAX: usize = 300;

/// Labels of one series.
const LABELS_MAX: usize = 16;

/// Families whose description is remembered: Milvus has some 500.
const DESCRIBED_MAX: usize = 4096;

/// Labels by name.
type Labels<'a> = Vec<(&'a str, String)>;

/// One value of the page.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen<'a> {
    pub(super) name: &'a str,
    /// Sorted by name.
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    pub(super) kind: Kind,
    /// As the page writes it ([`unescaped`]).
    pub(super) help: &'a str,
}

/// The values of a page, and how many were left out at the bound.
pub(super) fn read(text: &str) -> (Vec<Seen<'_>>, u64) {
    let (mut types, mut helps) = (Described::new(), Described::new());
    let (mut seen, mut left_out) = (Vec::new(), 0);
    for line in text.lines() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.trim_start().splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind)) => describe(&mut types, name, kind),
                (Some("HELP"), Some(name), Some(help)) => describe(&mut helps, name, help),
                _ => {}
            }
            continue;
        }
        let Some((name, labels, value)) = sample(line) else { continue };
        let Some(kind) = kind_of(name, &types) else { continue };
        if seen.len() >= SERIES_MAX {
            left_out += 1;
            continue;
        }
        let help = helps.get(name).or_else(|| helps.get(family_of(name))).copied();
        let help = help.map_or("", |help| shortened(help, HELP_MAX));
        seen.push(Seen { name, labels, value, kind, help });
    }
    (seen, left_out)
}

/// What the page says of families, by their name.
type Described<'a> = HashMap<&'a str, &'a str>;

fn describe<'a>(known: &mut Described<'a>, name: &'a str, text: &'a str) {
    if known.len() < DESCRIBED_MAX || known.contains_key(name) {
        known.insert(name, text.trim());
    }
}

/// The family of a sample whose name says what it is of it.
fn family_of(name: &str) -> &str {
    ["_total", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The kind of a value; `None` for what is left out.
fn kind_of(name: &str, types: &Described<'_>) -> Option<Kind> {
    if name.starts_with(PREFIX) || name.ends_with("_created") || name.len() > NAME_MAX {
        return None;
    }
    let of = |name: &str| types.get(name).copied();
    let stem = name.strip_suffix("_bucket").unwrap_or(name);
    if matches!(of(stem), Some("histogram" | "summary" | "gaugehistogram" | "info" | "stateset")) {
        return None;
    }
    let counter = of(name) == Some("counter") || of(family_of(name)) == Some("counter");
    let reserved = ["_total", "_sum", "_count", "_bucket", "_info"];
    Some(if counter && name.ends_with("_total") {
        Kind::Counter
    } else if of(name) == Some("gauge") && !reserved.iter().any(|end| name.ends_with(end)) {
        Kind::Gauge
    } else {
        Kind::Unknown
    })
}

/// A line `name{label="value",…} value …`.
fn sample(line: &str) -> Option<(&str, Labels<'_>, f64)> {
    let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, rest) = line.split_at_checked(end)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    Some((name, labels, value))
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            found.sort_by(|a: &(&str, String), b| a.0.cmp(b.0));
            found.dedup_by(|a, b| a.0 == b.0);
            return Some((found, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        let name = name.trim();
        let plain = !name.is_empty()
            && name.len() <= NAME_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if !plain || found.len() >= LABELS_MAX {
            return None;
        }
        if !name.starts_with("__") {
            found.push((name, value));
        }
        rest = after;
    }
}

/// A value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                value.truncate(shortened(&value, VALUE_MAX).len());
                return Some((value, text.get(at + 1..)?));
            }
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// What an escaped text says (OpenMetrics 1.0, "Escaping"; in the older format a quotation mark
/// stands for itself).
pub(super) fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let (c, used) = match after.bytes().next() {
            Some(b'n') => ('\n', 1),
            Some(b'\\') => ('\\', 1),
            Some(b'"') => ('"', 1),
            _ => ('\\', 0),
        };
        plain.push(c);
        rest = after.get(used..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

/// The first bytes of a text, up to a whole character.
fn shortened(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(&str, Kind, f64)> {
        read(text).0.into_iter().map(|seen| (seen.name, seen.kind, seen.value)).collect()
    }

    #[test]
    fn kinds_are_what_the_page_says_where_names_allow() {
        let page = "\
# HELP vllm:num_requests_running Number of requests\n\
# TYPE vllm:num_requests_running gauge\n\
vllm:num_requests_running{engine=\"0\",model_name=\"a\\\"b\\\\c\"} 3.0\n\
# TYPE vllm:prompt_tokens_total counter\n\
vllm:prompt_tokens_total{model_name=\"m\"} 1.2e+03 1700000000000\n\
# TYPE vllm:prompt_tokens_created gauge\n\
vllm:prompt_tokens_created 1.7e9\n\
# TYPE nv_inference_request_success counter\n\
nv_inference_request_success{model=\"x\",version=\"1\"} 7\n\
# TYPE t_seconds histogram\n\
t_seconds_bucket{le=\"0.1\"} 1\n\
t_seconds_sum 0.5\n\
t_seconds_count 4\n\
# TYPE s summary\n\
s{quantile=\"0.5\"} 1\n\
# TYPE tok counter\n\
tok_total 9 # {trace=\"1\"} 1\n\
no_type 1\n\
# EOF\n";
        assert_eq!(
            names(page),
            [
                ("vllm:num_requests_running", Kind::Gauge, 3.0),
                ("vllm:prompt_tokens_total", Kind::Counter, 1200.0),
                ("nv_inference_request_success", Kind::Unknown, 7.0),
                ("t_seconds_sum", Kind::Unknown, 0.5),
                ("t_seconds_count", Kind::Unknown, 4.0),
                ("tok_total", Kind::Counter, 9.0),
                ("no_type", Kind::Unknown, 1.0),
            ]
        );
        let (seen, _) = read(page);
        assert_eq!(seen[0].labels[1], ("model_name", "a\"b\\c".to_owned()));
        assert_eq!(seen[0].help, "Number of requests");
    }

    #[test]
    fn help_is_what_the_page_means() {
        for (written, meant) in [
            ("plain", "plain"),
            (r"two\nlines", "two\nlines"),
            (r#"C:\\new \"x\" \d"#, r#"C:\new "x" \d"#),
            (r"cut off \", "cut off \\"),
        ] {
            assert_eq!(unescaped(written), meant);
        }
    }

    #[test]
    fn hostile_pages_are_passed_over() {
        let long = "x".repeat(100_000);
        for page in [
            "a{",
            "a{b",
            "a{b=",
            "a{b=\"",
            "a{b=\"\\",
            "a{b=\"c\"",
            "{} 1",
            "1a 1",
            "ä 1",
            "a",
            "a x",
            "a{ä=\"1\"} 1",
            "a{b=\"c\"}",
            "aifb_node_cpu_seconds_total 1",
            "# TYPE a",
            &format!("{long} 1"),
            &format!("a{{{long}=\"1\"}} 1"),
            &format!("a{{{}}} 1", "b=\"1\",".repeat(17)),
        ] {
            assert_eq!(read(page).0, [], "{page:.40}");
        }
        let text = format!("a{{b=\"{long}ü\"}} 1\n");
        let (seen, _) = read(&text);
        assert_eq!(seen[0].labels[0].1.len(), VALUE_MAX);
    }

    /// What `fuzz/targets/engine_page.rs` looks for at length.
    #[test]
    fn no_page_can_make_it_panic() {
        let parts = [
            "a",
            "b:c",
            "{",
            "}",
            "=",
            "\"",
            "\\",
            ",",
            " ",
            "\n",
            "#",
            " TYPE ",
            " HELP ",
            "gauge",
            "counter",
            "histogram",
            "_total",
            "_bucket",
            "1",
            "e9",
            "NaN",
            "\u{20ac}",
            "\r",
            "__x",
        ];
        let mut random = 1_u64;
        for length in 0..3_000 {
            let text: String = (0..length % 80)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    parts[usize::try_from(random >> 40).unwrap() % parts.len()]
                })
                .collect();
            for Seen { name, labels, .. } in read(&text).0 {
                assert!(!name.is_empty() && labels.is_sorted_by(|a, b| a.0 < b.0), "{text}");
            }
        }
    }

    #[test]
    fn a_page_without_end_is_cut_and_said_so() {
        let page: String = (0..1000).map(|i| format!("a{{b=\"{i}\"}} 1\n")).collect();
        let (seen, left_out) = read(&page);
        assert_eq!((seen.len(), left_out), (SERIES_MAX, 600));
        // Nor is it remembered what it says of families without end.
        let page: String =
            (0..10 * DESCRIBED_MAX).map(|i| format!("# TYPE f{i} gauge\n")).collect();
        let last = 10 * DESCRIBED_MAX - 1;
        let page = format!("{page}f0 1\nf{last} 1\n# TYPE f0 counter\n");
        assert_eq!(names(&page)[0].1, Kind::Gauge);
        assert_eq!(names(&page)[1].1, Kind::Unknown);
    }
}
