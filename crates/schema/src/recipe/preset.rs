//! Presets: what a kind of service brings along, each a YAML file. Those of `presets/` are built in;
//! a site adds files of its own, which the caller reads.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Diagnostic, Health, Service, ServiceKind, check,
    document::{Document, step},
    explain::{explain, suggest},
};

/// Name and text of the files in `presets/`, written by the build script.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// What a kind of service brings along. The recipe's own keys win.
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
pub struct Presets(BTreeMap<String, Known>);

impl Presets {
    /// Those that are a part of aifb.
    #[must_use]
    pub fn built_in() -> &'static Self {
        static PRESETS: LazyLock<Presets> = LazyLock::new(|| {
            let mut presets = Presets::default();
            for (name, text) in BUILT_IN {
                // A test reads every one.
                let _read = presets.insert(name, text, Origin::BuiltIn);
            }
            presets
        });
        &PRESETS
    }

    /// Adds the preset of a file, which takes the place of one of the same kind. `kind` is the
    /// file's name without `.yaml`.
    ///
    /// # Errors
    /// What is wrong with the file, in its order.
    pub fn add(&mut self, kind: &str, text: &str, path: &str) -> Result<(), Vec<Diagnostic>> {
        self.insert(kind, text, Origin::File(path.to_owned()))
    }

    fn insert(&mut self, kind: &str, text: &str, origin: Origin) -> Result<(), Vec<Diagnostic>> {
        let preset = Preset::parse(kind, text)?;
        self.0.insert(kind.to_owned(), Known { preset, origin, text: text.to_owned() });
        Ok(())
    }

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

    /// What would be right in the place of an unknown kind.
    pub(super) fn suggest(&self, kind: &ServiceKind) -> String {
        suggest(kind.as_str(), &self.kinds())
    }
}

impl Preset {
    /// Reads a preset and checks it as a service would be.
    fn parse(kind: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let document = Document::parse(text).map_err(|error| vec![error])?;
        let wrong = |pointer: &str, message: String, hint: &str| {
            Err(vec![Diagnostic::new(document.key_of(pointer), message).hint(hint)])
        };
        if !ServiceKind::from(kind).is_plain() {
            let hint =
                "the file's name is the kind: lower-case letters, digits and '-', then .yaml";
            return wrong("", format!("'{kind}' is not a kind"), hint);
        }
        if ServiceKind::from(kind).is_own() {
            let hint = "give the file another name: this kind has no preset";
            return wrong("", format!("'{kind}' cannot be a preset"), hint);
        }
        let preset: Self = serde_path_to_error::deserialize(&document.value)
            .map_err(|error| vec![of_preset(explain(&document, &error))])?;
        for key in ["name", "kind", "url"] {
            if preset.service.contains_key(key) {
                let message = format!("'{key}' belongs to the recipe");
                return wrong(&step("", key), message, "remove it");
            }
        }
        for key in &preset.needs {
            // Its type is another matter.
            let probe = json!({"name": "x", "kind": "container", key.as_str(): {}});
            let refused = Service::deserialize(&probe).err().map(|error| error.to_string());
            if refused.is_some_and(|cause| cause.starts_with("unknown field")) {
                let message = format!("needs: a service has no key '{key}'");
                return wrong("/needs", message, "for example needs: [model]");
            }
        }
        if let Some(ready) = &preset.ready {
            let one = ready.len() == 1 && ready.keys().all(|key| PROBES.contains(&key.as_str()));
            if !one || Health::deserialize(ready).is_err() {
                let hint = "for example ready: {http: /health}; times belong to health";
                return wrong("/ready", "ready: not a probe".to_owned(), hint);
            }
        }
        let service = preset.example(&document)?;
        let found = check::check_preset(&service, &document);
        if found.is_empty() { Ok(preset) } else { Err(found) }
    }

