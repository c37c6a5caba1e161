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
  aifb logs show 4711 --level warn        warnings and errors, wherever in the logs they are
  aifb logs show 4711 --agent --level error --json")]
    Show(LogsArgs),
    /// Print new lines until the run ends
    #[command(after_help = "Example:\n  aifb logs follow 4711 --service llm --level warn")]
    Follow(LogsArgs),
    /// Change which lines the agents of a run send and write from now on
    #[command(after_help = "\
Examples:
  aifb logs set 4711 --level debug
  aifb logs set 4711 --level error --until 2026-12-31T00:00:00Z
The files that services write themselves are always complete.")]
    Set(LogsSetArgs),
    /// Send to Loki what a run could not send before its end
    #[command(after_help = "\
Examples:
  aifb logs resend 4711                              to the recipe's Loki
  aifb logs resend 4711 --loki http://monitor:3100   to another one
No line is stored twice. Exit code 5: some are not sent yet; the next call goes on there.")]
    Resend(LogsResendArgs),
    /// Copy the logs of a run to names that other tools expect
    #[command(after_help = "\
Example:
  aifb logs export 4711 --to /tmp/logs
Names: SERVICE_out.log, SERVICE_err.log, logs/SERVICE_JOBID.out and .err, logs/benchmark_JOBID.out
(the job script's, where sbatch put it by default), logs/RUNID.log (what happened in the run).")]
    Export(LogsExportArgs),
}

/// `aifb logs set`.
#[derive(Debug, Args)]
pub(crate) struct LogsSetArgs {
    #[command(flatten)]
    pub(crate) run: RunSelector,
    /// Leave out lines below this level
    #[arg(long, value_enum, value_name = "LEVEL", required_unless_present_any = ["until", "forever"])]
    pub(crate) level: Option<Level>,
    /// Leave out lines after this instant, such as 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
    /// Leave out no line for its time
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
    /// What goes on
    Info,
    /// What may go wrong
    #[value(alias = "warn")]
    Warning,
    /// What went wrong
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
    /// Give up when nothing could be sent for this long
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
    /// Folder, made if need be [default: logs-RUNID in the current folder]
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
    /// Lines from the end of each file to start with
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N")]
    pub(crate) lines: u32,
    /// Only lines at or above this level, and those that belong to them, such as stack traces; a
    /// line that shows no level counts as info
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Print one JSON document a line: file, text, and level where it shows one
    #[arg(long)]
    pub(crate) json: bool,
}
