//! The launcher's life after the start: it passes messages on and notices deaths.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    process::ExitStatus,
    time::{Duration, Instant},
};

use aifb_schema::{
    control::{CoordinatorAt, FromCoordinator},
    names::{exit, file},
    run::{Failure, Owner, State},
    snapshot::Wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Launch,
    agents::{Agents, Happened, last_words},
    coordinator, line_of, srun,
    status::Status,
};
use crate::{
    process::{script, tree},
    supervisor::ORPHAN_GRACE,
};

/// Longest time until the coordinator listens: a node's prolog may take a minute before its
/// first step starts, and Slurm itself gives up on a message only after that.
const START_DEADLINE: Duration = Duration::from_secs(150);

/// Time for the processes to end by themselves after the coordinator's last word.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How far the launch is.
#[derive(Default)]
struct Progress {
    coordinator: Option<SocketAddr>,
    /// The coordinator does not answer any more.
    silent: bool,
    /// The caller has got its answer.
    answered: bool,
    failure: Option<Failure>,
    ended: Option<State>,
    exited: usize,
    signal: Option<Signal>,
    /// When all must be over.
    deadline: Option<Instant>,
    /// srun is dead, but the agents live on without it.
    orphaned: bool,
}

impl Progress {
    /// Whether nothing can follow: all processes have ended, and no coordinator lives on.
    fn over(&self, processes: usize) -> bool {
        self.exited >= processes && (!self.orphaned || self.silent)
    }

    /// Whether the agents may live on after the end of srun.
    fn may_go_on(&self, local: bool) -> bool {
        !local && self.ended.is_none() && !self.silent
    }
}

impl Launch {
    /// Goes on until everything has ended; the exit code of the launcher.
    pub(super) fn follow(&mut self, agents: Agents) -> i32 {
        let mut progress = Progress {
            answered: self.wait == Wait::None,
            deadline: Some(Instant::now() + START_DEADLINE),
            ..Progress::default()
        };
        while !progress.over(agents.pids.len()) {
            match agents.next(progress.deadline) {
                Some(Happened::Message(said)) => self.said(said, &agents, &mut progress),
                Some(Happened::Exited(index, status)) => {
                    self.exited(index, status, &mut progress);
                }
                Some(Happened::Signal(signal)) => self.signalled(signal, &agents, &mut progress),
                Some(Happened::Silent(cause)) => self.silent(&cause, &agents, &mut progress),
                None if progress.deadline.is_some_and(|at| at <= Instant::now()) => {
                    self.too_late(&agents, &mut progress);
                }
                None => {}
            }
        }
        self.finish(progress)
    }

    fn said(&mut self, said: FromCoordinator, agents: &Agents, progress: &mut Progress) {
        match said {
            FromCoordinator::At { address } => {
                progress.deadline = None;
                srun::detach_steps(&agents.pids);
                if let Ok(line) = line_of(&CoordinatorAt { coordinator: address.clone() }) {
                    agents.send(&line);
                }
                if let Ok(address) = address.parse() {
                    coordinator::watch(address, self.token.clone(), agents.sender());
                    progress.coordinator = Some(address);
                }
            }
            FromCoordinator::Ready { environment } => {
                // Again: now the steps of all components are there.
                srun::detach_steps(&agents.pids);
                if !progress.answered {
                    self.pass_on(&environment);
                    progress.answered = true;
                }
                self.status.say(&format!("healthy; run folder '{}'", self.folder.text()));
            }
            FromCoordinator::Failed { failure } => {
                self.answer(&failure, progress);
                progress.failure = Some(failure);
            }
            FromCoordinator::Ended { state } => {
                progress.ended = Some(state);
                progress.deadline = Some(Instant::now() + END_PATIENCE);
            }
        }
    }

    /// Tells the caller of a failure, once.
    fn answer(&mut self, failure: &Failure, progress: &mut Progress) {
        if !progress.answered {
            self.status.failed(failure, Some(self.folder.text()));
            progress.answered = true;
        } else if self.status.is_heard() {
            self.tell_script(failure);
        } else {
            self.status.say(&failure.render());
        }
    }

    /// Writes a failure that came after the script's start into the job's output, where that is a
    /// file: the launcher itself has none.
    fn tell_script(&self, failure: &Failure) {
        let Some(script) = self.script.filter(|script| script::lives(*script)) else { return };
        let path = format!("/proc/{}/fd/2", script.pid);
        let is_file = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if is_file && let Ok(mut output) = File::options().append(true).open(&path) {
            let text = format!("aifb: {}\n", Status::text(failure, Some(self.folder.text())));
            let _full = output.write_all(text.as_bytes());
        }
    }

    fn exited(&mut self, index: usize, status: Option<ExitStatus>, progress: &mut Progress) {
        progress.exited += 1;
        let bad = status.is_none_or(|status| !status.success());
        if let Some(address) = progress.coordinator.filter(|_| progress.may_go_on(self.local)) {
            progress.orphaned = coordinator::answers(address, &self.token);
            if progress.orphaned && !progress.answered {
                // The news of their health would come through srun.
                let failure = self.not_started(index, status);
                self.answer(&failure, progress);
                coordinator::stop(address, &self.token, Some(&failure));
                progress.failure = Some(failure);
            }
            return;
        }
        if progress.coordinator.is_none() && progress.failure.is_none() && progress.signal.is_none()
        {
            let failure = self.not_started(index, status);
            self.answer(&failure, progress);
            progress.failure = Some(failure);
            // What the others wait for will not come.
            progress.deadline = Some(Instant::now());
        } else if bad && progress.ended.is_none() && self.local {
            progress.deadline = Some(Instant::now());
        }
    }

