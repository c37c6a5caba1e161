//! What Slurm says about itself and about this user's jobs.

use std::collections::BTreeMap;

use super::{Check, node};
use crate::slurm::{self, queue, sbatch};

/// Steps of a job below which many repeats would fail: an agent step, and one step a repeat.
const STEPS: u64 = 1_000;

/// Seconds between SIGTERM and SIGKILL below which an ordered stop of a service (3 s) fails.
const KILL_WAIT_SECONDS: u64 = 5;

/// All checks that need Slurm's commands.
pub(super) fn checks() -> Vec<Check> {
    let name = "Slurm commands";
    let version = match slurm::call("sbatch", &["--version".into()]) {
        Ok(answer) if answer.code == Some(0) => answer.stdout.trim().to_owned(),
        Ok(answer) => return vec![Check::warn(name, answer.complaint(), NO_SLURM)],
        Err(error) => return vec![Check::warn(name, error.text, NO_SLURM)],
    };
    let mut checks = vec![Check::ok(name, version), plugin()];
    checks.extend(node::inherited());
    let config = match slurm::call("scontrol", &["show".into(), "config".into()]) {
        Ok(answer) if answer.code == Some(0) => parse_config(&answer.stdout),
        Ok(answer) => {
            checks.push(Check::fail("Slurm controller", answer.complaint(), CONTROLLER));
            return checks;
        }
        Err(error) => {
            checks.push(Check::fail("Slurm controller", error.text, CONTROLLER));
            return checks;
        }
    };
    let cluster = config.get("ClusterName").map_or("unnamed", String::as_str);
    checks.push(Check::ok("Slurm controller", format!("answers, cluster {cluster}")));
    checks.extend(configuration(&config));
    checks.extend(pending());
    checks
}

const NO_SLURM: &str = "Slurm is not installed here: only aifb run --local works; on a cluster \
 use a login node";

const CONTROLLER: &str = "run scontrol ping; check that slurmctld and munge are running";

fn plugin() -> Check {
    let name = "plugin";
    let known: Vec<&str> = ["sbatch", "srun", "salloc"]
        .into_iter()
        .filter(|command| sbatch::knows_plugin(command).unwrap_or(false))
        .collect();
    if known.len() == 3 {
        return Check::ok(name, "sbatch, srun and salloc know --aifb-recipe");
    }
    Check::warn(
        name,
        if known.is_empty() {
            "not loaded here".into()
        } else {
            format!("only in {}", known.join(", "))
        },
        "aifb run works without it; for sbatch --aifb-recipe see docs/admin/install.md",
    )
}

