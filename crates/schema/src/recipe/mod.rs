//! Recipe, version 1: what to run, what load to put on it, what to keep.
//!
//! [`resolve`] is the only way in: strict, and each complaint has line, column, cause and hint. What
//! it gives is written into the run folder, so that nobody else has to read YAML.

mod apply;
mod arrival;
mod check;
mod dataset;
mod document;
mod drivers;
mod explain;
mod kind;
mod kserve;
mod level;
mod load_types;
mod log_types;
mod model_types;
pub mod moved;
mod placement_types;
mod points;
mod preset;
mod preset_file;
mod receiver_types;
mod resolve;
mod search;
mod service;
mod service_types;
mod stop;
mod types;
mod wire_types;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use apply::{apply_option, apply_set, set_path};
pub use arrival::*;
pub use dataset::*;
pub use drivers::*;
pub use kind::ServiceKind;
pub use kserve::*;
pub use load_types::*;
pub use log_types::*;
pub use model_types::*;
pub use placement_types::*;
pub use points::{POINTS_MAX, Point};
pub use preset::{Known, Origin, Preset, Presets};
pub use receiver_types::*;
pub use resolve::{Resolved, ResolvedError, resolve, resolve_kept};
pub use search::*;
pub use service::Probe;
pub use service_types::*;
pub use stop::*;
pub use types::*;
pub use wire_types::*;

use document::{Document, shown};
use explain::explain;

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One complaint about a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// The `PATH=VALUE` override to blame, when it was not the file.
    pub set: Option<String>,
}

impl Diagnostic {
    fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None, set: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `file:line:column: message`, then the hint on a line of its own.
    #[must_use]
    pub fn render(&self, file: &str) -> String {
        let mut text = match &self.set {
            Some(set) => format!("--aifb-set '{}': {}", shown(set), self.message),
            None => format!("{file}:{}:{}: {}", self.place.line, self.place.column, self.message),
        };
        if let Some(hint) = &self.hint {
            text.push_str("\n  hint: ");
            text.push_str(hint);
        }
        text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render("recipe"))
    }
}

/// The recipe that is run, with the presets that are built in; [`resolve`] keeps more.
///
/// # Errors
/// As [`resolve`].
pub fn parse(text: &str, sets: &[String]) -> Result<Recipe, Vec<Diagnostic>> {
    resolve(text, sets, Presets::built_in()).map(Resolved::into_recipe)
}

/// A load that comes from no recipe, read and checked as one of a recipe. The complaints' places mean
/// nothing.
///
/// # Errors
/// The complaints.
pub fn load(value: Value) -> Result<Load, Vec<Diagnostic>> {
    let document = Document::without_places(value);
    let load: Load = from_document(&document).map_err(|error| vec![error])?;
    match check::check_load(&load, &document) {
        found if found.is_empty() => Ok(load),
        found => Err(found),
    }
}

/// The JSON Schema of a recipe, generated from the types.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Recipe).to_value();
    if let Value::Object(map) = &mut schema {
        map.insert("title".into(), "aifb recipe, version 1".into());
    }
    let kinds = schema.pointer_mut("/$defs/ServiceKind/anyOf").and_then(Value::as_array_mut);
    if let Some(kinds) = kinds {
        let presets = Presets::built_in().iter();
        let described =
            presets.map(|(kind, known)| ServiceKind::schema_of(kind, &known.preset.description));
        kinds.splice(..0, described);
    }
    schema
}

fn check_version(document: &Document) -> Result<(), Diagnostic> {
    let Value::Object(map) = &document.value else {
        return Err(Diagnostic::new(
            document.place_of(""),
            "a recipe is a map of keys, this is not",
        )
        .hint("start with 'aifb: 1' and 'name: …'"));
    };
    match map.get("aifb") {
        Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(()),
        Some(other) => Err(Diagnostic::new(
            document.place_of("/aifb"),
            format!("recipe version {other} is not known"),
        )
        .hint("this program reads version 1: write 'aifb: 1'")),
        None => Err(Diagnostic::new(
            document.place_of(""),
            "the key 'aifb' (the recipe's version) is missing",
        )
        .hint("add 'aifb: 1' as the first line")),
    }
}

fn from_document<T: DeserializeOwned>(document: &Document) -> Result<T, Diagnostic> {
    serde_path_to_error::deserialize(&document.value).map_err(|error| explain(document, &error))
}

#[cfg(test)]
mod tests;
