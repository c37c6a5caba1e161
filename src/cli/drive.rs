//! The verbs that start, drive and stop a run: their options and help texts.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{Overrides, RecipeInput, RunSelector, RunsDir, span};

/// `aifb run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb run recipe.yaml                         submit, follow, print the report
  aifb run recipe.yaml --no-wait               submit and return at once
  aifb run recipe.yaml --set load.chat.seed=7 --dry-run
  aifb run recipe.yaml -- ./my-job.sh 10       with a job script of your own
  aifb run --local recipe.yaml                 on this machine, without Slurm
The first Ctrl-C leaves the job running and prints how to stop it; with --local it stops the run.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) input: RecipeInput,
    #[command(flatten)]
    pub(crate) root: RunsDir,
    /// Run on this machine, without Slurm
    #[arg(long, conflicts_with_all = ["no_wait", "plugin", "sbatch"])]
    pub(crate) local: bool,
    /// Start the services one after the other (the same as --set start=sequential)
    #[arg(long)]
    pub(crate) sequential: bool,
    /// Pushgateway for the summary of the run (the same as --set monitor.pushgateway=URL)
    #[arg(long, value_name = "URL")]
    pub(crate) pushgateway: Option<String>,
    /// Whether the SPANK plugin starts the run
    #[arg(long, value_enum, default_value_t = PluginUse::Auto, value_name = "WHEN")]
    pub(crate) plugin: PluginUse,
    /// Return as soon as the job is submitted
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Additional sbatch option, such as --sbatch=--reservation=x; repeatable
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) sbatch: Vec<String>,
    /// Print what would be submitted, without submitting it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Job script and its arguments, instead of the built-in benchmark script
    #[arg(last = true, value_name = "SCRIPT")]
    pub(crate) script: Vec<OsString>,
}

/// How the plugin is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginUse {
    /// Use it where sbatch knows --aifb-recipe
    Auto,
    /// Fail where sbatch does not know it
    Always,
    /// Let the job script start the run itself
    Never,
}

/// `aifb validate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  aifb validate recipe.yaml --set services.llm.gpus=2
Exit code 0: sbatch --aifb-recipe would accept the recipe; 2: it would refuse it with the same message.")]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) input: RecipeInput,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples, inside an allocation (salloc, or a job script where the plugin is missing):
  eval \"$(aifb up recipe.yaml --sh)\"     start the services, set SERVICE_URL and the other variables
  aifb up recipe.yaml                     start them and print their addresses")]
pub(crate) struct UpArgs {
    /// Recipe file [default: the recipe submitted with the job]
    #[arg(value_name = "RECIPE")]
    pub(crate) recipe: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    #[command(flatten)]
    pub(crate) root: RunsDir,
    /// What to wait for
    #[arg(long, value_enum, default_value_t = WaitFor::Healthy, value_name = "WHAT")]
    pub(crate) wait: WaitFor,
    /// Longest time to wait
    #[arg(long, value_parser = span, default_value = "60m", value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Print shell commands that set the environment
    #[arg(long, visible_alias = "export-sh", conflicts_with = "json")]
    pub(crate) sh: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to wait for before the script continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// All services are healthy
    Healthy,
    /// Nothing
    None,
}

/// `aifb wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, in a job submitted with --aifb-wait=none:
  aifb wait --timeout 15m && aifb load")]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Longest time to wait
    #[arg(long, value_parser = span, default_value = "60m", value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb load`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples, inside a job that has a run:
  aifb load                       all loads of the recipe
  aifb load chat --point 2        one load at one point of the sweep
  aifb load --dry-run             print the srun commands")]
pub(crate) struct LoadArgs {
    /// Loads to run, by name [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only this point of the sweep
    #[arg(long)]
    pub(crate) point: Option<u32>,
    /// Only this repeat [default: the recipe's number of repeats, from the next free number on]
    #[arg(long)]
    pub(crate) repeat: Option<u32>,
    /// Print the commands without running them
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON document per repeat
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb stop`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb stop 4711            stop services and agents; the job script continues
                            (also deletes what the run, active or ended, pushed to a Pushgateway)
  aifb stop 4711 --job      and cancel the job")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Also cancel the Slurm job, even one that still waits in the queue
    #[arg(long)]
    pub(crate) job: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}
