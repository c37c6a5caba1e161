//! Run folders that the programs of commit c6e6dd0 made, kept byte for byte in
//! `tests/fixtures/runs/before-seams-*`: they are listed, shown, reported and their results made again
//! as those programs did. `report.json` in each is what c6e6dd0 reported. Never write them anew.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::programs::Place;

/// Folder below `aifb-runs`, name and state of each run.
const RUNS: [(&str, &str, &str); 3] = [
    ("before-seams-killed", "killed", "failed"),
    ("before-seams-llm-sweep", "llm-sweep", "completed"),
    ("before-seams-postgresql-mix", "sql-mix", "completed"),
];

/// Copies of all old runs in a place of their own.
fn kept() -> Place {
    let place = Place::new();
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runs");
    for (folder, ..) in RUNS {
        copy(&runs.join(folder), &place.folder.path().join("aifb-runs").join(folder));
    }
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All files of this name below a folder.
fn found(folder: &Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all.extend(found(&entry, name));
        } else if entry.file_name().is_some_and(|file| file == name) {
            all.push(entry);
        }
    }
    all
}

/// Every value that is neither a list nor a map, by its path.
fn leaves(value: &Value, path: &str, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| leaves(value, &format!("{path}/{key}"), into));
        }
        Value::Array(list) => {
            let numbered = list.iter().enumerate();
            numbered.for_each(|(index, value)| leaves(value, &format!("{path}/{index}"), into));
        }
        single => drop(into.insert(path.to_owned(), single.clone())),
    }
}

fn leaves_of(report: &Value) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    leaves(report, "", &mut all);
    // Sentences for people, whose wording may change; each verdict's kind is compared.
    all.retain(|path, _| !path.starts_with("/warnings/") && !path.ends_with("/message"));
    all
}

/// What c6e6dd0 reported of a run; keys of settings and times by operation, which have moved since,
/// stand at their new places.
fn before(place: &Place, folder: &str) -> Value {
    let file = place.folder.path().join("aifb-runs").join(folder).join("report.json");
    let mut report: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    for result in report["results"].as_array_mut().unwrap() {
        if let Some(settings) = result.get_mut("settings") {
            let mut moved = serde_json::from_value(settings.take()).unwrap();
            aifb_schema::recipe::moved::rewrite_settings(&mut moved);
            *settings = serde_json::to_value(moved).unwrap();
        }
        for (name, times) in operations_of(&mut result["metrics"]) {
            result["operations"][name]["total_seconds"] = times;
        }
    }
    report.get_mut("metrics").map(operations_of);
    report
}

/// Takes the times by operation out of the metrics, where they stood.
fn operations_of(metrics: &mut Value) -> serde_json::Map<String, Value> {
    let operations = metrics.as_object_mut().and_then(|metrics| metrics.remove("operations"));
    serde_json::from_value(operations.unwrap_or_default()).unwrap_or_default()
}

/// The present report, whatever exit code the run has.
fn report(place: &Place, folder: &str) -> Value {
    let ran = place.aifb(&["report", &format!("aifb-runs/{folder}"), "--json"]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Every figure of `old` stands in `new` too.
#[track_caller]
fn same_figures(folder: &str, old: &Value, new: &Value) {
    let new = leaves_of(new);
    let differing: Vec<_> =
        leaves_of(old).into_iter().filter(|(path, value)| new.get(path) != Some(value)).collect();
    let shown: Vec<_> =
        differing.iter().map(|(path, value)| (path, value, new.get(path))).collect();
    assert!(differing.is_empty(), "{folder}: path, before, now: {shown:#?}");
}

#[test]
fn old_runs_are_listed_and_shown() {
    let place = kept();
    let listed = place.aifb(&["list", "--json"]).json();
    let mut names: Vec<_> = listed.as_array().unwrap().iter().map(|one| &one["run"]).collect();
    names.sort_by_key(|run| run["name"].as_str());
    for ((folder, name, state), run) in RUNS.into_iter().zip(names) {
        assert_eq!((&run["name"], &run["state"]), (&name.into(), &state.into()), "{listed:#}");
        assert!(!run["sets"].as_array().unwrap().is_empty(), "{listed:#}");
        let status = place.aifb(&["status", &format!("aifb-runs/{folder}"), "--json"]).json();
        assert_eq!(
            (&status["liveness"], &status["run"]["state"]),
            (&"ended".into(), &state.into()),
            "{status:#}"
        );
    }
}

/// The figures are those of c6e6dd0, and what those programs did not record is absent, never 0.
#[test]
fn old_runs_are_reported_as_before() {
    let place = kept();
    for (folder, ..) in RUNS {
        let (old, new) = (before(&place, folder), report(&place, folder));
        same_figures(folder, &old, &new);
        let known = leaves_of(&old);
        let recorded = !folder.ends_with("killed");
        let invented: Vec<_> = leaves_of(&new)
            .into_iter()
            .filter(|(path, value)| {
                !known.contains_key(path)
                    && (recorded && value.as_f64() == Some(0.0) || never_recorded(path))
            })
            .collect();
        assert!(invented.is_empty(), "{folder}: {invented:#?}");
    }
}

/// Whether rows of c6e6dd0 have no such column, so that no figure can come from it.
fn never_recorded(path: &str) -> bool {
    ["items", "payload", "recall"].iter().any(|word| path.contains(word))
}

/// The killed run has no result of a leader: it is made from the workers' files each time. So are those
/// of the others once they are gone.
#[test]
fn results_of_old_runs_are_made_again() {
    let place = kept();
    for (folder, ..) in RUNS {
        let old = before(&place, folder);
        let run = place.folder.path().join("aifb-runs").join(folder);
        let results = found(&run, "result.json");
        assert_eq!(results.is_empty(), folder.ends_with("killed"), "{results:?}");
        for file in results.into_iter().chain(found(&run, "series.jsonl")) {
            fs::remove_file(file).unwrap();
        }
        let new = report(&place, folder);
        same_figures(folder, &old, &new);
        let warnings = new["warnings"].as_array().unwrap().len();
        assert!(warnings >= old["results"].as_array().unwrap().len(), "{new:#}");
    }
}
