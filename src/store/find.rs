//! Finding a run by what a person types.

use std::{
    env,
    path::{Path, PathBuf},
};

use aifb_schema::names;

use super::RunFolder;
use crate::{
    cli::{RunSelector, RunsDir},
    error::{CommandError, Result},
    slurm,
};

/// Folder of run folders below the present one, when nothing names another.
const DEFAULT_ROOT: &str = "aifb-runs";

/// Folders that hold run folders.
#[derive(Debug, Clone)]
pub(crate) struct Roots(Vec<PathBuf>);

impl Roots {
    /// `--runs`; else `$AIFB_RUNS`, else `aifb-runs` here; and the folder beside the present run.
    pub(crate) fn of(given: &RunsDir) -> Self {
        if let Some(root) = &given.runs {
            return Self(vec![root.clone()]);
        }
        let mut roots = vec![Self::default_root()];
        if let Some(beside) = present().and_then(|run| run.path().parent().map(Path::to_path_buf))
            && !roots.iter().any(|root| root.canonicalize().is_ok_and(|root| root == beside))
        {
            roots.insert(0, beside);
        }
        Self(roots)
    }

    /// `$AIFB_RUNS`, else `aifb-runs` here.
    pub(crate) fn default_root() -> PathBuf {
        env::var_os(names::env::RUNS)
            .filter(|root| !root.is_empty())
            .map_or_else(|| PathBuf::from(DEFAULT_ROOT), PathBuf::from)
    }

    /// The folders.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    fn shown(&self) -> String {
        let shown: Vec<String> =
            self.0.iter().map(|root| format!("'{}'", root.display())).collect();
        shown.join(" and ")
    }
}

/// The run of the job that this process is part of; absent outside, or when the variables are
/// those of another job ([`names::OWN_JOB_RULE`]).
pub(crate) fn present() -> Option<RunFolder> {
    let job = env::var(names::env::JOB_ID).ok()?;
    let folder = env::var_os(names::env::RUN_DIR)?;
    let slurm: Vec<String> = ["SLURM_JOB_ID", "SLURM_HET_JOB_ID"]
        .iter()
        .filter_map(|name| env::var(name).ok())
        .collect();
    if !is_own(&job, &slurm) {
        return None;
    }
    RunFolder::open(Path::new(&folder)).ok()
}

/// The run of the job that this process is part of, also where the variables are missing: a shell
/// of salloc that did not take them.
///
/// # Errors
/// If this is no job, or one without a run.
pub(crate) fn of_this_job() -> Result<RunFolder> {
    if let Some(run) = present() {
        return Ok(run);
    }
    let hint = "start one: aifb up RECIPE; or submit with: sbatch --aifb-recipe=RECIPE";
    let Some(job) = slurm::present_job() else {
        return Err(CommandError::usage("looking for the current run", "this job has no run")
            .hint("inside a job: aifb up RECIPE; on this machine: aifb run --local RECIPE"));
    };
    let roots = Roots::of(&RunsDir::default());
    by_job(&job.to_string(), &roots).map_err(|error| error.hint(hint))
}

/// Whether variables of the job `aifb_job` belong to a process in the jobs `slurm` (none: no
/// Slurm job).
fn is_own(aifb_job: &str, slurm: &[String]) -> bool {
    if slurm.is_empty() {
        aifb_job.starts_with("local")
    } else {
        slurm.iter().any(|id| id == aifb_job)
    }
}

/// All runs below the roots, the newest first.
pub(crate) fn list(roots: &Roots) -> Vec<RunFolder> {
    let mut found: Vec<(u64, RunFolder)> = roots
        .paths()
        .iter()
        .filter_map(|root| root.read_dir().ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| RunFolder::open(&entry.path()).ok())
        .map(|run| (run.record().map_or(0, |record| record.started_epoch_ns), run))
        .collect();
    found.sort_by(|(a, run_a), (b, run_b)| b.cmp(a).then(run_b.path().cmp(run_a.path())));
    found.dedup();
    found.into_iter().map(|(_, run)| run).collect()
}

