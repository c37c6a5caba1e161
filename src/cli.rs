//! The command line: every verb, option and help text.

mod drive;
mod inspect;
mod logs;

use std::{path::PathBuf, time::Duration};

use aifb_schema::units::Span;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use drive::*;
pub(crate) use inspect::*;
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
    /// List the protocols that a load can use
    Drivers(DriversArgs),
    /// Check whether benchmarks can run here
    Doctor(DoctorArgs),
    /// Print the environment variables for the clients of a run
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

/// `aifb drivers`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  aifb drivers                what each speaks, and which sections of a load it takes
  aifb drivers --json         also its port, operations, keys and presets
A load names one: driver: openai-chat. docs/reference/drivers.md says what each sends and measures.")]
pub(crate) struct DriversArgs {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
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

/// `aifb man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  aifb man ~/.local/share/man/man1 && man aifb-run")]
pub(crate) struct ManArgs {
    /// Folder; it is created if missing
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
