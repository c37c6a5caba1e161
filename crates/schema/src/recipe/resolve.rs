//! From a recipe's text to what is meant: overrides applied, presets merged, defaults filled in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Diagnostic, Preset, Presets, Recipe, Service,
    apply::set_path,
    apply_set, check, check_version,
    document::Document,
    explain::explain,
    moved,
    points::{self, Point},
    types::TypeError,
};

/// Why [`Resolved`] cannot be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolvedError {
    /// It is not JSON.
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    /// It is not a resolved recipe, or one of another version.
    #[error("{0}")]
    Content(String),
}

/// A recipe as it was written, and as it is meant. The file `recipe.resolved.json` of a run folder.
///
/// The document stays beside the result, because what a sweep sets comes before presets and
/// defaults: [`Resolved::point`] sets values in the one and makes the other again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolved {
    /// The recipe as written, overrides applied, before presets and defaults. Secrets are
    /// references.
    document: Value,
    /// The presets that it needs, by their kinds.
    presets: BTreeMap<String, Preset>,
    /// The recipe that is run: presets merged, defaults filled in.
    recipe: Recipe,
}

/// Reads a recipe, applies `PATH=VALUE` overrides in their order, checks it and resolves it.
///
/// # Errors
/// All complaints that one pass can find, in the order of the file.
pub fn resolve(
    text: &str,
    sets: &[String],
    presets: &Presets,
) -> Result<Resolved, Vec<Diagnostic>> {
    read(text, sets, presets, |document| match moved::complaints(document) {
        found if found.is_empty() => Ok(()),
        found => Err(found),
    })
}

/// The same for the recipe of a run folder without `recipe.resolved.json`: keys that have moved since,
/// in the recipe and in its overrides, are read where they stood.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_kept(text: &str, sets: &[String]) -> Result<Resolved, Vec<Diagnostic>> {
    let sets: Vec<String> = sets.iter().map(|set| moved::rewrite_set(set)).collect();
    read(text, &sets, Presets::built_in(), |document| {
        moved::rewrite(&mut document.value);
        Ok(())
    })
}

/// What happens to keys that stand at an old place.
type Old = fn(&mut Document) -> Result<(), Vec<Diagnostic>>;

fn read(
    text: &str,
    sets: &[String],
    presets: &Presets,
    old: Old,
) -> Result<Resolved, Vec<Diagnostic>> {
    let mut document = Document::parse(text).map_err(|error| vec![error])?;
    check_version(&document).map_err(|error| vec![error])?;
    old(&mut document)?;
    for set in sets {
        apply_set(&mut document.value, set).map_err(|mut error| {
            error.set = Some(set.clone());
            vec![error]
        })?;
    }
    checked(document, presets, old).map_err(|mut complaints| {
        // The file alone was fine: then the overrides are to blame.
        if !sets.is_empty() && read(text, &[], presets, old).is_ok() {
            for complaint in &mut complaints {
                complaint.set = Some(sets.join(" "));
            }
        }
        complaints.sort_by_key(|complaint| complaint.place);
        complaints
    })
}

fn checked(
    mut document: Document,
    presets: &Presets,
    old: Old,
) -> Result<Resolved, Vec<Diagnostic>> {
    // An override may have put a whole load there.
    old(&mut document)?;
    let recipe = Recipe::of(&document.value).map_err(|error| vec![explain(&document, &error)])?;
    let found = check::check(&recipe, &document, presets);
    if !found.is_empty() {
        return Err(found);
    }
    let place = document.place_of("/services");
    // A preset that is right by itself may not go with what the recipe says.
    Resolved::of(document.value, &used(&recipe, presets))
        .map_err(|cause| vec![Diagnostic::new(place, cause)])
}

impl Resolved {
    /// What is run.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What is run, without the rest.
    #[must_use]
    pub fn into_recipe(self) -> Recipe {
        self.recipe
    }

    /// The recipe as it was written, overrides applied: no presets, and of the defaults those of
    /// single keys only.
    #[must_use]
    pub fn written(&self) -> Recipe {
        // It was read from this very document.
        Recipe::of(&self.document).unwrap_or_else(|_| self.recipe.clone())
    }

