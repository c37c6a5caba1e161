//! Reads presets: YAML files. Those of `presets/` are built in; a site adds files of its own, which the
//! caller reads.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Diagnostic, check,
    document::{Document, step},
    explain::explain,
    kind::ServiceKind,
    preset::{Known, Origin, PROBES, Preset, Presets},
    service_types::{Health, Service},
};

/// Name and text of the files in `presets/`, written by the build script.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/presets.rs"));

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
