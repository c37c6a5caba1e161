//! `aifb up`: the services of a recipe, inside an allocation that has none yet.

use std::env;

use aifb_schema::{
    names::{self, env::SNAPSHOT},
    snapshot::Wait,
};

use super::env as environment;
use crate::{
    cli::{UpArgs, WaitFor},
    error::{CommandError, Result},
    launch::Launch,
    output,
    programs::{self, unpack},
    slurm, store,
};

pub(super) fn run(args: &UpArgs) -> Result<i32> {
    let Some(job) = slurm::present_job() else {
        return Err(CommandError::usage("starting services", "not inside a Slurm job")
            .hint("use it inside salloc or a job script; without Slurm: aifb run --local RECIPE"));
    };
    if let Some(run) = store::present() {
        return Err(CommandError::usage(
            format!("starting services in job '{job}'"),
            format!("it already has a run: '{}'", run.path().display()),
        )
        .hint("a job can have one run; put several services into one recipe"));
    }
    let snapshot = snapshot(args)?;
    let launch = Launch { snapshot: &snapshot, local: false, timeout: args.timeout };
    let launched = launch.start(|| None)?;
    if args.json {
        output::out_json(&launched.environment);
        return Ok(0);
    }
    if args.sh {
        environment::print(&launched.environment, true);
        // Jobs submitted from this one must not take its recipe for theirs.
        output::out(format!("unset {SNAPSHOT} {}", names::env::WAIT));
        return Ok(0);
    }
    for (name, value) in launched.environment.iter().filter(|(name, _)| *name != "PATH") {
        output::out(format!("{name}={value}"));
    }
    output::note("aifb: to set these in your shell: eval \"$(aifb env --sh)\"");
    Ok(0)
}

/// The recipe given here, else the one that came with the job.
fn snapshot(args: &UpArgs) -> Result<String> {
    let wait = match args.wait {
        WaitFor::Healthy => Wait::Healthy,
        WaitFor::None => Wait::None,
    };
    if let Some(recipe) = &args.recipe {
        let runs = args.root.runs.as_deref();
        return programs::prepare(recipe, &args.overrides.sets, runs, wait).map(|done| done.line);
    }
    let line = env::var(SNAPSHOT).map_err(|_| {
        CommandError::usage(
            "starting services",
            "no recipe given, and the job was submitted without one",
        )
        .hint("aifb up RECIPE")
    })?;
    // Options given here win over those of the submission.
    let mut snapshot = unpack(&line)?;
    snapshot.wait = wait;
    snapshot.sets.extend(args.overrides.sets.iter().cloned());
    if let Some(runs) = &args.root.runs {
        let runs = std::path::absolute(runs)
            .map_err(|error| CommandError::usage("using the folder of --runs", error))?;
        snapshot.runs = Some(runs.to_string_lossy().into_owned());
    }
    // The launcher checks the whole once more.
    snapshot.encode().map_err(|error| CommandError::usage("packing the recipe", error))
}
