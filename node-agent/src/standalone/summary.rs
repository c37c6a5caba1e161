//! What a record holds, and what recording it cost: computed from the record itself.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::Path,
    time::Duration,
};

use aifb_schema::{
    metric::{self, Family},
    samples::{self, Recording, Series},
};
use aifb_stats::rank::{Quantile, of_sorted};
use anyhow::Context as _;
use serde::Serialize;

use crate::sample::Fact;

/// Printed when sampling ends.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// The record.
    file: String,
    samples: usize,
    /// Ticks without a sample.
    missed_ticks: u64,
    /// Series that have a value in the last sample.
    series: usize,
    /// From the first sample to the last.
    duration_seconds: f64,
    /// CPU time of the agent between these two, all its threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_cpu_seconds: Option<f64>,
    /// The same as a share of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_cpu_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_peak_memory_bytes: Option<f64>,
    /// How late ticks began.
    #[serde(skip_serializing_if = "Option::is_none")]
    tick_lag_seconds: Option<Spread>,
    /// How long whole collections took.
    #[serde(skip_serializing_if = "Option::is_none")]
    collect_seconds: Option<Spread>,
    /// How long each source took.
    source_seconds: BTreeMap<String, Spread>,
    /// What happened on the node meanwhile.
    facts: Vec<Fact>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            p50: of_sorted(&values, Quantile::P50)?,
            p99: of_sorted(&values, Quantile::P99)?,
            max: values.last().copied()?,
        })
    }
}

impl Summary {
    /// Reads the record at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub(super) fn of(path: &Path, facts: Vec<Fact>) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading '{}'", path.display()))?;
        let recording =
            samples::read(&bytes).with_context(|| format!("reading '{}'", path.display()))?;
        Ok(Self { facts, ..Self::from_recording(path.display().to_string(), &recording) })
    }

    fn from_recording(file: String, recording: &Recording) -> Self {
        let ends = recording.samples.first().zip(recording.samples.last());
        let ns = ends.map_or(0, |(first, last)| last.mono_ns.saturating_sub(first.mono_ns));
        let duration_seconds = Duration::from_nanos(ns).as_secs_f64();
        let columns = Columns::of(recording);
        let cpu: Option<f64> = ["user", "system"]
            .into_iter()
            .map(|mode| {
                let values = columns.values(&metric::AGENT_CPU, "mode", mode)?;
                Some(values.last()? - values.first()?)
            })
            .sum();
        let peak = columns.values(&metric::AGENT_MEMORY, "kind", "peak");
        let collect = recording.samples.iter();
        let collect = collect.map(|one| Duration::from_nanos(one.collect_ns.into()).as_secs_f64());
        Self {
            file,
            samples: recording.samples.len(),
            missed_ticks: recording.samples.iter().map(|one| u64::from(one.missed)).sum(),
            series: recording.samples.last().map_or(0, |last| last.values.len()),
            duration_seconds,
            agent_cpu_seconds: cpu,
            agent_cpu_ratio: cpu.filter(|_| ns > 0).map(|cpu| cpu / duration_seconds),
            agent_peak_memory_bytes: peak.and_then(|peak| peak.last().copied()),
            tick_lag_seconds: columns
                .of_family(&metric::AGENT_TICK_LAG)
                .find_map(|(_, values)| Spread::of(values.to_vec())),
            collect_seconds: Spread::of(collect.collect()),
            source_seconds: columns
                .of_family(&metric::AGENT_SOURCE_DURATION)
                .filter_map(|(series, values)| {
                    Some((series.labels.get("source")?.clone(), Spread::of(values.to_vec())?))
                })
                .collect(),
            facts: Vec::new(),
        }
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        // Plain data with string keys always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Some lines for people.
    pub(super) fn text(&self) -> String {
        let mut out = format!(
            "{} samples over {:.1} s, {} missed, {} series: {}",
            self.samples, self.duration_seconds, self.missed_ticks, self.series, self.file
        );
        let mut line = |text: String| {
            let _infallible = write!(out, "\n{text}");
        };
        if let (Some(cpu), Some(ratio)) = (self.agent_cpu_seconds, self.agent_cpu_ratio) {
            line(format!("CPU of the agent   {cpu:.3} s, {:.3} % of a core", ratio * 100.0));
        }
        if let Some(bytes) = self.agent_peak_memory_bytes {
            line(format!("memory, peak       {:.1} MiB", bytes / f64::from(1 << 20)));
        }
        let spread = |name: &str, of: &Spread| {
            let [p50, p99, max] = [of.p50, of.p99, of.max].map(|seconds| seconds * 1e3);
            format!("{name:<18} p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms")
        };
        for (name, of) in
            [("ticks late by", &self.tick_lag_seconds), ("collecting took", &self.collect_seconds)]
        {
            if let Some(of) = of {
                line(spread(name, of));
            }
        }
        for (source, of) in &self.source_seconds {
            line(spread(&format!("  {source}"), of));
        }
        for fact in &self.facts {
            line(format!("{:<18} {}", fact.subject, fact.message));
        }
        out
    }
}

/// All values of each series, in their order.
struct Columns<'r> {
    series: &'r BTreeMap<u32, Series>,
    values: HashMap<u32, Vec<f64>>,
}

impl<'r> Columns<'r> {
    fn of(recording: &'r Recording) -> Self {
        let mut values: HashMap<u32, Vec<f64>> = HashMap::new();
        for (id, value) in recording.samples.iter().flat_map(|sample| &sample.values) {
            values.entry(*id).or_default().push(*value);
        }
        Self { series: &recording.series, values }
    }

    fn of_family(&self, family: &'static Family) -> impl Iterator<Item = (&'r Series, &[f64])> {
        let of = self.series.values().filter(|one| one.name == family.name);
        of.filter_map(|one| Some((one, self.values.get(&one.id)?.as_slice())))
    }

    fn values(&self, family: &'static Family, key: &str, value: &str) -> Option<&[f64]> {
        let fits = |one: &Series| one.labels.get(key).is_some_and(|is| is == value);
        self.of_family(family).find(|(one, _)| fits(one)).map(|(_, values)| values)
    }
}