/// The run that was named: a folder, a run id or a job id; unnamed: that of this job, else the
/// newest.
///
/// # Errors
/// If there is none, or if several fit.
pub(crate) fn select(selector: &RunSelector) -> Result<RunFolder> {
    let roots = Roots::of(&selector.root);
    let Some(name) = &selector.run else {
        if selector.root.runs.is_none() {
            if let Some(run) = present() {
                return Ok(run);
            }
            if let Some(run) =
                slurm::present_job().and_then(|job| by_job(&job.to_string(), &roots).ok())
            {
                return Ok(run);
            }
        }
        return list(&roots).into_iter().next().ok_or_else(|| {
            CommandError::usage("looking for a run", format!("there is none in {}", roots.shown()))
                .hint("name a run folder, or the folder that holds them: --runs DIR")
        });
    };
    let path = Path::new(name);
    if name.contains('/') || path.join(names::file::RUN).is_file() {
        return RunFolder::open(path);
    }
    if let Some(run) = roots.paths().iter().find_map(|root| RunFolder::open(&root.join(name)).ok())
    {
        return Ok(run);
    }
    by_job(name, &roots)
}

/// The run of a job, its last restart.
fn by_job(job: &str, roots: &Roots) -> Result<RunFolder> {
    let doing = || format!("looking for run '{job}'");
    let mut fitting: Vec<(String, u32, RunFolder)> = list(roots)
        .into_iter()
        .filter_map(|run| {
            let id = run.path().file_name()?.to_str()?.to_owned();
            let (base, restart) = split_restart(&id);
            (base.strip_suffix(job)?.ends_with('-')).then(|| (base.to_owned(), restart, run))
        })
        .collect();
    fitting.sort_by_key(|(_, restart, _)| *restart);
    let Some((base, _, run)) = fitting.pop() else {
        return Err(CommandError::usage(doing(), format!("not in {}", roots.shown()))
            .hint("name the run folder, or the folder that holds it: --runs DIR"));
    };
    if let Some((other, _, _)) = fitting.iter().find(|(other, _, _)| *other != base) {
        return Err(CommandError::usage(doing(), format!("both '{base}' and '{other}' match"))
            .hint("give the full run id"));
    }
    Ok(run)
}

/// `meluxina-17.r2` is the second restart of `meluxina-17`.
fn split_restart(id: &str) -> (&str, u32) {
    id.rsplit_once(".r")
        .and_then(|(base, count)| Some((base, count.parse().ok()?)))
        .unwrap_or((id, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn variables_of_another_job_are_ignored() {
        let jobs = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
        assert!(is_own("12", &jobs(&["12"])));
        assert!(is_own("12", &jobs(&["13", "12"])));
        assert!(!is_own("12", &jobs(&["13"])));
        assert!(!is_own("12", &[]));
        assert!(is_own("local-20260101T000000Z-ab12", &[]));
        assert!(!is_own("local-20260101T000000Z-ab12", &jobs(&["12"])));
    }

    fn make(root: &Path, id: &str, started: u64) {
        let folder = root.join(id);
        fs::create_dir_all(&folder).unwrap();
        let record = serde_json::json!({
            "protocol": 1, "version": "0.1.0", "run_id": id, "name": "x", "mode": "wrapper",
            "uid": 0, "state": "completed", "recipe_path": "/x", "recipe_sha256": "", "sets": [],
            "job": {"components": [["n1"]]}, "submit_dir": "/", "started_epoch_ns": started,
        });
        fs::write(folder.join(names::file::RUN), record.to_string()).unwrap();
    }

    #[test]
    fn runs_are_found_by_what_people_type() {
        let root = tempfile::tempdir().unwrap();
        for (id, started) in [
            ("alpha-17", 1),
            ("alpha-17.r1", 2),
            ("alpha-117", 3),
            ("alpha-5_2", 4),
            ("beta-9", 5),
            ("gamma-9", 6),
        ] {
            make(root.path(), id, started);
        }
        let find = |run: Option<&str>| {
            let selector = RunSelector {
                run: run.map(str::to_owned),
                root: RunsDir { runs: Some(root.path().to_owned()) },
            };
            select(&selector)
                .map(|run| run.path().file_name().unwrap().to_str().unwrap().to_owned())
        };
        for (typed, id) in [
            (Some("17"), "alpha-17.r1"),
            (Some("alpha-17"), "alpha-17"),
            (Some("117"), "alpha-117"),
            (Some("5_2"), "alpha-5_2"),
            (None, "gamma-9"),
        ] {
            assert_eq!(find(typed).unwrap(), id, "{typed:?}");
        }
        assert!(find(Some("9")).unwrap_err().text.contains("both"));
        assert!(find(Some("7")).unwrap_err().text.contains("not in"));
        assert!(find(Some("/nowhere")).unwrap_err().text.contains("/nowhere"));
    }
}
