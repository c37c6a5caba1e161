//! The one agent of a run without Slurm.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use aifb_schema::run::{Failure, Owner};
use nix::sys::{prctl, signal::Signal};

use super::{agents::Agents, environment::Environment, folder::RunFolder};
use crate::sys::{self, BeforeExec};

/// Starts the agent. It gets SIGTERM when the launcher dies, and the launcher inherits what the
/// agent leaves when that dies: neither death leaves a process.
///
/// # Errors
/// The system refuses.
pub(crate) fn start(
    agents: &mut Agents,
    environment: &Environment,
    folder: &RunFolder,
    program: &str,
) -> Result<(), Failure> {
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::new(Owner::Node, "launcher", format!("starting '{program} run': {cause}"))
    };
    prctl::set_child_subreaper(true).map_err(|error| failed(&error))?;
    let log = folder.log().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command
        .arg("run")
        .env_clear()
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0);
    sys::before_exec(
        &mut command,
        BeforeExec {
            death_signal: Some(Signal::SIGTERM),
            clear_mask: true,
            ..BeforeExec::default()
        },
    );
    agents.add(command.spawn().map_err(|error| failed(&error))?);
    Ok(())
}
