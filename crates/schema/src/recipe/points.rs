//! The points of a sweep: every combination of its values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Recipe, Sweep, apply::set_path};

/// Most points of one sweep; at ten seconds a point that is almost three hours.
pub const POINTS_MAX: usize = 1_000;

/// One combination of a sweep's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Number from 0; the folder name is `p<number>`.
    pub index: usize,
    /// Path of each swept field and its value here; empty without a sweep.
    pub settings: BTreeMap<String, Value>,
    /// The recipe with these values, without `sweep`.
    pub recipe: Recipe,
}

impl Point {
    /// Name of its folder.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("p{}", self.index)
    }
}

/// How many combinations there are, 1 without a sweep; absent above [`POINTS_MAX`].
pub(super) fn count(sweep: Option<&Sweep>) -> Option<usize> {
    let mut lengths = sweep.into_iter().flat_map(|sweep| sweep.matrix.values()).map(Vec::len);
    lengths
        .try_fold(1_usize, |product, length| product.checked_mul(length))
        .filter(|count| *count <= POINTS_MAX)
}

/// The values of one point, the last path varying fastest, and `document` with them and without
/// the sweep.
///
/// # Errors
/// If there is no such point, or a path leads nowhere.
pub(super) fn document(
    document: &Value,
    sweep: Option<&Sweep>,
    index: usize,
) -> Result<(BTreeMap<String, Value>, Value), String> {
    let count = count(sweep).ok_or_else(|| format!("more than {POINTS_MAX} combinations"))?;
    if index >= count {
        return Err(format!("the recipe has no point {index}, only {count}"));
    }
    let mut rest = index;
    let mut settings = BTreeMap::new();
    let paths = sweep.into_iter().flat_map(|sweep| &sweep.matrix);
    for (path, values) in paths.collect::<Vec<_>>().into_iter().rev() {
        // No list is empty: `count` would be 0.
        if let Some(value) = values.get(rest % values.len().max(1)) {
            settings.insert(path.clone(), value.clone());
        }
        rest /= values.len().max(1);
    }
    let mut document = document.clone();
    if let Some(map) = document.as_object_mut() {
        map.remove("sweep");
    }
    for (path, value) in &settings {
        set_path(&mut document, path, value.clone()).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok((settings, document))
}

/// The complaint about values that their fields do not take.
pub(super) fn does_not_fit(
    settings: &BTreeMap<String, Value>,
    error: &serde_path_to_error::Error<serde_json::Error>,
) -> String {
    let names: Vec<&str> = settings.keys().map(String::as_str).collect();
    format!("{}: {}", names.join(", "), error.inner().to_string().replace('`', "'"))
}
