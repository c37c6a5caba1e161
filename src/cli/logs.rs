//! `aifb logs`: its verbs, options and help texts.

use std::path::PathBuf;

use aifb_schema::{recipe::LogLevel, time::When};
use clap::{Args, Subcommand, ValueEnum};

use super::RunSelector;

/// `aifb logs`.
#[derive(Debug, Subcommand)]
pub(crate) enum LogsCommand {
    /// Print the end of the logs
    #[command(after_help = "\
Examples:
  aifb logs show 4711 --service llm --stderr --lines 100
  aifb logs show 4711 --level warn        the last warnings and errors, however far back
  aifb logs show 4711 --agent --level error --json")]
    Show(LogsArgs),
    /// Print new lines until the run ends
    #[command(after_help = "Example:\n  aifb logs follow 4711 --service llm --level warn")]
    Follow(LogsArgs),
    /// Change which log lines the agents of a run send and write from now on
    #[command(after_help = "\
Examples:
  aifb logs set 4711 --level debug
  aifb logs set 4711 --level error --until 2026-12-31T00:00:00Z
The log files of the services are always complete.")]
    Set(LogsSetArgs),
    /// Send log lines to Loki that were not sent before the end of the run
    #[command(after_help = "\
Examples:
  aifb logs resend 4711                              to the recipe's Loki
  aifb logs resend 4711 --loki http://monitor:3100   to another one
No line is stored twice. Exit code 5: some lines are not sent yet; the next call continues there.")]
    Resend(LogsResendArgs),
    /// Copy the logs of a run to names that other tools expect
    #[command(after_help = "\
Example:
  aifb logs export 4711 --to /tmp/logs
Names: SERVICE_out.log, SERVICE_err.log, logs/SERVICE_JOBID.out and .err, logs/benchmark_JOBID.out
(output of the job script, from sbatch's default path), logs/RUNID.log (events of the run).")]
    Export(LogsExportArgs),
}

/// `aifb logs set`.
#[derive(Debug, Args)]
pub(crate) struct LogsSetArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Drop lines below this level
    #[arg(long, value_enum, value_name = "LEVEL", required_unless_present_any = ["until", "forever"])]
    pub(crate) level: Option<Level>,
    /// Drop lines after this time, such as 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
    /// Remove the time limit
    #[arg(long, conflicts_with = "until")]
    pub(crate) forever: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// A level of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Everything
    Debug,
    /// Normal operation
    Info,
    /// Possible problems
    #[value(alias = "warn")]
    Warning,
    /// Errors only
    Error,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warning => Self::Warning,
            Level::Error => Self::Error,
        }
    }
}

/// `aifb logs resend`.
#[derive(Debug, Args)]
pub(crate) struct LogsResendArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Loki's URL [default: the recipe's]
    #[arg(long, value_name = "URL")]
    pub(crate) loki: Option<String>,
    /// Give up after this time without progress
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) patience: String,
    /// Print the ledger as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `aifb logs export`.
#[derive(Debug, Args)]
pub(crate) struct LogsExportArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Folder, created if missing [default: logs-RUNID in the current folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which logs.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Only this service (NAME or NAME.REPLICA)
    #[arg(long, short, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,
    /// Only standard error
    #[arg(long)]
    pub(crate) stderr: bool,
    /// The agents' and the launcher's own logs instead of the services'
    #[arg(long, conflicts_with_all = ["service", "stdout", "stderr"])]
    pub(crate) agent: bool,
    /// Number of lines to print from the end of each file
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N")]
    pub(crate) lines: u32,
    /// Only lines at or above this level, with their stack traces; a line without a level counts
    /// as info
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Print JSON lines with file, text and, if the line has one, level
    #[arg(long)]
    pub(crate) json: bool,
}
