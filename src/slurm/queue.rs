//! What the queue says about a job.

use crate::error::{CommandError, Result};

/// A job as squeue sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedJob {
    /// State word, such as `PENDING`.
    pub(crate) state: String,
    /// Why it pends, or `None`.
    pub(crate) reason: String,
    /// Expected or true start, as Slurm writes it; `N/A` when it does not know.
    pub(crate) start: String,
}

impl QueuedJob {
    /// Whether nothing of the job will run any more.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(
            self.state.as_str(),
            "PENDING"
                | "CONFIGURING"
                | "RUNNING"
                | "COMPLETING"
                | "SUSPENDED"
                | "STOPPED"
                | "REQUEUED"
                | "REQUEUE_FED"
                | "REQUEUE_HOLD"
                | "RESIZING"
                | "RESV_DEL_HOLD"
                | "SIGNALING"
                | "SPECIAL_EXIT"
                | "STAGE_OUT"
        )
    }

    /// Whether it has not started yet.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state.as_str(), "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "SPECIAL_EXIT")
    }
}

/// Asks squeue; absent: Slurm does not know the job (any more).
///
/// # Errors
/// If squeue cannot be run.
pub(crate) fn job(id: u32) -> Result<Option<QueuedJob>> {
    let answer = super::call(
        "squeue",
        &[
            "--noheader".into(),
            format!("--jobs={id}"),
            "--states=all".into(),
            "--format=%T|%r|%S".into(),
        ],
    )?;
    if answer.code == Some(0) {
        return Ok(answer.stdout.lines().next().and_then(parse));
    }
    if answer.stderr.contains("Invalid job id") {
        return Ok(None);
    }
    Err(CommandError::slurm(format!("asking squeue for job '{id}'"), answer.complaint()))
}

fn parse(line: &str) -> Option<QueuedJob> {
    let mut fields = line.trim().splitn(3, '|').map(str::to_owned);
    Some(QueuedJob { state: fields.next()?, reason: fields.next()?, start: fields.next()? })
}

/// The reasons for which this user's jobs pend, with their numbers.
///
/// # Errors
/// If squeue cannot be run.
pub(crate) fn pending_reasons(user: &str) -> Result<Vec<(String, String, String)>> {
    let answer = super::call(
        "squeue",
        &[
            "--noheader".into(),
            format!("--user={user}"),
            "--states=PENDING".into(),
            "--start".into(),
            "--format=%i|%r|%S".into(),
        ],
    )?;
    if answer.code != Some(0) {
        return Err(CommandError::slurm("asking squeue for pending jobs", answer.complaint()));
    }
    Ok(answer
        .stdout
        .lines()
        .filter_map(|line| {
            let mut fields = line.trim().splitn(3, '|').map(str::to_owned);
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_squeue_are_read() {
        let job = parse("PENDING|Resources|2026-01-01T00:00:00\n").unwrap();
        assert!(job.is_pending() && !job.is_over());
        assert_eq!(job.reason, "Resources");
        for (state, over) in [
            ("RUNNING", false),
            ("COMPLETING", false),
            ("COMPLETED", true),
            ("OUT_OF_MEMORY", true),
        ] {
            assert_eq!(parse(&format!("{state}|None|N/A")).unwrap().is_over(), over, "{state}");
        }
        assert_eq!(parse("RUNNING"), None);
    }
}
