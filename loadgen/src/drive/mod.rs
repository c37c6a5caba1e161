//! The loop: takes what is due from the plan, at its time, and gives it to a driver. One loop for
//! open and closed loads; warm-up, measured part and drain.

mod context;
pub(crate) mod limits;
mod source;
mod stall;

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aifb_schema::{names::PROTOCOL, recipe::Arrival};
use aifb_stats::stopping::Judge;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    clock::{
        mono_ns,
        pacer::{Pacer, SPIN_NS},
        process_cost, thread_cpu_ns, thread_waited_ns,
    },
    driver::any::AnyDriver,
    error::Fatal,
    job::{Job, Link, Made, Ready, Start, Stop},
    record::{
        Recorder,
        checkpoint::{ClientState, StoppedBy, WorkerRecord},
        tally::Limits,
    },
};
use context::{Context, lane};

use source::{Source, Talks};
use stall::Stalls;

/// Between checkpoints.
const FLUSH_NS: u64 = 1_000_000_000;

/// Share of this process's CPU time that spinning may take. It gives way to whatever else the
/// thread has to do.
const SPIN_SHARE: f64 = 0.5;

/// How long before its instant a request is taken up where the pacer may spin: above what it takes
/// to start its task, to write down that it begins, and to look at its connection.
const AHEAD_NS: u64 = 15_000;

/// Requests sent before other tasks get their turn, when many are due at once.
const BURST: usize = 64;

/// Runs one worker's part with a driver that is prepared: reports ready, waits for the start, runs the
/// plan. `room` is the most requests in flight ([`limits::descriptors`]).
pub(crate) async fn run(
    job: &Job,
    driver: Box<dyn AnyDriver>,
    room: u64,
    link: Link,
) -> Result<WorkerRecord, Fatal> {
    let made = job.made()?;
    let plan = &made.plan;
    let template = WorkerRecord {
        protocol: PROTOCOL,
        rank: job.rank,
        size: job.plan.size,
        plan_hash: plan.hash.clone(),
        planned: plan.planned(),
        workload: made.workload.record(),
        level: job.plan.load.search.as_ref().and_then(|_| job.plan.load.level()),
        client: ClientState {
            epoch_minus_mono_ns: crate::clock::epoch_minus_mono(),
            ..ClientState::default()
        },
        ..WorkerRecord::default()
    };
    let mut recorder = Recorder::create(&job.folder, template, link.progress.clone())?;
    recorder.watch(job.plan.load.stop.and_then(|rules| Judge::wanted_times(&rules)));
    let spin = may_spin(job);
    let cx = Rc::new(Context::new(driver, recorder, job, if spin { AHEAD_NS } else { 0 }));
    cx.open_ahead(plan).await?;
    let Link { ready, start, stop, progress } = link;
    // The other side is gone only when the program ends.
    let _ignored = ready
        .send(Ready { plan_hash: plan.hash.clone(), workload_hash: made.workload.record().hash });
    let Ok(start) = start.await else {
        return Err(Fatal::loadgen("waiting for the start: it was cancelled"));
    };
    let mut drive = Drive {
        pacer: Pacer::new(spin)
            .map_err(|error| Fatal::loadgen(format!("opening the timer: {error}")))?,
        lanes: JoinSet::new(),
        stalls: Stalls::default(),
        client: ClientState {
            start_mono_ns: start.at_mono_ns,
            clock_error_ns: start.clock_error_ns,
            epoch_minus_mono_ns: crate::clock::epoch_minus_mono(),
            ..ClientState::default()
        },
        costs: (0, 0, 0),
        give_up_ns: None,
        stopped: None,
        stopped_by: None,
        progress,
        stop,
        room,
        drain_ns: job.shape.drain_ns,
        made: Arc::clone(&made),
        cx,
    };
    drive.start(&made, job, start).await?;
    drive.go().await?;
    Ok(drive.finish().await)
}

/// Whether the pacer may spin: an open load whose waits leave half of its CPUs alone, on a machine
/// that has others for everybody else.
fn may_spin(job: &Job) -> bool {
    let rate = match (&job.shape.arrival, job.made()) {
        (Arrival::Open { rate, ramp, .. }, _) => {
            ramp.map_or(rate.get(), |ramp| ramp.from.get().max(rate.get()))
        }
        (Arrival::Trace { .. }, Ok(made)) => made.plan.mean_rate() * f64::from(job.shape.size),
        _ => return false,
    };
    let busy = rate * aifb_stats::distribution::seconds(SPIN_NS);
    limits::machine_cpus() > 1 && busy <= f64::from(limits::own_cpus()) * SPIN_SHARE
}

