//! Loads: workers meet, start together, end together.
//!
//! ```text
//! joining ─all there, services healthy─▶ preparing ─all ready─▶ running ─all done or lost─▶
//!     merging ─result written─▶ done | failed
//! ```

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aifb_schema::{
    control::{Delta, FromWorker, LoadPlan, NodeOrder, ToWorker, WorkerId, WorkerMessage},
    names::{PROTOCOL, file},
    run::{Failure, Owner, State},
};

use super::{
    Coordinator, Message,
    allot::allot,
    load_run::{LoadRun, LoadState, Prepared, Ready, SEVERAL_STEPS, Worker, WorkerState},
    search,
};
use aifb_stats::stopping::{Judge, Verdict};

use crate::{clock, run::secrets};

/// Longest time until all workers of a load have joined.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);

/// Longest time from the plan until all workers are ready: a client may fill a table first.
const READY_DEADLINE: Duration = Duration::from_secs(600);

/// Longest time for the leader to merge the workers' files.
const MERGE_DEADLINE: Duration = Duration::from_secs(300);

/// How far ahead the common start is: an order reaches a worker in a few milliseconds, and the
/// agents may measure their clocks once more before they pass it on.
const START_AHEAD: Duration = Duration::from_millis(300);

/// Most workers of a load: one for each core of the largest allocations seen.
const WORKERS_MAX: u32 = 65_536;

impl Coordinator {
    /// A message of a load worker on `node`.
    pub(super) fn worker_message(&mut self, node: &str, message: WorkerMessage) {
        let WorkerMessage { worker, message } = message;
        if let FromWorker::Join { protocol, size, point, repeat, whole, .. } = message {
            let asked = (point, repeat);
            let joined = self.join(node, &worker, protocol, size, whole.is_some(), asked);
            if let Err(failure) = joined {
                self.event("load", &worker.load, &format!("refused: {}", failure.reason));
                self.send_one(node, worker, ToWorker::Refused { failure });
            }
            self.advance_loads();
            return;
        }
        let found = self.loads.iter().enumerate().find_map(|(index, run)| {
            let rank = run.ranks.get(&worker).filter(|_| !run.state.over())?;
            run.workers.get(rank).filter(|known| known.node == node).map(|_| (index, *rank))
        });
        let Some((index, rank)) = found else { return };
        let Some(run) = self.loads.get_mut(index) else { return };
        let Some(known) = run.workers.get_mut(&rank) else { return };
        match message {
            FromWorker::Join { .. } => {}
            FromWorker::Ready { plan_hash, workload_hash } => {
                known.state = WorkerState::Ready;
                let first = run.workload_hash.get_or_insert_with(|| workload_hash.clone());
                let same = *first == workload_hash;
                let text = format!("worker {rank} on {node} ready");
                let fields = BTreeMap::from([("plan_hash".to_owned(), plan_hash.into())]);
                self.event_on(self.own_node(), "load", &worker.load, &text, fields);
                if !same {
                    let reason = format!(
                        "worker {rank} on {node} found other dataset, trace or tokenizer files than the workers before it"
                    );
                    let failure = Failure::new(Owner::Recipe, worker.load.as_str(), reason)
                        .with_hint("name files that are the same on every node");
                    self.fail_load(index, failure);
                }
            }
            FromWorker::Delta(mut delta) => {
                run.note_times(&mut delta);
                if let Some(known) = run.workers.get_mut(&rank) {
                    known.progress = delta;
                }
            }
            FromWorker::Done { .. } => known.state = WorkerState::Done,
            FromWorker::ResultWritten => self.result_written(index, rank),
            FromWorker::Failed { failure } => self.worker_gone(index, rank, Some(failure)),
            FromWorker::Lost => self.worker_gone(index, rank, None),
        }
        self.advance_loads();
    }

