//! Kinds of services: those that are built in, and a site's own.

use std::fs;

use crate::programs::{Place, Ran};

/// A preset of the site: Python's web server, with set-up before and after the start.
const WEB: &str = "\
description: Python's web server.
usual_port: 8000
needs: [data]
ready: {http: /}
program: /usr/bin/python3
args: [-m, http.server, --bind, \"{host}\", --directory, \"{data}\", \"{port}\"]
before: [[/bin/sh, -c, \"echo before > \\\"$0\\\"\", \"{data}/before\"]]
before_unless: \"{data}/made\"
after: [[/bin/sh, -c, \"echo after > \\\"$0\\\"\", \"{data}/after\"]]
";

const RECIPE: &str = "\
aifb: 1
name: site
services: [{name: web, kind: pyweb, data: ./data}]
load:
  - {name: hits, driver: http, arrival: {rate: 20/s}, phases: {measure: 1s}}
sweep: {matrix: {load.hits.seed: [1, 2]}}
";

/// A place with a site's presets; `aifb` with them.
fn with_presets(place: &Place, words: &[&str]) -> Ran {
    let presets = place.folder.path().join("presets");
    Ran::of(place.command(words).env("AIFB_PRESETS", presets).output().unwrap())
}

fn site() -> Place {
    let place = Place::new();
    fs::create_dir(place.folder.path().join("presets")).unwrap();
    place.write("presets/pyweb.yaml", WEB);
    place.write("site.yaml", RECIPE);
    place
}

#[test]
fn kinds_are_listed_and_shown_with_their_origin() {
    let place = site();
    let list = place.aifb(&["services"]).stdout;
    for kind in ["llama-server", "ollama", "postgresql", "triton", "vllm", "container", "external"]
    {
        assert!(list.lines().any(|line| line.starts_with(kind)), "{kind}: {list}");
    }
    assert!(!list.contains("pyweb"), "{list}");
    let all = with_presets(&place, &["services", "--json"]).json();
    let own = all.as_array().unwrap().iter().find(|one| one["kind"] == "pyweb").unwrap();
    assert!(own["origin"].as_str().unwrap().ends_with("presets/pyweb.yaml"), "{own}");
    assert_eq!((&own["usual_port"], &own["text"]), (&8000.into(), &WEB.into()));
    let shown = with_presets(&place, &["services", "show", "pyweb"]);
    assert!(shown.stdout.starts_with("# pyweb: /") && shown.stdout.ends_with(WEB), "{shown:?}");
    let shown = place.aifb(&["services", "show", "vllm"]).stdout;
    assert!(shown.starts_with("# vllm: built in\n") && shown.contains("vllm, serve"), "{shown}");
    let unknown = place.aifb(&["services", "show", "vlm"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("kinds: llama-server"), "{unknown:?}");
}

#[test]
fn a_wrong_preset_is_named_with_its_place() {
    let place = site();
    place.write("presets/bad.yaml", "description: bad\nimag: x.sif\n");
    for words in [&["services"][..], &["validate", "site.yaml"]] {
        let ran = with_presets(&place, words);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("bad.yaml:2:1: unknown key 'imag' in the preset"), "{ran:?}");
        assert!(ran.stderr.contains("did you mean 'image'?"), "{ran:?}");
    }
}

#[test]
fn a_service_of_a_sites_kind_runs_and_is_recorded_resolved() {
    let place = site();
    let refused = place.aifb(&["validate", "site.yaml"]);
    assert!(refused.stderr.contains("unknown value 'pyweb'"), "{refused:?}");
    let ran = with_presets(&place, &["run", "--local", "site.yaml"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let runs = fs::read_dir(place.folder.path().join("aifb-runs")).unwrap();
    let run = runs.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    let resolved: serde_json::Value = serde_json::from_str(&read("recipe.resolved.json")).unwrap();
    assert_eq!(resolved["document"]["services"][0].get("args"), None, "{resolved}");
    let service = &resolved["recipe"]["services"][0];
    assert_eq!((&service["health"]["http"], &service["scheme"]), (&"/".into(), &"http".into()));
    assert_eq!(resolved["presets"]["pyweb"]["usual_port"], 8000);
    for word in ["before", "after"] {
        let text = fs::read_to_string(place.folder.path().join("data").join(word)).unwrap();
        assert_eq!(text.trim(), word);
    }
    for point in ["p0", "p1"] {
        assert!(run.join(format!("load/hits/{point}/r0/result.json")).is_file(), "{point}");
    }
    // What is read later needs neither the preset nor the submitted recipe.
    fs::remove_file(run.join("recipe.yaml")).unwrap();
    let report = place.aifb(&["report", run.to_str().unwrap()]);
    assert_eq!(report.code, 0, "{report:?}");

    // A mark of one's own keeps what comes first from being run.
    let data = place.folder.path().join("data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("made"), "").unwrap();
    let ran = with_presets(&place, &["run", "--local", "site.yaml", "--set", "sweep=null"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!data.join("before").exists() && data.join("after").exists());
}
