//! What of the job's environment goes where.

use std::collections::BTreeMap;

use aifb_schema::names::env;

/// Variables by name. Names and values that are not UTF-8 are left out: no program of ours and
/// no message of ours can carry them.
pub(crate) type Environment = BTreeMap<String, String>;

/// Beginnings of variables by which Slurm changes what its commands do. An srun started with the
/// batch script's own would ask for the script's tasks, memory and GPUs again.
const SLURM: [&str; 8] =
    ["SLURM_", "SRUN_", "SBATCH_", "SALLOC_", "SPANK_", "PMI", "_SLURM_", "SLURMD_"];

/// Where Slurm's commands find the cluster; they need it even when all else is cleaned.
const SLURM_CONF: &str = "SLURM_CONF";

/// How much the agents log, for those who look for a fault.
const LOG: &str = "AIFB_LOG";

/// Variables that a shell, a batch step or the way of starting adds or changes: without them a
/// service sees the same environment however it was started.
const OF_THE_START: [&str; 9] = [
    "_",
    "SHLVL",
    "PWD",
    "OLDPWD",
    "ENVIRONMENT",
    "HOSTNAME",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
];

/// The environment of this process.
pub(crate) fn own() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// For the srun of the agents.
pub(crate) fn for_srun(job: &Environment) -> Environment {
    let keep = |name: &str| name == SLURM_CONF || !(of_slurm(name) || of_ours(name));
    job.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// For services: the job's own variables, the same in every launch mode.
pub(crate) fn for_services(job: &Environment, bin: &str, local: bool) -> Environment {
    let keep = |name: &str| {
        let gpus = name.ends_with("VISIBLE_DEVICES") || name == "GPU_DEVICE_ORDINAL";
        !(of_slurm(name) || of_ours(name) || (OF_THE_START.contains(&name) && !(local && gpus)))
    };
    // Slurm sets this one between the plugin's turn and the script's first line.
    let of_batch = |name: &str, value: &str| name == "TMPDIR" && value == "/tmp" && !local;
    let mut kept: Environment = job
        .iter()
        .filter(|(name, value)| keep(name) && !of_batch(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(path) = kept.get_mut("PATH") {
        let without: Vec<&str> = path.split(':').filter(|folder| *folder != bin).collect();
        *path = without.join(":");
    }
    kept
}

fn of_slurm(name: &str) -> bool {
    SLURM.iter().any(|beginning| name.starts_with(beginning))
}

/// Variables that belong to a run: none of them is for the next one.
fn of_ours(name: &str) -> bool {
    name.starts_with("AIFB_") && ![env::CACHE, LOG].contains(&name)
        || name == env::SERVICE_URLS
        || name.strip_prefix("SERVICE_").is_some_and(|rest| {
            ["NAME", "HOSTNAME", "PORT", "URL"].iter().any(|e| rest.ends_with(e))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Environment {
        [
            ("SLURM_NTASKS", "4"),
            ("SLURM_CONF", "/etc/slurm.conf"),
            ("_SLURM_SPANK_OPTION_aifb_aifb_recipe", "x"),
            ("SLURM_SPANK_AIFB_SNAPSHOT", "aifb1:"),
            ("PMIX_RANK", "0"),
            ("AIFB_RUN_ID", "c-1"),
            ("SERVICE_LLM_URL", "http://x"),
            ("SERVICE_ACCOUNT", "kept"),
            ("PATH", "/opt/aifb/bin:/usr/bin"),
            ("SHLVL", "2"),
            ("HOME", "/home/a"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    #[test]
    fn srun_gets_nothing_that_changes_it() {
        let names: Vec<String> = for_srun(&job()).into_keys().collect();
        assert_eq!(names, ["HOME", "PATH", "SERVICE_ACCOUNT", "SHLVL", "SLURM_CONF"]);
    }

    #[test]
    fn services_see_nothing_of_slurm_or_of_the_start() {
        let environment = for_services(&job(), "/opt/aifb/bin", false);
        let names: Vec<&String> = environment.keys().collect();
        assert_eq!(names, ["HOME", "PATH", "SERVICE_ACCOUNT"]);
        assert_eq!(environment["PATH"], "/usr/bin");
    }
}
