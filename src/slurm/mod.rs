//! Slurm's commands as typed functions: argument lists, never shell text; every call has a
//! deadline; what Slurm says is passed on.

pub(crate) mod account;
pub(crate) mod queue;
pub(crate) mod runner;
pub(crate) mod sbatch;
pub(crate) mod srun;

use std::{env, time::Duration};

use crate::error::{CommandError, Result};
use runner::{Answer, Call};

/// Longest time for a question to Slurm. Its own commands give up after `MessageTimeout` (10 s
/// by default) and try again; beyond this the controller is away.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Calls a command of Slurm.
///
/// # Errors
/// If it is not there or does not end in time; not if it ends with a code other than 0.
pub(crate) fn call(program: &str, args: &[String]) -> Result<Answer> {
    Call::new(program).args(args).deadline(DEADLINE).run().map_err(missing)
}

/// Says what it means that a command of Slurm cannot be started.
fn missing(error: CommandError) -> CommandError {
    if error.hint.is_some() {
        return error;
    }
    error.hint("run this on a login node; without Slurm use: aifb run --local RECIPE")
}

/// Cancels a job.
///
/// # Errors
/// What scancel says; a job that has ended already is no error.
pub(crate) fn scancel(job: u32) -> Result<()> {
    let answer = call("scancel", &[job.to_string()])?;
    let gone = ["Invalid job id", "already completed", "already completing"];
    if answer.code == Some(0) || gone.iter().any(|text| answer.stderr.contains(text)) {
        return Ok(());
    }
    Err(CommandError::slurm(format!("cancelling job '{job}'"), answer.complaint()))
}

/// The job that this process runs in; for a heterogeneous job the leader's id.
pub(crate) fn present_job() -> Option<u32> {
    ["SLURM_HET_JOB_ID", "SLURM_JOB_ID"]
        .iter()
        .find_map(|name| env::var(name).ok().and_then(|text| text.parse().ok()))
}

/// Whether a variable of a job's environment would change what Slurm's commands do, and so must
/// not reach a command that names all it needs.
pub(crate) fn is_slurm_variable(name: &str) -> bool {
    name != "SLURM_CONF"
        && ["SLURM_", "SRUN_", "SBATCH_", "SALLOC_", "SLURMD_", "PMI", "_SLURM_", "SPANK_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_the_configuration_stays() {
        for (name, taken) in [
            ("SLURM_CONF", false),
            ("SLURM_JOB_ID", true),
            ("SRUN_CPUS_PER_TASK", true),
            ("SBATCH_PARTITION", true),
            ("PMIX_RANK", true),
            ("_SLURM_SPANK_OPTION_aifb_aifb_recipe", true),
            ("PATH", false),
            ("AIFB_RUN_DIR", false),
            ("SERVICE_URL", false),
        ] {
            assert_eq!(is_slurm_variable(name), taken, "{name}");
        }
    }
}