/// The running loop.
struct Drive {
    cx: Rc<Context>,
    lanes: JoinSet<()>,
    pacer: Pacer,
    stalls: Stalls,
    client: ClientState,
    /// At the start: CPU time of process and thread, and time that the thread waited for a CPU.
    costs: (u64, u64, u64),
    /// When the answers that are still missing are cancelled.
    give_up_ns: Option<u64>,
    stopped: Option<String>,
    stopped_by: Option<StoppedBy>,
    progress: std::sync::Arc<crate::record::Progress>,
    stop: tokio::sync::watch::Receiver<Option<Stop>>,
    /// Most requests in flight.
    room: u64,
    drain_ns: u64,
    /// Plan and workload.
    made: Arc<Made>,
}

impl Drive {
    /// Waits for the common start.
    async fn start(&mut self, made: &Arc<Made>, job: &Job, start: Start) -> Result<(), Fatal> {
        let (at, plan) = (start.at_mono_ns, &made.plan);
        let talks = made.workload.talk_pause().map(|pause| {
            let made = Arc::clone(made);
            Talks { turns: Box::new(move |item| made.workload.turns(item)), pause }
        });
        *self.cx.source.borrow_mut() = Source::new(plan, (job.rank, job.plan.size), at, talks);
        self.client.measure_start_ns = at.saturating_add(plan.measure_start_ns);
        self.client.measure_end_ns = plan.measure_end_ns.map(|end| at.saturating_add(end));
        let limits = Limits::new(job.plan.load.slo, self.client.measure_end_ns);
        self.cx.recorder.borrow_mut().set_limits(limits);
        self.wait(at).await?;
        let now = mono_ns();
        self.client.start_late_ns = now.saturating_sub(at);
        self.costs = (process_cost().0, thread_cpu_ns(), thread_waited_ns());
        self.stalls.begin(now);
        Ok(())
    }

    async fn wait(&mut self, until: u64) -> Result<(), Fatal> {
        self.pacer.until(until).await.map_err(pacing)
    }

    /// Sends until nothing is due and nothing is in flight, or the drain is over.
    async fn go(&mut self) -> Result<(), Fatal> {
        let cx = Rc::clone(&self.cx);
        let start = self.client.start_mono_ns;
        let mut flush_at = start.saturating_add(FLUSH_NS);
        loop {
            while self.lanes.try_join_next().is_some() {}
            let now = mono_ns();
            self.stalls.beat(now);
            if now >= flush_at {
                // At whole seconds since the start, which all workers have in common.
                while flush_at <= now {
                    flush_at += FLUSH_NS;
                }
                let client = self.client_state();
                self.note_planned();
                cx.recorder.borrow_mut().flush(client, now.saturating_sub(start));
            }
            let over = cx.source.borrow().over(now);
            let due = cx.source.borrow().peek().filter(|_| !over);
            let due = due.map(|due| due.saturating_sub(cx.ahead_ns));
            let in_flight = cx.recorder.borrow().in_flight();
            if over && in_flight == 0 && self.lanes.is_empty() {
                return Ok(());
            }
            if over && self.give_up_ns.is_none() {
                let from = self.client.measure_end_ns.map_or(now, |end| end.max(now));
                self.give_up_ns = Some(from.saturating_add(self.drain_ns));
            }
            if self.give_up_ns.is_some_and(|at| now >= at) {
                return Ok(());
            }
            self.note_phase(now);
            let beat = tokio::time::sleep(Duration::from_nanos(self.stalls.until_beat(now)));
            tokio::select! {
                biased;
                paced = self.pacer.until(due.unwrap_or(u64::MAX)), if due.is_some() => {
                    paced.map_err(pacing)?;
                    self.dispatch().await;
                }
                changed = self.stop.changed() => {
                    let stop = self.stop.borrow_and_update().clone();
                    self.obey(stop.filter(|_| changed.is_ok()));
                }
                () = cx.changed.notified() => {}
                () = beat => {}
            }
        }
    }

