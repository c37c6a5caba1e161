//! Kinds of services: two of their own, and one for each preset.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::names::limit;

/// Kind of a service: `container`, `external`, or the name of a preset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceKind(String);

impl ServiceKind {
    /// Any container or program.
    pub const CONTAINER: &str = "container";
    /// An endpoint that already runs.
    pub const EXTERNAL: &str = "external";
    /// The kinds without a preset, and what they are.
    pub const OWN: [(&str, &str); 2] = [
        (Self::CONTAINER, "Any container or program; command and health come from the recipe."),
        (Self::EXTERNAL, "An endpoint that already runs; nothing is started."),
    ];

    /// The recipe's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of [`Self::OWN`].
    #[must_use]
    pub fn is_own(&self) -> bool {
        Self::OWN.iter().any(|(kind, _)| *kind == self.0)
    }

    /// Whether the service runs already, so that nothing is started.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.0 == Self::EXTERNAL
    }

    /// The JSON Schema of one kind.
    pub(super) fn schema_of(kind: &str, description: &str) -> Value {
        json!({"type": "string", "const": kind, "description": description})
    }

    /// Whether it can be the name of a preset.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        self.0.len() <= limit::NAME_BYTES
            && self.0.bytes().next().is_some_and(letters)
            && self.0.bytes().all(|b| letters(b) || b == b'-')
    }
}

impl From<&str> for ServiceKind {
    fn from(kind: &str) -> Self {
        Self(kind.to_owned())
    }
}

impl JsonSchema for ServiceKind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ServiceKind".into()
    }

    /// The presets are put in by [`super::json_schema`], which knows them.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let own = Self::OWN.iter().map(|(kind, text)| Self::schema_of(kind, text));
        let mut kinds: Vec<Value> = own.collect();
        kinds.push(json!({
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9-]{0,62}$",
            "description": "A preset of the site (`aifb services` lists them).",
        }));
        schemars::json_schema!({
            "description": "Kind of a service: a preset, or one of `container` and `external`. \
                            `aifb services show KIND` prints a preset.",
            "anyOf": kinds,
        })
    }
}
