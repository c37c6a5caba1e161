//! `aifb-loadgen --load NAME`: one worker of a load inside a run.
//!
//! ```text
//! joining ──Plan──▶ preparing ──ready──▶ waiting ──Start──▶ running ──done──▶ ending ──Release──▶
//!    │                  │                   │                  │                 │ Merge: the leader
//!    └──── agent lost or Refused: fails ────┘                  │                 │ writes result.json
//!                                          agent lost: measures on, keeps its files
//! ```
//!
//! Where there is no way to the agent from the beginning: `files`.

use std::{sync::atomic::Ordering, time::Duration};

use aifb_schema::{
    control::{Delta, FromWorker, LoadPlan, ToWorker},
    live::Times,
    names::{PROTOCOL, exit, file},
    recipe::{Measure, VerdictPolicy},
    result::LoadResult,
    units::Name,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::{
    agent::{Agent, NoAgent},
    files,
    place::Place,
    standalone::exit_code,
    worker::Worker,
};
use crate::{
    error::Fatal,
    job::{Job, Ready, Start, Stop},
    merge,
    record::{
        Progress,
        checkpoint::{StoppedBy, WorkerRecord},
    },
};

/// Longest wait for the plan: services may take 60 minutes to become healthy, then the other
/// workers have 60 s to join. The coordinator says so when that fails; this is for one that says
/// nothing.
const JOIN_MAX: Duration = Duration::from_secs(3_600 + 90);

/// Longest wait for all workers to be prepared: above the longest preparation (a table of a
/// hundred million rows).
const START_MAX: Duration = Duration::from_secs(660);

/// Longest wait for the other workers to end, beyond what the plan says.
const END_SLACK: Duration = Duration::from_secs(120);

/// Longest load whose length is given by a number of requests: no partition allows more.
const COUNTED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// After a signal: the coordinator's chance to have the result written, within the time that
/// Slurm leaves between SIGTERM and SIGKILL.
const SIGNAL_GRACE: Duration = Duration::from_secs(2);

/// Which load this is one worker of.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Its name.
    pub(crate) load: &'a Name,
    /// Point of the sweep.
    pub(crate) point: Option<u32>,
    /// Repeat.
    pub(crate) repeat: Option<u32>,
    /// Workers of all steps, where several are one load.
    pub(crate) workers: Option<u32>,
    /// From the last worker's coming to the start, where they meet through files.
    pub(crate) lead: Duration,
}

/// Runs one worker; gives the exit code.
///
/// # Errors
/// If it could not run, or its part is not whole.
pub(crate) fn run(wanted: &Wanted<'_>, strict: bool) -> Result<i32, Fatal> {
    let variable = |name: &str| std::env::var(name).ok();
    let place = Place::from_environment(&variable, wanted.load, wanted.workers)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fatal::loadgen(format!("starting the runtime: {error}")))?;
    let code = match runtime.block_on(Agent::connect(&place)) {
        Ok(agent) => runtime.block_on(by_agent(agent, &place, wanted, strict)),
        Err(NoAgent::Unreachable(why)) => files::run(&place, wanted, strict, &why, &runtime),
        Err(NoAgent::Wrong(fatal)) => Err(fatal),
    };
    // A thread that still waits for a file system must not keep the program.
    runtime.shutdown_background();
    code
}

async fn by_agent(
    agent: Agent,
    place: &Place,
    wanted: &Wanted<'_>,
    strict: bool,
) -> Result<i32, Fatal> {
    let mut session = Session::new(agent)?;
    let join = FromWorker::Join {
        protocol: PROTOCOL,
        worker: place.worker.clone(),
        size: place.size,
        point: wanted.point,
        repeat: wanted.repeat,
        whole: wanted.workers,
    };
    session.agent.send(&join).await?;
    session.run(place, strict).await
}

/// What happens next.
enum Event {
    Message(ToWorker),
    AgentLost(Fatal),
    Signal(i32),
}

/// The control side of one worker.
struct Session {
    agent: Agent,
    terminate: Signal,
    interrupt: Signal,
}

