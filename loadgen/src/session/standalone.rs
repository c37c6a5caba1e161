//! `aifb-loadgen run`: one worker, no Slurm, no recipe, no run folder.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aifb_schema::{
    control::LoadPlan,
    names::exit,
    recipe::DriverSpec,
    result::{LoadResult, StoppedBecause},
    run::Endpoint,
};
use hyper::Uri;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    join::{INTERRUPTED, Join},
    progress::{ProgressLine, Whole},
    search,
    stop_rules::Watch,
    summary,
    worker::Worker,
};
use crate::{
    cli::Run,
    clock::mono_ns,
    error::Fatal,
    job::{Job, Start, Stop},
    merge,
    wire::API_KEY,
};

/// From "ready" to the first request: enough for the loop to be asleep when it comes.
const LEAD_NS: u64 = 5_000_000;

/// Runs it and prints the result; gives the exit code.
///
/// # Errors
/// If nothing could be measured.
pub(crate) fn run(options: &Run) -> Result<i32, Fatal> {
    let join = Join::new(&options.join, &|name| std::env::var(name).ok())?;
    let kept = join.as_ref().map(Join::folder).or(options.out.as_deref());
    let scratch = match kept {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|error| {
            Fatal::loadgen(format!("making a temporary folder: {error}"))
                .hint("name a folder for the records: --out FOLDER")
        })?),
    };
    let folder: &Path = match (kept, &scratch) {
        (Some(folder), _) => {
            std::fs::create_dir_all(folder).map_err(|error| {
                Fatal::usage(format!("making folder '{}': {error}", folder.display()))
            })?;
            folder
        }
        (None, Some(scratch)) => scratch.path(),
        (None, None) => return Err(Fatal::loadgen("there is no folder for the records")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fatal::loadgen(format!("starting the runtime: {error}")))?;
    let mut plan = plan(options, folder)?;
    if let Some(join) = &join {
        plan.size = join.size();
        if plan.load.stop.is_some() && plan.size > 1 {
            return Err(Fatal::usage(
                "workers that synchronize through files cannot evaluate stop rules",
            )
            .hint("stop rules need a single worker, or a run with its agents"));
        }
        return joined(options, plan, join, &runtime);
    }
    let (result, interrupted) = match plan.load.search {
        Some(_) => search::run(&plan, &runtime, options.progress)?,
        None => one(plan, &runtime, &mut ProgressLine::new(options.progress))?,
    };
    if options.out.is_some() {
        merge::write(folder, &result)?;
    }
    print(&result, options.json)?;
    Ok(interrupted.unwrap_or_else(|| exit_code(&result, options.strict)))
}

/// One of several workers that meet through files. The leader prints the result.
fn joined(
    options: &Run,
    plan: LoadPlan,
    join: &Join,
    runtime: &tokio::runtime::Runtime,
) -> Result<i32, Fatal> {
    let mut line = ProgressLine::new(options.progress);
    match together(plan, join, runtime, &mut line)? {
        Together::Signal(code) => Ok(code),
        Together::Over(result, leader) => {
            if leader {
                print(&result, options.json)?;
            }
            Ok(exit_code(&result, options.strict))
        }
    }
}

/// How a load ended whose workers met through files.
pub(crate) enum Together {
    /// This worker by a signal, with this exit code.
    Signal(i32),
    /// All of it: the result, and whether this worker has written it.
    Over(Box<LoadResult>, bool),
}

/// Measures as one of several workers that meet through files.
///
/// # Errors
/// If nothing could be measured, or there is no result.
pub(crate) fn together(
    plan: LoadPlan,
    join: &Join,
    runtime: &tokio::runtime::Runtime,
    line: &mut ProgressLine,
) -> Result<Together, Fatal> {
    let job = Job::new(plan, join.rank())?;
    match runtime.block_on(measure(&job, Some(join), line))? {
        // The others are waited for by those that go on; this one's record says that it stopped.
        Ended::BeforeStart(code) | Ended::Measured(Some(code)) => Ok(Together::Signal(code)),
        Ended::Measured(None) => {
            let (result, leader) = join.finish(&job)?;
            Ok(Together::Over(Box::new(result), leader))
        }
    }
}

/// Measures one load; gives its result, and the exit code of a signal that ended it.
pub(crate) fn one(
    plan: LoadPlan,
    runtime: &tokio::runtime::Runtime,
    line: &mut ProgressLine,
) -> Result<(LoadResult, Option<i32>), Fatal> {
    let job = Job::new(plan, 0)?;
    let interrupted = match runtime.block_on(measure(&job, None, line))? {
        Ended::BeforeStart(code) => Some(code),
        Ended::Measured(interrupted) => interrupted,
    };
    Ok((merge::result(&job, &[])?, interrupted))
}

/// Exit code of a result.
pub(crate) fn exit_code(result: &LoadResult, strict: bool) -> i32 {
    if !result.complete {
        exit::INCOMPLETE
    } else if (result.counts.ok == 0 && result.counts.sent > 0)
        || result.stopped_because.as_ref().is_some_and(StoppedBecause::is_failure)
        || result.search.as_ref().is_some_and(|search| search.capacity.is_none())
    {
        exit::CHECK_FAILED
    } else if strict && !result.verdicts.is_empty() {
        exit::UNBELIEVABLE
    } else {
        exit::OK
    }
}

/// How a measurement ended.
enum Ended {
    /// By a signal, with this exit code, before anything was sent.
    BeforeStart(i32),
    /// After its start; the exit code of a signal that ended it.
    Measured(Option<i32>),
}