    /// A service of this kind, as its checks need it.
    fn example(&self, document: &Document) -> Result<Service, Vec<Diagnostic>> {
        let mut own = Map::from_iter([
            ("name".to_owned(), json!("preset")),
            ("kind".to_owned(), json!(ServiceKind::CONTAINER)),
        ]);
        if !self.service.contains_key("image") && !self.service.contains_key("program") {
            own.insert("image".to_owned(), json!("any.sif"));
        }
        let merged = Value::Object(self.merge(&own));
        serde_path_to_error::deserialize(&merged)
            .map_err(|error| vec![of_preset(explain(document, &error))])
    }

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
const PROBES: [&str; 4] = ["http", "tcp", "exec", "log"];

/// Whether a probe's value chooses it: `tcp: false` does not.
fn chosen(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// The complaint's words where the file is no recipe.
fn of_preset(mut complaint: Diagnostic) -> Diagnostic {
    complaint.message = complaint.message.replace("the recipe", "the preset");
    complaint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let wrong = Presets::default().add("mine", text, "mine.yaml").unwrap_err();
        wrong.iter().map(|found| found.render("mine.yaml")).collect::<Vec<_>>().join("\n")
    }

    fn merged(preset: &str, own: &str) -> Value {
        let mut presets = Presets::default();
        presets.add("mine", preset, "mine.yaml").unwrap();
        let Value::Object(own) = Document::parse(own).unwrap().value else { panic!("no map") };
        Value::Object(presets.get("mine").unwrap().preset.merge(&own))
    }

    #[test]
    fn every_file_that_is_built_in_is_a_preset() {
        for (name, text) in BUILT_IN {
            let mut presets = Presets::default();
            let read = presets.add(name, text, name);
            assert!(read.is_ok(), "{name}: {read:?}");
        }
        let kinds: Vec<&str> = Presets::built_in().iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["llama-server", "ollama", "postgresql", "triton", "vllm"]);
    }

    #[test]
    fn the_recipes_keys_win() {
        let preset = "description: d\nimage: a.sif\ncommand: [serve]\nargs: [-p, \"{port}\"]\n\
                      env: {A: a, B: b}\nports: {grpc: auto}\nready: {http: /up}\n\
                      health: {deadline: 15m, max: 20m}\nafter: [[pull]]\nstop: 9s\n";
        let all = merged(preset, "{args: [-x], env: {B: c}, ports: {m: 1}, health: {max: 1h}}");
        assert_eq!(all["args"], json!(["-p", "{port}", "-x"]));
        assert_eq!(all["env"], json!({"A": "a", "B": "c"}));
        assert_eq!(all["ports"], json!({"grpc": "auto", "m": 1}));
        assert_eq!(all["health"], json!({"http": "/up", "deadline": "15m", "max": "1h"}));
        assert_eq!((&all["image"], &all["stop"]), (&json!("a.sif"), &json!("9s")));
        let program = merged(preset, "{program: /bin/serve}");
        assert_eq!((program.get("image"), program.get("command")), (None, None));
        assert_eq!(program["after"], json!([["pull"]]));
        let command = merged(preset, "{command: [other], args: [y], stop: 1s}");
        assert_eq!((&command["args"], command.get("after")), (&json!(["y"]), None));
        assert_eq!((&command["image"], &command["stop"]), (&json!("a.sif"), &json!("1s")));
        let probe = merged(preset, "{health: {tcp: true}}");
        assert_eq!(probe["health"]["tcp"], true);
        assert_eq!(probe["health"].get("http"), None);
        assert_eq!(merged(preset, "{health: {tcp: false}}")["health"]["http"], "/up");
        assert_eq!(merged(preset, "{command: [], env: null}"), merged(preset, "{}"));
    }

    #[test]
    fn what_is_wrong_in_a_preset_is_named_with_its_place() {
        for (text, part) in [
            ("description: d\nimag: x.sif\n", "mine.yaml:2:1: unknown key 'imag' in the preset"),
            ("image: x.sif\n", "missing key 'description'"),
            ("description: d\nkind: vllm\n", "mine.yaml:2:1: 'kind' belongs to the recipe"),
            (
                "description: d\nneeds: [modl]\n",
                "mine.yaml:2:1: needs: a service has no key 'modl'",
            ),
            ("description: d\nready: {http: /, every: 1s}\n", "2:1: ready: not a probe"),
            ("description: d\nargs: [\"{prot}\"]\n", "2:8: 'preset': unknown placeholder '{prot}'"),
            ("description: d\nbefore: [[\"{x}\"]]\n", "unknown placeholder '{x}'"),
            ("description: d\nports: {A: auto}\n", "'A' is not a port's name"),
            ("description: d\nenv: {MY_TOKEN: abc}\n", "the secret MY_TOKEN stands in"),
        ] {
            let found = words(text);
            assert!(found.contains(part), "{text}: {found}");
        }
        for kind in ["container", "external", "Upper", "a b", ""] {
            assert!(Presets::default().add(kind, "description: d\n", "x").is_err(), "{kind}");
        }
    }
}
