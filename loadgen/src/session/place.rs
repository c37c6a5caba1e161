//! Which run, node, load and rank this process is, by its environment.

use std::{fs, path::PathBuf};

use aifb_schema::{
    control::WorkerId,
    names::{OWN_JOB_RULE, PROTOCOL, env, file},
    run::AgentRecord,
    units::Name,
};

use crate::error::Fatal;

/// Where this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Run folder.
    pub(crate) run_dir: PathBuf,
    /// Node as Slurm knows it; absent without Slurm.
    pub(crate) node: Option<String>,
    /// Load, step and rank.
    pub(crate) worker: WorkerId,
    /// Workers of the load.
    pub(crate) size: u32,
}

impl Place {
    /// Reads the environment. `workers` is how many the load has in all, where several steps (or
    /// the components of a heterogeneous one, each of which knows only its own) are one load.
    ///
    /// # Errors
    /// If the process is not inside a run.
    pub(crate) fn from_environment(
        variable: &dyn Fn(&str) -> Option<String>,
        load: &Name,
        workers: Option<u32>,
    ) -> Result<Self, Fatal> {
        let outside = |what: &str| {
            Fatal::usage(format!("load '{load}': {what}")).hint(
                "--load needs a run: sbatch --aifb-recipe=FILE, or aifb up in the allocation; without one use aifb-loadgen run --url URL",
            )
        };
        let run_dir = variable(env::RUN_DIR)
            .ok_or_else(|| outside(&format!("{} is not set", env::RUN_DIR)))?;
        let owner = variable(env::JOB_ID).unwrap_or_default();
        let job = variable("SLURM_JOB_ID");
        let het = variable("SLURM_HET_JOB_ID");
        let present = match (&job, &het) {
            (None, None) => owner.parse::<u32>().is_err(),
            (job, het) => [job, het].into_iter().flatten().any(|id| *id == owner),
        };
        if !present {
            let job = het.or(job).unwrap_or_else(|| "none".to_owned());
            return Err(outside(&format!(
                "the run of {} belongs to job '{owner}', this is job {job} ({OWN_JOB_RULE})",
                env::RUN_DIR
            )));
        }
        let number = |name: &str| -> Result<Option<u32>, Fatal> {
            variable(name)
                .map(|text| {
                    text.parse().map_err(|_| {
                        Fatal::usage(format!("reading {name}: '{text}' is not a number"))
                    })
                })
                .transpose()
        };
        let (rank, size, step) = match (number("SLURM_PROCID")?, variable("SLURM_STEP_ID"), job) {
            (Some(rank), Some(step), Some(job)) if number(env::LOCAL_RANK)?.is_none() => {
                let size = number("SLURM_STEP_NUM_TASKS")?.or(number("SLURM_NTASKS")?);
                (rank, size.unwrap_or(1), format!("{job}.{step}"))
            }
            _ => {
                let rank = number(env::LOCAL_RANK)?.unwrap_or(0);
                let size = number(env::LOCAL_SIZE)?.unwrap_or(1);
                let parent = || std::os::unix::process::parent_id().to_string();
                (rank, size, variable(env::LOCAL_STEP).unwrap_or_else(parent))
            }
        };
        let size = workers.unwrap_or(size);
        if rank >= size {
            return Err(Fatal::usage(format!("load '{load}': rank {rank} of {size} workers")));
        }
        let worker = WorkerId { load: load.to_string(), step, rank };
        Ok(Self { run_dir: run_dir.into(), node: variable("SLURMD_NODENAME"), worker, size })
    }

    /// How to reach this node's agent.
    ///
    /// # Errors
    /// If none has written its record, or it is of another version.
    pub(crate) fn agent(&self) -> Result<AgentRecord, Fatal> {
        let folder = self.run_dir.join(file::NODES);
        let path = match &self.node {
            Some(node) => folder.join(node).join(file::AGENT),
            None => self.only_agent(&folder)?,
        };
        let fail = |cause: String| {
            Fatal::node(format!("reading '{}': {cause}", path.display()))
                .hint("check that the run is active and has an agent on this node")
        };
        let text = fs::read(&path).map_err(|error| fail(error.to_string()))?;
        let record: AgentRecord =
            serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
        if record.protocol != PROTOCOL {
            return Err(fail(format!(
                "the agent speaks protocol {}, this program {PROTOCOL}",
                record.protocol
            ))
            .hint("use the programs of one installation: see AIFB_BIN"));
        }
        Ok(record)
    }