    /// Sends what is due now.
    async fn dispatch(&mut self) {
        for _ in 0..BURST {
            let reached = mono_ns().saturating_add(self.cx.ahead_ns);
            if self.cx.source.borrow().peek().is_none_or(|due| due > reached) {
                return;
            }
            let Some(due) = self.cx.source.borrow_mut().pop() else { continue };
            if self.cx.recorder.borrow().in_flight() < self.room {
                self.lanes.spawn_local(lane(Rc::clone(&self.cx), due));
            }
            // Else it stays unsent: planned and sent differ, and the result says so.
        }
        tokio::task::yield_now().await;
    }

    /// Notes what was planned until now: conversations become longer with each answer.
    fn note_planned(&self) {
        let planned = self.cx.source.borrow().planned();
        let workload = self.made.workload.record();
        self.cx.recorder.borrow_mut().set_planned(planned, workload);
    }

    fn note_phase(&self, now: u64) {
        let phase = if self.give_up_ns.is_some() {
            3
        } else if now < self.client.measure_start_ns {
            1
        } else {
            2
        };
        self.progress.phase.store(phase, Ordering::Relaxed);
        self.cx.recorder.borrow().publish();
    }

    fn obey(&mut self, stop: Option<Stop>) {
        let now = mono_ns();
        let give_up = match stop {
            Some(Stop::Rule(rule)) => {
                self.end_by(rule, now);
                return;
            }
            Some(Stop::Drain(reason)) => {
                self.stopped.get_or_insert(reason);
                now.saturating_add(self.drain_ns)
            }
            Some(Stop::Now(reason)) => {
                self.stopped.get_or_insert(reason);
                now
            }
            // The controlling thread is gone: no one waits for the responses.
            None => {
                self.stopped.get_or_insert_with(|| "the program ends".to_owned());
                now
            }
        };
        self.cx.source.borrow_mut().stop(u64::MAX);
        self.give_up_ns = Some(self.give_up_ns.map_or(give_up, |at| at.min(give_up)));
    }

    /// Ends the measured part here: what was planned for later is not planned any more.
    fn end_by(&mut self, rule: StoppedBy, now: u64) {
        if self.client.measure_end_ns.is_some_and(|end| end <= now) || self.stopped.is_some() {
            // It was over already.
            return;
        }
        self.cx.source.borrow_mut().stop(now);
        self.client.measure_end_ns = Some(now);
        self.stopped_by = Some(rule);
        let give_up = now.saturating_add(self.drain_ns);
        self.give_up_ns = Some(self.give_up_ns.map_or(give_up, |at| at.min(give_up)));
    }

    /// What the client did and cost until now.
    fn client_state(&self) -> ClientState {
        let now = mono_ns();
        let (process, rss) = process_cost();
        let spun = self.pacer.spun_ns().saturating_add(self.cx.held_ns.get());
        let thread = thread_cpu_ns().saturating_sub(self.costs.1);
        ClientState {
            cpu_ns: process.saturating_sub(self.costs.0),
            thread_waited_ns: thread_waited_ns().saturating_sub(self.costs.2),
            thread_cpu_ns: thread.saturating_sub(spun),
            thread_wall_ns: now.saturating_sub(self.client.start_mono_ns),
            spun_ns: spun,
            peak_rss_bytes: rss,
            stall_max_ns: self.stalls.max_ns(),
            stall_sum_ns: self.stalls.sum_ns(),
            ..self.client.clone()
        }
    }

    /// Cancels what is still in flight and closes the files.
    async fn finish(mut self) -> WorkerRecord {
        let client = self.client_state();
        self.note_planned();
        self.lanes.abort_all();
        // Each aborted lane writes its request down as cancelled while it is dropped.
        let limit = Instant::now() + Duration::from_secs(5);
        while let Ok(Some(_)) = tokio::time::timeout_at(limit, self.lanes.join_next()).await {}
        drop(self.lanes);
        self.cx.close();
        let Ok(cx) = Rc::try_unwrap(self.cx) else {
            // Only a lane could hold it, and there is none.
            return WorkerRecord::default();
        };
        let recorder = cx.recorder.into_inner();
        recorder.publish();
        let elapsed_ns = client.thread_wall_ns;
        recorder.finish(client, elapsed_ns, (self.stopped, self.stopped_by))
    }
}

fn pacing(error: std::io::Error) -> Fatal {
    Fatal::loadgen(format!("waiting for a send time: {error}"))
}
