//! Following a submitted job to its end.

use std::{
    thread,
    time::{Duration, Instant},
};

use aifb_schema::{
    names::exit,
    run::{JobRecord, RunRecord, State},
};
use serde_json::json;

use crate::{
    cli::{RunSelector, RunsDir},
    error::{CommandError, Result},
    observe::follow::{self, Follower},
    output,
    programs::Prepared,
    signals::Interrupts,
    slurm::{account, queue},
    store::{self, Roots, RunFolder},
};

/// Pause between two questions to the queue. Many users do this at once.
const QUEUE_EVERY: Duration = Duration::from_secs(3);

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Time for the accounting to learn of a job's end; slurmdbd is behind by seconds.
const RECORD_DEADLINE: Duration = Duration::from_secs(15);

/// Questions to the queue that may fail in a row: the controller restarts within a minute or two.
const QUEUE_PATIENCE: u32 = 40;

/// Follows a job: its place in the queue, then its run, then its end.
///
/// # Errors
/// If Slurm does not answer for minutes.
pub(super) fn follow(job: u32, prepared: &Prepared, as_json: bool) -> Result<i32> {
    let interrupts = Interrupts::note()?;
    let runs = prepared.snapshot.runs.as_ref().map_or_else(Roots::default_root, Into::into);
    let selector = RunSelector { run: Some(job.to_string()), root: RunsDir { runs: Some(runs) } };
    let mut watched =
        Watched { job, follower: None, run_over: false, queue: String::new(), failures: 0 };
    let mut asked: Option<Instant> = None;
    loop {
        // After the end of the run the job's own is near.
        let every = if watched.run_over { LOOK } else { QUEUE_EVERY };
        if let Some(code) = interrupts.code() {
            output::note(format!(
                "aifb: job {job} keeps running; follow it: aifb watch {job}; stop it: aifb stop \
                 {job} --job"
            ));
            return Ok(code);
        }
        // A requeued job has a new run: the newest is followed.
        let found = store::select(&selector).ok();
        watched.turn_to(found);
        watched.news();
        if asked.is_none_or(|asked| asked.elapsed() >= every) {
            asked = Some(Instant::now());
            if watched.queue_says_over()? {
                break;
            }
        }
        thread::sleep(LOOK);
    }
    // What was written between the last look and the end.
    let found = store::select(&selector).ok();
    watched.turn_to(found);
    watched.news();
    let recorded = job_record(job);
    finish(job, store::select(&selector).ok(), recorded, as_json)
}

struct Watched {
    job: u32,
    follower: Option<Follower>,
    run_over: bool,
    queue: String,
    failures: u32,
}

impl Watched {
    fn turn_to(&mut self, found: Option<RunFolder>) {
        let Some(run) = found else { return };
        if self.follower.as_ref().is_none_or(|follower| *follower.folder() != run) {
            output::note(format!("aifb: run folder {}", run.path().display()));
            self.follower = Some(Follower::new(run));
        }
    }

    /// Prints what is new in the run.
    fn news(&mut self) {
        let Some(news) = self.follower.as_mut().and_then(|follower| follower.look().ok()) else {
            return;
        };
        self.run_over = news.over;
        for event in &news.events {
            output::note(follow::event_line(event, &news.run));
        }
        for load in &news.loads {
            output::note(follow::load_line(load, &news.run));
        }
    }

    /// Asks the queue and prints what changed.
    fn queue_says_over(&mut self) -> Result<bool> {
        let job = match queue::job(self.job) {
            Ok(job) => job,
            Err(error) => {
                self.failures += 1;
                if self.failures > QUEUE_PATIENCE {
                    return Err(error);
                }
                return Ok(false);
            }
        };
        self.failures = 0;
        let Some(job) = job else { return Ok(true) };
        let mut text = format!("job {} {}", self.job, job.state.to_lowercase());
        if job.is_pending() && job.reason != "None" {
            text.push_str(&format!(": {}", job.reason));
            if job.start != "N/A" {
                text.push_str(&format!(", expected start {}", job.start));
            }
        }
        if text != self.queue && !job.is_over() {
            output::note(&text);
        }
        self.queue = text;
        Ok(job.is_over())
    }
}

/// What Slurm recorded, which may take it some seconds.
fn job_record(job: u32) -> Option<JobRecord> {
    let until = Instant::now() + RECORD_DEADLINE;
    loop {
        let record = account::record(job);
        if record.is_some() || Instant::now() >= until {
            return record;
        }
        thread::sleep(LOOK);
    }
}

fn finish(
    job: u32,
    run: Option<RunFolder>,
    recorded: Option<JobRecord>,
    as_json: bool,
) -> Result<i32> {
    let state = recorded.as_ref().map_or("unknown", |record| record.state.as_str());
    let Some(run) = run else {
        return Err(CommandError::slurm(
            format!("following job '{job}'"),
            format!("it ended ({state}) before a run started"),
        )
        .hint(format!("see the job's output, by default slurm-{job}.out; and: aifb doctor")));
    };
    let mut record = run.record()?;
    // Also derives the end of a run whose recorder was lost.
    crate::observe::liveness(&run, &mut record);
    let code = code(&record, recorded.as_ref());
    if as_json {
        output::out_json(&json!({
            "ok": code == 0,
            "job_id": job,
            "job": recorded,
            "run_id": record.run_id,
            "run_dir": run.path(),
            "state": record.state,
            "failure": record.failure,
            "exit_code": code,
        }));
        return Ok(code);
    }
    super::report(run.path());
    output::out(format!("run folder: {}", run.path().display()));
    Ok(code)
}

/// The exit code for the end of a job: why the run failed, else what the script returned, else
/// whether Slurm ended it.
fn code(run: &RunRecord, job: Option<&JobRecord>) -> i32 {
    if let Some(failure) = &run.failure {
        return failure.exit_code;
    }
    match job {
        Some(JobRecord { exit_code: Some(code), .. }) if *code != 0 => *code,
        Some(JobRecord { state, .. }) if state != "COMPLETED" && state != "unknown" => {
            exit::INCOMPLETE
        }
        _ if run.state == State::Failed => exit::INCOMPLETE,
        _ => exit::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aifb_schema::run::{Failure, Owner};

    #[test]
    fn codes_say_what_failed_first() {
        let mut run: RunRecord = serde_json::from_value(json!({
            "protocol": 1, "version": "", "run_id": "", "name": "", "mode": "", "uid": 0,
            "state": "completed", "recipe_path": "", "recipe_sha256": "", "sets": [],
            "job": {"components": []}, "submit_dir": "", "started_epoch_ns": 0,
        }))
        .unwrap();
        let job = |state: &str, code: Option<i32>| {
            Some(JobRecord { state: state.into(), exit_code: code, ..JobRecord::default() })
        };
        for (record, expected) in [
            (job("COMPLETED", Some(0)), 0),
            (None, 0),
            (job("FAILED", Some(7)), 7),
            (job("TIMEOUT", Some(0)), 5),
            (job("unknown", None), 0),
        ] {
            assert_eq!(code(&run, record.as_ref()), expected, "{record:?}");
        }
        run.failure = Some(Failure::new(Owner::Service, "web", "gone"));
        assert_eq!(code(&run, job("FAILED", Some(7)).as_ref()), 4);
    }
}
