//! A load of a run whose workers do not reach the agents of their nodes (a network namespace of
//! their own, say): each makes the plan from the run folder, and they meet through files there.
//!
//! What only the coordinator does is missing: live figures, clock offsets, rules over several
//! workers, searches, secrets of services. The result says so (verdict `met_by_files`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use aifb_schema::{
    control::LoadPlan,
    names::file,
    recipe::{EnvValue, GENERATE, Load, Point, Resolved, Service, VerdictPolicy, is_secret_name},
    run::{Endpoint, RunRecord, State},
};
use serde::de::DeserializeOwned;

use super::{
    in_run::Wanted,
    join::Join,
    place::Place,
    progress::ProgressLine,
    standalone::{Together, exit_code, together},
};
use crate::error::Fatal;

/// Runs one worker; gives the exit code. `why` is why there is no agent.
///
/// # Errors
/// If the load needs the coordinator, the workers do not meet, or nothing could be measured.
pub(super) fn run(
    place: &Place,
    wanted: &Wanted<'_>,
    strict: bool,
    why: &Fatal,
    runtime: &tokio::runtime::Runtime,
) -> Result<i32, Fatal> {
    let neither = |cause: String| {
        let mut fatal = why.clone();
        fatal
            .0
            .reason
            .push_str(&format!("; its workers cannot synchronize through files either: {cause}"));
        fatal
    };
    let plan = plan(place, wanted).map_err(neither)?;
    let strict = strict || plan.load.verdicts == VerdictPolicy::Fail;
    let ranks = (place.worker.rank, place.size);
    let join = Join::inside(PathBuf::from(&plan.folder), ranks, wanted.lead, why.0.reason.clone());
    let join = join.map_err(|cause| neither(cause).hint("name another repeat: --repeat N"))?;
    Ok(match together(plan, &join, runtime, &mut ProgressLine::new(false))? {
        Together::Signal(code) => code,
        Together::Over(result, _) => exit_code(&result, strict),
    })
}

/// The plan as the coordinator would make it, and the folder for it.
fn plan(place: &Place, wanted: &Wanted<'_>) -> Result<LoadPlan, String> {
    let run: RunRecord = json(&place.run_dir.join(file::RUN))?;
    if !matches!(run.state, State::Healthy | State::Measuring) {
        return Err(format!("the run is '{}'", run.state.as_str()));
    }
    if wanted.workers.is_some() {
        return Err("only the coordinator can assign ranks over several steps".to_owned());
    }
    let Point { settings, recipe, .. } = point(place, wanted)?;
    let load = recipe.load.iter().find(|load| load.name == *wanted.load);
    let load = load.ok_or_else(|| format!("the recipe has no load '{}'", wanted.load))?;
    let service = recipe.service_of(load);
    needs_nobody(load, service, place.size)?;
    let name = service.map(|service| service.name.as_str()).unwrap_or_default();
    let endpoints = endpoints(&place.run_dir, name)?;
    let (number, repeat) = (wanted.point.unwrap_or(0), wanted.repeat.unwrap_or(0));
    let folder = place.run_dir.join(file::LOAD).join(load.name.as_str());
    let folder = folder.join(format!("p{number}")).join(format!("r{repeat}"));
    fs::create_dir_all(&folder)
        .map_err(|error| format!("making '{}': {error}", folder.display()))?;
    Ok(LoadPlan {
        run_id: run.run_id,
        folder: folder.to_string_lossy().into_owned(),
        model: load.model.clone().or_else(|| service.and_then(|service| service.model.clone())),
        load: load.clone(),
        point: number,
        settings,
        repeat,
        size: place.size,
        rank: None,
        endpoints,
        secrets: std::collections::BTreeMap::new(),
    })
}

/// The point of the recipe's sweep; without a number the first.
fn point(place: &Place, wanted: &Wanted<'_>) -> Result<Point, String> {
    let path = place.run_dir.join(file::RESOLVED);
    let wrong = |cause: String| format!("reading '{}': {cause}", path.display());
    let json = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    let resolved = Resolved::from_json(&json).map_err(|error| wrong(error.to_string()))?;
    resolved.point(usize::try_from(wanted.point.unwrap_or(0)).unwrap_or(usize::MAX))
}

