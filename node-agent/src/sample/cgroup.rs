//! Where the job's cgroups are. Nothing is guessed from names of jobs: the agent's own cgroup is
//! in a step of the job, and the step's parent is the job, whatever Slurm calls it (`job_7`, or
//! by SLUID from 26.05 on) and whatever stands above (`slurm/uid_1000`, `slurm_n1/uid_1000`,
//! `system.slice/n1_slurmstepd.scope`).

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::kernel_file::Buffer;

/// Folders of one step that are looked at: tasks, and what a service may make below.
const FOLDERS_MAX: usize = 512;

/// Version 1 trees in which Slurm puts whole steps; those with limits or counters come last,
/// because a site may run without them.
const TREES_WITH_PROCESSES: [&str; 6] =
    ["freezer", "devices", "cpuset", "memory", "cpuacct", "pids"];

/// The cgroups of the job on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The job's folder in the version 2 tree.
    pub(super) v2: Option<PathBuf>,
    /// The job's folders in version 1 trees, by controller.
    pub(super) v1: BTreeMap<String, PathBuf>,
    /// The agent's own step, without `step_`.
    pub(super) own_step: String,
    /// The job's folder within any of its trees.
    job: PathBuf,
}

impl Place {
    /// Finds the job from the agent's own cgroup; absent when it is in no step.
    ///
    /// # Errors
    /// If `/proc/self/cgroup` cannot be read.
    pub(super) fn find(
        proc_root: &Path,
        cgroup_root: &Path,
        buffer: &mut Buffer,
    ) -> io::Result<Option<Self>> {
        let text = buffer.read_once(&proc_root.join("self/cgroup"))?;
        let mut place = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let Some((job, step)) = job_and_step(path) else { continue };
            if controllers.is_empty() {
                let mounts = ["unified", ""].map(|mount| cgroup_root.join(mount));
                place.v2 = mounts.iter().map(|mount| mount.join(&job)).find(|job| job.is_dir());
            } else {
                for controller in controllers.split(',') {
                    let mounts = [controllers, controller].map(|mount| cgroup_root.join(mount));
                    let found = mounts.iter().map(|mount| mount.join(&job));
                    if let Some(folder) = found.into_iter().find(|job| job.is_dir()) {
                        place.v1.insert(controller.to_owned(), folder);
                    }
                }
            }
            (place.own_step, place.job) = (step, job);
        }
        Ok((place.v2.is_some() || !place.v1.is_empty()).then_some(place))
    }

    /// The step of this job that a process with this `/proc/<pid>/cgroup` is in, without `step_`.
    pub(super) fn step_of(&self, text: &str) -> Option<String> {
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let steps = paths.filter_map(job_and_step);
        steps.filter(|(job, _)| *job == self.job).map(|(_, step)| step).next()
    }

    /// Names of the job's steps, in the order of their names.
    pub(super) fn steps(&self) -> Vec<String> {
        let mut steps: Vec<String> = self
            .folders()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter_map(|entry| {
                entry.file_name().to_str()?.strip_prefix("step_").map(str::to_owned)
            })
            .collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// Processes of a step, slurmstepd left out, from one tree that holds them all.
    pub(super) fn processes(&self, step: &str, buffer: &mut Buffer) -> Option<Vec<u32>> {
        let trees = TREES_WITH_PROCESSES.iter().filter_map(|tree| self.v1.get(*tree));
        for job in trees.chain(&self.v2) {
            let folder = job.join(format!("step_{step}"));
            if folder.join("cgroup.procs").is_file() {
                return Some(processes_below(folder, buffer));
            }
        }
        None
    }

    fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.values().chain(&self.v2)
    }
}

/// Splits `/…/<job>/step_<step>/…`. In a cluster within a step of another cluster the innermost
/// step is ours.
fn job_and_step(path: &str) -> Option<(PathBuf, String)> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let at = parts.iter().rposition(|part| part.starts_with("step_"))?;
    let step = parts.get(at)?.strip_prefix("step_")?;
    let outside = parts.contains(&"..");
    (at > 0 && !outside).then(|| (parts.iter().take(at).collect(), step.to_owned()))
}

fn processes_below(step: PathBuf, buffer: &mut Buffer) -> Vec<u32> {
    let mut pids = Vec::new();
    for folder in with_subfolders(step) {
        if let Ok(text) = buffer.read_once(&folder.join("cgroup.procs")) {
            // 0 stands for a process of another PID namespace.
            let listed = text.lines().filter_map(|line| line.parse::<u32>().ok());
            pids.extend(listed.filter(|pid| *pid > 0));
        }
    }
    pids
}

/// A step's folder and all below it, without `slurm`, where slurmstepd itself lives.
pub(super) fn with_subfolders(step: PathBuf) -> Vec<PathBuf> {
    let mut folders = vec![step];
    let mut at = 0;
    while let Some(folder) = folders.get(at) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let below: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter(|entry| entry.file_name() != "slurm")
            .map(|entry| entry.path())
            .collect();
        folders.extend(below);
        folders.truncate(FOLDERS_MAX);
        at += 1;
    }
    folders
}
