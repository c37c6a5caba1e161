//! `sample`: the sampler standalone, without Slurm, recipe or service: for tests, for benchmarks
//! and for who wants to look at a node.

mod serve;
mod summary;

use std::{cell::RefCell, net::SocketAddr, path::PathBuf, rc::Rc, str::FromStr, time::Duration};

use aifb_schema::{
    names::{exit, file},
    units::Span,
};
use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal as Stream, SignalKind, signal},
    task::{LocalSet, spawn_local},
};

use crate::{
    launch,
    problem::{self, complain},
    sample::{Attached, Config, Fact, Handle, NVML_LIBRARY, PERIOD_MIN, Sampler, Watched},
};
use summary::Summary;

/// Longest time between samples, as in a recipe.
const PERIOD_MAX: Duration = Duration::from_secs(3600);

/// Arguments of `sample`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Sampling interval: 100ms to 1h.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    every: Span,
    /// Duration [default: until SIGINT or SIGTERM, after which the record is complete too].
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<Span>,
    /// Folder for samples.bin; created if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Serve the last sample on http://ADDRESS:PORT/metrics to anyone who can connect.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Treat this process and its descendants as service NAME; repeatable.
    #[arg(long = "pid", value_name = "NAME=PID")]
    pids: Vec<Named>,
    /// Root of the process file system.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    proc_root: PathBuf,
    /// Root of the control groups.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
    /// Root of sysfs.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    sys_root: PathBuf,
    /// NVIDIA's management library (NVML).
    #[arg(long, value_name = "LIBRARY", default_value = NVML_LIBRARY)]
    nvml: PathBuf,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// A process with the name it gets.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    pid: u32,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID, such as llm=4711")?;
        let pid =
            pid.parse().ok().filter(|pid| *pid > 0).ok_or("expected a process id after '='")?;
        if name.is_empty() {
            return Err("expected a name before '='".to_owned());
        }
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// Runs the command; its exit code.
pub(crate) fn main(arguments: &Arguments) -> i32 {
    if !(PERIOD_MIN..=PERIOD_MAX).contains(&arguments.every.get()) {
        let what = format!("sampling every '{}': out of range", arguments.every);
        return problem::usage(&what, "from 100ms to 1h");
    }
    let record = arguments.out.join(file::SAMPLES);
    if record.exists() {
        let what = format!("making '{}': it already has a record", record.display());
        return problem::usage(&what, "name another folder with --out, or move the record away");
    }
    let code = match run(arguments, record) {
        Ok(summary) => {
            problem::print(&if arguments.json { summary.json() } else { summary.text() });
            exit::OK
        }
        Err(error) => {
            complain(&format!("{}: sampling: {error:#}", problem::PROGRAM));
            exit::INCOMPLETE
        }
    };
    // Not by returning: a thread that hangs in a library must not hold the process.
    std::process::exit(code)
}

fn run(arguments: &Arguments, record: PathBuf) -> anyhow::Result<Summary> {
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("making '{}'", arguments.out.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the runtime")?;
    let facts = LocalSet::new().block_on(&runtime, sample(arguments, record.clone()))?;
    Summary::of(&record, facts)
}

/// The one sampler; taken when it ends.
type Shared = Rc<RefCell<Option<Handle>>>;

/// Samples until the end; what happened on the node meanwhile.
async fn sample(arguments: &Arguments, file: PathBuf) -> anyhow::Result<Vec<Fact>> {
    let mut interrupted = signal(SignalKind::interrupt()).context("listening for signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("listening for signals")?;
    let listener = match arguments.listen {
        Some(address) => Some(serve::bind(address).await?),
        None => None,
    };
    let watched = Watched::default();
    for (replica, Named { name, pid }) in (0..).zip(&arguments.pids) {
        // The number tells processes of one name apart.
        watched.set(name, replica, *pid);
    }
    let handle: Shared = Rc::default();
    *handle.borrow_mut() =
        Some(Sampler::start(config(arguments, file)?, watched, Attached::default())?);
    if let Some(listener) = listener {
        spawn_local(serve::serve(listener, Rc::clone(&handle)));
    }
    wait(arguments.duration, &mut interrupted, &mut terminated).await;
    let Some(handle) = handle.borrow_mut().take() else { return Ok(Vec::new()) };
    let facts = handle.take_facts();
    handle.stop().map(|()| facts)
}

fn config(arguments: &Arguments, file: PathBuf) -> anyhow::Result<Config> {
    let node = nix::unistd::gethostname().context("asking for the host's name")?;
    let job_id = std::env::var("SLURM_JOB_ID").ok().and_then(|id| id.parse().ok());
    Ok(Config {
        period: arguments.every.get(),
        node: node.to_string_lossy().into_owned(),
        run_id: launch::local_run_id(),
        job_id,
        file,
        proc_root: arguments.proc_root.clone(),
        cgroup_root: arguments.cgroup_root.clone(),
        sys_root: arguments.sys_root.clone(),
        nvml: Some(arguments.nvml.clone()),
    })
}

/// Returns when the time is over, or at the first signal.
async fn wait(duration: Option<Span>, interrupted: &mut Stream, terminated: &mut Stream) {
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration.get()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
}
