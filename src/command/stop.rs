//! `aifb stop`.

use std::{
    thread,
    time::{Duration, Instant},
};

use aifb_schema::names::exit;
use serde_json::json;

use crate::{
    agent_client::AgentClient,
    cli::StopArgs,
    error::{CommandError, Result},
    observe::{Liveness, liveness},
    output, slurm,
    store::{RunFolder, select},
};

/// Longest time for an ordered stop: phases drain and every service may take its `stop` time.
const STOP_DEADLINE: Duration = Duration::from_secs(120);

pub(super) fn run(args: &StopArgs) -> Result<i32> {
    let run = match select(&args.run) {
        Err(missing) if args.job => return cancel_waiting(args, missing),
        found => found?,
    };
    let how = stop(&run, args.job)?;
    let record = run.record()?;
    if args.json {
        output::out_json(&json!({
            "run_id": record.run_id,
            "how": how,
            "state": record.state,
            "job_id": record.job.id,
        }));
    } else {
        output::out(format!("{} {}: {how}", record.run_id, record.state.as_str()));
    }
    Ok(0)
}

/// Cancels a job that has no run yet, most often because it still waits in the queue. `missing` says
/// why there is no run; it is the answer where there is no such job either.
fn cancel_waiting(args: &StopArgs, missing: CommandError) -> Result<i32> {
    let Some(job) = args.run.run.as_deref().and_then(|job| job.parse().ok()) else {
        return Err(missing);
    };
    // Without Slurm the error is the missing run.
    let waits = slurm::queue::job(job).ok().flatten().is_some_and(|job| !job.is_over());
    if !waits {
        return Err(missing);
    }
    slurm::scancel(job)?;
    let how = "no run yet; job cancelled";
    if args.json {
        output::out_json(&json!({"run_id": null, "how": how, "state": null, "job_id": job}));
    } else {
        output::out(format!("{job}: {how}"));
    }
    Ok(0)
}

/// Stops a run and waits for its end; what was done.
///
/// # Errors
/// If it does not end.
pub(super) fn stop(run: &RunFolder, cancel_job: bool) -> Result<&'static str> {
    let mut record = run.record()?;
    let job = record.job.id;
    let cancel = |job: Option<u32>| job.map_or(Ok(()), slurm::scancel);
    match liveness(run, &mut record) {
        Liveness::Ended | Liveness::Lost => {
            if let Err(error) = super::metrics::withdraw(run, &record.run_id) {
                output::note(error);
            }
            if cancel_job {
                cancel(job)?;
                return Ok("had ended already; job cancelled");
            }
            return Ok("had ended already");
        }
        Liveness::Alive(_) => {}
        Liveness::Silent(reason) => {
            return if job.is_some() {
                // Nobody there who could stop in order: Slurm can.
                cancel(job)?;
                Ok("no agent responds; job cancelled")
            } else {
                Err(CommandError::incomplete(format!("stopping run '{}'", record.run_id), reason))
            };
        }
    }
    AgentClient::of(run)?.stop()?;
    wait_for_end(run)?;
    if cancel_job {
        cancel(job)?;
        return Ok("stopped; job cancelled");
    }
    Ok("stopped")
}

fn wait_for_end(run: &RunFolder) -> Result<()> {
    let until = Instant::now() + STOP_DEADLINE;
    while !run.record()?.state.is_final() {
        if Instant::now() >= until {
            return Err(CommandError::new(
                exit::INCOMPLETE,
                "waiting for the run to stop",
                format!("not ended after {} s", STOP_DEADLINE.as_secs()),
            )
            .hint("aifb stop --job cancels the whole job"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
