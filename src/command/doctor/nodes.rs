//! `--admin`: one short job over the nodes, which runs the checks of a node on each of them. That
//! it runs at all shows that srun is allowed in batch jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Check, Verdict, node};
use crate::{
    cli::DoctorArgs,
    error::{CommandError, Result},
    slurm::{
        self, queue,
        sbatch::{self, Script, Submission},
    },
    store::Roots,
};

/// Longest time for the test job, its wait for idle nodes included.
const JOB_DEADLINE: Duration = Duration::from_secs(300);

/// Pause between two questions to the queue.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What one node found.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeReport {
    node: String,
    checks: Vec<Check>,
}

/// The checks of this node, for the job.
pub(super) fn own_report() -> NodeReport {
    let node = env::var("SLURMD_NODENAME").unwrap_or_else(|_| "unknown".into());
    let mut checks = node::programs();
    checks.extend(node::machine());
    checks.push(match sbatch::knows_plugin("srun") {
        Ok(true) => Check::ok("plugin", "loaded"),
        Ok(false) => Check::warn("plugin", "not loaded", "add it to plugstack.conf on this node"),
        Err(error) => Check::fail("plugin", error.text, "install Slurm's client on this node"),
    });
    NodeReport { node, checks }
}

/// Runs the job and sums up what the nodes say.
pub(super) fn checks(args: &DoctorArgs) -> Vec<Check> {
    match reports(args) {
        Ok((reports, all)) => {
            let mut checks = vec![Check::ok("srun in batch jobs", "allowed")];
            checks.extend(untested(&reports, &all));
            checks.extend(sum_up(&reports));
            checks
        }
        Err(error) => {
            let fix =
                error.hint.as_deref().unwrap_or("try: sbatch --wrap 'srun --overlap hostname'");
            vec![Check::fail("test job", error.text.clone(), fix)]
        }
    }
}

fn reports(args: &DoctorArgs) -> Result<(Vec<NodeReport>, BTreeSet<String>)> {
    let all = all_nodes(args.partition.as_deref())?;
    let root = args.root.runs.clone().unwrap_or_else(Roots::default_root);
    let wrong = |doing: &str, error: std::io::Error| {
        CommandError::usage(format!("{doing} '{}'", root.display()), error)
            .hint("use a folder that all nodes share: --runs DIR")
    };
    fs::create_dir_all(&root).map_err(|error| wrong("making", error))?;
    let root = root.canonicalize().map_err(|error| wrong("opening", error))?;
    let output = root.join(format!("doctor-{}.out", std::process::id()));
    let own =
        env::current_exe().map_err(|error| CommandError::usage("finding this program", error))?;
    let mut options = vec![
        "--job-name=aifb-doctor".to_owned(),
        format!("--nodes=1-{}", all.len().max(1)),
        "--ntasks-per-node=1".into(),
        "--time=5".into(),
        format!("--output={}", output.display()),
    ];
    options.extend(args.partition.iter().map(|partition| format!("--partition={partition}")));
    let script = format!(
        "#!/bin/sh\nexec srun --overlap --ntasks=\"$SLURM_JOB_NUM_NODES\" --ntasks-per-node=1 {} \
         doctor --node-report\n",
        crate::shell::quoted(&own.to_string_lossy())
    );
    let submission = Submission { components: vec![options], script: Script::Text(script) };
    let job = submission.submit()?;
    wait(job)?;
    let text = fs::read_to_string(&output).unwrap_or_default();
    drop(fs::remove_file(&output));
    let reports: Vec<NodeReport> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if reports.is_empty() {
        let said = text.lines().next().unwrap_or("no output").to_owned();
        return Err(CommandError::slurm(format!("running test job '{job}'"), said));
    }
    Ok((reports, all))
}

fn wait(job: u32) -> Result<()> {
    let until = Instant::now() + JOB_DEADLINE;
    loop {
        match queue::job(job)? {
            None => return Ok(()),
            Some(state) if state.is_over() => return Ok(()),
            Some(state) if Instant::now() >= until => {
                slurm::scancel(job)?;
                return Err(CommandError::slurm(
                    format!("waiting for test job '{job}'"),
                    format!(
                        "{} ({}) after {} s; cancelled",
                        state.state.to_lowercase(),
                        state.reason,
                        JOB_DEADLINE.as_secs()
                    ),
                ));
            }
            Some(_) => thread::sleep(ASK_EVERY),
        }
    }
}

fn all_nodes(partition: Option<&str>) -> Result<BTreeSet<String>> {
    let mut args: Vec<String> = vec!["--noheader".into(), "--Node".into(), "--format=%N".into()];
    args.extend(partition.map(|partition| format!("--partition={partition}")));
    let answer = slurm::call("sinfo", &args)?;
    if answer.code != Some(0) {
        return Err(CommandError::slurm("asking sinfo for nodes", answer.complaint()));
    }
    Ok(answer.stdout.lines().map(|line| line.trim().to_owned()).collect())
}

fn untested(reports: &[NodeReport], all: &BTreeSet<String>) -> Option<Check> {
    let tested: BTreeSet<String> = reports.iter().map(|report| report.node.clone()).collect();
    let missed: Vec<&str> = all.difference(&tested).map(String::as_str).collect();
    if missed.is_empty() {
        return Some(Check::ok("nodes", format!("all {} tested", tested.len())));
    }
    Some(Check::warn(
        "nodes",
        format!("{} tested, not tested: {}", tested.len(), missed.join(", ")),
        "they were busy or down: sinfo -R; run it again, or with --partition",
    ))
}

/// One line for all nodes that agree.
fn sum_up(reports: &[NodeReport]) -> Vec<Check> {
    let mut by_finding: BTreeMap<(String, bool, String), (Check, Vec<&str>)> = BTreeMap::new();
    for report in reports {
        for check in &report.checks {
            let key = (check.name.clone(), check.verdict == Verdict::Ok, check.seen.clone());
            by_finding
                .entry(key)
                .or_insert_with(|| (check.clone(), Vec::new()))
                .1
                .push(&report.node);
        }
    }
    by_finding
        .into_values()
        .map(|(mut check, nodes)| {
            let on = if nodes.len() == reports.len() {
                "all nodes".to_owned()
            } else {
                nodes.join(", ")
            };
            check.name = format!("{} on {on}", check.name);
            check
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_agree_have_one_line() {
        let report = |node: &str, seen: &str, good: bool| NodeReport {
            node: node.into(),
            checks: vec![if good {
                Check::ok("plugin", seen)
            } else {
                Check::warn("plugin", seen, "mend it")
            }],
        };
        let reports = [
            report("n1", "loaded", true),
            report("n2", "loaded", true),
            report("n3", "not loaded", false),
        ];
        let found: Vec<String> = sum_up(&reports).iter().map(|check| check.name.clone()).collect();
        assert_eq!(found, ["plugin on n3", "plugin on n1, n2"]);
        let all = ["n1", "n2", "n3", "n4"].map(str::to_owned).into();
        assert!(untested(&reports, &all).unwrap().seen.ends_with("not tested: n4"));
        assert_eq!(sum_up(&reports[..2])[0].name, "plugin on all nodes");
    }
}
