//! The verbs that show runs and their measurements: their options and help texts.

use std::path::PathBuf;

use clap::Args;

use super::{RunSelector, RunsDir};

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