impl Session {
    fn new(agent: Agent) -> Result<Self, Fatal> {
        let handler = |kind| {
            signal(kind).map_err(|error| Fatal::loadgen(format!("waiting for signals: {error}")))
        };
        let (terminate, interrupt) =
            (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
        Ok(Self { agent, terminate, interrupt })
    }

    async fn event(&mut self) -> Event {
        tokio::select! {
            message = self.agent.receive(), if !self.agent.is_lost() => match message {
                Ok(message) => Event::Message(message),
                Err(fatal) => Event::AgentLost(fatal),
            },
            _ = self.terminate.recv() => Event::Signal(exit::TERMINATED),
            _ = self.interrupt.recv() => Event::Signal(exit::INTERRUPTED),
        }
    }

    async fn run(&mut self, place: &Place, strict: bool) -> Result<i32, Fatal> {
        let plan = match self.plan(place).await? {
            Ok(plan) => plan,
            Err(signal) => return Ok(signal),
        };
        let strict = strict || plan.load.verdicts == VerdictPolicy::Fail;
        let rank = plan.rank.unwrap_or(place.worker.rank);
        let job = Job::new(plan, rank);
        let worker = job.and_then(|job| Ok((Worker::spawn(job.clone())?, job)));
        let (mut worker, job) = match worker {
            Ok(worker) => worker,
            Err(fatal) => return Err(self.give_up(fatal).await),
        };
        let start = match self.prepared(&mut worker).await? {
            Ok(start) => start,
            Err(signal) => return Ok(signal),
        };
        if let Some(send) = worker.start.take() {
            // The thread waits for it; if it ended, `done` says why.
            let _ignored = send.send(start);
        }
        let (record, signal, agent_lost) = match self.measure(&mut worker).await {
            Ok(ended) => ended,
            Err(fatal) => return Err(self.give_up(fatal).await),
        };
        if let Some(lost) = agent_lost {
            return alone(&job, strict, lost);
        }
        let complete = record.stopped.is_none() && record.write_error.is_none();
        self.agent.send(&FromWorker::Done { complete }).await?;
        self.ending(&job, signal, strict).await
    }

    /// Tells the coordinator that this worker gives up.
    async fn give_up(&mut self, fatal: Fatal) -> Fatal {
        // A lost agent knows already.
        let _ignored = self.agent.send(&FromWorker::Failed { failure: fatal.0.clone() }).await;
        fatal
    }

    /// Waits for the plan; the inner error is a signal's exit code.
    async fn plan(&mut self, place: &Place) -> Result<Result<LoadPlan, i32>, Fatal> {
        let deadline = Instant::now() + JOIN_MAX;
        loop {
            match tokio::time::timeout_at(deadline, self.event()).await {
                Ok(Event::Message(ToWorker::Plan(plan))) => return Ok(Ok(*plan)),
                Ok(Event::Message(message)) => stopped_before_start(message)?,
                Ok(Event::AgentLost(fatal)) => return Err(fatal),
                Ok(Event::Signal(code)) => return Ok(Err(code)),
                Err(_) => {
                    return Err(Fatal::node(format!(
                        "load '{}': the coordinator sent no plan within {} s",
                        place.worker.load,
                        JOIN_MAX.as_secs()
                    )));
                }
            }
        }
    }

    /// Reports that the worker is prepared and waits for the start.
    async fn prepared(&mut self, worker: &mut Worker) -> Result<Result<Start, i32>, Fatal> {
        let deadline = Instant::now() + START_MAX;
        let mut reported = false;
        loop {
            let event = tokio::select! {
                event = self.event() => event,
                ready = &mut worker.ready, if !reported => {
                    reported = true;
                    match ready {
                        Ok(Ready { plan_hash, workload_hash }) => {
                            let ready = FromWorker::Ready { plan_hash, workload_hash };
                            self.agent.send(&ready).await?;
                        }
                        Err(_) => {
                            let fatal = ended_early(worker).await;
                            return Err(self.give_up(fatal).await);
                        }
                    }
                    continue;
                }
                () = tokio::time::sleep_until(deadline) => {
                    let fatal = Fatal::node(format!("no start within {} s", START_MAX.as_secs()));
                    return Err(self.give_up(fatal).await);
                }
            };
            match event {
                Event::Message(ToWorker::Start { at_mono_ns, clock_error_ns }) if reported => {
                    return Ok(Ok(Start { at_mono_ns, clock_error_ns }));
                }
                Event::Message(message) => stopped_before_start(message)?,
                Event::AgentLost(fatal) => return Err(fatal),
                Event::Signal(code) => return Ok(Err(code)),
            }
        }
    }

    /// Runs until the worker has ended; says whether a signal or the loss of the agent came.
    async fn measure(
        &mut self,
        worker: &mut Worker,
    ) -> Result<(WorkerRecord, Option<i32>, Option<Fatal>), Fatal> {
        let (mut signal, mut agent_lost) = (None, None);
        let started = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            let event = tokio::select! {
                done = &mut worker.done => {
                    let record = done.unwrap_or_else(|_| {
                        Err(Fatal::loadgen("the load thread ended without a result"))
                    })?;
                    // What ended since the last second, so that the sums are those of the result.
                    self.tell(worker, started, &mut agent_lost).await;
                    return Ok((record, signal, agent_lost));
                }
                _ = tick.tick() => {
                    self.tell(worker, started, &mut agent_lost).await;
                    continue;
                }
                event = self.event() => event,
            };
            let stop = match event {
                Event::Message(ToWorker::Stop { reason, rule: Some(rule) }) => {
                    Stop::Rule(StoppedBy { rule, reason })
                }
                Event::Message(ToWorker::Stop { reason, rule: None }) => Stop::Drain(reason),
                Event::Message(ToWorker::Refused { failure }) => Stop::Drain(failure.reason),
                Event::Signal(code) => {
                    signal = Some(code);
                    Stop::Now("ended by a signal".to_owned())
                }
                Event::AgentLost(fatal) => {
                    agent_lost = Some(fatal);
                    continue;
                }
                Event::Message(_) => continue,
            };
            // If the receiver is gone, the worker has ended.
            let _ignored = worker.stop.send(Some(stop));
        }
    }

