//! Names that several programs use: options, environment variables, files, exit codes.
//!
//! Only constants, so that the plugin can use them without any dependency.

/// The version of aifb, of all its programs and of the plugin.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Major version of everything that programs exchange: messages, snapshot, run folder.
///
/// A program refuses a peer of another value by name instead of guessing.
pub const PROTOCOL: u32 = 1;

/// Options that the plugin adds to sbatch, srun and salloc, without the leading dashes.
pub mod option {
    /// Path of the recipe.
    pub const RECIPE: &str = "aifb-recipe";
    /// `PATH=VALUE`, overrides one recipe field; repeatable.
    pub const SET: &str = "aifb-set";
    /// Root of the run folders.
    pub const RUNS: &str = "aifb-runs";
    /// `healthy` (default) or `none`: what the job script waits for.
    pub const WAIT: &str = "aifb-wait";
}

/// Environment variables.
pub mod env {
    /// Name given to `spank_job_control_setenv` for the snapshot of the recipe.
    pub const CONTROL_SNAPSHOT: &str = "AIFB_SNAPSHOT";
    /// Name given to `spank_job_control_setenv` for the wait mode.
    pub const CONTROL_WAIT: &str = "AIFB_WAIT";
    /// [`CONTROL_SNAPSHOT`] as the job sees it.
    pub const SNAPSHOT: &str = "SLURM_SPANK_AIFB_SNAPSHOT";
    /// [`CONTROL_WAIT`] as the job sees it.
    pub const WAIT: &str = "SLURM_SPANK_AIFB_WAIT";
    /// Version line of the plugin that started the launcher; absent where no plugin did.
    pub const PLUGIN: &str = "AIFB_PLUGIN";
    /// Shortest sampling interval that the administrators allow (`min_sample=` in
    /// plugstack.conf), as `100ms`; absent means no bound.
    pub const MIN_SAMPLE: &str = "AIFB_MIN_SAMPLE";
    /// Root of the run folders, set by the user.
    pub const RUNS: &str = "AIFB_RUNS";
    /// Folder for what is fetched once and kept, such as container images; set by the user.
    pub const CACHE: &str = "AIFB_CACHE";
    /// Folder with presets of the site or the user, one YAML file for each kind.
    pub const PRESETS: &str = "AIFB_PRESETS";
    /// Id of the run.
    pub const RUN_ID: &str = "AIFB_RUN_ID";
    /// Absolute path of the run folder.
    pub const RUN_DIR: &str = "AIFB_RUN_DIR";
    /// The job that the other `AIFB_*` variables belong to; see [`super::OWN_JOB_RULE`].
    pub const JOB_ID: &str = "AIFB_JOB_ID";
    /// Folder of the programs of aifb; also put in front of `PATH`.
    pub const BIN: &str = "AIFB_BIN";
    /// URL of a Pushgateway, where neither a flag nor the recipe names one.
    pub const PUSHGATEWAY_URL: &str = "PUSHGATEWAY_URL";
    /// Node with the monitoring stack; its Pushgateway counts where nobody names another.
    pub const MONITORING_NODE: &str = "MONITORING_NODE";
    /// Rank of a load's client that runs without Slurm, set by `aifb load`.
    pub const LOCAL_RANK: &str = "AIFB_LOCAL_RANK";
    /// How many such clients there are.
    pub const LOCAL_SIZE: &str = "AIFB_LOCAL_SIZE";
    /// Tells two groups of such clients apart.
    pub const LOCAL_STEP: &str = "AIFB_LOCAL_STEP";
    /// First service: its name.
    pub const SERVICE_NAME: &str = "SERVICE_NAME";
    /// First service: the node it listens on.
    pub const SERVICE_HOSTNAME: &str = "SERVICE_HOSTNAME";
    /// First service: its port.
    pub const SERVICE_PORT: &str = "SERVICE_PORT";
    /// First service: its URL.
    pub const SERVICE_URL: &str = "SERVICE_URL";
    /// All URLs of all services, comma-separated.
    pub const SERVICE_URLS: &str = "SERVICE_URLS";
}

/// Our programs ignore the `AIFB_*` variables unless `AIFB_JOB_ID` equals `SLURM_JOB_ID` (or
/// `SLURM_HET_JOB_ID`), or names a local run while there is no Slurm job: a nested sbatch
/// inherits variables but no run.
pub const OWN_JOB_RULE: &str = "AIFB_JOB_ID must be the id of the current job";

