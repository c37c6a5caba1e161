//! Reads YAML (and so JSON) into a tree that remembers where each part stood.
//!
//! Refused, with line and column: duplicate keys, anchors and aliases (an alias can blow a small
//! file up), tags, several documents, keys that are not text, nesting beyond [`DEPTH_MAX`].

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

use super::{Diagnostic, Place};

/// Deepest nesting of a recipe; the deepest documented field stands at 6.
pub(super) const DEPTH_MAX: usize = 32;

/// Most values in a recipe: far above any real one, a bound on what a hostile file costs.
pub(super) const VALUES_MAX: usize = 20_000;

/// A parsed document: plain values, and the place of each by its JSON pointer.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// The values.
    pub(super) value: Value,
    places: HashMap<String, Places>,
}

#[derive(Debug, Clone, Copy)]
struct Places {
    /// Of the key, where the value has one.
    key: Option<Place>,
    value: Place,
}

/// A collection that is still open.
struct Open {
    pointer: String,
    place: Place,
    kind: Kind,
}

enum Kind {
    List(Vec<Value>),
    Map { map: Map<String, Value>, key: Option<(String, Place)> },
}

impl Document {
    /// Parses `text`.
    ///
    /// # Errors
    /// The first syntax error, or the first thing that recipes may not contain.
    pub(super) fn parse(text: &str) -> Result<Self, Diagnostic> {
        let mut builder = Builder::default();
        for item in Parser::new_from_str(text) {
            match item {
                Ok((event, span)) => builder.event(event, place(span))?,
                Err(error) => {
                    let at =
                        Place { line: error.marker().line(), column: error.marker().col() + 1 };
                    return Err(syntax(at, error.info()));
                }
            }
        }
        let value = builder.root.ok_or_else(|| {
            Diagnostic::new(Place { line: 1, column: 1 }, "the recipe is empty")
                .hint("a recipe starts with 'aifb: 1'; see `aifb recipe schema`")
        })?;
        Ok(Self { value, places: builder.places })
    }

    /// Values that were written in no document.
    pub(super) fn without_places(value: Value) -> Self {
        Self { value, places: HashMap::new() }
    }

    /// Where the value at `pointer` (RFC 6901) stands; the nearest enclosing value for one that
    /// is not there.
    #[must_use]
    pub(super) fn place_of(&self, pointer: &str) -> Place {
        self.find(pointer).map_or(Place { line: 1, column: 1 }, |places| places.value)
    }

    /// Where the key of the value at `pointer` stands.
    #[must_use]
    pub(super) fn key_of(&self, pointer: &str) -> Place {
        self.find(pointer)
            .map_or(Place { line: 1, column: 1 }, |places| places.key.unwrap_or(places.value))
    }

    fn find(&self, pointer: &str) -> Option<&Places> {
        let mut rest = pointer;
        loop {
            if let Some(places) = self.places.get(rest) {
                return Some(places);
            }
            rest = &rest[..rest.rfind('/')?];
        }
    }
}

/// `text` as one YAML value, for overrides such as `seed=3` or `args=[a, b]`.
///
/// # Errors
/// As [`Document::parse`].
pub(super) fn parse_value(text: &str) -> Result<Value, Diagnostic> {
    if text.trim().is_empty() {
        return Ok(Value::String(String::new()));
    }
    Document::parse(text).map(|document| document.value)
}

