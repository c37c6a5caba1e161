//! Submissions.

use std::collections::BTreeMap;

use aifb_schema::{names::option, recipe::SlurmValue};

use super::runner::Call;
use crate::error::{CommandError, Result};

/// What is handed to sbatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submission {
    /// Options, one list for each component of a heterogeneous job.
    pub(crate) components: Vec<Vec<String>>,
    /// The job script.
    pub(crate) script: Script,
}

/// A job script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Script {
    /// A file that sbatch reads, with arguments.
    File {
        /// Its path.
        path: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// Text that sbatch reads from standard input.
    Text(String),
}

impl Submission {
    /// The command line.
    pub(crate) fn argv(&self) -> Vec<String> {
        let mut argv = vec!["sbatch".to_owned(), "--parsable".to_owned()];
        for (index, options) in self.components.iter().enumerate() {
            if index > 0 {
                argv.push(":".into());
            }
            argv.extend(options.iter().cloned());
        }
        if let Script::File { path, args } = &self.script {
            argv.push(path.clone());
            argv.extend(args.iter().cloned());
        }
        argv
    }

    /// Submits it; the job id.
    ///
    /// # Errors
    /// Slurm's own words when it refuses.
    pub(crate) fn submit(&self) -> Result<u32> {
        let argv = self.argv();
        let mut call = Call::new("sbatch").args(argv.into_iter().skip(1)).deadline(super::DEADLINE);
        if let Script::Text(text) = &self.script {
            call = call.input(text.as_bytes());
        }
        let answer = call.run().map_err(super::missing)?;
        if answer.code != Some(0) {
            // The plugin refuses a recipe with code 2, everything else is Slurm's.
            let code = if answer.code == Some(2) { 2 } else { aifb_schema::names::exit::SLURM };
            return Err(CommandError::relayed(code, answer.complaint()));
        }
        answer
            .stdout
            .lines()
            .last()
            .and_then(|line| line.split(';').next())
            .and_then(|id| id.trim().parse().ok())
            .ok_or_else(|| {
                CommandError::slurm(
                    "reading the output of sbatch",
                    format!("'{}' is not a job id", answer.stdout.trim()),
                )
            })
    }
}

/// Options of a recipe as sbatch wants them. A flag that is false is left out.
pub(crate) fn option_words(options: &BTreeMap<String, SlurmValue>) -> Vec<String> {
    options
        .iter()
        .filter_map(|(name, value)| match value {
            SlurmValue::Flag(false) => None,
            SlurmValue::Flag(true) => Some(format!("--{name}")),
            SlurmValue::Number(number) => Some(format!("--{name}={number}")),
            SlurmValue::Text(text) => Some(format!("--{name}={text}")),
        })
        .collect()
}

/// Whether a command of Slurm (`sbatch`, `srun`, `salloc`) knows the plugin's options here.
///
/// # Errors
/// If the command cannot be run.
pub(crate) fn knows_plugin(command: &str) -> Result<bool> {
    let answer = super::call(command, &["--help".into()])?;
    Ok(answer.stdout.contains(&format!("--{}", option::RECIPE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_words() {
        let options = BTreeMap::from([
            ("exclusive".to_owned(), SlurmValue::Flag(true)),
            ("hold".to_owned(), SlurmValue::Flag(false)),
            ("nodes".to_owned(), SlurmValue::Number(2)),
            ("time".to_owned(), SlurmValue::Text("01:00:00".into())),
        ]);
        assert_eq!(option_words(&options), ["--exclusive", "--nodes=2", "--time=01:00:00"]);
    }

    #[test]
    fn components_are_separated() {
        let submission = Submission {
            components: vec![vec!["--nodes=1".into()], vec!["--nodes=2".into()]],
            script: Script::File { path: "x.sh".into(), args: vec!["a b".into()] },
        };
        assert_eq!(
            submission.argv(),
            ["sbatch", "--parsable", "--nodes=1", ":", "--nodes=2", "x.sh", "a b"]
        );
    }
}
