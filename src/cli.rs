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
Exit codes: docs/reference/exit-codes.md; docs/ is installed as share/aifb/docs, beside bin/")]
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
    /// Wait until the services of a run answer
    Wait(WaitArgs),
    /// Run the loads of the present run: every point, every repeat
    Load(LoadArgs),
    /// List runs
    List(ListArgs),
    /// Show one run: state, nodes, services, loads
    Status(StatusArgs),
    /// Follow one run until it ends, one line for each change
    Watch(WatchArgs),
    /// Stop a run: services end in order, the records are closed
    Stop(StopArgs),
    /// Logs of services and agents: show, follow, send to Loki, export
    #[command(subcommand)]
    Logs(LogsCommand),
    /// Print the report of a run
    Report(ReportArgs),
    /// Print the results of a run for Prometheus, or push them to a Pushgateway
    Metrics(MetricsArgs),
    /// Examples, format and meaning of recipes
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Look for what would keep a benchmark from running here
    Doctor(DoctorArgs),
    /// Print the environment that a run gives to its clients
    Env(EnvArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages of aifb and of each of its verbs to a folder
    Man(ManArgs),
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

/// What is waited for before the script goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// Every service answers
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
The first Ctrl-C leaves the job running and says how to stop it; with --local it stops the run.")]
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
    /// One more option for sbatch, such as --sbatch=--reservation=x; repeatable
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) sbatch: Vec<String>,
    /// Print what would be submitted, submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Job script and its arguments, instead of the shipped benchmark script
    #[arg(last = true, value_name = "SCRIPT")]
    pub(crate) script: Vec<OsString>,
}

/// `aifb validate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  aifb validate recipe.yaml --set services.llm.gpus=2
Exit code 0: sbatch --aifb-recipe would accept it; 2: it would refuse it with the same words.")]
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
  eval \"$(aifb up recipe.yaml --sh)\"     start the services, set SERVICE_URL and the rest
  aifb up recipe.yaml                     start them and print where they answer")]
pub(crate) struct UpArgs {
    /// Recipe file [default: the recipe that came with the job]
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
  aifb load                       everything that the recipe asks for
  aifb load chat --point 2        one load at one point of the sweep
  aifb load --dry-run             print the srun commands")]
pub(crate) struct LoadArgs {
    /// Loads to run, by name [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only this point of the sweep
    #[arg(long)]
    pub(crate) point: Option<u32>,
    /// Only this repeat [default: as many as the recipe says, from the next free number on]
    #[arg(long)]
    pub(crate) repeat: Option<u32>,
    /// Print the commands, run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON document for each repeat
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  aifb list --runs /project/me/aifb-runs --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) root: RunsDir,
    /// Only runs that have not ended
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
    /// Print one JSON document a line, one for each change
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb stop`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb stop 4711            stop services and agents; the job's script goes on
                            (what the run pushed to a Pushgateway is deleted, also of an ended run)
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
    /// Exit with code 6 when a verdict says not to believe a result
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `aifb recipe`.
#[derive(Debug, Subcommand)]
pub(crate) enum RecipeCommand {
    /// List the examples that come with aifb
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print an example by name, or a recipe file with all defaults filled in
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

/// `aifb metrics`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb metrics 4711 -o metrics.prom
  aifb metrics 4711 --push --gateway-url http://monitor-node:9091
  aifb metrics 4711 --delete              what the run left on the gateway
Without --gateway-url: the gateway of the recipe, else PUSHGATEWAY_URL, else port 9091 of
MONITORING_NODE, else http://localhost:9091.")]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Write them into this file instead of printing them
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Push them to a Pushgateway, in the place of what the run's group had there
    #[arg(long, conflicts_with = "output")]
    pub(crate) push: bool,
    /// Delete the run's groups on a Pushgateway
    #[arg(long, conflicts_with_all = ["output", "push"])]
    pub(crate) delete: bool,
    /// The Pushgateway
    #[arg(long, value_name = "URL")]
    pub(crate) gateway_url: Option<String>,
    /// The group's job [default: benchmark; for --delete that and the one of runs]
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
}

/// `aifb doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb doctor                 what a user can see from here
  aifb doctor --admin         also on all nodes: runs one short test job
Exit code 1 when a check fails; warnings do not count.")]
pub(crate) struct DoctorArgs {
    /// Also run a test job over the nodes
    #[arg(long)]
    pub(crate) admin: bool,
    /// Partition of the test job [default: Slurm's]
    #[arg(long, requires = "admin")]
    pub(crate) partition: Option<String>,
    /// What a node of the test job says about itself
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
  eval \"$(aifb env --sh)\"     in a shell of the job that does not have the variables
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

/// `aifb man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  aifb man ~/.local/share/man/man1 && man aifb-run")]
pub(crate) struct ManArgs {
    /// Folder; it is made where it is missing
    pub(crate) folder: PathBuf,
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