    /// A run without Slurm has one node.
    fn only_agent(&self, folder: &std::path::Path) -> Result<PathBuf, Fatal> {
        let fail = |cause: String| {
            Fatal::node(format!("looking for the agent in '{}': {cause}", folder.display()))
        };
        let entries = fs::read_dir(folder).map_err(|error| fail(error.to_string()))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path().join(file::AGENT)))
            .filter(|path| path.is_file())
            .collect();
        match (found.pop(), found.pop()) {
            (Some(path), None) => Ok(path),
            (None, _) => Err(fail("there is none".to_owned())),
            (Some(_), Some(_)) => {
                Err(fail("there are several nodes, and SLURMD_NODENAME is not set".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Place, String> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let load: Name = "chat".parse().unwrap();
        Place::from_environment(&|name| variables.get(name).map(|v| (*v).to_owned()), &load, None)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn several_steps_are_as_many_as_is_said() {
        let load: Name = "chat".parse().unwrap();
        let of = |rank: &str, workers: u32| {
            let variables: BTreeMap<&str, &str> = STEP.iter().copied().collect();
            let get = |name: &str| match name {
                "SLURM_PROCID" => Some(rank.to_owned()),
                _ => variables.get(name).map(|value| (*value).to_owned()),
            };
            Place::from_environment(&get, &load, Some(workers))
        };
        assert_eq!(of("1", 12).unwrap().size, 12);
        // The second component of a heterogeneous step goes on counting.
        let second = of("7", 8).unwrap();
        assert_eq!((second.worker.rank, second.size), (7, 8));
        assert!(of("8", 8).unwrap_err().to_string().contains("rank 8 of 8"));
    }

    const STEP: &[(&str, &str)] = &[
        ("AIFB_RUN_DIR", "/r"),
        ("AIFB_JOB_ID", "7"),
        ("SLURM_JOB_ID", "7"),
        ("SLURM_STEP_ID", "3"),
        ("SLURM_PROCID", "2"),
        ("SLURM_NTASKS", "4"),
        ("SLURMD_NODENAME", "n1"),
    ];

    fn with(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        STEP.iter().chain(changes).copied().collect()
    }

    #[test]
    fn a_task_of_a_step() {
        let found = place(STEP).unwrap();
        assert_eq!((found.worker.rank, found.size, found.worker.step.as_str()), (2, 4, "7.3"));
        assert_eq!(found.node.as_deref(), Some("n1"));
        let het = with(&[("SLURM_JOB_ID", "8"), ("SLURM_HET_JOB_ID", "7")]);
        assert_eq!(place(&het).unwrap().worker.step, "8.3");
    }

    #[test]
    fn a_local_worker() {
        let found = place(&[
            ("AIFB_RUN_DIR", "/r"),
            ("AIFB_JOB_ID", "local-20260101T000000-abcd"),
            (env::LOCAL_RANK, "1"),
            (env::LOCAL_SIZE, "2"),
            (env::LOCAL_STEP, "s1"),
        ])
        .unwrap();
        assert_eq!((found.worker.rank, found.size, found.node), (1, 2, None));
        assert_eq!(found.worker.step, "s1");
    }

    #[test]
    fn another_job_is_refused() {
        for changes in [&[("SLURM_JOB_ID", "9")], &[("AIFB_JOB_ID", "9")], &[("AIFB_JOB_ID", "")]] {
            let error = place(&with(changes)).unwrap_err();
            assert!(error.contains(OWN_JOB_RULE), "{error}");
        }
        // A number is a job, and there is none.
        let error = place(&[("AIFB_RUN_DIR", "/r"), ("AIFB_JOB_ID", "7")]).unwrap_err();
        assert!(error.contains("hint: --load needs a run"), "{error}");
        assert!(place(&[]).unwrap_err().contains("AIFB_RUN_DIR is not set"));
        assert!(place(&with(&[("SLURM_PROCID", "4")])).unwrap_err().contains("rank 4 of 4"));
        assert!(place(&with(&[("SLURM_PROCID", "x")])).unwrap_err().contains("not a number"));
    }
}
