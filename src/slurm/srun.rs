//! Steps inside the present job.

use std::{env, ffi::OsString, process::Command};

/// Part of a step on nodes of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Component of a heterogeneous job; absent in an ordinary one.
    pub(crate) het_group: Option<usize>,
    /// Node names.
    pub(crate) nodes: Vec<String>,
    /// Tasks on them together.
    pub(crate) tasks: u32,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The job; for a heterogeneous one the leader.
    pub(crate) job: u32,
    /// Name of the step in sacct.
    pub(crate) name: String,
    /// Its parts, one unless it spans components.
    pub(crate) segments: Vec<Segment>,
    /// Program and arguments of every task.
    pub(crate) command: Vec<OsString>,
}

impl Step {
    /// The command line. Everything is named, because the environment is cleaned: what the job
    /// script asked of Slurm must not change this step.
    pub(crate) fn argv(&self) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec!["srun".into()];
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                argv.push(":".into());
            }
            argv.extend(self.options(segment).into_iter().map(OsString::from));
            argv.extend(self.command.iter().cloned());
        }
        argv
    }

    fn options(&self, segment: &Segment) -> Vec<String> {
        let mut options = vec![
            format!("--jobid={}", self.job),
            format!("--job-name={}", self.name),
            // Beside the agents and the services, on resources that they hold too.
            "--overlap".into(),
            format!("--nodes={}", segment.nodes.len()),
            format!("--ntasks={}", segment.tasks),
            format!("--nodelist={}", segment.nodes.join(",")),
            // Round and round over the nodes, also with more tasks than CPUs.
            "--distribution=cyclic".into(),
            "--overcommit".into(),
            "--mem=0".into(),
            "--cpu-bind=none".into(),
            "--mpi=none".into(),
            "--input=none".into(),
            // A lost task leaves a valid, incomplete result: the others go on to their end.
            "--kill-on-bad-exit=0".into(),
            "--wait=0".into(),
            "--export=ALL".into(),
        ];
        if let Some(group) = segment.het_group {
            options.push(format!("--het-group={group}"));
        }
        options
    }

    /// The step as a process to start: Slurm's variables are kept from it.
    pub(crate) fn process(&self) -> Command {
        let argv = self.argv();
        let mut words = argv.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(super::is_slurm_variable) {
                command.env_remove(&name);
            }
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_component_has_its_own_part() {
        let step = Step {
            job: 7,
            name: "aifb-chat".into(),
            segments: vec![
                Segment { het_group: Some(0), nodes: vec!["n1".into()], tasks: 1 },
                Segment { het_group: Some(1), nodes: vec!["n2".into(), "n3".into()], tasks: 3 },
            ],
            command: vec!["aifb-loadgen".into(), "--load".into(), "chat".into()],
        };
        let argv = step.argv();
        let words: Vec<&str> = argv.iter().filter_map(|word| word.to_str()).collect();
        let colon = words.iter().position(|word| *word == ":").unwrap();
        assert_eq!(words[colon - 3..colon], ["aifb-loadgen", "--load", "chat"]);
        assert!(words[colon..].contains(&"--nodelist=n2,n3"));
        assert!(words[colon..].contains(&"--ntasks=3"));
        assert!(words[..colon].contains(&"--het-group=0"));
        assert!(words.contains(&"--overlap"));
    }
}
