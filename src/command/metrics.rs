//! `aifb metrics`.

use std::{fs, time::Duration};

use aifb_runfolder::{read, worker};
use aifb_schema::{
    gateway::{self, BUCKETS_SECONDS, Summed},
    names::exit,
    result::LoadResult,
};
use aifb_stats::histogram::of_logs;
use ureq::Agent;

use crate::{
    cli::MetricsArgs,
    error::{CommandError, Result},
    output,
    store::{RunFolder, select},
};

/// Default address of a Pushgateway.
const USUAL_GATEWAY: &str = "http://localhost:9091";

/// Bytes of a worker's checkpoint: some MiB for many histograms.
const CHECKPOINT_BYTES_MAX: u64 = 64 << 20;

/// Longest time for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same where somebody wanted something else than the gateway.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &MetricsArgs) -> Result<i32> {
    let run = select(&args.run)?;
    let run_id = run.record()?.run_id;
    if args.delete {
        let usual = [gateway::JOB, gateway::JOB_OF_COMMAND].map(str::to_owned).to_vec();
        for job in args.job.clone().map_or(usual, |job| vec![job]) {
            ask(&group(args, &run, &job, &run_id), None, PATIENCE)?;
        }
        output::note("Metrics deleted.");
        return Ok(exit::OK);
    }
    let results: Vec<Summed> = run.results().into_iter().map(|one| summed(&run, one)).collect();
    if results.is_empty() {
        let doing = format!("reading the results of run '{run_id}'");
        return Err(CommandError::incomplete(doing, "no load has a result yet"));
    }
    let page = gateway::page(&run_id, &results);
    if args.push {
        let job = args.job.as_deref().unwrap_or(gateway::JOB_OF_COMMAND);
        ask(&group(args, &run, job, &run_id), Some(&page), PATIENCE)?;
        output::out("Metrics pushed successfully!");
    } else if let Some(path) = &args.output {
        fs::write(path, page)
            .map_err(|error| CommandError::usage(format!("writing '{}'", path.display()), error))?;
    } else {
        output::out_raw(page.as_bytes());
    }
    Ok(exit::OK)
}

/// Deletes what an ended run has left on the gateway that its recipe or the environment names.
///
/// # Errors
/// If that does not answer.
pub(super) fn withdraw(run: &RunFolder, run_id: &str) -> Result<()> {
    match named_gateway(run) {
        Some(gateway) => {
            let path = gateway::group_path(gateway::JOB, run_id);
            ask(&format!("{}{path}", gateway.trim_end_matches('/')), None, WITHDRAW_PATIENCE)
        }
        None => Ok(()),
    }
}

/// A result with the buckets of its workers' histograms, where all of them are there.
fn summed(run: &RunFolder, result: LoadResult) -> Summed {
    let repeat = run.files().repeat(&result.load, result.point, result.repeat);
    let logs = (0..result.plan.workers).map(|rank| {
        read::text(&worker::checkpoint(repeat.path(), rank), CHECKPOINT_BYTES_MAX).ok()
    });
    let whole = of_logs(logs, "total");
    Summed { result, buckets: whole.map(|sum| sum.cumulative(&BUCKETS_SECONDS)) }
}

/// URL of the run's group under that job.
fn group(args: &MetricsArgs, run: &RunFolder, job: &str, run_id: &str) -> String {
    let gateway = args.gateway_url.clone().or_else(|| named_gateway(run));
    let gateway = gateway.unwrap_or_else(|| USUAL_GATEWAY.to_owned());
    format!("{}{}", gateway.trim_end_matches('/'), gateway::group_path(job, run_id))
}

/// The gateway of the recipe, else that of the environment.
fn named_gateway(run: &RunFolder) -> Option<String> {
    let of_recipe = run.recipe().ok().and_then(|recipe| recipe.monitor.pushgateway);
    gateway::url(of_recipe.as_deref(), |name| std::env::var(name).ok())
}

/// Puts a page there, or deletes what is there.
fn ask(url: &str, page: Option<&str>, patience: Duration) -> Result<()> {
    let config = Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .proxy(None);
    let agent = Agent::new_with_config(config.build());
    let answer = match page {
        Some(page) => agent.put(url).header("content-type", gateway::CONTENT_TYPE).send(page),
        None => agent.delete(url).call(),
    };
    let failed = |cause: &dyn std::fmt::Display| {
        let doing = format!("asking the Pushgateway at '{}'", gateway::shown(url));
        CommandError::new(exit::CHECK_FAILED, doing, cause)
            .hint("name another one with --gateway-url")
    };
    let answer = answer.map_err(|error| failed(&error))?;
    if answer.status().is_success() { Ok(()) } else { Err(failed(&answer.status())) }
}
