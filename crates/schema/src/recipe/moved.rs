//! Keys of a load that stood elsewhere before, in one table.
//!
//! A recipe that uses an old place is refused with a hint that names the new one ([`complaints`]).
//! Run folders keep recipes, overrides and settings as they were submitted: those are rewritten
//! ([`rewrite`], [`rewrite_set`], [`rewrite_settings`]).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Diagnostic,
    document::{Document, shown, step},
};

/// Old and new place of each key that has moved, both within a load.
pub const MOVED: [(&str, &str); 12] = [
    ("engine", "connection.engine"),
    ("http_version", "connection.http_version"),
    ("quick_ack", "connection.quick_ack"),
    ("tls", "connection.tls"),
    ("api_key_header", "connection.api_key_header"),
    ("stream", "llm.stream"),
    ("tools", "llm.tools"),
    ("extra", "llm.extra"),
    ("batch", "llm.batch"),
    ("dimensions", "llm.dimensions"),
    ("ollama", "llm.ollama"),
    // A list before, a section now.
    ("command", "command.argv"),
];

/// The new place of `path`, such as `load.chat.engine`, at which `value` stands; absent where it has
/// not moved.
#[must_use]
pub fn new_path(path: &str, value: &Value) -> Option<String> {
    let mut parts = path.trim().splitn(3, '.');
    let (Some("load"), Some(name), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    new_key(key, value).map(|key| format!("load.{name}.{key}"))
}

/// As [`new_path`], for a path within a load: `engine`, `extra.temperature`.
#[must_use]
pub fn new_key(path: &str, value: &Value) -> Option<String> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    let (_, new) = MOVED.iter().find(|(old, _)| *old == first)?;
    // A key that is a section now has moved where its value is the list that it was.
    let old_form = match rest {
        None => value.is_array(),
        Some(rest) => rest.bytes().all(|b| b.is_ascii_digit()),
    };
    let is_section = new.split('.').next() == Some(first);
    (!is_section || old_form).then(|| match rest {
        None => (*new).to_owned(),
        Some(rest) => format!("{new}.{rest}"),
    })
}

/// Puts every key of a recipe where it stands today: in the loads and in the sweep's paths. What
/// says nothing (an empty list, the default engine) goes, since its section may have no meaning for
/// the load's driver.
pub fn rewrite(recipe: &mut Value) {
    if let Some(loads) = recipe.get_mut("load").and_then(Value::as_array_mut) {
        loads.iter_mut().filter_map(Value::as_object_mut).for_each(rewrite_load);
    }
    if let Some(matrix) = recipe.pointer_mut("/sweep/matrix").and_then(Value::as_object_mut) {
        let old = std::mem::take(matrix);
        matrix.extend(old.into_iter().map(|(path, values)| {
            let first = values.get(0).unwrap_or(&Value::Null);
            (new_path(&path, first).unwrap_or(path), values)
        }));
    }
}

fn rewrite_load(load: &mut Map<String, Value>) {
    for (old, _) in MOVED {
        let Some(new) = load.get(old).and_then(|value| new_key(old, value)) else { continue };
        let Some((value, (section, key))) = load.remove(old).zip(new.split_once('.')) else {
            continue;
        };
        if says_nothing(old, &value) {
            continue;
        }
        let section = load.entry(section).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(section) = section {
            section.entry(key).or_insert(value);
        }
    }
}

fn says_nothing(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(word) => key == "engine" && word == "auto",
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// An override `PATH=VALUE` with its path as it is today.
#[must_use]
pub fn rewrite_set(set: &str) -> String {
    let moved = set.split_once('=').and_then(|(path, value)| {
        let parsed = super::document::parse_value(value).ok()?;
        Some(format!("{}={value}", new_path(path, &parsed)?))
    });
    moved.unwrap_or_else(|| set.to_owned())
}

/// The settings of a sweep's point with their paths as they are today.
pub fn rewrite_settings(settings: &mut BTreeMap<String, Value>) {
    let old = std::mem::take(settings);
    settings.extend(
        old.into_iter().map(|(path, value)| (new_path(&path, &value).unwrap_or(path), value)),
    );
}

/// A complaint for each key of `document` that stands at an old place.
pub(super) fn complaints(document: &Document) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let loads = document.value.get("load").and_then(Value::as_array);
    for (index, load) in loads.into_iter().flatten().enumerate() {
        let keys = load.as_object().into_iter().flatten();
        for (key, value) in keys {
            let Some(new) = new_key(key, value) else { continue };
            let at = document.key_of(&step(&format!("/load/{index}"), key));
            let name = load.get("name").and_then(Value::as_str).unwrap_or("?");
            let message = format!("load '{}': the key '{key}' has moved to {new}", shown(name));
            found.push(Diagnostic::new(at, message).hint(example(&new, value)));
        }
    }
    let matrix = document.value.pointer("/sweep/matrix").and_then(Value::as_object);
    for (path, values) in matrix.into_iter().flatten() {
        let Some(new) = new_path(path, values.get(0).unwrap_or(&Value::Null)) else { continue };
        let at = document.key_of(&step("/sweep/matrix", path));
        found.push(
            Diagnostic::new(at, format!("the key '{}' has moved", shown(path)))
                .hint(format!("write {}", shown(&new))),
        );
    }
    found.sort_by_key(|complaint| complaint.place);
    found
}

