//! Overrides: `PATH=VALUE` put into a parsed recipe.

use serde_json::{Map, Value};

use super::{Diagnostic, Place, document, moved, shown};

/// Where an override's complaints point: it has no line of its own.
const NOWHERE: Place = Place { line: 1, column: 1 };

/// Puts `VALUE` (YAML) at `PATH` (`load.chat.arrival.rate`; members of a list by their `name` or
/// by number). Missing maps on the way are made; unknown keys are found afterwards by the types.
///
/// # Errors
/// If the text is not `PATH=VALUE`, the value is not YAML, the key has moved or the path leads
/// nowhere.
pub fn apply_set(recipe: &mut Value, set: &str) -> Result<(), Diagnostic> {
    apply(
        recipe,
        set,
        moved::new_path,
        ["load.chat.arrival.rate=50/s", "services.llm.args or load.chat.seed"],
    )
}

/// As [`apply_set`], with a path within a load: `arrival.rate`, `connection.engine`.
///
/// # Errors
/// As [`apply_set`].
pub fn apply_option(load: &mut Value, option: &str) -> Result<(), Diagnostic> {
    apply(
        load,
        option,
        moved::new_key,
        ["llm.extra.top_k=40", "connection.engine or dataset.turns.count"],
    )
}

fn apply(
    root: &mut Value,
    set: &str,
    moved: fn(&str, &Value) -> Option<String>,
    [example, path_example]: [&str; 2],
) -> Result<(), Diagnostic> {
    let wrong = |message: String| Diagnostic::new(NOWHERE, message);
    let (path, text) = set.split_once('=').ok_or_else(|| {
        wrong("expected PATH=VALUE".into()).hint(format!("for example {example}"))
    })?;
    let value = document::parse_value(text).map_err(|error| Diagnostic {
        hint: error.hint,
        ..wrong(format!("the value: {}", error.message))
    })?;
    if let Some(new) = moved(path, &value) {
        return Err(wrong(format!("the key '{}' has moved", shown(path)))
            .hint(format!("write {}", shown(&format!("{new}={text}")))));
    }
    set_path(root, path, value).map_err(|message| {
        wrong(message).hint(format!("a path is made of keys and names, such as {path_example}"))
    })
}

/// Puts `value` at `path`, as [`apply_set`] does.
///
/// # Errors
/// Why the path leads nowhere.
pub fn set_path(root: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let parts: Vec<&str> = path.trim().split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("'{}' is not a path", shown(path)));
    }
    let Some((last, way)) = parts.split_last() else { return Err("the path is empty".into()) };
    let mut at = root;
    for part in way {
        at = enter(at, part)?;
    }
    match at {
        Value::Object(map) => {
            map.insert((*last).to_owned(), value);
            Ok(())
        }
        Value::Array(_) => {
            *enter(at, last)? = value;
            Ok(())
        }
        _ => Err(format!("'{}': nothing can be set inside a plain value", shown(path))),
    }
}

fn enter<'a>(at: &'a mut Value, part: &str) -> Result<&'a mut Value, String> {
    match at {
        Value::Object(map) => Ok(map.entry(part).or_insert_with(|| Value::Object(Map::new()))),
        Value::Array(list) => {
            let names: Vec<String> = list.iter().filter_map(name_of).map(str::to_owned).collect();
            let by_name = list.iter().position(|member| name_of(member) == Some(part));
            let index = by_name.or_else(|| part.parse().ok()).filter(|index| *index < list.len());
            index.and_then(|index| list.get_mut(index)).ok_or_else(|| {
                let known = if names.is_empty() {
                    String::new()
                } else {
                    format!(": there are {}", names.join(", "))
                };
                format!("no member '{}'{known}", shown(part))
            })
        }
        _ => Err(format!("'{}' is inside a plain value", shown(part))),
    }
}

fn name_of(member: &Value) -> Option<&str> {
    member.get("name").and_then(Value::as_str)
}
