//! Sampling: raw counters of the node, of the job's steps, of the services and of the agent
//! itself, once a period, into `samples.bin` and to `/metrics`.
//!
//! One thread ticks at absolute deadlines of CLOCK_MONOTONIC and reads kernel files through kept
//! descriptors; another writes (`record`). What cannot be read is absent, and a series
//! says why.

mod agent;
mod background;
mod cgroup;
mod clock;
mod collect;
mod context;
mod device;
mod exposition;
mod fact;
mod gpu;
mod grid;
mod group;
mod kernel_file;
mod node;
mod parse;
mod process;
mod record;
mod service;
mod step;
mod table;
mod threads;
mod ticker;
mod units;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests_cgroup;
#[cfg(test)]
mod tests_live;
#[cfg(test)]
mod tests_node;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aifb_schema::metric::{self, Family};
use anyhow::Context as _;

use collect::Collectors;
pub(crate) use exposition::Shown;
pub use fact::Fact;
use grid::Grid;
pub(crate) use table::{SeriesInfo, Tick};
use ticker::{Order, Ticker};

/// Shortest period: below that the cost would disturb what is measured.
pub const PERIOD_MIN: Duration = Duration::from_millis(100);

/// How long a series that has no value in every tick lives on without one.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(3);

/// Whether a family has values in some ticks only: what is dear is read once a second, and an engine
/// answers when it can.
pub(crate) fn is_rare(family: &Family) -> bool {
    let rare = [&metric::NODE_RUN_DELAY, &metric::SERVICE_RUN_DELAY, &metric::SERVICE_MIGRATIONS];
    family.engine_name().is_some() || rare.iter().any(|one| std::ptr::eq(*one, family))
}

/// NVIDIA's management library, as the driver installs it.
pub const NVML_LIBRARY: &str = "libnvidia-ml.so.1";

/// What to sample, where from and where to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Time between samples, at least 100 ms.
    pub period: Duration,
    /// Node name as Slurm knows it.
    pub node: String,
    /// Id of the run.
    pub run_id: String,
    /// Slurm's job id; absent in a local run.
    pub job_id: Option<u32>,
    /// The record to make; it must not exist.
    pub file: PathBuf,
    /// `/proc`, or a copy of it in tests.
    pub proc_root: PathBuf,
    /// `/sys/fs/cgroup`, or a copy of it in tests.
    pub cgroup_root: PathBuf,
    /// `/sys`, or a copy of it in tests.
    pub sys_root: PathBuf,
    /// NVIDIA's management library; absent: GPUs are not looked for.
    pub nvml: Option<PathBuf>,
}

impl Config {
    /// Labels of every series that leaves this node.
    #[must_use]
    pub fn common_labels(&self) -> Vec<(&'static str, String)> {
        let mut common = vec![("run_id", self.run_id.clone()), ("node", self.node.clone())];
        common.extend(self.job_id.map(|job| ("job", job.to_string())));
        common
    }
}

/// The service replicas of this node, by their root process. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<WatchedState>>);

/// Root processes by service and replica.
type Roots = BTreeMap<(String, u32), u32>;

#[derive(Debug, Default)]
struct WatchedState {
    roots: Roots,
    /// Grows with every change.
    generation: u64,
}

impl Watched {
    /// From now on `pid` and all that descends from it is this replica.
    pub fn set(&self, service: &str, replica: u32, pid: u32) {
        self.change(|roots| {
            roots.insert((service.to_owned(), replica), pid);
        });
    }

    /// The replica is gone.
    pub fn remove(&self, service: &str, replica: u32) {
        self.change(|roots| {
            roots.remove(&(service.to_owned(), replica));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Roots)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.roots);
        state.generation += 1;
    }

    /// The list, if it changed since `generation`, with its new generation.
    fn since(&self, generation: u64) -> Option<(Roots, u64)> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.generation != generation).then(|| (state.roots.clone(), state.generation))
    }
}

/// A value that others than the collectors show on `/metrics`.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Which family.
    pub family: &'static Family,
    /// Values of the family's labels, in their order.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

