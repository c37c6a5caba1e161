//! What the processes on a GPU are for.

use std::{collections::HashMap, path::PathBuf};

use crate::sample::{cgroup::Place, kernel_file::Buffer, step::role};

/// Finds the role of processes by their cgroup.
#[derive(Debug)]
pub(super) struct Roles {
    proc_root: PathBuf,
    /// The job that is ours.
    place: Option<Place>,
    /// Roles of processes that are on a GPU now; a process does not change its step.
    known: HashMap<u32, &'static str>,
}

impl Roles {
    pub(super) fn new(proc_root: PathBuf, place: Option<Place>) -> Self {
        Self { proc_root, place, known: HashMap::new() }
    }

    /// Forgets processes that are not on a GPU any more.
    pub(super) fn keep(&mut self, pids: impl Fn(u32) -> bool) {
        self.known.retain(|pid, _| pids(*pid));
    }

    /// What `pid` is for; `other` when it is of no step of this job, or gone.
    pub(super) fn of(&mut self, pid: u32, buffer: &mut Buffer) -> &'static str {
        if let Some(role) = self.known.get(&pid) {
            return role;
        }
        let found = self.find(pid, buffer).unwrap_or("other");
        self.known.insert(pid, found);
        found
    }

    fn find(&self, pid: u32, buffer: &mut Buffer) -> Option<&'static str> {
        let place = self.place.as_ref()?;
        let text = buffer.read_once(&self.proc_root.join(format!("{pid}/cgroup"))).ok()?;
        let step = place.step_of(text)?;
        Some(role(&step, &place.own_step))
    }
}
