//! The sampler of this node, as the rest of the agent sees it.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, rc::Rc, time::Duration};

use aifb_schema::{
    control::{Delta, Trouble},
    metric,
    names::{VERSION, file},
    units::Span,
};

use super::context::Context;
use crate::sample::{Config, Handle, NVML_LIBRARY, Sampler, Shared, Watched};

/// Longest time for the last sample and the end of the record.
const STOP_PATIENCE: Duration = Duration::from_millis(1_000);

/// Numbers of the node and its services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sampling {
    watched: Watched,
    handle: Rc<RefCell<Option<Handle>>>,
    /// Time between samples, outside and inside the measured phase of a load.
    periods: [Duration; 2],
    /// Seconds to health by service and replica.
    ready: Rc<RefCell<BTreeMap<(String, u32), f64>>>,
}

impl Sampling {
    /// Starts sampling. Without it the run goes on: a benchmark without resource figures is worth
    /// more than none.
    pub(crate) fn start(context: &Context) -> Self {
        let watched = Watched::default();
        let monitor = &context.recipe.monitor;
        let periods = [monitor.sample, monitor.burst.unwrap_or(monitor.sample)].map(Span::get);
        let config = Config {
            period: monitor.sample.get(),
            node: context.node.clone(),
            run_id: context.record.run_id.clone(),
            job_id: context.record.job.id,
            file: context.node_dir().join(file::SAMPLES),
            proc_root: PathBuf::from("/proc"),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            sys_root: PathBuf::from("/sys"),
            nvml: Some(PathBuf::from(NVML_LIBRARY)),
        };
        let handle = match Sampler::start(config, watched.clone()) {
            Ok(handle) => {
                let labels = vec![context.record.name.clone(), VERSION.to_owned()];
                let info = Shared { family: &metric::RUN_INFO, labels, value: 1.0 };
                handle.publish("run", vec![info]);
                Some(handle)
            }
            Err(error) => {
                tracing::error!("sampling could not be started: {error:#}");
                None
            }
        };
        Self { watched, handle: Rc::new(RefCell::new(handle)), periods, ready: Rc::default() }
    }

    /// From now on `root` and all that descends from it is this replica.
    pub(crate) fn watch(&self, service: &str, replica: u32, root: u32) {
        self.watched.set(service, replica, root);
    }

    /// What samples show that the run's record should tell, since the last call.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let facts = self.handle.borrow().as_ref().map(Handle::take_facts).unwrap_or_default();
        let troubles = facts.into_iter().map(|fact| Trouble {
            epoch_ns: fact.epoch_ns,
            subject: fact.subject.to_owned(),
            message: fact.message,
        });
        troubles.collect()
    }

    /// A load is in its measured phase, or none is any more.
    pub(crate) fn measuring(&self, now: bool) {
        let [outside, inside] = self.periods;
        if let Some(handle) = self.handle.borrow().as_ref().filter(|_| outside != inside) {
            handle.set_period(if now { inside } else { outside });
        }
    }

    /// A replica has become healthy this long after its start.
    pub(crate) fn ready(&self, service: &str, replica: u32, after: Duration) {
        let key = (service.to_owned(), replica);
        self.ready.borrow_mut().insert(key, after.as_secs_f64());
        let ready = self.ready.borrow();
        let shown = ready.iter().map(|((service, replica), seconds)| Shared {
            family: &metric::SERVICE_READY,
            labels: vec![service.clone(), replica.to_string()],
            value: *seconds,
        });
        self.publish("ready", shown.collect());
    }

    /// Shows how far the loads are: counters over all repeats of a load.
    pub(crate) fn loads(&self, loads: &BTreeMap<String, Delta>) {
        let mut values = Vec::new();
        for (load, sum) in loads {
            let mut show = |family: &'static metric::Family, label: Option<&str>, value: u64| {
                let mut labels = vec![load.clone()];
                labels.extend(label.map(str::to_owned));
                #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
                values.push(Shared { family, labels, value: value as f64 });
            };
            show(&metric::REQUESTS_SENT, None, sum.sent);
            show(&metric::REQUESTS, Some("ok"), sum.ok);
            show(&metric::REQUESTS, Some("failed"), sum.failed);
            show(&metric::REQUESTS_IN_FLIGHT, None, sum.in_flight);
            show(&metric::TOKENS, Some("output"), sum.output_tokens);
        }
        self.publish("loads", values);
    }

    fn publish(&self, source: &'static str, values: Vec<Shared>) {
        if let Some(handle) = &*self.handle.borrow() {
            handle.publish(source, values);
        }
    }

    /// The replica is gone.
    pub(crate) fn unwatch(&self, service: &str, replica: u32) {
        self.watched.remove(service, replica);
    }

    /// The present numbers for a scraper that accepts `accept`: content type and text.
    pub(crate) fn metrics(&self, accept: &str) -> (String, Vec<u8>) {
        match &*self.handle.borrow() {
            Some(handle) => {
                let (kind, bytes) = handle.metrics(accept);
                (kind.to_owned(), bytes)
            }
            None => ("text/plain; charset=utf-8".to_owned(), Vec::new()),
        }
    }

    /// Ends the record in order, within a bounded time.
    pub(crate) async fn stop(&self) {
        let Some(handle) = self.handle.borrow_mut().take() else { return };
        let stopping = tokio::task::spawn_blocking(move || handle.stop());
        match tokio::time::timeout(STOP_PATIENCE, stopping).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!("ending the samples: {error:#}"),
            Ok(Err(error)) => tracing::error!("ending the samples: {error}"),
            Err(_) => tracing::error!("ending the samples: the file system does not answer"),
        }
    }
}