    fn join(
        &mut self,
        node: &str,
        worker: &WorkerId,
        protocol: u32,
        size: u32,
        several: bool,
        asked: (Option<u32>, Option<u32>),
    ) -> Result<(), Failure> {
        let refused = |reason: String| Failure::new(Owner::Loadgen, worker.load.as_str(), reason);
        if protocol != PROTOCOL {
            let reason = format!("the load generator uses protocol {protocol}, not {PROTOCOL}");
            return Err(refused(reason)
                .with_hint("use the aifb-loadgen from the folder of this aifb-agent"));
        }
        if self.over() {
            let ending = || refused("the run is ending".to_owned());
            return Err(self.record.failure.clone().unwrap_or_else(ending));
        }
        if size == 0 || size > WORKERS_MAX || worker.rank >= size {
            return Err(refused(format!(
                "rank {} is out of range for {size} workers",
                worker.rank
            )));
        }
        let step = if several { SEVERAL_STEPS } else { worker.step.as_str() };
        let gathers =
            |run: &LoadRun| !several || (run.state == LoadState::Joining && !run.preparing);
        let index = match self.loads.iter().position(|run| {
            run.name() == worker.load && run.step == step && !run.state.over() && gathers(run)
        }) {
            Some(index) => index,
            None => self.begin_load(worker, step, size, asked)?,
        };
        let Some(run) = self.loads.get_mut(index) else { return Ok(()) };
        if run.state != LoadState::Joining || run.preparing {
            return Err(refused("all workers of this step had joined already".to_owned()));
        }
        if run.size != size || run.asked != asked {
            return Err(refused("the workers of one step disagree about what to run".to_owned()));
        }
        run.add(Worker {
            id: worker.clone(),
            node: node.to_owned(),
            state: WorkerState::Joined,
            progress: Delta::default(),
        })
        .map_err(refused)
    }

    fn begin_load(
        &mut self,
        worker: &WorkerId,
        step: &str,
        size: u32,
        asked: (Option<u32>, Option<u32>),
    ) -> Result<usize, Failure> {
        let begun: Vec<(u32, u32)> = self
            .loads
            .iter()
            .filter(|run| run.name() == worker.load)
            .map(|run| (run.allotted.point, run.allotted.repeat))
            .collect();
        let allotted = allot(&self.context.resolved, &worker.load, asked, &begun)?;
        let run = LoadRun::new(allotted, step, size, asked);
        let text = format!("{}: step {step} begins, {size} workers", run.title());
        self.event("load", &worker.load, &text);
        self.loads.push(run);
        Ok(self.loads.len() - 1)
    }

    /// Moves every load on as far as it can go.
    pub(super) fn advance_loads(&mut self) {
        for index in 0..self.loads.len() {
            let healthy = matches!(self.record.state, State::Healthy | State::Measuring);
            let Some(run) = self.loads.get_mut(index) else { return };
            let all = usize::try_from(run.size).unwrap_or(usize::MAX);
            let ended = run.all_ended();
            match run.state {
                LoadState::Joining if healthy && run.workers.len() == all && !run.preparing => {
                    run.preparing = true;
                    run.deal_ranks();
                    self.prepare_load(index);
                }
                LoadState::Preparing if run.count(WorkerState::Ready) == all => self.start(index),
                LoadState::Running if ended => self.merge(index),
                _ => {}
            }
        }
    }

