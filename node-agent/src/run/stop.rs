//! Signals, strays, and the end of an agent.

use std::{rc::Rc, time::Duration};

use nix::{
    sys::{
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{context::Context, peer::Peer};
use crate::process::tree::{self, Stat};

/// How often the agent looks for children that are none of its own.
pub(super) const STRAYS_EVERY: Duration = Duration::from_secs(1);

/// After a signal an agent waits so long for the coordinator's orders before it ends by itself.
const ORDERS_AFTER_SIGNAL: Duration = Duration::from_millis(3_200);

/// Grace of services when no coordinator leads the end; the whole fits the shortest KillWait.
pub(super) const GRACE_ALONE: Duration = Duration::from_millis(500);

/// Longest time for replicas that are still there when everything was ordered to end.
pub(super) const LAST_REPLICAS: Duration = Duration::from_millis(500);

/// Longest time for the last lines of the log.
pub(super) const LAST_WRITES: Duration = Duration::from_millis(500);

/// Longest time for killed processes to vanish.
const KILL_PATIENCE: Duration = Duration::from_millis(500);

/// Hears SIGTERM, SIGINT and SIGHUP. What a user sends to the steps of a job for a script or a
/// program of theirs (`scancel -s USR1`, `sbatch --signal=USR1@60`) does nothing here.
pub(super) fn listen() -> std::io::Result<mpsc::Receiver<Signal>> {
    for kind in [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::alarm()] {
        // A handler, which stays, and not SIG_IGN, which services would inherit.
        let _handled = signal(kind)?;
    }
    let (sender, receiver) = mpsc::channel(4);
    for (kind, name) in [
        (SignalKind::terminate(), Signal::SIGTERM),
        (SignalKind::interrupt(), Signal::SIGINT),
        (SignalKind::hangup(), Signal::SIGHUP),
    ] {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() {
                // A flood of the same signal says nothing new.
                let _full = sender.try_send(name);
            }
        });
    }
    Ok(receiver)
}

/// Resolves when this agent must end without orders: a signal requested its end, and the
/// coordinator is lost or silent.
pub(super) async fn alone(context: &Rc<Context>, peer: &Rc<Peer>) {
    context.ending.wait().await;
    let since = context.ending.since().map_or(Duration::ZERO, |at| at.elapsed());
    if !peer.lost() {
        tokio::time::sleep(ORDERS_AFTER_SIGNAL.saturating_sub(since)).await;
    }
}

/// Children that are none of this agent's: what a killed supervisor left behind. Every child that the
/// agent starts is a supervisor, and so this program.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Dead ones, seen the last time: the runtime has reaped its own by now.
    dead: Vec<u32>,
}

impl Strays {
    /// Kills what lives and reaps what is dead.
    pub(super) fn sweep(&mut self) {
        let own = std::process::id();
        let program = std::fs::read_link("/proc/self/exe").ok();
        let mut dead = Vec::new();
        for pid in tree::children(own).unwrap_or_default() {
            match std::fs::read_link(format!("/proc/{pid}/exe")) {
                Ok(path) if Some(&path) == program.as_ref() => {}
                Ok(path) => {
                    tracing::warn!(pid, program = %path.display(), "killing a stray process");
                    tree::descendants(pid).into_iter().for_each(tree::kill_hard);
                    tree::kill_hard(pid);
                }
                Err(_) if Stat::read(pid).is_some_and(|stat| stat.zombie) => dead.push(pid),
                Err(_) => {}
            }
        }
        for pid in dead.iter().filter(|pid| self.dead.contains(pid)) {
            if let Ok(pid) = i32::try_from(*pid) {
                let _reaped = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
        self.dead = dead;
    }
}

/// Kills everything below this process.
pub(super) fn kill_all() {
    let own = std::process::id();
    for pid in tree::descendants(own) {
        if Stat::read(pid).is_some_and(|stat| !stat.zombie) {
            tracing::warn!(pid, "killed at the end");
        }
    }
    tree::kill_descendants(KILL_PATIENCE);
}