/// Files of a run folder, relative to it.
pub mod file {
    /// The recipe as it was submitted.
    pub const RECIPE: &str = "recipe.yaml";
    /// The recipe as it is run: overrides applied, presets merged, defaults filled in
    /// (`schema::recipe::Resolved`); secrets are references.
    pub const RESOLVED: &str = "recipe.resolved.json";
    /// What the run is and how it ended.
    pub const RUN: &str = "run.json";
    /// One JSON object a line: what happened when.
    pub const EVENTS: &str = "events.jsonl";
    /// The token of the run, mode 0600.
    pub const TOKEN: &str = ".token";
    /// The launcher's lock, made with `O_EXCL`.
    pub const LOCK: &str = ".lock";
    /// One folder a node.
    pub const NODES: &str = "nodes";
    /// Inside a node's folder: how to reach its agent.
    pub const AGENT: &str = "agent.json";
    /// Inside a node's folder: raw counters.
    pub const SAMPLES: &str = "samples.bin";
    /// Inside a node's folder: the agent's own log.
    pub const AGENT_LOG: &str = "agent.log";
    /// Inside a node's folder: series that its agent sends by remote write and has not ended; gone
    /// once it has.
    pub const REMOTE_SERIES: &str = "remote-series.jsonl";
    /// Inside a node's folder: what became of its log lines.
    pub const LOG_LEDGER: &str = "log-ledger.json";
    /// Inside a node's folder: how far its logs are sent.
    pub const LOG_CHECKPOINT: &str = "log-checkpoint.jsonl";
    /// Inside a node's folder: log lines that the receiver refused for good.
    pub const LOG_QUARANTINE: &str = "log-quarantine.jsonl";
    /// The launcher's log, in the run folder.
    pub const LAUNCH_LOG: &str = "launch.log";
    /// One folder a service replica.
    pub const SERVICES: &str = "services";
    /// Inside a replica's folder: where it listens.
    pub const ENDPOINT: &str = "endpoint.json";
    /// Inside a replica's folder: its standard output.
    pub const STDOUT: &str = "stdout.log";
    /// Inside a replica's folder: its standard error.
    pub const STDERR: &str = "stderr.log";
    /// One folder a load: `load/<name>/<point>/<repeat>/`.
    pub const LOAD: &str = "load";
    /// Inside a repeat's folder: the merged result.
    pub const RESULT: &str = "result.json";
    /// A load's seconds, a line each, beside its result.
    pub const SERIES: &str = "series.jsonl";
    /// Where a load's workers meet through files: the common start.
    pub const START: &str = "start.json";
    /// The report for programs.
    pub const REPORT_JSON: &str = "report.json";
    /// The report for people.
    pub const REPORT_TEXT: &str = "report.txt";
}

/// Exit codes of all our programs (docs/reference/exit-codes.md).
pub mod exit {
    /// All well; verdicts are printed.
    pub const OK: i32 = 0;
    /// It ran, but a check or an SLO failed.
    pub const CHECK_FAILED: i32 = 1;
    /// Wrong usage or a wrong recipe.
    pub const USAGE: i32 = 2;
    /// Slurm or SSH.
    pub const SLURM: i32 = 3;
    /// A service failed or never became healthy.
    pub const SERVICE: i32 = 4;
    /// The run is incomplete: a part was lost.
    pub const INCOMPLETE: i32 = 5;
    /// A verdict says not to believe the result (only with `--strict`).
    pub const UNBELIEVABLE: i32 = 6;
    /// Interrupted by SIGINT.
    pub const INTERRUPTED: i32 = 130;
    /// Ended by SIGTERM.
    pub const TERMINATED: i32 = 143;
}

/// Bounds that more than one program keeps.
pub mod limit {
    /// Bytes of a recipe file. The largest example has 3 KiB; Slurm keeps the snapshot in the
    /// controller's memory for each job, so it must stay small.
    pub const RECIPE_BYTES: u64 = 64 * 1024;
    /// Bytes of `recipe.resolved.json`, which holds a recipe twice with the presets that it uses.
    pub const RESOLVED_BYTES: u64 = 16 << 20;
    /// Bytes of the encoded snapshot: Slurm loses a variable of 128 KiB in silence and sends
    /// each one in every prolog and kill message.
    pub const SNAPSHOT_BYTES: usize = 16 * 1024;
    /// Length of a run, service or load name: one label of a host name.
    pub const NAME_BYTES: usize = 63;
    /// Bytes from the end of a service's log that are shown when it fails: about 50 lines.
    pub const LOG_TAIL_BYTES: u64 = 4 * 1024;
}
