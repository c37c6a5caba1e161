//! The command line.

mod load;
mod model;
mod search;
mod wire;
mod workload;

use std::path::PathBuf;

use aifb_schema::{
    recipe::{DRIVERS, Driver},
    units::{Name, Rate, Share, Span},
};
use clap::{
    ArgGroup, Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};

use crate::mock;

/// Sends load to a service and measures latency from the intended send times.
///
/// Inside a run, as the tasks of one srun step: aifb-loadgen --load NAME. Without a run:
/// aifb-loadgen run --url URL …
#[derive(Debug, Parser)]
#[command(
    name = "aifb-loadgen",
    args_conflicts_with_subcommands = true,
    disable_version_flag = true
)]
pub(crate) struct Cli {
    /// Load of the run's recipe.
    #[arg(long, value_name = "NAME")]
    pub(crate) load: Option<Name>,
    /// Point of the sweep [default: the next one].
    #[arg(long, value_name = "N", requires = "load")]
    pub(crate) point: Option<u32>,
    /// Repeat, from 0 [default: the next one].
    #[arg(long, value_name = "N", requires = "load")]
    pub(crate) repeat: Option<u32>,
    /// Total number of workers of a load that spans several steps: start each step with the same
    /// number; the load starts once so many workers have joined.
    #[arg(long, value_name = "N", requires = "load", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) workers: Option<u32>,
    /// If no worker can connect to the agent of its node, they synchronize through files in the run
    /// folder: the time from the arrival of the last worker to the start. It must exceed the time
    /// until a new file is visible on all nodes.
    #[arg(long, value_name = "TIME", requires = "load", default_value = "5s")]
    pub(crate) lead: Span,
    /// Exit with code 6 if the result has a verdict and should not be trusted.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the version.
    #[arg(long, short = 'V')]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a service that already runs, without Slurm, recipe or run folder.
    Run(Box<Run>),
    /// Start a mock server with deterministic latency.
    Mock(mock::Options),
    /// Compute a load's result from its workers' files: reads the plan as JSON from standard input
    /// and writes the result as JSON to standard output. `aifb report` uses it when a result is
    /// missing.
    Merge,
}

/// Distribution of the gaps between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProcessWord {
    /// Independent arrivals.
    Poisson,
    /// Equal gaps.
    Constant,
    /// Gaps of a gamma distribution (--burstiness).
    Gamma,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("arrival").required(true).args(["concurrency", "rate", "from", "trace"])),
    group(ArgGroup::new("length").required(true).args(["requests", "time"])),
)]
pub(crate) struct Run {
    /// Protocol.
    #[arg(long, value_parser = drivers())]
    pub(crate) driver: Driver,
    /// Address of the service: http://host:port, postgresql://user@host:port/database.
    /// Repeatable: requests are spread over all.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Vec<String>,
    /// Number of requests in flight; when one ends, the next is sent (closed loop).
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<u32>,
    /// Think time between requests of one user.
    #[arg(long, value_name = "TIME", conflicts_with = "rate")]
    pub(crate) think: Option<Span>,
    /// Rate of requests, independent of the responses, such as 20/s (open loop).
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<Rate>,
    /// Distribution of the gaps between requests.
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) process: ProcessWord,
    /// Number of measured requests.
    #[arg(long, value_name = "N")]
    pub(crate) requests: Option<u64>,
    /// Length of the measured part, such as 60s.
    #[arg(long = "for", value_name = "TIME", id = "time")]
    pub(crate) time: Option<Span>,
    /// Length of the warm-up, whose requests are excluded from the result.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(crate) warmup: Span,
    /// Longest time to wait for outstanding responses at the end.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) drain: Span,
    /// Longest time for one request.
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub(crate) timeout: Span,
    /// Seed of all random values.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Model named in requests.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) workload: workload::WorkloadOptions,
    #[command(flatten)]
    pub(crate) model_options: model::ModelOptions,
    /// SLO: longest time to first token.
    #[arg(long, value_name = "TIME")]
    pub(crate) slo_ttft: Option<Span>,
    /// SLO: longest mean inter-token latency of a request.
    #[arg(long, value_name = "TIME")]
    pub(crate) slo_itl: Option<Span>,
    /// SLO: longest end-to-end latency.
    #[arg(long, value_name = "TIME")]
    pub(crate) slo_e2e: Option<Span>,
    /// How HTTP is carried.
    #[command(flatten)]
    pub(crate) wire: wire::Wire,
    #[command(flatten)]
    pub(crate) search: SearchOptions,
    #[command(flatten)]
    pub(crate) join: JoinOptions,
    /// Method (driver http) [default: GET].
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Path and query (driver http) [default: the path of the URL].
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Header `name: value` (driver http); repeatable.
    #[arg(long, value_name = "HEADER")]
    pub(crate) header: Vec<String>,
    /// Body (driver http). Path and body may contain {id}, {seed}, {random} and {random:N}.
    #[arg(long, value_name = "TEXT")]
    pub(crate) body: Option<String>,
    /// The only successful status (driver http) [default: any from 200 to 299].
    #[arg(long, value_name = "CODE")]
    pub(crate) expect_status: Option<u16>,
    /// Text that a successful response must contain (driver http).
    #[arg(long, value_name = "TEXT")]
    pub(crate) expect_text: Option<String>,
    /// Inputs, outputs and other options of kserve-http, kserve-grpc and triton-generate: the
    /// recipe's section `kserve`, as JSON.
    #[arg(long, value_name = "JSON")]
    pub(crate) kserve: Option<String>,
    /// Any key of the recipe's load (docs/reference/recipe.md), such as connection.engine=hyper,
    /// llm.extra.temperature=0 or stop.steady.for=20s. It wins over the other options; repeatable.
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) option: Vec<String>,
    /// Keep the rows, histograms and result.json in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Show the progress once per second on standard error, even if it is not a terminal.
    #[arg(long)]
    pub(crate) progress: bool,
    /// Print the result as JSON instead of a summary.
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with code 6 if the result has a verdict and should not be trusted.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Program and arguments (driver command), after `--`.
    #[arg(last = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<String>,
}