/// Values that come from elsewhere and are sampled with the others.
pub(crate) trait Source: Send {
    /// Puts the present ones; it waits for nothing.
    fn collect(&mut self, tick: &mut Tick<'_>);
}

/// All values of one tick.
pub(crate) struct Batch {
    /// Wall clock.
    pub(crate) epoch_ns: u64,
    /// What was sampled.
    pub(crate) sampled: Vec<(Arc<SeriesInfo>, f64)>,
    /// What others published.
    pub(crate) published: Vec<Shown>,
}

/// Sends samples elsewhere. Nobody waits for it but at the very end.
pub(crate) trait Sink: Send {
    /// Takes a tick; where there is no room it is lost and counted.
    fn take(&mut self, batch: Batch);
    /// There will be no further tick; it does not wait.
    fn end(&mut self);
    /// Waits until all is sent, for a bounded time.
    fn wait(&mut self);
}

/// What takes part in sampling besides the collectors.
#[derive(Default)]
pub(crate) struct Attached {
    /// Where further values come from.
    pub(crate) sources: Vec<Box<dyn Source>>,
    /// Where samples are sent.
    pub(crate) sink: Option<Box<dyn Sink>>,
}

/// What `/metrics` shows: the last sample, and what others published.
#[derive(Debug, Default)]
struct Board {
    sample: Vec<(Arc<SeriesInfo>, f64)>,
    /// Values of rare series that the last sample has not, and when they were sampled
    /// (CLOCK_MONOTONIC, ns).
    earlier: Vec<(Arc<SeriesInfo>, f64, u64)>,
    /// When the last sample was taken.
    sampled_ns: u64,
    published: BTreeMap<&'static str, Vec<Shown>>,
    /// What happened and was not fetched yet.
    facts: Vec<Fact>,
}

impl Board {
    /// Shows a sample, and of rare series that are not in it what they last had.
    fn show(&mut self, sample: Vec<(Arc<SeriesInfo>, f64)>, mono_ns: u64) {
        let tick = sample.first().map(|(info, _)| info.last_tick());
        let oldest = mono_ns.saturating_sub(clock::ns(GONE_AFTER));
        let kept = |(info, _, at_ns): &(Arc<SeriesInfo>, f64, u64)| {
            is_rare(info.family) && Some(info.last_tick()) != tick && *at_ns > oldest
        };
        let before = std::mem::replace(&mut self.sample, sample).into_iter();
        let at_ns = std::mem::replace(&mut self.sampled_ns, mono_ns);
        self.earlier.extend(before.map(|(info, value)| (info, value, at_ns)));
        self.earlier.retain(kept);
    }

    /// Shows no sample any more.
    fn clear(&mut self) {
        self.sample.clear();
        self.earlier.clear();
    }
}

/// Starts sampling.
#[derive(Debug)]
pub struct Sampler;

/// A running sampler.
#[derive(Debug)]
pub struct Handle {
    board: Arc<Mutex<Board>>,
    common: Vec<(&'static str, String)>,
    orders: Sender<Order>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Sampler {
    /// Makes the record, takes the first sample at once and goes on until [`Handle::stop`].
    ///
    /// # Errors
    /// If the record exists or cannot be made, or a thread cannot be started.
    pub(crate) fn start(
        config: Config,
        watched: Watched,
        attached: Attached,
    ) -> anyhow::Result<Handle> {
        let common = config.common_labels();
        let board = Arc::new(Mutex::new(Board::default()));
        let recorder = record::Recorder::create(&config.file)?;
        let (orders, received) = channel();
        let grid = Grid::from_now(config.period.max(PERIOD_MIN));
        let collectors = Collectors::new(&config, watched).with_background(&config, grid)?;
        let ticker = Ticker::new(grid, collectors, Arc::clone(&board), recorder, attached);
        let thread = thread::Builder::new()
            .name("sampler".into())
            .spawn(move || ticker.run(&received))
            .context("starting the sampler")?;
        Ok(Handle { board, common, orders, thread })
    }
}

impl Handle {
    /// Shows these values on `/metrics` until the same source publishes anew; they are in no
    /// sample.
    pub fn publish(&self, source: &'static str, values: Vec<Shared>) {
        let shown = values.into_iter().map(|value| Shown {
            family: value.family,
            labels: value.family.labels.iter().copied().zip(value.labels).collect(),
            value: value.value,
        });
        lock(&self.board).published.insert(source, shown.collect());
    }

    /// The present values for `/metrics`: content type and body, in the form that the `Accept`
    /// header prefers.
    #[must_use]
    pub fn metrics(&self, accept: &str) -> (&'static str, Vec<u8>) {
        let open = exposition::prefers_open_metrics(accept);
        let values: Vec<_> = {
            let board = lock(&self.board);
            let sample = board.sample.iter().map(|(info, value)| Shown::of(info, *value));
            let earlier = board.earlier.iter().map(|(info, value, _)| Shown::of(info, *value));
            sample.chain(earlier).chain(board.published.values().flatten().cloned()).collect()
        };
        let content_type = if open { exposition::OPEN_METRICS } else { exposition::TEXT };
        (content_type, exposition::encode(&values, &self.common, open))
    }

    /// What happened on the node since the last call.
    #[must_use]
    pub fn take_facts(&self) -> Vec<Fact> {
        std::mem::take(&mut lock(&self.board).facts)
    }

    /// Samples with another period from now on.
    pub fn set_period(&self, period: Duration) {
        let _already_ended = self.orders.send(Order::Period(period.max(PERIOD_MIN)));
    }

    /// Takes a last sample, writes the end and waits for the writer, at most about 2 s.
    ///
    /// # Errors
    /// If the record's end could not be written.
    pub fn stop(self) -> anyhow::Result<()> {
        let _already_ended = self.orders.send(Order::Stop);
        match self.thread.join() {
            Ok(ended) => ended,
            Err(_) => anyhow::bail!("the sampler panicked"),
        }
    }
}

fn lock(board: &Mutex<Board>) -> std::sync::MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
