//! Agents as steps of the job: one srun for each component.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use aifb_schema::run::{Failure, Owner};

use super::{agents::Agents, environment::Environment, folder::RunFolder, job::Allocation};
use crate::sys::{self, BeforeExec};

/// Starts the agents of all components.
///
/// # Errors
/// srun is not there, or the system refuses.
pub(crate) fn start(
    agents: &mut Agents,
    allocation: &Allocation,
    environment: &Environment,
    folder: &RunFolder,
    program: &str,
) -> Result<(), Failure> {
    let id = allocation.job.id.unwrap_or_default();
    let several = allocation.job.components.len() > 1;
    for (index, nodes) in allocation.job.components.iter().enumerate() {
        let failed = |cause: &dyn std::fmt::Display| {
            Failure::new(Owner::Slurm, "launcher", format!("starting srun: {cause}"))
                .with_hint("srun must be on PATH on the node where the job's script runs")
        };
        let log = folder.log().map_err(|error| failed(&error))?;
        let mut command = Command::new("srun");
        command
            .args(arguments(id, nodes.len(), several.then_some(index)))
            .args([program, "run"])
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0);
        sys::before_exec(&mut command, BeforeExec { clear_mask: true, ..BeforeExec::default() });
        agents.add(command.spawn().map_err(|error| failed(&error))?);
    }
    Ok(())
}

/// Ends the helper that each srun keeps beside itself: it kills the whole step when srun dies
/// alone. At the end of a job script Slurm kills launcher, srun and helper, in any order, and the
/// agents must outlive them by the seconds they need for an orderly stop.
pub(crate) fn detach_steps(pids: &[u32]) {
    for pid in pids {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse::<i32>().ok()) {
            let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            if name.trim() == "srun" {
                let _gone = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(child),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

/// Everything is an explicit argument, nothing is left to the environment.
fn arguments(job: u32, nodes: usize, component: Option<usize>) -> Vec<String> {
    let mut words = vec![
        format!("--jobid={job}"),
        "--overlap".to_owned(),
        format!("-N{nodes}"),
        format!("-n{nodes}"),
    ];
    words.extend(
        [
            "--ntasks-per-node=1",
            "--mem=0",
            "--cpu-bind=none",
            "--mpi=none",
            "--input=all",
            "--export=ALL",
            "--kill-on-bad-exit=0",
            "--job-name=aifb-agent",
        ]
        .map(str::to_owned),
    );
    words.extend(component.map(|k| format!("--het-group={k}")));
    words
}