/// `scontrol show config` as a map.
fn parse_config(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// Settings that matter to us.
fn configuration(config: &BTreeMap<String, String>) -> Vec<Check> {
    let value = |key: &str| config.get(key).map_or("", String::as_str);
    let number =
        |key: &str| value(key).split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    let mut checks = Vec::new();
    let tracking = value("ProctrackType");
    checks.push(if tracking.contains("cgroup") {
        Check::ok("process tracking", tracking)
    } else {
        Check::warn(
            "process tracking",
            tracking,
            "ProctrackType=proctrack/cgroup: without it a service that daemonizes can outlive the \
             job",
        )
    });
    let task = value("TaskPlugin");
    checks.push(if task.contains("cgroup") {
        Check::ok("limits", task)
    } else {
        Check::warn(
            "limits",
            task,
            "TaskPlugin=task/cgroup keeps jobs within their memory and CPUs",
        )
    });
    checks.push(match number("KillWait") {
        Some(seconds) if seconds < KILL_WAIT_SECONDS => Check::warn(
            "time to stop",
            format!("KillWait {seconds} s"),
            "KillWait=30: services need this time to stop in order",
        ),
        Some(seconds) => Check::ok("time to stop", format!("KillWait {seconds} s")),
        None => Check::ok("time to stop", "KillWait unknown"),
    });
    checks.push(match number("MaxStepCount") {
        Some(steps) if steps < STEPS => Check::warn(
            "steps of a job",
            format!("MaxStepCount {steps}"),
            "the agents need one step, each repeat of a load one more: raise MaxStepCount",
        ),
        Some(steps) => Check::ok("steps of a job", format!("at most {steps}")),
        None => Check::ok("steps of a job", "no limit found"),
    });
    checks.push(ports(value("SrunPortRange")));
    let flags = value("PrologFlags");
    checks.push(if flags.contains("Alloc") || flags.contains("Contain") {
        Check::ok("prolog", flags)
    } else {
        Check::ok("prolog", "runs at the first step of a node (PrologFlags has no Alloc)")
    });
    let accounting = value("AccountingStorageType");
    checks.push(if accounting.contains("slurmdbd") {
        Check::ok("accounting", accounting)
    } else {
        Check::warn(
            "accounting",
            if accounting.is_empty() { "none" } else { accounting },
            "without slurmdbd the end of a job is known only until the controller forgets the job",
        )
    });
    checks
}

/// srun listens on the node it runs on; agents and clients connect back to it.
fn ports(range: &str) -> Check {
    let name = "srun ports";
    match range {
        "" | "0-0" | "(null)" => {
            Check::ok(name, "any: there must be no firewall between the compute nodes")
        }
        range => Check::ok(name, format!("{range}: these must be open between the compute nodes")),
    }
}

/// Jobs of this user that wait, with the reason.
fn pending() -> Vec<Check> {
    let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::getuid()) else {
        return Vec::new();
    };
    let Ok(waiting) = queue::pending_reasons(&user.name) else { return Vec::new() };
    if waiting.is_empty() {
        return vec![Check::ok("pending jobs", "none of yours")];
    }
    waiting
        .into_iter()
        .map(|(job, reason, start)| {
            let seen = format!("job {job}: {reason}, expected start {start}");
            Check::warn("pending job", seen, fix_for(&reason))
        })
        .collect()
}

/// What a user can do about Slurm's reason.
fn fix_for(reason: &str) -> &'static str {
    match reason {
        "Resources" | "Priority" => {
            "wait, or request less: squeue --start shows the expected start, sinfo the free nodes"
        }
        "ReqNodeNotAvail" | "PartitionDown" | "PartitionInactive" | "NodeDown" => {
            "the requested nodes are not available: see sinfo; choose another partition"
        }
        "PartitionTimeLimit" | "PartitionNodeLimit" => {
            "it exceeds a limit of the partition: see sinfo -o '%P %l %D'; cancel it and request \
             less"
        }
        "InvalidAccount" | "InvalidQOS" => {
            "see sacctmgr show associations user=$USER; cancel it and submit with another account \
             or QOS"
        }
        "JobHeldUser" | "JobHeldAdmin" => "scontrol release JOB, or ask the administrators",
        "Dependency" | "DependencyNeverSatisfied" => {
            "it waits for another job; cancel it if that job failed"
        }
        reason if reason.contains("Limit") || reason.contains("Max") => {
            "a limit of your account or QOS: wait for your other jobs, or request less"
        }
        _ => "man squeue, section JOB REASON CODES",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Verdict;

    fn verdicts(text: &str) -> BTreeMap<String, Verdict> {
        configuration(&parse_config(text))
            .into_iter()
            .map(|check| (check.name, check.verdict))
            .collect()
    }

    #[test]
    fn a_good_configuration_has_no_warning() {
        let good = verdicts(
            "ProctrackType           = proctrack/cgroup\nTaskPlugin = task/cgroup\nKillWait = 30 \
             sec\nMaxStepCount = 40000\nPrologFlags = Alloc,Contain\nAccountingStorageType = \
             accounting_storage/slurmdbd\nSrunPortRange = 0-0\n",
        );
        assert!(good.values().all(|verdict| *verdict == Verdict::Ok), "{good:?}");
    }

    #[test]
    fn what_will_not_work_is_warned_of() {
        let bad = verdicts(
            "ProctrackType = proctrack/linuxproc\nTaskPlugin = task/none\nKillWait = 1 sec\nMaxStepCount = 10\n",
        );
        for name in ["process tracking", "limits", "time to stop", "steps of a job", "accounting"] {
            assert_eq!(bad[name], Verdict::Warn, "{name}");
        }
    }
}