    /// Makes the repeat's folder and reads the service's secrets, off the main thread.
    fn prepare_load(&mut self, index: usize) {
        let Some(run) = self.loads.get(index) else { return };
        let folder = self
            .context
            .run_dir
            .join(file::LOAD)
            .join(run.name())
            .join(format!("p{}", run.allotted.point))
            .join(format!("r{}", run.allotted.repeat));
        let service = self.service_of(index);
        let resolver = secrets::Resolver::new(&self.context);
        let own = self.own.clone();
        let load = run.allotted.load.clone();
        let node = self.own_node().to_owned();
        tokio::task::spawn_local(async move {
            let making = folder.clone();
            let of_node = move |reason: String| Failure::new(Owner::Node, &node, reason);
            let blamed = of_node.clone();
            let work = tokio::task::spawn_blocking(move || {
                std::fs::create_dir_all(&making)
                    .map_err(|error| blamed(format!("making '{}': {error}", making.display())))?;
                let load = Box::new(search::next_probe(&load, &making)?);
                let secrets = service.map(|service| resolver.readable(&service));
                Ok(Ready { secrets: secrets.unwrap_or_default(), load })
            });
            let outcome = match tokio::time::timeout(JOIN_DEADLINE, work).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => Err(of_node(error.to_string())),
                Err(_) => Err(of_node(format!(
                    "making '{}': the file system did not respond in time",
                    folder.display()
                ))),
            };
            own.tell(Message::LoadPrepared(Prepared { index, folder, outcome }));
        });
    }

    /// The service that a load is for.
    fn service_of(&self, index: usize) -> Option<aifb_schema::recipe::Service> {
        let run = self.loads.get(index)?;
        self.context.recipe.service_of(&run.allotted.load).cloned()
    }

    /// Sends the plan.
    pub(super) fn load_prepared(&mut self, prepared: Prepared) {
        let Prepared { index, folder, outcome } = prepared;
        if self.over() || self.loads.get(index).is_none_or(|run| run.state != LoadState::Joining) {
            return;
        }
        let Ready { secrets, load } = match outcome {
            Ok(ready) => ready,
            Err(failure) => {
                self.fail_load(index, failure);
                return;
            }
        };
        let service = self.service_of(index);
        let name = service.as_ref().map(|service| service.name.as_str()).unwrap_or_default();
        let endpoints = self.endpoints(name);
        let run_id = self.record.run_id.clone();
        let Some(run) = self.loads.get_mut(index) else { return };
        run.state = LoadState::Preparing;
        run.since = Instant::now();
        let plan = LoadPlan {
            run_id,
            folder: folder.to_string_lossy().into_owned(),
            model: load.model.clone().or_else(|| service.and_then(|s| s.model)),
            load: *load,
            point: run.allotted.point,
            settings: run.allotted.settings.clone(),
            repeat: run.allotted.repeat,
            size: run.size,
            rank: None,
            endpoints,
            secrets,
        };
        if !run.several() {
            self.send_all(index, |_| true, &ToWorker::Plan(Box::new(plan)));
            return;
        }
        let ranks: Vec<u32> = run.workers.keys().copied().collect();
        for rank in ranks {
            let plan = LoadPlan { rank: Some(rank), ..plan.clone() };
            self.send_all(index, |other| other == rank, &ToWorker::Plan(Box::new(plan)));
        }
    }

    fn start(&mut self, index: usize) {
        let ahead = u64::try_from(START_AHEAD.as_nanos()).unwrap_or(u64::MAX);
        // The agents put their own node's clock in the place of the coordinator's.
        let start = ToWorker::Start { at_mono_ns: clock::mono_ns() + ahead, clock_error_ns: 0 };
        self.send_all(index, |_| true, &start);
        let Some(run) = self.loads.get_mut(index) else { return };
        run.state = LoadState::Running;
        run.since = Instant::now();
        run.judge = run.allotted.load.stop.map(Judge::new);
        let (name, text) = (run.name().to_owned(), format!("{}: measuring", run.title()));
        self.event("load", &name, &text);
        self.enter(State::Measuring, &format!("load {name} runs"));
    }

    /// The lowest surviving rank makes one result of all.
    fn merge(&mut self, index: usize) {
        let Some(run) = self.loads.get_mut(index) else { return };
        let done = |(_, worker): &(&u32, &Worker)| worker.state == WorkerState::Done;
        let Some(leader) = run.workers.iter().find(done).map(|(rank, _)| *rank) else {
            let reason = "all its workers were lost; their files contain their measurements";
            let failure = Failure::new(Owner::Loadgen, run.name(), reason);
            let failure = run.failure.clone().unwrap_or(failure);
            self.fail_load(index, failure);
            return;
        };
        run.state = LoadState::Merging;
        run.since = Instant::now();
        run.leader = Some(leader);
        let merge = ToWorker::Merge { lost: run.lost(), clocks: run.node_clocks() };
        self.send_all(index, |rank| rank == leader, &merge);
        // Its last figures, which the run may not outlive by a second.
        self.show_loads_now(Instant::now());
    }

    fn result_written(&mut self, index: usize, rank: u32) {
        let Some(run) = self.loads.get_mut(index) else { return };
        if run.state != LoadState::Merging || run.leader != Some(rank) {
            return;
        }
        let lost = run.lost();
        if !lost.is_empty() && run.failure.is_none() {
            let nodes: Vec<String> = lost
                .iter()
                .filter_map(|rank| Some(format!("{rank} on {}", run.workers.get(rank)?.node)))
                .collect();
            let reason =
                format!("{} of {} workers lost (rank {})", lost.len(), run.size, nodes.join(", "));
            run.failure = Some(
                Failure::new(Owner::Loadgen, run.name(), reason)
                    .with_hint("the result is marked incomplete; see the load step's output"),
            );
        }
        run.state = if run.failure.is_some() { LoadState::Failed } else { LoadState::Done };
        run.since = Instant::now();
        let outcome = run.failure.as_ref().map_or_else(|| "done".to_owned(), |f| f.reason.clone());
        let (name, text) = (run.name().to_owned(), format!("{}: {outcome}", run.title()));
        self.event("load", &name, &text);
        self.send_all(index, |_| true, &ToWorker::Release);
        self.announced.result_written();
        self.no_load_left();
    }

    /// A worker's connection ended, or it gave up.
    fn worker_gone(&mut self, index: usize, rank: u32, failure: Option<Failure>) {
        let Some(run) = self.loads.get_mut(index) else { return };
        let (state, leader) = (run.state, run.leader);
        let Some(worker) = run.workers.get_mut(&rank) else { return };
        let node = worker.node.clone();
        let whole = matches!(worker.state, WorkerState::Done | WorkerState::Gone);
        worker.state = if whole { WorkerState::Gone } else { WorkerState::Lost };
        if !whole {
            let why = failure.as_ref().map_or("its connection closed", |f| f.reason.as_str());
            let (name, text) = (run.name().to_owned(), format!("worker {rank} on {node}: {why}"));
            self.event("load", &name, &text);
        }
        let Some(run) = self.loads.get_mut(index) else { return };
        match (state, failure) {
            (LoadState::Joining | LoadState::Preparing, failure) => {
                let reason = format!("worker {rank} on {node} ended before the start");
                let lost = Failure::new(Owner::Loadgen, run.name(), reason);
                self.fail_load(index, failure.unwrap_or(lost));
            }
            (LoadState::Running, Some(failure)) => {
                let reason = format!("worker {rank} gave up: {}", failure.reason);
                run.failure.get_or_insert(failure);
                self.send_all(index, |other| other != rank, &ToWorker::Stop { reason, rule: None });
            }
            // The next one merges.
            (LoadState::Merging, _) if leader == Some(rank) => self.merge(index),
            _ => {}
        }
    }

    /// Ends a load that cannot go on.
    fn fail_load(&mut self, index: usize, failure: Failure) {
        let Some(run) = self.loads.get_mut(index) else { return };
        if run.state.over() {
            return;
        }
        run.state = LoadState::Failed;
        run.failure = Some(failure.clone());
        let (name, text) = (run.name().to_owned(), format!("{}: {}", run.title(), failure.reason));
        self.event("load", &name, &text);
        self.send_all(index, |_| true, &ToWorker::Refused { failure });
        self.no_load_left();
    }

    /// Back from measuring when nothing is measured any more.
    fn no_load_left(&mut self) {
        let active = |run: &LoadRun| matches!(run.state, LoadState::Running | LoadState::Merging);
        if self.record.state == State::Measuring && !self.loads.iter().any(active) {
            self.enter(State::Healthy, "no load runs");
        }
    }

    pub(super) fn lose_workers(&mut self, node: &str) {
        for index in 0..self.loads.len() {
            let Some(run) = self.loads.get(index).filter(|run| !run.state.over()) else { continue };
            let here = run.workers.iter().filter(|(_, worker)| worker.node == node);
            let ranks: Vec<u32> = here.map(|(rank, _)| *rank).collect();
            for rank in ranks {
                self.worker_gone(index, rank, None);
            }
        }
        self.advance_loads();
    }

    /// Ends the measured part of a load when one of its rules is fulfilled.
    fn judge_load(&mut self, index: usize, now: Instant) {
        let Some(run) = self.loads.get_mut(index).filter(|run| run.state == LoadState::Running)
        else {
            return;
        };
        let Some(verdict) = run.fulfilled(now) else { return };
        let Verdict { rule, reason } = verdict;
        let (name, text) = (run.name().to_owned(), format!("{}: {rule}: {reason}", run.title()));
        self.event("load", &name, &text);
        self.send_all(index, |_| true, &ToWorker::Stop { reason, rule: Some(rule.to_owned()) });
    }

    pub(super) fn check_loads(&mut self, now: Instant) {
        for index in 0..self.loads.len() {
            self.judge_load(index, now);
            let Some(run) = self.loads.get(index) else { return };
            let waited = |since: Instant| now.duration_since(since);
            let late = match run.state {
                // Services may take longer than any client waits; that time does not count.
                LoadState::Joining => self
                    .healthy_since
                    .is_some_and(|healthy| waited(run.since.max(healthy)) > JOIN_DEADLINE)
                    .then(|| {
                        let (joined, size) = (run.workers.len(), run.size);
                        format!(
                            "{joined} of {size} workers joined within {} s",
                            JOIN_DEADLINE.as_secs()
                        )
                    }),
                LoadState::Preparing => {
                    let most = READY_DEADLINE + run.model_deadline();
                    (waited(run.since) > most).then(|| {
                        format!(
                            "{} of {} workers were ready within {} s",
                            run.count(WorkerState::Ready),
                            run.size,
                            most.as_secs()
                        )
                    })
                }
                LoadState::Merging => (waited(run.since) > MERGE_DEADLINE)
                    .then(|| format!("no result within {} s of its end", MERGE_DEADLINE.as_secs())),
                LoadState::Running | LoadState::Done | LoadState::Failed => None,
            };
            if let Some(reason) = late {
                let failure = Failure::new(Owner::Loadgen, run.name(), reason)
                    .with_hint("were all tasks of the load started? see the load step's output");
                self.fail_load(index, failure);
            }
        }
    }

    /// At the end of the run: what has not started never will, what runs ends now.
    pub(super) fn stop_loads(&mut self, reason: &str) {
        for index in 0..self.loads.len() {
            let Some(run) = self.loads.get(index) else { return };
            match run.state {
                LoadState::Joining | LoadState::Preparing => {
                    let ended = || Failure::new(Owner::Loadgen, run.name(), "the run is ending");
                    let failure = self.record.failure.clone().unwrap_or_else(ended);
                    self.fail_load(index, failure);
                }
                LoadState::Running => {
                    let stop = ToWorker::Stop { reason: reason.to_owned(), rule: None };
                    self.send_all(index, |_| true, &stop);
                }
                LoadState::Merging | LoadState::Done | LoadState::Failed => {}
            }
        }
    }

    pub(super) fn load_active(&self) -> bool {
        self.loads.iter().any(|run| !run.state.over())
    }

    /// The failure of a load that no later repeat made good.
    pub(super) fn load_failure(&self) -> Option<Failure> {
        let good = |failed: &LoadRun| {
            self.loads.iter().any(|run| {
                run.state == LoadState::Done
                    && run.name() == failed.name()
                    && run.allotted.point == failed.allotted.point
                    && run.allotted.repeat >= failed.allotted.repeat
            })
        };
        let failed = |run: &&LoadRun| run.state == LoadState::Failed && !good(run);
        self.loads.iter().find(failed).and_then(|run| run.failure.clone())
    }

    fn send_all(&mut self, index: usize, which: impl Fn(u32) -> bool, message: &ToWorker) {
        let Some(run) = self.loads.get(index) else { return };
        let there =
            |worker: &Worker| !matches!(worker.state, WorkerState::Lost | WorkerState::Gone);
        let receivers: Vec<(String, WorkerId)> = run
            .workers
            .iter()
            .filter(|(rank, worker)| there(worker) && which(**rank))
            .map(|(_, worker)| (worker.node.clone(), worker.id.clone()))
            .collect();
        for (node, worker) in receivers {
            self.send_one(&node, worker, message.clone());
        }
    }

    fn send_one(&mut self, node: &str, worker: WorkerId, message: ToWorker) {
        self.order(node, NodeOrder::ToWorker { worker, message });
    }
}
