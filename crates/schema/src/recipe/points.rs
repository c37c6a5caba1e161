//! The points of a sweep: every combination of its values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Recipe, apply::set_path};

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

impl Recipe {
    /// All points, the last path of the matrix varying fastest; one point without a sweep.
    ///
    /// # Errors
    /// If a path leads nowhere, a value does not fit its field or there are too many points.
    pub fn points(&self) -> Result<Vec<Point>, String> {
        let Some(sweep) = &self.sweep else {
            return Ok(vec![Point { index: 0, settings: BTreeMap::new(), recipe: self.clone() }]);
        };
        let count = sweep
            .matrix
            .values()
            .try_fold(1_usize, |product, values| product.checked_mul(values.len()));
        if count.is_none_or(|count| count > POINTS_MAX) {
            return Err(format!("more than {POINTS_MAX} combinations"));
        }
        let mut base = self.clone();
        base.sweep = None;
        let plain = serde_json::to_value(&base).map_err(|error| error.to_string())?;
        let mut combinations: Vec<BTreeMap<String, Value>> = vec![BTreeMap::new()];
        for (path, values) in &sweep.matrix {
            combinations = combinations
                .into_iter()
                .flat_map(|settings| {
                    values.iter().map(move |value| {
                        let mut settings = settings.clone();
                        settings.insert(path.clone(), value.clone());
                        settings
                    })
                })
                .collect();
        }
        combinations
            .into_iter()
            .enumerate()
            .map(|(index, settings)| {
                let mut value = plain.clone();
                for (path, setting) in &settings {
                    set_path(&mut value, path, setting.clone())
                        .map_err(|error| format!("{path}: {error}"))?;
                }
                let recipe = serde_path_to_error::deserialize(&value).map_err(|error| {
                    let names: Vec<&str> = settings.keys().map(String::as_str).collect();
                    format!("{}: {}", names.join(", "), error.inner().to_string().replace('`', "'"))
                })?;
                Ok(Point { index, settings, recipe })
            })
            .collect()
    }
}
