//! What is known about the allocation, from the job's environment or from Slurm.

use std::{path::PathBuf, process::Command};

use aifb_schema::{
    control::ProcessId,
    run::{Failure, Job, Owner},
    snapshot::Snapshot,
};

use super::{environment::Environment, hostlist};
use crate::process::tree::Stat;

/// The allocation and where it came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allocation {
    /// As run.json has it.
    pub(crate) job: Job,
    /// Folder of the submission; of the caller in a local run.
    pub(crate) submit_dir: PathBuf,
    /// CPUs of each node of the first component, where known.
    pub(crate) cpus: Option<Vec<u64>>,
    /// Memory of each node of the first component, bytes, where limited and known.
    pub(crate) memory: Option<Vec<u64>>,
    /// GPUs of the first node, where known.
    pub(crate) gpus: Option<u64>,
}

impl Allocation {
    /// The nodes of the first component: those of services.
    pub(crate) fn service_nodes(&self) -> &[String] {
        self.job.components.first().map_or(&[], Vec::as_slice)
    }

    /// This machine only.
    pub(crate) fn local() -> Result<Self, Failure> {
        let name = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "localhost".to_owned());
        let submit_dir = std::env::current_dir().map_err(|error| {
            Failure::new(Owner::Node, "launcher", format!("finding the current folder: {error}"))
        })?;
        let job = Job { components: vec![vec![name]], ..Job::default() };
        Ok(Self { job, submit_dir, ..Self::default() })
    }

    /// The job of this environment, or the one of this id.
    pub(crate) fn of_slurm(environment: &Environment, id: Option<u32>) -> Result<Self, Failure> {
        let here = number(environment, "SLURM_JOB_ID_HET_GROUP_0")
            .or_else(|| number(environment, "SLURM_JOB_ID"));
        match (id, here) {
            (None, None) => Err(Failure::new(
                Owner::Slurm,
                "launcher",
                "starting the agents: there is no Slurm job here (SLURM_JOB_ID is not set)",
            )
            .with_hint("start it inside salloc or a batch script, or without Slurm with --local")),
            (None, Some(id)) => Self::from_environment(environment, id),
            (Some(id), Some(here))
                if here == id && environment.contains_key("SLURM_JOB_NODELIST") =>
            {
                Self::from_environment(environment, id)
            }
            (Some(id), _) => Self::from_scontrol(environment, id),
        }
    }

    fn from_environment(environment: &Environment, id: u32) -> Result<Self, Failure> {
        let text = |name: &str| environment.get(name).map(String::as_str);
        let parts = number(environment, "SLURM_HET_SIZE").filter(|size| *size > 1);
        let lists: Vec<Option<&str>> = match parts {
            None => vec![text("SLURM_JOB_NODELIST")],
            Some(size) => (0..size.min(128))
                .map(|k| text(&format!("SLURM_JOB_NODELIST_HET_GROUP_{k}")))
                .collect(),
        };
        let components = lists
            .into_iter()
            .map(|list| hostlist::expand(list?))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                Failure::new(
                    Owner::Slurm,
                    "launcher",
                    format!("reading the node list of job {id} from SLURM_JOB_NODELIST"),
                )
            })?;
        let first = |name: &str| {
            text(&format!("{name}_HET_GROUP_0")).or_else(|| text(name)).map(str::to_owned)
        };
        let cpus = first("SLURM_JOB_CPUS_PER_NODE").and_then(|t| hostlist::expand_counts(&t));
        let array = number(environment, "SLURM_ARRAY_JOB_ID")
            .zip(number(environment, "SLURM_ARRAY_TASK_ID"));
        let nodes = components.first().map_or(0, Vec::len);
        Ok(Self {
            submit_dir: submit_dir(text("SLURM_SUBMIT_DIR")),
            memory: memory(
                first("SLURM_MEM_PER_NODE"),
                first("SLURM_MEM_PER_CPU"),
                cpus.as_deref(),
                nodes,
            ),
            cpus,
            gpus: number(environment, "SLURM_GPUS_ON_NODE").map(u64::from),
            job: Job {
                id: Some(id),
                cluster: text("SLURM_CLUSTER_NAME").map(str::to_owned),
                array,
                restart_count: number(environment, "SLURM_RESTART_COUNT").unwrap_or(0),
                components,
                end_time_epoch_s: text("SLURM_JOB_END_TIME").and_then(|t| t.parse().ok()),
            },
        })
    }

    /// Asks Slurm: an srun that made its own allocation has no job in its environment yet.
    fn from_scontrol(environment: &Environment, id: u32) -> Result<Self, Failure> {
        let failed = |cause: String| {
            Failure::new(Owner::Slurm, "launcher", format!("asking Slurm for job {id}: {cause}"))
        };
        let output = Command::new("scontrol")
            .args(["--oneliner", "show", "job", &id.to_string()])
            .output()
            .map_err(|error| failed(format!("scontrol: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(said.trim().chars().take(500).collect()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines: Vec<&str> = text.lines().filter(|line| line.contains("JobId=")).collect();
        lines.sort_by_key(|line| field(line, "HetJobOffset").and_then(|k| k.parse::<u32>().ok()));
        let components = lines
            .iter()
            .map(|line| hostlist::expand(field(line, "NodeList")?))
            .collect::<Option<Vec<_>>>()
            .filter(|components| !components.is_empty())
            .ok_or_else(|| failed("it has no nodes (not started yet, or ended)".into()))?;
        let line = lines.first().copied().unwrap_or_default();
        let value = |key: &str| field(line, key).and_then(|text| text.parse().ok());
        Ok(Self {
            submit_dir: submit_dir(field(line, "WorkDir")),
            job: Job {
                id: Some(id),
                cluster: environment.get("SLURM_CLUSTER_NAME").cloned().or_else(cluster_name),
                array: value("ArrayJobId").zip(value("ArrayTaskId")),
                restart_count: value("Restarts").unwrap_or(0),
                components,
                end_time_epoch_s: None,
            },
            ..Self::default()
        })
    }

    /// Id of the run: `<cluster>-<job>`, `<cluster>-<array job>_<task>`, with `.r<n>` after a
    /// requeue; `local-<time>-<4 hex>` without Slurm.
    pub(crate) fn run_id(&self) -> String {
        let Some(id) = self.job.id else { return local_run_id() };
        let cluster: String = self
            .job
            .cluster
            .as_deref()
            .unwrap_or("slurm")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        let job = match self.job.array {
            Some((job, task)) => format!("{job}_{task}"),
            None => id.to_string(),
        };
        let again = match self.job.restart_count {
            0 => String::new(),
            count => format!(".r{count}"),
        };
        format!("{cluster}-{job}{again}")
    }

    /// Root of the run folders.
    pub(crate) fn runs_root(&self, snapshot: &Snapshot, environment: &Environment) -> PathBuf {
        let variable = || environment.get(aifb_schema::names::env::RUNS).filter(|v| !v.is_empty());
        let root = snapshot.runs.as_ref().or_else(variable);
        root.map_or_else(|| self.submit_dir.join("aifb-runs"), |root| self.submit_dir.join(root))
    }
}

/// The job's script, by the variable that Slurm gives to each task.
pub(crate) fn script(environment: &Environment) -> Option<ProcessId> {
    let pid = number(environment, "SLURM_TASK_PID")?;
    Some(ProcessId { pid, start_ticks: Stat::read(pid)?.start_ticks })
}

fn number(environment: &Environment, name: &str) -> Option<u32> {
    environment.get(name)?.parse().ok()
}

/// The value of `key=value` in a line of scontrol.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    let (_, value) = words.find(|(name, _)| *name == key)?;
    (!value.is_empty() && value != "(null)").then_some(value)
}

fn cluster_name() -> Option<String> {
    let output = Command::new("scontrol").args(["show", "config"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("ClusterName"))?;
    Some(line.split_once('=')?.1.trim().to_owned())
}

fn submit_dir(told: Option<&str>) -> PathBuf {
    let here = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    told.filter(|folder| folder.starts_with('/')).map_or_else(here, PathBuf::from)
}

/// Bytes on each node; Slurm's variables count MiB.
fn memory(
    per_node: Option<String>,
    per_cpu: Option<String>,
    cpus: Option<&[u64]>,
    nodes: usize,
) -> Option<Vec<u64>> {
    const MIB: u64 = 1 << 20;
    let mib = |text: Option<String>| text?.parse::<u64>().ok().filter(|count| *count > 0);
    if let Some(count) = mib(per_node) {
        return Some(vec![count.saturating_mul(MIB); nodes]);
    }
    let each = mib(per_cpu)?;
    Some(cpus?.iter().map(|count| count.saturating_mul(each).saturating_mul(MIB)).collect())
}

/// The id of a run without Slurm.
pub(crate) fn local_run_id() -> String {
    let seconds = crate::clock::epoch_ns() / 1_000_000_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let noise = rand::random::<u16>();
    format!("local-{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z-{noise:04x}")
}

/// Year, month and day of a number of days since 1970, by the Gregorian rule.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_batch_job_is_read_from_its_environment() {
        let job = environment(&[
            ("SLURM_JOB_ID", "7"),
            ("SLURM_JOB_NODELIST", "n[1-2]"),
            ("SLURM_JOB_CPUS_PER_NODE", "4(x2)"),
            ("SLURM_MEM_PER_CPU", "500"),
            ("SLURM_CLUSTER_NAME", "c/x"),
            ("SLURM_RESTART_COUNT", "2"),
        ]);
        let allocation = Allocation::of_slurm(&job, None).unwrap();
        assert_eq!(allocation.run_id(), "c_x-7.r2");
        assert_eq!(allocation.service_nodes(), ["n1", "n2"]);
        assert_eq!(allocation.memory, Some(vec![2000 << 20; 2]));
    }

    #[test]
    fn a_heterogeneous_job_has_the_id_of_its_leader() {
        let job = environment(&[
            ("SLURM_JOB_ID", "10"),
            ("SLURM_JOB_ID_HET_GROUP_0", "10"),
            ("SLURM_HET_SIZE", "2"),
            ("SLURM_JOB_NODELIST", "n1"),
            ("SLURM_JOB_NODELIST_HET_GROUP_0", "n1"),
            ("SLURM_JOB_NODELIST_HET_GROUP_1", "n[2-3]"),
        ]);
        let allocation = Allocation::of_slurm(&job, Some(10)).unwrap();
        assert_eq!(allocation.job.components, [vec!["n1"], vec!["n2", "n3"]]);
        assert_eq!(allocation.run_id(), "slurm-10");
    }

    #[test]
    fn an_array_task_is_named_by_its_array() {
        let job = environment(&[
            ("SLURM_JOB_ID", "12"),
            ("SLURM_JOB_NODELIST", "n1"),
            ("SLURM_ARRAY_JOB_ID", "11"),
            ("SLURM_ARRAY_TASK_ID", "1"),
        ]);
        assert_eq!(Allocation::of_slurm(&job, None).unwrap().run_id(), "slurm-11_1");
    }

    #[test]
    fn no_job_is_a_failure_with_a_way_out() {
        let failure = Allocation::of_slurm(&Environment::new(), None).unwrap_err();
        assert_eq!(failure.owner, Owner::Slurm);
        assert!(failure.hint.unwrap().contains("--local"));
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_818, (2026, 12, 31)),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
