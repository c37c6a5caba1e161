//! The sampler of this node, as the rest of the agent sees it.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, rc::Rc, time::Duration};

use aifb_schema::{
    control::{Delta, Trouble},
    live::{Bound, CLIENT_LAG, INTER_TOKEN, TOTAL, TTFT, Times},
    logs::{LogLedger, LogStream},
    metric,
    names::{VERSION, file},
    recipe::Load,
    units::Span,
};

use super::{context::Context, secrets::Resolver};
use crate::{
    export::{
        engine::{Address, Engines},
        remote::{self, Noted, RemoteWrite},
    },
    sample::{Attached, Config, Handle, NVML_LIBRARY, Sampler, Shared, Watched},
};

/// Longest time for the last sample and the end of the record.
const STOP_PATIENCE: Duration = Duration::from_millis(1_000);

/// The same where the last values are also sent.
const SEND_PATIENCE: Duration = remote::FLUSH.saturating_add(Duration::from_millis(300));

/// Numbers of the node and its services.
#[derive(Clone, Default)]
pub(crate) struct Sampling {
    watched: Watched,
    engines: Engines,
    handle: Rc<RefCell<Option<Handle>>>,
    /// Time between samples, outside and inside the measured phase of a load.
    periods: [Duration; 2],
    /// Whether samples are also sent elsewhere.
    sends: bool,
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
        let engines = Engines::default();
        let mut attached = Attached { sources: vec![Box::new(engines.clone())], sink: None };
        attach_remote_write(&mut attached, context, &config);
        let sends = attached.sink.is_some();
        let handle = match Sampler::start(config, watched.clone(), attached) {
            Ok(handle) => {
                handle.publish("run", about(context));
                Some(handle)
            }
            Err(error) => {
                let warning = format!("sampling could not be started: {error:#}");
                tracing::error!("{warning}");
                context.outbox.warn(warning);
                None
            }
        };
        let handle = Rc::new(RefCell::new(handle));
        Self { watched, engines, sends, handle, periods, ready: Rc::default() }
    }

    /// From now on the page there shows this replica's own metrics.
    pub(crate) fn engine(&self, service: &str, replica: u32, at: Address) {
        self.engines.set(service, replica, at);
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
            fields: fact.fields,
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
            histograms(&mut values, load, sum);
        }
        self.publish("loads", values);
    }

    /// Shows what became of the log lines so far.
    pub(crate) fn logs(&self, ledger: &LogLedger) {
        let sum = |of: fn(&LogStream) -> u64| ledger.streams.iter().map(of).sum::<u64>();
        let show = |family: &'static metric::Family, labels: Vec<String>, value: u64| {
            #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
            Shared { family, labels, value: value as f64 }
        };
        let lines = |result: &str, count| show(&metric::LOG_LINES, vec![result.to_owned()], count);
        self.publish(
            "logs",
            vec![
                lines("acknowledged", sum(|stream| stream.lines_acknowledged)),
                lines("quarantined", sum(|stream| stream.lines_quarantined)),
                lines("filtered", sum(|stream| stream.lines_filtered)),
                show(&metric::LOG_UNSENT, Vec::new(), ledger.bytes_unsent()),
            ],
        );
    }

    fn publish(&self, source: &'static str, values: Vec<Shared>) {
        if let Some(handle) = &*self.handle.borrow() {
            handle.publish(source, values);
        }
    }

    /// The replica is gone.
    pub(crate) fn unwatch(&self, service: &str, replica: u32) {
        self.watched.remove(service, replica);
        self.engines.remove(service, replica);
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
        let patience = if self.sends { SEND_PATIENCE } else { STOP_PATIENCE };
        match tokio::time::timeout(patience, stopping).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!("ending the samples: {error:#}"),
            Ok(Err(error)) => tracing::error!("ending the samples: {error}"),
            Err(_) => tracing::error!("ending the samples: not done within {patience:?}"),
        }
    }
}