/// Whether the load can do without the coordinator.
fn needs_nobody(load: &Load, service: Option<&Service>, size: u32) -> Result<(), String> {
    if load.search.is_some() {
        return Err("only the coordinator can choose the probes of a search".to_owned());
    }
    if load.stop.is_some() && size > 1 {
        return Err(
            "only the coordinator can evaluate the rules of 'stop' over all workers".to_owned()
        );
    }
    match service.and_then(secret) {
        Some(name) => Err(format!("only an agent has the secret '{name}' of the service")),
        None => Ok(()),
    }
}

/// A secret in the environment of a service: a client may need it.
fn secret(service: &Service) -> Option<String> {
    let generated = |name: &str, text: &str| text == GENERATE && is_secret_name(name);
    let found = service.env.iter().find(|(name, value)| match value {
        EnvValue::Text(text) => generated(name, text),
        EnvValue::SecretFile { .. } | EnvValue::SecretEnv { .. } => true,
    });
    found.map(|(name, _)| name.clone())
}

/// Where the replicas of a service answer, by their numbers.
fn endpoints(run_dir: &Path, service: &str) -> Result<Vec<Endpoint>, String> {
    let folder = run_dir.join(file::SERVICES);
    let entries = fs::read_dir(&folder)
        .map_err(|error| format!("reading '{}': {error}", folder.display()))?;
    let mut found: Vec<Endpoint> = entries
        .filter_map(|entry| json(&entry.ok()?.path().join(file::ENDPOINT)).ok())
        .filter(|endpoint: &Endpoint| endpoint.service == service)
        .collect();
    found.sort_by_key(|endpoint| endpoint.replica);
    if found.is_empty() && !service.is_empty() {
        return Err(format!("service '{service}' has no endpoint"));
    }
    Ok(found)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let wrong = |cause: String| format!("reading '{}': {cause}", path.display());
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aifb_schema::recipe;

    fn recipe(service: &str, load: &str) -> recipe::Recipe {
        let text = format!(
            "aifb: 1\nname: t\nservices:\n  - {{name: web, kind: container, program: /x, \
             health: {{http: /}}{service}}}\nload:\n  - {{name: l, driver: http, \
             arrival: {{rate: 1/s}}, phases: {{measure: 1s}}{load}}}\n"
        );
        recipe::parse(&text, &[]).unwrap_or_else(|complaints| panic!("{complaints:?}"))
    }

    fn needs(service: &str, load: &str, size: u32) -> Result<(), String> {
        let recipe = recipe(service, load);
        needs_nobody(&recipe.load[0], recipe.services.first(), size)
    }

    #[test]
    fn what_needs_the_coordinator_is_named() {
        assert_eq!(needs("", "", 2), Ok(()));
        assert_eq!(needs(", env: {MODE: generate, PORT: '1'}", "", 2), Ok(()));
        let rule = ", stop: {errors: 5}";
        assert_eq!(needs("", rule, 1), Ok(()), "a single worker sees itself");
        for (service, load, words) in [
            ("", rule, "rules of 'stop'"),
            (
                "",
                ", search: {slo: {e2e_p99: 1s}, from: 1/s, to: 9/s, probe: 5s}",
                "probes of a search",
            ),
            (", env: {API_KEY: generate}", "", "the secret 'API_KEY'"),
            (", env: {WORD: {secret_env: W}}", "", "the secret 'WORD'"),
        ] {
            let cause = needs(service, load, 2).unwrap_err();
            assert!(cause.contains(words), "{cause}");
        }
    }

    #[test]
    fn endpoints_come_in_the_order_of_replicas() {
        let run = tempfile::tempdir().unwrap();
        assert!(endpoints(run.path(), "web").unwrap_err().contains("No such file"));
        for (service, replica) in [("web", 1), ("web", 0), ("other", 0)] {
            let folder = run.path().join(format!("services/{service}.{replica}"));
            fs::create_dir_all(&folder).unwrap();
            let endpoint = serde_json::json!({"service": service, "replica": replica, "node": "n",
                "host": "h", "port": 1, "url": "http://h:1", "healthy_epoch_ns": 1});
            fs::write(folder.join(file::ENDPOINT), endpoint.to_string()).unwrap();
        }
        let found = endpoints(run.path(), "web").unwrap();
        assert_eq!(found.iter().map(|one| one.replica).collect::<Vec<_>>(), [0, 1]);
        assert!(endpoints(run.path(), "none").unwrap_err().contains("has no endpoint"));
    }
}