    /// Tells the agent how far this worker is, unless that is lost.
    async fn tell(&mut self, worker: &Worker, started: Instant, lost: &mut Option<Fatal>) {
        let message = FromWorker::Delta(delta(&worker.progress, started));
        if lost.is_none()
            && let Err(fatal) = self.agent.send(&message).await
        {
            *lost = Some(fatal);
        }
    }

    /// Waits for the others; merges on the coordinator's order.
    async fn ending(&mut self, job: &Job, signal: Option<i32>, strict: bool) -> Result<i32, Fatal> {
        let most = if signal.is_some() { SIGNAL_GRACE } else { longest(job) };
        let deadline = Instant::now() + most;
        loop {
            match tokio::time::timeout_at(deadline, self.event()).await {
                Ok(Event::Message(ToWorker::Merge { lost, clocks })) => {
                    let for_thread = job.clone();
                    let merged = tokio::task::spawn_blocking(move || {
                        let mut result = merge::result(&for_thread, &lost)?;
                        result.client.clocks = clocks;
                        merge::write(&for_thread.folder, &result)
                    });
                    let merged = merged.await.unwrap_or_else(|error| {
                        Err(Fatal::loadgen(format!("computing the result: {error}")))
                    });
                    match merged {
                        Ok(()) => self.agent.send(&FromWorker::ResultWritten).await?,
                        Err(fatal) => return Err(self.give_up(fatal).await),
                    }
                }
                Ok(Event::Message(ToWorker::Release)) => break,
                Ok(Event::Message(ToWorker::Refused { failure })) => return Err(Fatal(failure)),
                Ok(Event::Message(_)) => {}
                Ok(Event::Signal(code)) => return Ok(code),
                Ok(Event::AgentLost(fatal)) if signal.is_none() => {
                    return alone(job, strict, fatal);
                }
                Ok(Event::AgentLost(_)) => break,
                Err(_) if signal.is_some() => break,
                Err(_) => {
                    return Err(Fatal::node(format!(
                        "load '{}': the other workers did not end within {} s",
                        job.plan.load.name,
                        most.as_secs()
                    )));
                }
            }
        }
        match signal {
            Some(code) => Ok(code),
            None => read_result(job).map(|result| exit_code(&result, strict)),
        }
    }
}

/// Without its agent a single worker writes the result itself; several leave their files.
fn alone(job: &Job, strict: bool, lost: Fatal) -> Result<i32, Fatal> {
    if job.plan.size > 1 {
        return Err(Fatal::node(format!(
            "{}; this worker's records are complete, but not merged with the others",
            lost.0.reason
        )));
    }
    let result = merge::result(job, &[])?;
    merge::write(&job.folder, &result)?;
    Ok(exit_code(&result, strict))
}

fn read_result(job: &Job) -> Result<LoadResult, Fatal> {
    let path = job.folder.join(file::RESULT);
    let text = std::fs::read(&path)
        .map_err(|error| Fatal::loadgen(format!("reading '{}': {error}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| Fatal::loadgen(format!("reading '{}': {error}", path.display())))
}

/// A message before the start that ends the worker; others mean nothing yet.
fn stopped_before_start(message: ToWorker) -> Result<(), Fatal> {
    match message {
        ToWorker::Refused { failure } => Err(Fatal(failure)),
        ToWorker::Stop { reason, .. } => {
            Err(Fatal::loadgen(format!("stopped before the start: {reason}")))
        }
        _ => Ok(()),
    }
}

/// Why the load thread ended before it was ready.
async fn ended_early(worker: &mut Worker) -> Fatal {
    match (&mut worker.done).await {
        Ok(Err(fatal)) => fatal,
        _ => Fatal::loadgen("the load thread ended before it was ready"),
    }
}

fn delta(progress: &Progress, started: Instant) -> Delta {
    let of = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
    let Times { counts: durations, sum_ns: durations_ns } = progress.live.total.times();
    Delta {
        phase: progress.phase_word().to_owned(),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        sent: of(&progress.sent),
        ok: of(&progress.ok),
        failed: of(&progress.failed),
        in_flight: of(&progress.in_flight),
        output_tokens: of(&progress.output_tokens),
        planned: Some(of(&progress.planned)).filter(|planned| *planned > 0),
        durations,
        durations_ns,
        ttft: progress.live.ttft.times(),
        inter_token: progress.live.inter_token.times(),
        client_lag: progress.live.client_lag.times(),
        recent: progress.take_recent(),
    }
}

/// How long the other workers may take when this one has ended.
fn longest(job: &Job) -> Duration {
    let load = &job.plan.load;
    let measure = match load.phases.measure {
        Measure::Time(span) => span.get(),
        Measure::Requests(_) => COUNTED_MAX,
    };
    [load.phases.warmup.get(), load.phases.drain.get(), load.timeout.get(), END_SLACK]
        .into_iter()
        .fold(measure, Duration::saturating_add)
}
