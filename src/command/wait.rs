//! `aifb wait`: until the services answer.

use std::{
    thread,
    time::{Duration, Instant},
};

use aifb_schema::{
    names::exit,
    run::{RunRecord, State},
};
use serde_json::json;

use crate::{
    cli::{RunSelector, WaitArgs},
    error::{CommandError, Result},
    observe::{Liveness, liveness},
    output, slurm,
    store::{RunFolder, select},
};

/// Pause between two looks at run.json.
const EVERY: Duration = Duration::from_millis(100);

/// How often agents are checked for life, in polls.
const LOOKS_A_CHECK: u32 = 50;

pub(super) fn run(args: &WaitArgs) -> Result<i32> {
    let until = Instant::now() + args.timeout;
    let run = wait_for_folder(&args.run, until)?;
    let record = wait_until_healthy(&run, until)?;
    if args.json {
        output::out_json(&json!({
            "run_id": record.run_id,
            "state": record.state,
            "endpoints": run.files().endpoints(),
        }));
    } else {
        for endpoint in run.files().endpoints() {
            output::out(format!("{} {}", endpoint.service, endpoint.url));
        }
    }
    Ok(0)
}

/// The run folder, which the launcher makes soon after the job's start.
fn wait_for_folder(selector: &RunSelector, until: Instant) -> Result<RunFolder> {
    loop {
        let error = match select(selector) {
            Ok(run) => return Ok(run),
            Err(error) => error,
        };
        // Only the run of this very job can still come.
        if selector.run.is_some() || slurm::present_job().is_none() {
            return Err(error);
        }
        if Instant::now() >= until {
            return Err(CommandError::new(
                exit::SLURM,
                "waiting for the run of this job",
                "no agent started",
            )
            .hint(
                "was the job submitted with --aifb-recipe, and is the plugin on its first node? \
                 see launch.log in the run folder, and: aifb doctor",
            ));
        }
        thread::sleep(EVERY);
    }
}

/// Waits until every service was healthy once.
///
/// # Errors
/// The failure of the run, or the deadline.
pub(super) fn wait_until_healthy(run: &RunFolder, until: Instant) -> Result<RunRecord> {
    for look in 1_u32.. {
        let mut record = run.record()?;
        if look % LOOKS_A_CHECK == 0 && matches!(liveness(run, &mut record), Liveness::Lost) {
            // The reason is in the record now.
        }
        if let Some(failure) = &record.failure {
            return Err(CommandError::of_run(&record.run_id, failure));
        }
        if record.healthy_epoch_ns.is_some() || record.state == State::Healthy {
            return Ok(record);
        }
        if record.state.is_final() {
            return Err(CommandError::incomplete(
                format!("waiting for run '{}'", record.run_id),
                format!("it is {}", record.state.as_str()),
            ));
        }
        if Instant::now() >= until {
            return Err(CommandError::new(
                exit::SERVICE,
                format!("waiting for the services of run '{}'", record.run_id),
                format!("still {} at the time limit", record.state.as_str()),
            )
            .hint("see their progress with aifb status and aifb logs show"));
        }
        thread::sleep(EVERY);
    }
    Err(CommandError::incomplete("waiting for the services", "gave up"))
}
