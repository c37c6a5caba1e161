//! What the types cannot say: names that must exist, fields that exclude each other, ranges.

mod kserve;
mod load;
mod model;
mod monitor;
mod search;
mod service;
mod workload;

use std::collections::{BTreeMap, HashMap};

use super::{
    Diagnostic, Load, Place, Presets, Recipe, Service, SlurmValue,
    document::{Document, shown, step},
};
use crate::units::Name;

/// Slurm options that aifb sets itself or that would change what is submitted.
const SLURM_RESERVED: [&str; 10] = [
    "wrap",
    "array",
    "aifb-recipe",
    "aifb-set",
    "aifb-runs",
    "aifb-wait",
    "test-only",
    "parsable",
    "wait",
    "uid",
];

/// All complaints about a recipe as it was written, in no order.
pub(super) fn check(recipe: &Recipe, document: &Document, presets: &Presets) -> Vec<Diagnostic> {
    let mut check = Checker { document, presets, found: Vec::new() };
    if recipe.services.is_empty() {
        check
            .at("/services", "no service")
            .hint("name at least one; kind: external for one that already runs");
    }
    check.unique("/services", recipe.services.iter().map(|service| &service.name), Name::env_part);
    check.unique("/load", recipe.load.iter().map(|load| &load.name), Name::to_string);
    check.slurm("/slurm", &recipe.slurm);
    for (index, service) in recipe.services.iter().enumerate() {
        check.service(&format!("/services/{index}"), service);
    }
    check.ports(recipe);
    for (index, load) in recipe.load.iter().enumerate() {
        check.load(&format!("/load/{index}"), load, recipe);
    }
    check.monitor(&recipe.monitor);
    check.sweep(recipe);
    check.found
}

/// All complaints about a preset, as the service `service` whose keys `document` has.
pub(super) fn check_preset(service: &Service, document: &Document) -> Vec<Diagnostic> {
    let none = Presets::default();
    let mut check = Checker { document, presets: &none, found: Vec::new() };
    check.service("", service);
    check.found
}

/// Complaints about a load that belongs to no recipe: what it sends, when, what ends it, and its
/// driver's keys.
pub(super) fn check_load(load: &Load, document: &Document) -> Vec<Diagnostic> {
    let none = Presets::default();
    let mut check = Checker { document, presets: &none, found: Vec::new() };
    check.arrival("", load);
    check.stop("", load);
    check.driver("", load);
    check.found
}

struct Checker<'a> {
    document: &'a Document,
    presets: &'a Presets,
    found: Vec<Diagnostic>,
}

/// A complaint just made, to which a hint can be added.
struct Made<'a>(Option<&'a mut Diagnostic>);

impl Made<'_> {
    fn hint(self, hint: impl Into<String>) {
        if let Some(diagnostic) = self.0 {
            diagnostic.hint = Some(hint.into());
        }
    }
}

impl Checker<'_> {
    fn push(&mut self, place: Place, message: impl Into<String>) -> Made<'_> {
        self.found.push(Diagnostic::new(place, message));
        Made(self.found.last_mut())
    }

    /// A complaint about the value at `pointer`.
    fn at(&mut self, pointer: &str, message: impl Into<String>) -> Made<'_> {
        self.push(self.document.place_of(pointer), message)
    }

    /// A complaint about the key at `pointer`.
    fn key(&mut self, pointer: &str, message: impl Into<String>) -> Made<'_> {
        self.push(self.document.key_of(pointer), message)
    }

    fn unique<'n>(
        &mut self,
        list: &str,
        names: impl Iterator<Item = &'n Name>,
        form: impl Fn(&Name) -> String,
    ) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (index, name) in names.enumerate() {
            if let Some(first) = seen.insert(form(name), index) {
                let line = self.document.place_of(&format!("{list}/{first}/name")).line;
                self.at(
                    &format!("{list}/{index}/name"),
                    format!("the name '{name}' is used twice, first on line {line}"),
                )
                .hint("names must stay different as environment variables too");
            }
        }
    }

    fn slurm(&mut self, pointer: &str, options: &BTreeMap<String, SlurmValue>) {
        for (name, value) in options {
            let at = step(pointer, name);
            let plain = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && name.len() > 1
                && !name.starts_with('-');
            if !plain {
                self.key(&at, format!("'{}' is not a long sbatch option", shown(name))).hint(
                    "write the long name without dashes, such as time, gres or ntasks-per-node",
                );
            } else if SLURM_RESERVED.contains(&name.as_str()) {
                self.key(&at, format!("the sbatch option '{name}' cannot be set by a recipe"))
                    .hint("give it on the command line of sbatch instead");
            }
            if let SlurmValue::Text(text) = value
                && (text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control))
            {
                self.at(&at, format!("'{name}': empty, too long or with control characters"))
                    .hint("one line of text");
            }
        }
    }
}
