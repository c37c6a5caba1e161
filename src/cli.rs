//! The command line: every verb, option and help text.

mod logs;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use aifb_schema::units::Span;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use logs::*;

/// Version as `schema::version_line` has it, without the program's name, which clap prints.
const VERSION_TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), " (protocol 1)");

/// Reproducible benchmarks of AI services on Slurm.
#[derive(Debug, Parser)]
#[command(name = "aifb", version = VERSION_TEXT, arg_required_else_help = true, after_help = "\
First steps:
  aifb recipe list                      examples to start from
  aifb validate RECIPE                  check a recipe
  aifb run --local RECIPE               the whole benchmark on this machine, without Slurm
  aifb run RECIPE                       the same as a Slurm job
Exit codes: docs/reference/exit-codes.md")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a benchmark, follow it and print its report
    Run(RunArgs),
    /// Check a recipe as sbatch --aifb-recipe would
    Validate(ValidateArgs),
    /// Start the services of a recipe inside an allocation that has none yet
    Up(UpArgs),
    /// Wait until the services of a run are healthy
    Wait(WaitArgs),
    /// Run every load of the current run (all sweep points and repeats)
    Load(LoadArgs),
    /// List runs
    List(ListArgs),
    /// Show one run: state, nodes, services, loads
    Status(StatusArgs),
    /// Follow one run until it ends, one line per change
    Watch(WatchArgs),
    /// Stop a run: end its services in order and complete its records
    Stop(StopArgs),
    /// Logs of services and agents: show, follow, send to Loki, export
    #[command(subcommand)]
    Logs(LogsCommand),
    /// Print the report of a run
    Report(ReportArgs),
    /// Print the results of a run for Prometheus, or push them to a Pushgateway
    Metrics(MetricsArgs),
    /// Example recipes, JSON Schema and reference of all keys
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// List the kinds of services, show the preset of a kind
    Services(ServicesArgs),
    /// Check whether benchmarks can run here
    Doctor(DoctorArgs),
    /// Print the environment variables for the clients of a run
    Env(EnvArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// A recipe with what can be changed on the command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecipeInput {
    /// Recipe file (YAML or JSON)
    #[arg(value_name = "RECIPE")]
    pub(crate) recipe: PathBuf,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

/// Overrides of recipe fields.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Overrides {
    /// Override one field, such as load.chat.arrival.rate=50/s; repeatable
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) sets: Vec<String>,
}

/// Where run folders are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunsDir {
    /// Root of the run folders [default: $AIFB_RUNS, else aifb-runs in the current folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) runs: Option<PathBuf>,
}

/// Names a run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunSelector {
    /// Run id, job id or run folder [default: the run of this job, else the newest]
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) root: RunsDir,
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

/// What to wait for before the script continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// All services are healthy
    Healthy,
    /// Nothing
    None,
}

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

/// `aifb list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  aifb list --runs /project/me/aifb-runs --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) root: RunsDir,
    /// Only runs that are still active
    #[arg(long)]
    pub(crate) active: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  aifb status            the newest run\n  aifb status 4711       the run of job 4711"
)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb watch`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  aifb watch 4711\nExit code: that of the run (0 when it completed)."
)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Print JSON lines, one per change
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

/// `aifb report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb report                the newest run, as text
  aifb report 4711 --json    as docs/reference/result.md describes it")]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with code 6 if a result has a verdict and should not be trusted
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `aifb recipe`.
#[derive(Debug, Subcommand)]
pub(crate) enum RecipeCommand {
    /// List the example recipes
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print an example, or a recipe file with all defaults filled in
    #[command(after_help = "\
Examples:
  aifb recipe show http-program > my.yaml
  aifb recipe show my.yaml --set load.get.clients=4")]
    Show {
        /// Name of an example, or a recipe file
        #[arg(value_name = "NAME|RECIPE")]
        what: PathBuf,
        #[command(flatten)]
        overrides: Overrides,
        /// Print JSON instead of YAML
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of recipes, for editors
    Schema,
    /// Print the reference of all recipe keys (Markdown)
    Reference,
}

/// `aifb services`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  aifb services                       kinds that `kind:` of a service can name
  aifb services show vllm             its command, port, health and set-up
A folder named by AIFB_PRESETS adds kinds, one YAML file each: docs/user/presets.md"
)]
pub(crate) struct ServicesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ServicesCommand>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb services …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServicesCommand {
    /// Print the preset of a kind, and where it comes from
    Show {
        /// The kind, such as vllm
        #[arg(value_name = "KIND")]
        kind: String,
    },
}

/// `aifb metrics`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb metrics 4711 -o metrics.prom
  aifb metrics 4711 --push --gateway-url http://monitor-node:9091
  aifb metrics 4711 --delete              delete what the run pushed
Without --gateway-url: the gateway of the recipe, else PUSHGATEWAY_URL, else port 9091 of
MONITORING_NODE, else http://localhost:9091.")]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Write the metrics to this file instead of printing them
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Push the metrics to a Pushgateway and replace the run's group there
    #[arg(long, conflicts_with = "output")]
    pub(crate) push: bool,
    /// Delete the run's groups on a Pushgateway
    #[arg(long, conflicts_with_all = ["output", "push"])]
    pub(crate) delete: bool,
    /// The Pushgateway
    #[arg(long, value_name = "URL")]
    pub(crate) gateway_url: Option<String>,
    /// Label `job` of the group [default: benchmark; --delete: also that of runs]
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
}

/// `aifb doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb doctor                 checks from here, as a user
  aifb doctor --admin         also checks all nodes with a short test job
Exit code 1 if a check fails; warnings do not count.")]
pub(crate) struct DoctorArgs {
    /// Also check all nodes with a test job
    #[arg(long)]
    pub(crate) admin: bool,
    /// Partition of the test job [default: Slurm's default partition]
    #[arg(long, requires = "admin")]
    pub(crate) partition: Option<String>,
    /// Print the facts about this node, as a task of the test job
    #[arg(long, hide = true)]
    pub(crate) node_report: bool,
    #[command(flatten)]
    pub(crate) root: RunsDir,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb env`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  eval \"$(aifb env --sh)\"     set the variables in a shell inside the job
  aifb env 4711 --json")]
pub(crate) struct EnvArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Print shell commands that set the environment
    #[arg(long, conflicts_with = "json")]
    pub(crate) sh: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  aifb completions bash > ~/.local/share/bash-completion/completions/aifb"
)]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(Span::get).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert_eq!(format!("aifb {VERSION_TEXT}"), aifb_schema::version_line("aifb"));
        assert!(VERSION_TEXT.starts_with(aifb_schema::names::VERSION));
    }

    #[test]
    fn every_verb_shows_an_example() {
        for verb in Cli::command().get_subcommands() {
            let nested = verb.get_subcommands().any(|inner| inner.get_after_help().is_some());
            assert!(verb.get_after_help().is_some() || nested, "{}", verb.get_name());
        }
    }
}