/// How the key is written at its new place.
fn example(new: &str, value: &Value) -> String {
    let (section, key) = new.split_once('.').unwrap_or((new, ""));
    let value = match value {
        Value::Array(_) => "[…]".to_owned(),
        Value::Object(_) => "{…}".to_owned(),
        scalar => shown(&scalar.to_string()).replace("\\\"", "\""),
    };
    format!("write {section}: {{{key}: {value}}}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_places_lead_to_new_ones() {
        let list = json!(["a"]);
        for (old, value, new) in [
            ("load.chat.engine", json!("raw"), Some("load.chat.connection.engine")),
            ("load.chat.tls.ca", json!("x"), Some("load.chat.connection.tls.ca")),
            ("load.0.extra.options.seed", json!(1), Some("load.0.llm.extra.options.seed")),
            ("load.chat.command", list.clone(), Some("load.chat.command.argv")),
            ("load.chat.command.0", json!("a"), Some("load.chat.command.argv.0")),
            ("load.chat.command", json!({"argv": ["a"]}), None),
            ("load.chat.command.argv", list.clone(), None),
            ("load.chat.connection.engine", json!("raw"), None),
            ("load.chat.seed", json!(1), None),
            ("services.llm.command", list, None),
            ("monitor.loki.tls", json!({}), None),
            ("load", json!([]), None),
        ] {
            assert_eq!(new_path(old, &value).as_deref(), new, "{old}");
        }
    }

    #[test]
    fn every_new_place_is_a_key_of_a_load() {
        let schema = super::super::json_schema();
        for (old, new) in MOVED {
            assert!(in_schema(&schema, new), "{new}");
            assert!(old == "command" || !in_schema(&schema, old), "{old}");
        }
    }

    /// Whether the schema's load has this path.
    fn in_schema(schema: &Value, path: &str) -> bool {
        super::super::drivers::tests::key_in_schema(schema, path)
    }

    #[test]
    fn kept_recipes_are_rewritten() {
        let mut recipe = json!({
            "load": [
                {"name": "a", "engine": "raw", "tls": {"insecure": true}, "stream": false},
                {"name": "b", "engine": "auto", "tools": [], "command": ["true", "x"]},
                {"name": "c", "command": {"argv": ["true"]}},
            ],
            "sweep": {"matrix": {"load.a.extra.top_k": [1, 2], "load.a.seed": [1]}},
        });
        rewrite(&mut recipe);
        let expected = json!({
            "load": [
                {
                    "name": "a",
                    "connection": {"engine": "raw", "tls": {"insecure": true}},
                    "llm": {"stream": false},
                },
                {"name": "b", "command": {"argv": ["true", "x"]}},
                {"name": "c", "command": {"argv": ["true"]}},
            ],
            "sweep": {"matrix": {"load.a.llm.extra.top_k": [1, 2], "load.a.seed": [1]}},
        });
        assert_eq!(recipe, expected);
        let again = recipe.clone();
        rewrite(&mut recipe);
        assert_eq!(recipe, again, "nothing moves twice");
        assert_eq!(rewrite_set("load.a.command=[x, y]"), "load.a.command.argv=[x, y]");
        assert_eq!(rewrite_set("load.a.seed=1"), "load.a.seed=1");
        let mut settings = [("load.a.batch".to_owned(), json!(4))].into();
        rewrite_settings(&mut settings);
        assert_eq!(settings["load.a.llm.batch"], 4);
    }
}