    /// Sets one field and resolves again; `path` as in an override.
    ///
    /// # Errors
    /// If the path leads nowhere or the value does not fit.
    pub fn set(&mut self, path: &str, value: Value) -> Result<(), String> {
        let mut document = self.document.clone();
        set_path(&mut document, path, value)?;
        *self = Self::of(document, &self.presets)?;
        Ok(())
    }

    /// How many points its sweep has; one without a sweep.
    #[must_use]
    pub fn points_count(&self) -> usize {
        // More than the most was refused when the recipe was read.
        points::count(self.recipe.sweep.as_ref()).unwrap_or(points::POINTS_MAX)
    }

    /// One point of the sweep, from 0, the last path of the matrix varying fastest.
    ///
    /// # Errors
    /// If there is no such point, or its values do not fit.
    pub fn point(&self, index: usize) -> Result<Point, String> {
        let (settings, document) =
            points::document(&self.document, self.recipe.sweep.as_ref(), index)?;
        let recipe = merged(&document, &self.presets)
            .map_err(|error| points::does_not_fit(&settings, &error))?;
        Ok(Point { index, settings, recipe })
    }

    /// Every point; a long sweep is better asked for one [`Resolved::point`] after the other.
    ///
    /// # Errors
    /// As [`Resolved::point`].
    pub fn points(&self) -> Result<Vec<Point>, String> {
        (0..self.points_count()).map(|index| self.point(index)).collect()
    }

    /// Reads `recipe.resolved.json`.
    ///
    /// # Errors
    /// If it is not one, or one of a version that has other keys.
    pub fn from_json(json: &[u8]) -> Result<Self, ResolvedError> {
        Self::from_value(serde_json::from_slice(json)?)
    }

    /// The same, from its values.
    ///
    /// # Errors
    /// If it is not one, or one of a version that has other keys.
    pub fn from_value(mut value: Value) -> Result<Self, ResolvedError> {
        let mut take = |key: &str| {
            value
                .get_mut(key)
                .map(Value::take)
                .ok_or_else(|| ResolvedError::Content(format!("it has no '{key}'")))
        };
        let (document, presets, recipe) = (take("document")?, take("presets")?, take("recipe")?);
        Ok(Self {
            document,
            presets: BTreeMap::<String, Preset>::deserialize(presets)?,
            recipe: Recipe::of(&recipe)
                .map_err(|error| ResolvedError::Content(error.to_string()))?,
        })
    }

    /// As a JSON value, for messages.
    ///
    /// # Errors
    /// Never for a recipe that was read.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self)
    }

    fn of(document: Value, presets: &BTreeMap<String, Preset>) -> Result<Self, String> {
        let recipe = merged(&document, presets).map_err(|error| error.to_string())?;
        Ok(Self { document, presets: presets.clone(), recipe })
    }
}

/// The recipe that a document means.
fn merged(document: &Value, presets: &BTreeMap<String, Preset>) -> Result<Recipe, TypeError> {
    let mut document = document.clone();
    let services = document.get_mut("services").and_then(Value::as_array_mut);
    for service in services.into_iter().flatten() {
        let Value::Object(own) = service else { continue };
        let kind = own.get("kind").and_then(Value::as_str).unwrap_or_default();
        if let Some(preset) = presets.get(kind) {
            *own = preset.merge(own);
        }
    }
    let mut recipe = Recipe::of(&document)?;
    recipe.services.iter_mut().for_each(Service::fill_in);
    Ok(recipe)
}

/// The presets of a recipe's services, and of the kinds that its sweep sets.
fn used(recipe: &Recipe, presets: &Presets) -> BTreeMap<String, Preset> {
    let swept = recipe.sweep.iter().flat_map(|sweep| sweep.matrix.values().flatten());
    let own = recipe.services.iter().map(|service| service.kind.as_str());
    own.chain(swept.filter_map(Value::as_str))
        .filter_map(|kind| Some((kind.to_owned(), presets.get(kind)?.preset.clone())))
        .collect()
}