    fn not_started(&self, index: usize, status: Option<ExitStatus>) -> Failure {
        let how = status.map_or_else(|| "an unknown status".to_owned(), |s| s.to_string());
        let log = self.folder.path().join(file::LAUNCH_LOG);
        let mut words = last_words(&log);
        if words.is_empty() {
            words = format!("it ended with {how}");
        }
        if self.local {
            return Failure::new(Owner::Node, "agent", format!("starting the agent: {words}"));
        }
        let component = match self.record.job.components.len() {
            0 | 1 => String::new(),
            _ => format!(" of component {index}"),
        };
        Failure::new(
            Owner::Slurm,
            "agents",
            format!("starting the agents{component} by srun: {words}"),
        )
        .with_hint("try `srun --overlap hostname` inside a job; some sites restrict it")
    }

    fn signalled(&mut self, signal: Signal, agents: &Agents, progress: &mut Progress) {
        progress.signal = Some(signal);
        if self.local || progress.coordinator.is_none() {
            // In a job srun passes it on to its step, or gives up creating it.
            let signal = if signal == Signal::SIGINT { signal } else { Signal::SIGTERM };
            for pid in &agents.pids {
                send(*pid, signal);
            }
            progress.deadline = Some(Instant::now() + END_PATIENCE);
        } else if !progress.answered
            && let Some(address) = progress.coordinator
        {
            // Somebody who waits for the services has given up.
            coordinator::stop(address, &self.token, None);
            progress.deadline = Some(Instant::now() + END_PATIENCE);
        }
        // Else the agents get Slurm's own signal.
    }

    fn silent(&mut self, cause: &str, agents: &Agents, progress: &mut Progress) {
        if progress.ended.is_some() {
            return;
        }
        progress.silent = true;
        if progress.orphaned && self.folder.read_record().is_some_and(|r| r.state.is_final()) {
            // It had no way left to say so.
            return;
        }
        // Its last words may still be on their way through srun.
        while let Some(happened) = agents.next(Some(Instant::now() + Duration::from_millis(500))) {
            match happened {
                Happened::Message(said) => self.said(said, agents, progress),
                Happened::Exited(index, status) => self.exited(index, status, progress),
                Happened::Signal(signal) => self.signalled(signal, agents, progress),
                Happened::Silent(_) => {}
            }
            if progress.ended.is_some() {
                return;
            }
        }
        let failure = self.lost(cause);
        self.answer(&failure, progress);
        self.close(State::Failed, Some(failure.clone()), None);
        progress.failure.get_or_insert(failure);
    }

    fn lost(&self, cause: &str) -> Failure {
        let nodes = self.record.job.components.first();
        let node = nodes.and_then(|nodes| nodes.first()).map_or("coordinator", String::as_str);
        Failure::new(Owner::Node, node, format!("coordinator lost: {cause}"))
            .with_hint("its agent or node died; the measurements until then are in the run folder")
    }

    fn too_late(&mut self, agents: &Agents, progress: &mut Progress) {
        let waited_for_start = progress.coordinator.is_none()
            && progress.signal.is_none()
            && progress.failure.is_none();
        if waited_for_start {
            let log = self.folder.path().join(file::LAUNCH_LOG);
            let words = last_words(&log);
            let failure = Failure::new(
                if self.local { Owner::Node } else { Owner::Slurm },
                "agents",
                format!("the agents were not up within {} s: {words}", START_DEADLINE.as_secs()),
            )
            .with_hint("`squeue --steps` shows whether their step was created");
            self.answer(&failure, progress);
            progress.failure = Some(failure);
        }
        for pid in &agents.pids {
            send(*pid, Signal::SIGKILL);
        }
        progress.deadline = Some(Instant::now() + END_PATIENCE);
    }

    /// Everything has ended: sees that run.json says how.
    fn finish(&mut self, progress: Progress) -> i32 {
        if self.local {
            // Supervisors that have lost their agent put things in order first.
            tree::end_descendants(
                ORPHAN_GRACE + Duration::from_millis(500),
                Duration::from_secs(5),
            );
        }
        for trouble in self.unfinished.finish(self.folder.path()) {
            self.status.say(&trouble);
        }
        if progress.ended.is_none() {
            match (progress.failure, progress.signal) {
                (Some(failure), _) => self.close(State::Failed, Some(failure), None),
                (None, Some(signal)) if progress.coordinator.is_none() => {
                    self.close(State::Cancelled, None, Some(word(signal)));
                }
                (None, _) => {
                    let failure = self.lost("its step ended without a message");
                    self.close(State::Failed, Some(failure), None);
                }
            }
        }
        let record = self.folder.read_record();
        let state = progress.ended.or_else(|| record.as_ref().map(|record| record.state));
        if !progress.answered
            && let Some(failure) = record.as_ref().and_then(|record| record.failure.clone())
        {
            self.status.failed(&failure, Some(self.folder.text()));
        }
        match (state, progress.signal) {
            (Some(State::Completed), _) => exit::OK,
            (Some(State::Failed), _) => record
                .and_then(|record| record.failure)
                .map_or(exit::INCOMPLETE, |failure| failure.exit_code),
            (_, Some(Signal::SIGINT)) => exit::INTERRUPTED,
            (_, Some(_)) => exit::TERMINATED,
            _ => exit::OK,
        }
    }
}

fn word(signal: Signal) -> &'static str {
    signal.as_str().trim_start_matches("SIG")
}

fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}
