//! Presets: the defaults of a kind of service.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::kind::ServiceKind;

/// The defaults of a kind of service. The recipe's own keys have priority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preset {
    /// What it is, in a sentence.
    pub description: String,
    /// The port that it usually listens on, for documentation; the default is a free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_port: Option<u16>,
    /// Keys that a service of this kind must give, unless it gives a command of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The probe, unless the recipe's `health` names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Map<String, Value>>,
    /// Keys of a service, with the recipe's names.
    #[serde(flatten)]
    pub service: Map<String, Value>,
}

/// Where a preset comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It is a part of aifb.
    BuiltIn,
    /// A file of the site or the user.
    File(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File(path) => f.write_str(path),
        }
    }
}

/// A preset with its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its content.
    pub preset: Preset,
    /// Where it comes from.
    pub origin: Origin,
    /// The file's text.
    pub text: String,
}

/// The presets that recipes can name, by their kinds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Presets(pub(super) BTreeMap<String, Known>);

impl Presets {
    /// The preset of a kind; absent for `container`, `external` and unknown ones.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Known> {
        self.0.get(kind)
    }

    /// All of them, in the order of their kinds.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Known)> {
        self.0.iter().map(|(kind, known)| (kind.as_str(), known))
    }

    /// Every kind that a service can have.
    #[must_use]
    pub fn kinds(&self) -> Vec<String> {
        let own = ServiceKind::OWN.iter().map(|(kind, _)| (*kind).to_owned());
        self.0.keys().cloned().chain(own).collect()
    }

    /// Whether a service can have this kind.
    #[must_use]
    pub fn knows(&self, kind: &ServiceKind) -> bool {
        kind.is_own() || self.0.contains_key(kind.as_str())
    }
}

impl Preset {
    /// The service `own` with what this preset brings along.
    ///
    /// * A command of its own takes the place of command, arguments and set-up; a program that of
    ///   image and command.
    /// * Arguments and binds come after the preset's; environment and ports are put together.
    /// * A probe of its own takes the place of `ready`; each time of `health` stands for itself.
    /// * Any other key takes the place of the preset's.
    #[must_use]
    pub fn merge(&self, own: &Map<String, Value>) -> Map<String, Value> {
        let mut merged = self.service.clone();
        let given = |key: &str| own.get(key).is_some_and(|value| !value.is_null());
        if own.get("command").and_then(Value::as_array).is_some_and(|words| !words.is_empty()) {
            for key in ["command", "args", "before", "before_unless", "after"] {
                merged.remove(key);
            }
        }
        if given("program") {
            merged.remove("image");
            merged.remove("command");
        }
        if given("image") {
            merged.remove("program");
        }
        if let Some(ready) = &self.ready {
            let health = merged.entry("health").or_insert_with(|| json!({}));
            let own = own.get("health").and_then(Value::as_object);
            let probe = |key: &&str| own.is_some_and(|own| own.get(*key).is_some_and(chosen));
            if let Some(health) = health.as_object_mut()
                && !PROBES.iter().any(probe)
            {
                health.extend(ready.clone());
            }
        }
        for (key, value) in own {
            match (merged.get_mut(key), value) {
                (Some(_), Value::Null) => {}
                (Some(_), Value::Array(words)) if key == "command" && words.is_empty() => {}
                (Some(Value::Array(before)), Value::Array(own))
                    if ["args", "binds"].contains(&key.as_str()) =>
                {
                    before.extend(own.iter().cloned());
                }
                (Some(Value::Object(before)), Value::Object(own))
                    if ["env", "ports", "health"].contains(&key.as_str()) =>
                {
                    let given = own.iter().filter(|(_, value)| !value.is_null());
                    before.extend(given.map(|(key, value)| (key.clone(), value.clone())));
                }
                _ => {
                    merged.insert(key.clone(), value.clone());
                }
            }
        }
        merged
    }
}

/// Keys of `health` that are probes.
pub(super) const PROBES: [&str; 4] = ["http", "tcp", "exec", "log"];

/// Whether a probe's value chooses it: `tcp: false` does not.
fn chosen(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}
