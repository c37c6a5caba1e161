//! Recipe, version 1: what to run, what load to put on it, what to keep.
//!
//! [`parse`] is the only way in: strict, and each complaint has line, column, cause and hint.

mod apply;
mod arrival;
mod check;
mod dataset;
mod document;
mod explain;
mod kserve;
mod level;
mod load_types;
mod log_types;
mod model_types;
mod placement_types;
mod points;
mod preset;
mod receiver_types;
mod search;
mod service_types;
mod stop;
mod types;
mod wire_types;

use std::fmt;

use serde_json::Value;

pub use apply::apply_set;
pub use arrival::*;
pub use check::{check_model, check_workload};
pub use dataset::*;
pub use kserve::*;
pub use load_types::*;
pub use log_types::*;
pub use model_types::*;
pub use placement_types::*;
pub use points::{POINTS_MAX, Point};
pub use preset::{Preset, Probe, preset};
pub use receiver_types::*;
pub use search::*;
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

/// Reads and checks a recipe, with `PATH=VALUE` overrides applied in their order.
///
/// # Errors
/// All complaints that one pass can find, in the order of the file.
pub fn parse(text: &str, sets: &[String]) -> Result<Recipe, Vec<Diagnostic>> {
    let mut document = Document::parse(text).map_err(|error| vec![error])?;
    check_version(&document).map_err(|error| vec![error])?;
    for set in sets {
        apply_set(&mut document.value, set).map_err(|mut error| {
            error.set = Some(set.clone());
            vec![error]
        })?;
    }
    let recipe = from_document(&document).map_err(|mut error| {
        // The file alone was fine: then the overrides are to blame.
        if let Some(last) = sets.last().filter(|_| parse(text, &[]).is_ok()) {
            error.set = Some(if sets.len() == 1 { last.clone() } else { sets.join(" ") });
        }
        vec![error]
    })?;
    let mut complaints = check::check(&recipe, &document);
    if complaints.is_empty() {
        return Ok(recipe);
    }
    if !sets.is_empty() && parse(text, &[]).is_ok() {
        for complaint in &mut complaints {
            complaint.set = Some(sets.join(" "));
        }
    }
    complaints.sort_by_key(|complaint| complaint.place);
    Err(complaints)
}

/// The JSON Schema of a recipe, generated from the types.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Recipe).to_value();
    if let Value::Object(map) = &mut schema {
        map.insert("title".into(), "aifb recipe, version 1".into());
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

fn from_document(document: &Document) -> Result<Recipe, Diagnostic> {
    serde_path_to_error::deserialize(&document.value).map_err(|error| explain(document, &error))
}

#[cfg(test)]
mod tests;