/// Appends one step to a JSON pointer.
#[must_use]
pub(super) fn step(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn place(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    root: Option<Value>,
    places: HashMap<String, Places>,
    documents: usize,
    values: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Place) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Diagnostic::new(at, "a second document in one file")
                        .hint("one recipe per file: remove everything from this '---' on"));
                }
            }
            Event::Alias(_) => {
                return Err(alias(at));
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse(at, anchor, tag.is_some())?;
                self.scalar(&text, style, at)?;
            }
            Event::SequenceStart(anchor, tag) => {
                refuse(at, anchor, tag.is_some())?;
                self.open(Kind::List(Vec::new()), at)?;
            }
            Event::MappingStart(anchor, tag) => {
                refuse(at, anchor, tag.is_some())?;
                self.open(Kind::Map { map: Map::new(), key: None }, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    let value = match open.kind {
                        Kind::List(list) => Value::Array(list),
                        Kind::Map { map, .. } => Value::Object(map),
                    };
                    self.place(&open.pointer, open.place);
                    self.push(value);
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// The pointer of the value that comes next.
    fn next_pointer(&self) -> String {
        match self.stack.last() {
            None => String::new(),
            Some(Open { pointer, kind: Kind::List(list), .. }) => {
                format!("{pointer}/{}", list.len())
            }
            Some(Open { pointer, kind: Kind::Map { key, .. }, .. }) => {
                step(pointer, key.as_ref().map_or("", |(name, _)| name))
            }
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { kind: Kind::Map { key: None, .. }, .. }))
    }

    fn open(&mut self, kind: Kind, at: Place) -> Result<(), Diagnostic> {
        if self.expects_key() {
            return Err(Diagnostic::new(at, "a list or map cannot be a key")
                .hint("keys are words, such as name: or services:"));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(too_deep(at));
        }
        let pointer = self.next_pointer();
        self.stack.push(Open { pointer, place: at, kind });
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Place) -> Result<(), Diagnostic> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Diagnostic::new(
                at,
                format!("more than {VALUES_MAX} values in one recipe"),
            )
            .hint("put data in separate files"));
        }
        if let Some(Open { pointer, kind: Kind::Map { map, key: slot @ None }, .. }) =
            self.stack.last_mut()
        {
            if map.contains_key(text) {
                let first = self.places.get(&step(pointer, text)).and_then(|places| places.key);
                let first =
                    first.map_or(String::new(), |place| format!(", first on line {}", place.line));
                return Err(Diagnostic::new(
                    at,
                    format!("key '{}' is given twice{first}", shown(text)),
                )
                .hint("keep one of the two"));
            }
            *slot = Some((text.to_owned(), at));
            return Ok(());
        }
        let value =
            if style == ScalarStyle::Plain { plain(text) } else { Value::String(text.to_owned()) };
        let pointer = self.next_pointer();
        self.place(&pointer, at);
        self.push(value);
        Ok(())
    }

    fn place(&mut self, pointer: &str, at: Place) {
        let key = match self.stack.last() {
            Some(Open { kind: Kind::Map { key: Some((_, place)), .. }, .. }) => Some(*place),
            _ => None,
        };
        self.places.insert(pointer.to_owned(), Places { key, value: at });
    }

    fn push(&mut self, value: Value) {
        match self.stack.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(value),
            Some(Kind::List(list)) => list.push(value),
            Some(Kind::Map { map, key }) => {
                if let Some((name, _)) = key.take() {
                    map.insert(name, value);
                }
            }
        }
    }
}

/// What the parser says, in this format's words where it has some.
fn syntax(at: Place, info: &str) -> Diagnostic {
    if info.contains("recursion limit") {
        return too_deep(at);
    }
    if info.contains("unknown anchor") {
        return alias(at);
    }
    Diagnostic::new(at, format!("not valid YAML: {info}"))
        .hint("check indentation, colons and quotes around this place")
}

fn too_deep(at: Place) -> Diagnostic {
    Diagnostic::new(at, format!("nested deeper than {DEPTH_MAX} levels"))
        .hint("no key of a recipe stands deeper than 6: check brackets and indentation")
}

fn alias(at: Place) -> Diagnostic {
    Diagnostic::new(at, "an alias (*name) is not allowed in a recipe")
        .hint("write the value out, or use `sweep` to vary it")
}

fn refuse(at: Place, anchor: usize, tagged: bool) -> Result<(), Diagnostic> {
    if anchor != 0 {
        return Err(Diagnostic::new(at, "an anchor (&name) is not allowed in a recipe")
            .hint("write the value out where it is needed"));
    }
    if tagged {
        return Err(
            Diagnostic::new(at, "a tag (!name) is not allowed in a recipe").hint("remove the tag")
        );
    }
    Ok(())
}

/// A plain scalar by the YAML 1.2 core schema (yaml.org/spec/1.2.2, 10.3.2).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Value::String(text.to_owned());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::Number(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Value::Number(number.into());
    }
    let numeric =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
            && text.bytes().any(|b| b.is_ascii_digit());
    match text.parse::<f64>().ok().filter(|_| numeric).and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

/// A user's text inside a message: short and printable.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_places() {
        let document =
            Document::parse("a: 1\nb:\n  - x: true\n    y: 01:00:00\n  - 2.5\n").unwrap();
        assert_eq!(document.value["b"][0]["y"], "01:00:00");
        assert_eq!(document.value["b"][1], 2.5);
        assert_eq!(document.place_of("/b/0/y"), Place { line: 4, column: 8 });
        assert_eq!(document.key_of("/b/0/y"), Place { line: 4, column: 5 });
        assert_eq!(document.key_of("/b/0/none"), document.key_of("/b/0"));
    }

    #[test]
    fn json_is_read_too() {
        let document = Document::parse("{\"a\": {\"b\": [1, \"2\", null]}}").unwrap();
        assert_eq!(document.value["a"]["b"], serde_json::json!([1, "2", null]));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "[".repeat(40);
        for text in [
            "a: &x 1\nb: *x",
            "a: !!binary x",
            "a: 1\na: 2",
            "a: 1\n---\nb: 2",
            "? [a]\n: 1",
            "",
            "a: [1",
            &deep,
        ] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
        let twice = Document::parse("a: 1\nb: 2\na: 3").unwrap_err();
        assert_eq!((twice.place.line, twice.place.column), (3, 1));
        assert!(twice.message.contains("first on line 1"));
    }
}
