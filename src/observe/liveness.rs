//! What only a reader can know: whether a run that has no end is still alive, and what Slurm
//! recorded after it.

use std::path::Path;

use aifb_runfolder::write;
use aifb_schema::{
    control::RunStatus,
    names::exit,
    run::{Failure, Owner, RunRecord, State},
};

use crate::{agent_client::AgentClient, slurm::account, store::RunFolder};

/// How a run stands.
#[derive(Debug)]
pub(crate) enum Liveness {
    /// run.json says how it ended.
    Ended,
    /// Its coordinator answers.
    Alive(Box<RunStatus>),
    /// It should be alive, but does not answer (yet).
    Silent(String),
    /// Nobody is left who could write its end.
    Lost,
}

/// Asks whoever knows. `record` is changed where a reader knows more than it says.
pub(crate) fn liveness(run: &RunFolder, record: &mut RunRecord) -> Liveness {
    if record.state.is_final() {
        settle(run, record);
        return Liveness::Ended;
    }
    let asked = AgentClient::of(run).and_then(|client| client.status());
    let reason = match asked {
        Ok(status) => {
            *record = status.run.clone();
            return Liveness::Alive(Box::new(status));
        }
        Err(error) => error,
    };
    // The end may have been written between the two looks.
    if let Ok(now) = run.record() {
        *record = now;
        if record.state.is_final() {
            settle(run, record);
            return Liveness::Ended;
        }
    }
    let gone = match record.job.id {
        Some(_) => {
            settle(run, record);
            record.slurm.is_some()
        }
        None => run.coordinator().is_some_and(|agent| !process_lives(agent.pid)),
    };
    if !gone {
        return Liveness::Silent(reason.text);
    }
    let reason = format!("coordinator lost: the run was {} and has no end", record.state.as_str());
    record.state = State::Failed;
    record.failure.get_or_insert_with(|| Failure {
        owner: Owner::Node,
        part: "coordinator".into(),
        reason,
        hint: None,
        log_tail: None,
        exit_code: exit::INCOMPLETE,
    });
    Liveness::Lost
}

/// Adds what Slurm recorded about the job to run.json, once, after the job has ended: nobody else
/// writes the file then. Not being able to is no failure; the next reader tries again.
fn settle(run: &RunFolder, record: &mut RunRecord) {
    let (Some(job), None) = (record.job.id, &record.slurm) else { return };
    let Some(slurm) = account::record(job) else { return };
    record.slurm = Some(slurm);
    drop(write::replace_json(&run.files().record_path(), write::MODE, record));
}

/// Whether a process of this machine lives, by its number.
fn process_lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
