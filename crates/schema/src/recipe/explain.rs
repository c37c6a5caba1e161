//! Serde's messages as complaints with place and hint.

use serde_path_to_error::Segment;

use super::{
    Diagnostic,
    document::{Document, shown, step},
};

/// Turns serde's message into a complaint with place and hint.
pub(super) fn explain(
    document: &Document,
    error: &serde_path_to_error::Error<serde_json::Error>,
) -> Diagnostic {
    let mut pointer = String::new();
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => pointer = step(&pointer, &index.to_string()),
            Segment::Map { key } => pointer = step(&pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let message = error.inner().to_string();
    let path = error.path().to_string();
    let within = if path == "." { "the recipe".to_owned() } else { format!("'{path}'") };
    if let Some((unknown, known)) = words(&message, "unknown field `") {
        // Depending on where serde noticed it, the path ends at the map or at the key itself.
        let own = step(&pointer, unknown);
        let at = if document.value.pointer(&own).is_some() { own } else { pointer };
        let parent = if path.ends_with(unknown) {
            path.rsplit_once('.').map_or("the recipe", |(p, _)| p)
        } else {
            path.as_str()
        };
        let parent = if parent == "." { "the recipe" } else { parent };
        return Diagnostic::new(
            document.key_of(&at),
            format!("unknown key '{}' in {parent}", shown(unknown)),
        )
        .hint(suggest(unknown, &known));
    }
    if let Some((unknown, known)) = words(&message, "unknown variant `") {
        return Diagnostic::new(
            document.place_of(&pointer),
            format!("{within}: unknown value '{}'", shown(unknown)),
        )
        .hint(suggest(unknown, &known));
    }
    if let Some(key) = message.strip_prefix("missing field `").and_then(|m| m.strip_suffix('`')) {
        return Diagnostic::new(
            document.key_of(&pointer),
            format!("{within}: missing key '{key}'"),
        )
        .hint(format!("add {}", example(key)));
    }
    let (cause, hint) = cause_and_hint(&message);
    let complaint = Diagnostic::new(document.place_of(&pointer), format!("{within}: {cause}"));
    match hint {
        Some(hint) => complaint.hint(hint),
        None => complaint,
    }
}

/// Splits "what is wrong: expected what would be right"; serde's own words become a user's.
fn cause_and_hint(message: &str) -> (String, Option<String>) {
    let message = message
        .replace("invalid type: ", "wrong type: ")
        .replace("invalid value: ", "wrong value: ")
        .replace('`', "'");
    for separator in [", expected ", ": expected "] {
        if let Some((cause, expected)) = message.split_once(separator) {
            return (cause.to_owned(), Some(format!("expected {}", in_plain_words(expected))));
        }
    }
    if let Some(expected) = message.strip_prefix("expected ") {
        return ("not a value for this key".to_owned(), Some(format!("expected {expected}")));
    }
    match message.rsplit_once(": ") {
        Some((cause, hint)) if hint.starts_with("choose ") || hint.starts_with("at most ") => {
            (cause.to_owned(), Some(hint.to_owned()))
        }
        _ => (message, None),
    }
}

/// Names of Rust types mean nothing to who writes a recipe.
fn in_plain_words(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text; a number as text stands in quotes",
        "a sequence" => "a list, such as [a, b]",
        "a map" => "a map, such as {key: value}",
        "option" => "a value, or nothing",
        other if other.starts_with("struct ") => "a map of keys, such as {name: …}",
        other => other,
    }
}

/// How a missing key could be written.
pub(super) fn example(key: &str) -> String {
    let value = match key {
        "name" => "my-name",
        "services" => "[{name: …, kind: …}]",
        "kind" => "container (or a preset: aifb services)",
        "driver" => "http (or another: aifb recipe reference)",
        "arrival" => "{process: poisson, rate: 20/s}, or {concurrency: 16}",
        "phases" => "{warmup: 10s, measure: 5m}",
        "measure" => "5m, or {requests: 1000}",
        "matrix" => "{load.chat.arrival.rate: [1/s, 5/s]}",
        "requests" => "1000",
        "model" => "NAME or PATH",
        _ => "…",
    };
    format!("{key}: {value}")
}

/// The closest known word, or all of them.
pub(super) fn suggest(unknown: &str, known: &[String]) -> String {
    let all = format!("known here: {}", known.join(", "));
    let best = known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&unknown.to_lowercase(), word), word))
        .min_by_key(|(distance, _)| *distance);
    match best {
        Some((distance, word)) if distance <= 1 + word.len() / 4 => {
            format!("did you mean '{word}'? {all}")
        }
        _ => all,
    }
}

/// Splits serde's "<start>x`, expected one of `a`, `b`".
fn words<'a>(message: &'a str, start: &str) -> Option<(&'a str, Vec<String>)> {
    let (unknown, rest) = message.strip_prefix(start)?.split_once("`, ")?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown, known))
}
