//! The processes of one repeat: one srun, or on this machine one process for each client.

use std::{
    env,
    ffi::OsString,
    io,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aifb_schema::names::{env as variable, exit};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{CommandError, Result},
    signals::Interrupts,
    slurm::{is_slurm_variable, runner::shell_code, srun::Step},
};

/// Pause between two looks at the processes.
const LOOK: Duration = Duration::from_millis(50);

/// Time for clients to end after SIGTERM: they cancel what is in flight and close their files.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// What is to be started.
#[derive(Debug)]
pub(super) enum Tasks {
    /// One step of the job.
    Step(Step),
    /// Processes of this machine.
    Local {
        /// How many.
        clients: u32,
        /// Name of the group.
        step: String,
        /// Program and arguments.
        command: Vec<OsString>,
    },
}

impl Tasks {
    /// The command lines, for people.
    pub(super) fn shown(&self) -> Vec<Vec<OsString>> {
        match self {
            Self::Step(step) => vec![step.argv()],
            Self::Local { clients, step, command } => (0..*clients)
                .map(|rank| {
                    let mut words: Vec<OsString> = vec![
                        format!("{}={rank}", variable::LOCAL_RANK).into(),
                        format!("{}={clients}", variable::LOCAL_SIZE).into(),
                        format!("{}={step}", variable::LOCAL_STEP).into(),
                    ];
                    words.extend(command.iter().cloned());
                    words
                })
                .collect(),
        }
    }

    fn commands(&self) -> Vec<Command> {
        match self {
            Self::Step(step) => vec![step.process()],
            Self::Local { clients, step, command } => (0..*clients)
                .map(|rank| {
                    let mut words = command.iter();
                    let mut process = Command::new(words.next().cloned().unwrap_or_default());
                    process.args(words);
                    for (name, _) in env::vars_os() {
                        if name.to_str().is_some_and(is_slurm_variable) {
                            process.env_remove(&name);
                        }
                    }
                    process.env(variable::LOCAL_RANK, rank.to_string());
                    process.env(variable::LOCAL_SIZE, clients.to_string());
                    process.env(variable::LOCAL_STEP, step);
                    process
                })
                .collect(),
        }
    }

    /// Starts them with these variables and waits for their end; `tick` is called now and then.
    /// The highest exit code, 128 + signal for one that died of a signal.
    ///
    /// # Errors
    /// If one cannot be started, or an interrupt came.
    pub(super) fn run(
        &self,
        variables: &std::collections::BTreeMap<String, String>,
        interrupts: &Interrupts,
        mut tick: impl FnMut(),
    ) -> Result<i32> {
        let mut children = Children(Vec::new());
        for mut command in self.commands() {
            command.envs(variables).stdin(Stdio::null()).stdout(Stdio::from(io::stderr()));
            let name = command.get_program().to_string_lossy().into_owned();
            let child = command
                .spawn()
                .map_err(|error| CommandError::slurm(format!("starting '{name}'"), error))?;
            children.0.push(child);
        }
        let mut worst = 0;
        while !children.0.is_empty() {
            worst = worst.max(children.reap());
            if let Some(code) = interrupts.code() {
                children.end();
                let why = match code {
                    exit::INTERRUPTED => "interrupted (Ctrl-C)",
                    _ => "ended by SIGTERM",
                };
                return Err(CommandError::new(code, "running the load", why));
            }
            tick();
            thread::sleep(LOOK);
        }
        Ok(worst)
    }
}

/// Processes that end with us.
struct Children(Vec<Child>);

impl Children {
    /// Takes out those that have ended; their highest exit code.
    fn reap(&mut self) -> i32 {
        let mut worst = 0;
        self.0.retain_mut(|child| match child.try_wait() {
            Ok(Some(status)) => {
                worst = worst.max(shell_code(status));
                false
            }
            Ok(None) => true,
            Err(_) => false,
        });
        worst
    }

    fn signal(&self, signal: Signal) {
        for child in &self.0 {
            if let Ok(pid) = i32::try_from(child.id()) {
                // It may have ended meanwhile.
                let _gone = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Asks them to end, then makes them.
    fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        let until = Instant::now() + END_DEADLINE;
        while !self.0.is_empty() && Instant::now() < until {
            self.reap();
            thread::sleep(LOOK);
        }
        self.signal(Signal::SIGKILL);
        for child in &mut self.0 {
            drop(child.wait());
        }
        self.0.clear();
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            self.end();
        }
    }
}