/// `_bucket`, `_sum` and `_count` of a histogram.
type Parts = [&'static metric::Family; 3];

const DURATION: Parts = [
    &metric::REQUEST_DURATION_BUCKET,
    &metric::REQUEST_DURATION_SUM,
    &metric::REQUEST_DURATION_COUNT,
];

/// The histograms of a load's times so far. Those of times that not every load has are left out
/// until there is one.
fn histograms(values: &mut Vec<Shared>, load: &str, sum: &Delta) {
    let total = Times { counts: sum.durations.clone(), sum_ns: sum.durations_ns };
    histogram(values, load, DURATION, (&TOTAL, &total));
    let others: [(Parts, &[Bound], &Times); 3] = [
        ([&metric::TTFT_BUCKET, &metric::TTFT_SUM, &metric::TTFT_COUNT], &TTFT, &sum.ttft),
        (
            [&metric::INTER_TOKEN_BUCKET, &metric::INTER_TOKEN_SUM, &metric::INTER_TOKEN_COUNT],
            &INTER_TOKEN,
            &sum.inter_token,
        ),
        (
            [&metric::SCHEDULE_LAG_BUCKET, &metric::SCHEDULE_LAG_SUM, &metric::SCHEDULE_LAG_COUNT],
            &CLIENT_LAG,
            &sum.client_lag,
        ),
    ];
    for (parts, bounds, times) in others {
        if !times.is_empty() {
            histogram(values, load, parts, (bounds, times));
        }
    }
}

/// One histogram; nothing where its counts are of other bounds than ours.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn histogram(
    values: &mut Vec<Shared>,
    load: &str,
    [bucket, sum, count]: Parts,
    (bounds, times): (&[Bound], &Times),
) {
    if bounds.len() != times.counts.len() {
        return;
    }
    let mut show = |family, le: Option<&str>, value| {
        let labels = std::iter::once(load).chain(le).map(str::to_owned).collect();
        values.push(Shared { family, labels, value });
    };
    for ((_, le), count) in bounds.iter().zip(&times.counts) {
        show(bucket, Some(*le), *count as f64);
    }
    show(sum, None, Duration::from_nanos(times.sum_ns).as_secs_f64());
    show(count, None, times.count() as f64);
}

/// What runs, and what the loads are for.
fn about(context: &Context) -> Vec<Shared> {
    let info = |family, labels| Shared { family, labels, value: 1.0 };
    let recipe = &context.recipe;
    let of_load = |load: &Load| {
        let service = recipe.service_of(load)?.name.to_string();
        Some(info(&metric::LOAD_INFO, vec![load.name.to_string(), service]))
    };
    let run = vec![context.record.name.clone(), VERSION.to_owned()];
    let mut values = vec![info(&metric::RUN_INFO, run)];
    values.extend(recipe.load.iter().filter_map(of_load));
    values
}

/// Sends every sample to the recipe's receiver. Without that the run goes on all the same.
fn attach_remote_write(attached: &mut Attached, context: &Context, config: &Config) {
    let Some(receiver) = &context.recipe.monitor.remote_write else { return };
    let mut start = || -> anyhow::Result<()> {
        let to = Resolver::new(context).receiver("monitor.remote_write", receiver)?;
        let series = context.node_dir().join(file::REMOTE_SERIES);
        let files = context.files.clone();
        let (sink, own) = RemoteWrite::start(remote::Config {
            url: to.url,
            token: to.token,
            common: config.common_labels(),
            spool: std::env::temp_dir(),
            note: Box::new(move |noted| match noted {
                Noted::Series(lines) => files.append(&series, lines),
                Noted::Ended => files.remove(&series),
            }),
        })?;
        attached.sink = Some(Box::new(sink));
        attached.sources.push(Box::new(own));
        Ok(())
    };
    if let Err(error) = start() {
        let warning = format!("remote write could not be started: {error:#}");
        tracing::error!("{warning}");
        context.outbox.warn(warning);
    }
}
