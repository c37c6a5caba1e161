//! What Slurm recorded about a job that has ended.

use aifb_schema::run::JobRecord;

use super::queue::QueuedJob;

/// Asks sacct, else scontrol; `unknown` when neither knows the job. Absent while the job has not
/// ended.
pub(crate) fn record(job: u32) -> Option<JobRecord> {
    if let Some(record) = from_sacct(job).or_else(|| from_scontrol(job)) {
        let queued =
            QueuedJob { state: record.state.clone(), reason: String::new(), start: String::new() };
        return queued.is_over().then_some(record);
    }
    // Neither knows it: ended long ago. But silence of the controller is not the end of a job.
    match super::queue::job(job) {
        Ok(None) => Some(JobRecord {
            state: "unknown".into(),
            source: "scontrol".into(),
            ..JobRecord::default()
        }),
        _ => None,
    }
}

fn from_sacct(job: u32) -> Option<JobRecord> {
    let answer = super::call(
        "sacct",
        &[
            "--allocations".into(),
            "--noheader".into(),
            "--parsable2".into(),
            format!("--jobs={job}"),
            "--format=State,ExitCode,Reason".into(),
        ],
    )
    .ok()?;
    if answer.code != Some(0) {
        return None;
    }
    let line = answer.stdout.lines().next()?;
    let mut fields = line.split('|');
    let (state, exit, reason) = (fields.next()?, fields.next()?, fields.next());
    Some(job_record(state, exit, reason, "sacct"))
}

fn from_scontrol(job: u32) -> Option<JobRecord> {
    let answer = super::call(
        "scontrol",
        &["--oneliner".into(), "show".into(), "job".into(), job.to_string()],
    )
    .ok()?;
    if answer.code != Some(0) {
        return None;
    }
    parse_scontrol(answer.stdout.lines().next()?)
}

fn parse_scontrol(line: &str) -> Option<JobRecord> {
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
    };
    Some(job_record(field("JobState")?, field("ExitCode")?, field("Reason"), "scontrol"))
}

/// `CANCELLED by 1000` loses its tail, `4:0` is code and signal, `None` is no reason.
fn job_record(state: &str, exit: &str, reason: Option<&str>, source: &str) -> JobRecord {
    let (code, signal) = exit.split_once(':').unwrap_or((exit, ""));
    JobRecord {
        state: state.split_whitespace().next().unwrap_or("unknown").to_owned(),
        exit_code: code.parse().ok(),
        signal: signal.parse().ok().filter(|signal| *signal != 0),
        reason: reason.filter(|reason| !matches!(*reason, "" | "None")).map(str::to_owned),
        source: source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let record = job_record("CANCELLED by 1000", "0:15", Some("None"), "sacct");
        assert_eq!(record.state, "CANCELLED");
        assert_eq!((record.exit_code, record.signal, record.reason), (Some(0), Some(15), None));
        let line = "JobId=7 JobName=x JobState=FAILED Reason=NonZeroExitCode ExitCode=4:0 Dead=1";
        let record = parse_scontrol(line).unwrap();
        assert_eq!(record.exit_code, Some(4));
        assert_eq!(record.reason.as_deref(), Some("NonZeroExitCode"));
    }
}