/// The drivers' words, with their meaning in the help.
fn drivers() -> impl TypedValueParser<Value = Driver> {
    let words = DRIVERS
        .iter()
        .map(|spec| PossibleValue::new(spec.word).help(spec.doc.trim_end_matches('.')));
    PossibleValuesParser::new(words)
        .try_map(|word| Driver::from_word(&word).ok_or_else(|| format!("unknown driver '{word}'")))
}

/// Options of a load whose workers synchronize through files.
#[derive(Debug, Clone, Args)]
pub(crate) struct JoinOptions {
    /// Run as one of several workers of a load, which synchronize through this folder on a shared
    /// file system and write their records and the result there:
    /// srun -n8 aifb-loadgen run … --join FOLDER. Each load needs a new folder.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["out", "search"])]
    pub(crate) join: Option<PathBuf>,
    /// Rank of this worker, from 0 [default: SLURM_PROCID].
    #[arg(long, value_name = "R", requires = "join")]
    pub(crate) rank: Option<u32>,
    /// Number of workers of the load [default: the tasks of the step].
    #[arg(long, value_name = "N", requires = "join")]
    pub(crate) ranks: Option<u32>,
    /// Time from the arrival of the last worker to the start. It must exceed the time until a new
    /// file is visible on all nodes.
    #[arg(long, value_name = "TIME", requires = "join", default_value = "2s")]
    pub(crate) lead: Span,
}

/// Options of a search for the highest load within limits.
#[derive(Debug, Args)]
pub(crate) struct SearchOptions {
    /// Search for the highest load that meets this limit, instead of measuring one load. A limit is
    /// ttft, tpot, e2e or total with _p50, _p90, _p95 or _p99, such as ttft_p99=500ms; or
    /// attainment=0.99, the share of requests that meet the --slo limits. Repeatable. Each probe
    /// takes the time of --for.
    #[arg(
        long = "search",
        value_name = "LIMIT",
        id = "search",
        requires_all = ["from", "to", "time"],
        conflicts_with_all = ["requests"],
    )]
    pub(crate) limits: Vec<String>,
    /// Lowest load of a search: a rate such as 1/s, or a number of requests in flight.
    #[arg(long, value_name = "LOAD", requires = "search")]
    pub(crate) from: Option<String>,
    /// Highest load of a search.
    #[arg(long, value_name = "LOAD", requires = "search")]
    pub(crate) to: Option<String>,
    /// A search ends when the highest load that passes and the lowest that fails are this close.
    #[arg(long, value_name = "SHARE", requires = "search", default_value = "3%")]
    pub(crate) within: Share,
    /// Maximum number of probes of a search.
    #[arg(long, value_name = "N", requires = "search", default_value_t = 10)]
    pub(crate) probes: u32,
}
