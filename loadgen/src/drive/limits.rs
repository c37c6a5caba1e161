//! What the system lets this process have.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Pid, SysconfVar, sysconf},
};

use crate::{
    error::Fatal,
    job::Job,
    plan::{Sends, WorkerPlan},
};

/// Descriptors for everything but connections: files, timer, sockets to the agent, resolver.
const OTHER_DESCRIPTORS: u64 = 64;

/// Raises the limit of open files as far as allowed; gives the most requests in flight.
///
/// # Errors
/// If a closed load needs more.
pub(crate) fn descriptors(job: &Job, plan: &WorkerPlan) -> Result<u64, Fatal> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| Fatal::loadgen(format!("reading the limit of open files: {error}")))?;
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let room = limit.saturating_sub(OTHER_DESCRIPTORS);
    if let Sends::Closed { slots, .. } = plan.sends
        && u64::from(slots) > room
    {
        return Err(Fatal::node(format!(
            "load '{}': {slots} connections in one task, but only {limit} open files are allowed",
            job.plan.load.name
        ))
        .hint("use more clients, or raise the limit: ulimit -n"));
    }
    Ok(room)
}

/// CPUs that this process may use: those of its first thread, which is never pinned.
fn cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::this()) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// How many CPUs the machine has.
pub(crate) fn machine_cpus() -> i64 {
    sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().map_or(1, i64::from)
}

/// How many CPUs this process may use.
pub(crate) fn own_cpus() -> u32 {
    u32::try_from(cpus().len()).unwrap_or(1).max(1)
}

/// Keeps the calling thread on one of the step's own CPUs, another for each task of the node, so
/// that it neither loses its caches nor waits behind another of our threads. Outside of a step
/// the tasks are unknown, so nothing is pinned.
///
/// # Errors
/// If the system refuses what it has just named.
pub(crate) fn pin(local_id: Option<&str>) -> nix::Result<Option<usize>> {
    let cpus = cpus();
    let Some(local) = local_id.and_then(|id| id.parse::<usize>().ok()) else { return Ok(None) };
    // From the end: the first CPUs of a node have the interrupts.
    let chosen = local.checked_rem(cpus.len()).and_then(|at| cpus.iter().rev().nth(at).copied());
    let Some(chosen) = chosen.filter(|_| cpus.len() > 1) else { return Ok(None) };
    let mut set = CpuSet::new();
    set.set(chosen)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(Some(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, as the load is: the affinity of others stays as it is.
    #[test]
    fn tasks_of_a_node_have_different_cpus() {
        let before = cpus();
        let mut chosen = Vec::new();
        for local in 0..before.len() {
            let pinned = std::thread::spawn(move || {
                let pinned = pin(Some(&local.to_string())).unwrap();
                let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
                let own: Vec<usize> =
                    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).collect();
                (pinned, own)
            });
            let (pinned, own) = pinned.join().unwrap();
            if before.len() > 1 {
                assert_eq!(Some(own.as_slice()), pinned.as_ref().map(std::slice::from_ref));
            }
            chosen.extend(pinned);
        }
        chosen.sort_unstable();
        assert!(chosen.len() <= 1 || chosen == before, "{chosen:?} of {before:?}");
        assert_eq!((cpus(), own_cpus() as usize), (before.clone(), before.len()));
        for outside in [None, Some(""), Some("x")] {
            assert_eq!(pin(outside), Ok(None));
        }
    }
}