/// Runs the worker; a single one starts at once, others when all have joined.
async fn measure(job: &Job, join: Option<&Join>, line: &mut ProgressLine) -> Result<Ended, Fatal> {
    let handler = |kind| {
        signal(kind).map_err(|error| Fatal::loadgen(format!("waiting for signals: {error}")))
    };
    let (mut terminate, mut interrupt) =
        (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    let mut worker = Worker::spawn(job.clone())?;
    let ready = tokio::select! {
        ready = &mut worker.ready => ready,
        _ = terminate.recv() => return Ok(Ended::BeforeStart(exit::TERMINATED)),
        _ = interrupt.recv() => return Ok(Ended::BeforeStart(exit::INTERRUPTED)),
    };
    if ready.is_ok()
        && let Some(start) = worker.start.take()
    {
        let cancelled = Arc::new(AtomicBool::new(false));
        let at = tokio::select! {
            at = common_start(job, join, &cancelled) => at?,
            _ = terminate.recv() => {
                cancelled.store(true, Ordering::Relaxed);
                return Ok(Ended::BeforeStart(exit::TERMINATED));
            }
            _ = interrupt.recv() => {
                cancelled.store(true, Ordering::Relaxed);
                return Ok(Ended::BeforeStart(exit::INTERRUPTED));
            }
        };
        line.begin();
        // The thread waits for it; if it ended, `done` says why.
        let _ignored = start.send(at);
    }
    let mut ended = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let whole = Whole::of(&job.plan.load);
    let mut watch = Watch::new(&job.plan.load);
    loop {
        let mut end = |code, word: &str| {
            ended = Some(code);
            // If the receiver is gone, the worker has ended.
            let _ignored = worker.stop.send(Some(Stop::Now(format!("{INTERRUPTED} {word}"))));
        };
        tokio::select! {
            done = &mut worker.done => {
                line.clear();
                return match done {
                    Ok(result) => result.map(|_| Ended::Measured(ended)),
                    Err(_) => Err(Fatal::loadgen("the load thread ended without a result")),
                };
            }
            _ = terminate.recv() => end(exit::TERMINATED, "SIGTERM"),
            _ = interrupt.recv() => end(exit::INTERRUPTED, "SIGINT"),
            _ = tick.tick() => {
                line.show(&whole, &worker.progress);
                if let Some(stop) = watch.look(&worker.progress) {
                    let _ignored = worker.stop.send(Some(stop));
                }
            }
        }
    }
}

/// The start: at once, or when all ranks have come.
async fn common_start(
    job: &Job,
    join: Option<&Join>,
    cancelled: &Arc<AtomicBool>,
) -> Result<Start, Fatal> {
    let Some(join) = join else {
        return Ok(Start { at_mono_ns: mono_ns() + LEAD_NS, clock_error_ns: 0 });
    };
    // Files may hang; signals must not.
    let (job, join, cancelled) = (job.clone(), join.clone(), Arc::clone(cancelled));
    tokio::task::spawn_blocking(move || join.start(&job, &cancelled))
        .await
        .unwrap_or_else(|error| Err(Fatal::loadgen(format!("joining the load: {error}"))))
}

fn print(result: &LoadResult, json: bool) -> Result<(), Fatal> {
    let text = if json {
        serde_json::to_string(result)
            .map_err(|error| Fatal::loadgen(format!("writing the result: {error}")))?
    } else {
        summary::text(result)
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end())
        .map_err(|error| Fatal::loadgen(format!("writing the result to standard output: {error}")))
}

fn plan(options: &Run, folder: &Path) -> Result<LoadPlan, Fatal> {
    let mut secrets = BTreeMap::new();
    if let Ok(value) = std::env::var("PGPASSWORD") {
        secrets.insert("POSTGRES_PASSWORD".to_owned(), value);
    }
    if let Some(key) = options.wire.api_key()? {
        secrets.insert(API_KEY.to_owned(), key);
    }
    let load = options.load()?;
    let driver = load.driver.spec();
    if let Some(urls) = driver.transport.urls().filter(|_| options.url.is_empty()) {
        return Err(Fatal::usage(format!("driver {} needs a service", driver.word))
            .hint(format!("--url URL: {urls}")));
    }
    let urls = options.url.iter().enumerate();
    let endpoints =
        urls.map(|(replica, url)| endpoint(url, replica, driver)).collect::<Result<_, _>>()?;
    let model = load.model.clone();
    Ok(LoadPlan {
        run_id: "none".to_owned(),
        folder: folder.to_string_lossy().into_owned(),
        load,
        point: 0,
        settings: BTreeMap::new(),
        repeat: 0,
        size: 1,
        rank: None,
        endpoints,
        model,
        secrets,
    })
}

fn endpoint(url: &str, replica: usize, driver: &DriverSpec) -> Result<Endpoint, Fatal> {
    let wrong = || {
        let wrong = Fatal::usage(format!("reading URL '{url}'"));
        match driver.transport.urls() {
            Some(urls) => wrong.hint(format!("expected {urls}")),
            None => wrong,
        }
    };
    let made = |host: &str, port: u16| Endpoint {
        service: "external".to_owned(),
        replica: u32::try_from(replica).unwrap_or(0),
        node: String::new(),
        host: host.to_owned(),
        port,
        url: url.to_owned(),
        ports: BTreeMap::new(),
        healthy_epoch_ns: 0,
    };
    if url.starts_with(crate::wire::target::UNIX) {
        return Ok(made("localhost", 0));
    }
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let port = match uri.scheme_str() {
        Some("https") => 443,
        _ => driver.port.unwrap_or(0),
    };
    let host = uri.host().ok_or_else(wrong)?;
    Ok(made(host, uri.port_u16().unwrap_or(port)))
}
