//! Plain values as YAML, in the style of the examples: block maps, short lists on one line.

use serde_json::{Map, Value};

/// Keys that stand before all others, as in the examples; the others follow by the alphabet.
const FIRST: [&str; 9] =
    ["aifb", "name", "description", "kind", "service", "driver", "slurm", "services", "load"];

/// Longest list written on one line, in characters.
const LINE_MAX: usize = 80;

/// Writes a map as a YAML document.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in in_order(map) {
                text.push_str(&format!("{indent}{}:", scalar_text(key)));
                child(value, depth, text);
            }
        }
        Value::Array(list) => {
            for value in list {
                let mut item = String::new();
                block(value, depth + 1, &mut item);
                // The first key stands beside the dash.
                let rest = item.trim_start().to_owned();
                text.push_str(&format!("{indent}- {rest}"));
            }
        }
        scalar => text.push_str(&format!("{indent}{}\n", flow(scalar))),
    }
}

fn in_order(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut members: Vec<(&String, &Value)> = map.iter().collect();
    let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
    members.sort_by_key(|(key, _)| (rank(key), key.as_str()));
    members.into_iter()
}

/// What stands behind a key.
fn child(value: &Value, depth: usize, text: &mut String) {
    let short = flow(value);
    let nested = match value {
        Value::Object(map) => !map.is_empty() && !map.values().all(is_scalar),
        Value::Array(list) => list.iter().any(Value::is_object),
        _ => false,
    };
    if nested || (short.len() > LINE_MAX && matches!(value, Value::Object(_) | Value::Array(_))) {
        text.push('\n');
        block(value, depth + 1, text);
    } else {
        text.push_str(&format!(" {short}\n"));
    }
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Object(_) | Value::Array(_))
}

/// A value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let members: Vec<String> = in_order(map)
                .map(|(key, value)| format!("{}: {}", scalar_text(key), flow(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(list) => {
            format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => scalar_text(text),
        other => other.to_string(),
    }
}

/// A text, quoted (as JSON, which YAML reads) unless it cannot be taken for anything else.
fn scalar_text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain || is_quantity(text) {
        return text.to_owned();
    }
    Value::String(text.to_owned()).to_string()
}

/// `250ms`, `20/s`, `64GiB`: digits followed by a unit, which no YAML reader takes for a number.
fn is_quantity(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    text.starts_with(|c: char| c.is_ascii_digit())
        && !unit.is_empty()
        && !unit.starts_with(['e', 'E', 'x', 'o', 'b'])
        && unit.bytes().all(|b| b.is_ascii_alphabetic() || b == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_look_as_people_write_them() {
        let value = json!({
            "aifb": 1,
            "list": ["a", "8192", "{port}"],
            "services": [{"name": "x", "health": {"http": "/"}, "env": {"A": {"secret_env": "B"}}}],
            "time": "01:00:00",
            "rate": "20/s",
            "empty": {},
        });
        assert_eq!(
            write(&value),
            "aifb: 1\nservices:\n  - name: x\n    env:\n      A: {secret_env: B}\n    health: \
             {http: /}\nempty: {}\nlist: [a, \"8192\", \"{port}\"]\nrate: 20/s\ntime: \
             \"01:00:00\"\n"
        );
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        for text in ["yes", "1", "1e3", "0x10", "a: b", "", "~", "- x", "#", "é", "01:00:00"] {
            assert!(scalar_text(text).starts_with('"'), "{text}");
        }
        for text in ["apptainer", "20/s", "250ms", "64GiB", "/health"] {
            assert_eq!(scalar_text(text), text);
        }
    }
}
