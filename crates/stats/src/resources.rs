//! Resource figures of a node from the raw counters of its `samples.bin`.
//!
//! * A counter's figure is the sum of its increments between samples. A value below the one
//!   before means that it began anew (a service was started again) and counts from 0.
//! * A counter of a step or a service that comes into being between two samples counts from 0
//!   too. Any other counter counts from its first value, which says nothing about us.
//! * What has no value is absent, never 0.

use std::collections::BTreeMap;

use aifb_schema::{
    metric,
    result::NodeResources,
    samples::{Recording, Sample, Series},
};

/// What one series adds to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Figure {
    NodeCpu,
    JobCpu,
    StepCpu,
    AgentCpu,
    ServiceCpu(String),
    Received,
    Sent,
    DiskRead,
    DiskWritten,
    NodeTotal,
    NodeAvailable,
    JobMemory,
    JobPeak,
    StepMemory,
    AgentMemory,
    ServiceMemory(String),
}

/// Figures over `window` (wall clock in ns, both ends included), or over the whole recording.
///
/// Only samples within the window are used, so that nothing of a warm-up gets in; `seconds` says
/// how much of it they cover, and what they do not cover counts as gaps.
#[must_use]
pub fn node_resources(
    node: &str,
    recording: &Recording,
    window: Option<(u64, u64)>,
) -> NodeResources {
    let mut sums = Sums::new(recording);
    let within =
        |sample: &Sample| window.is_none_or(|(from, to)| (from..=to).contains(&sample.epoch_ns));
    let mut used: Vec<&Sample> = Vec::new();
    for sample in &recording.samples {
        if within(sample) {
            sums.add(sample, !used.is_empty());
            used.push(sample);
        } else {
            sums.pass(sample);
        }
    }
    let seconds = match (used.first(), used.last()) {
        (Some(first), Some(last)) => seconds_of(last.mono_ns.saturating_sub(first.mono_ns)),
        _ => 0.0,
    };
    NodeResources {
        node: node.to_owned(),
        samples: used.len() as u64,
        gaps: gaps(&used, period_ns(&recording.samples), window),
        seconds,
        node_cpu_seconds: sums.gain(&Figure::NodeCpu),
        job_cpu_seconds: sums.gain(&Figure::JobCpu).or_else(|| sums.gain(&Figure::StepCpu)),
        node_memory_max_bytes: sums.node_memory_max.map(bytes),
        job_memory_max_bytes: sums.job_memory_max().map(bytes),
        network_received_bytes: sums.gain(&Figure::Received).map(bytes),
        network_sent_bytes: sums.gain(&Figure::Sent).map(bytes),
        disk_read_bytes: sums.gain(&Figure::DiskRead).map(bytes),
        disk_written_bytes: sums.gain(&Figure::DiskWritten).map(bytes),
        service_cpu_seconds: sums.services(&sums.gains, |figure| match figure {
            Figure::ServiceCpu(name) => Some(name),
            _ => None,
        }),
        service_memory_max_bytes: sums
            .services(&sums.largest, |figure| match figure {
                Figure::ServiceMemory(name) => Some(name),
                _ => None,
            })
            .into_iter()
            .map(|(name, value)| (name, bytes(value)))
            .collect(),
        agent_cpu_seconds: sums.gain(&Figure::AgentCpu),
        agent_memory_max_bytes: sums.largest.get(&Figure::AgentMemory).copied().map(bytes),
    }
}

/// Which figure a series belongs to.
fn figure_of(series: &Series) -> Option<Figure> {
    let label = |key: &str| series.labels.get(key).map_or("", String::as_str);
    let service = || label("service").to_owned();
    let name = series.name.as_str();
    let figure = if name == metric::NODE_CPU.name {
        // The two modes in which no CPU works.
        (!["idle", "iowait"].contains(&label("mode"))).then_some(Figure::NodeCpu)?
    } else if name == metric::JOB_CPU.name {
        Figure::JobCpu
    } else if name == metric::STEP_CPU.name {
        Figure::StepCpu
    } else if name == metric::AGENT_CPU.name {
        Figure::AgentCpu
    } else if name == metric::SERVICE_CPU.name {
        Figure::ServiceCpu(service())
    } else if name == metric::NODE_NETWORK.name {
        if label("direction") == "receive" { Figure::Received } else { Figure::Sent }
    } else if name == metric::NODE_DISK.name {
        if label("op") == "read" { Figure::DiskRead } else { Figure::DiskWritten }
    } else if name == metric::JOB_MEMORY_PEAK.name {
        Figure::JobPeak
    } else {
        match (name, label("kind")) {
            (name, "total") if name == metric::NODE_MEMORY.name => Figure::NodeTotal,
            (name, "available") if name == metric::NODE_MEMORY.name => Figure::NodeAvailable,
            (name, "current") if name == metric::JOB_MEMORY.name => Figure::JobMemory,
            (name, "current") if name == metric::STEP_MEMORY.name => Figure::StepMemory,
            (name, "resident") if name == metric::AGENT_MEMORY.name => Figure::AgentMemory,
            (name, "used") if name == metric::SERVICE_MEMORY.name => {
                Figure::ServiceMemory(service())
            }
            _ => return None,
        }
    };
    Some(figure)
}

impl Figure {
    /// Whether it adds up increments, and not values.
    fn is_counter(&self) -> bool {
        !matches!(
            self,
            Self::NodeTotal
                | Self::NodeAvailable
                | Self::JobMemory
                | Self::JobPeak
                | Self::StepMemory
                | Self::AgentMemory
                | Self::ServiceMemory(_)
        )
    }

    /// Whether what it counts can come into being while we look.
    fn begins_at_zero(&self) -> bool {
        matches!(self, Self::StepCpu | Self::ServiceCpu(_))
    }
}

/// One series of a figure. The recorder may give one series several numbers, one after another.
#[derive(Debug)]
struct Column {
    figure: Figure,
    last: Option<f64>,
}

#[derive(Debug)]
struct Sums {
    by_id: BTreeMap<u32, usize>,
    columns: Vec<Column>,
    /// Increments of counters.
    gains: BTreeMap<Figure, f64>,
    /// Largest sums of values of one sample.
    largest: BTreeMap<Figure, f64>,
    node_memory_max: Option<f64>,
    /// The job's largest memory ever: as first and as last seen.
    peak: Option<(f64, f64)>,
}

impl Sums {
    fn new(recording: &Recording) -> Self {
        let mut known = BTreeMap::new();
        let (mut by_id, mut columns) = (BTreeMap::new(), Vec::new());
        for (id, series) in &recording.series {
            let Some(figure) = figure_of(series) else { continue };
            let at = *known.entry((&series.name, &series.labels)).or_insert_with(|| {
                columns.push(Column { figure, last: None });
                columns.len() - 1
            });
            by_id.insert(*id, at);
        }
        let (gains, largest) = (BTreeMap::new(), BTreeMap::new());
        Self { by_id, columns, gains, largest, node_memory_max: None, peak: None }
    }

    /// Takes note of a sample outside of the window.
    fn pass(&mut self, sample: &Sample) {
        for (id, value) in &sample.values {
            if let Some(column) = self.by_id.get(id).and_then(|at| self.columns.get_mut(*at)) {
                column.last = Some(*value);
            }
        }
    }

    /// Adds a sample within the window; `later`: it is not the first.
    fn add(&mut self, sample: &Sample, later: bool) {
        let mut values: BTreeMap<Figure, f64> = BTreeMap::new();
        for (id, value) in &sample.values {
            let Some(column) = self.by_id.get(id).and_then(|at| self.columns.get_mut(*at)) else {
                continue;
            };
            let before = column.last.replace(*value);
            if !column.figure.is_counter() {
                *values.entry(column.figure.clone()).or_insert(0.0) += value;
                continue;
            }
            let gain = match before {
                Some(before) if *value >= before => value - before,
                Some(_) => *value,
                None if column.figure.begins_at_zero() => *value,
                None => continue,
            };
            if later {
                *self.gains.entry(column.figure.clone()).or_insert(0.0) += gain;
            }
        }
        self.add_values(values);
    }

    fn add_values(&mut self, values: BTreeMap<Figure, f64>) {
        let of = |figure| values.get(&figure).copied();
        if let (Some(total), Some(available)) = (of(Figure::NodeTotal), of(Figure::NodeAvailable)) {
            let used = total - available;
            self.node_memory_max = Some(self.node_memory_max.map_or(used, |max| max.max(used)));
        }
        if let Some(peak) = of(Figure::JobPeak) {
            self.peak = Some((self.peak.map_or(peak, |(first, _)| first), peak));
        }
        for (figure, value) in values {
            let largest = self.largest.entry(figure).or_insert(value);
            *largest = largest.max(value);
        }
    }

    fn gain(&self, figure: &Figure) -> Option<f64> {
        self.gains.get(figure).copied()
    }

    /// The largest of the samples; and of what the kernel saw between them, where its peak grew
    /// in the window.
    fn job_memory_max(&self) -> Option<f64> {
        let sampled = self
            .largest
            .get(&Figure::JobMemory)
            .or_else(|| self.largest.get(&Figure::StepMemory))
            .copied()?;
        let grown = self.peak.filter(|(first, last)| last > first).map(|(_, last)| last);
        Some(grown.map_or(sampled, |peak| peak.max(sampled)))
    }

    fn services(
        &self,
        figures: &BTreeMap<Figure, f64>,
        name: impl Fn(&Figure) -> Option<&String>,
    ) -> BTreeMap<String, f64> {
        figures.iter().filter_map(|(figure, value)| Some((name(figure)?.clone(), *value))).collect()
    }
}

/// Sampling intervals without a sample. The recorder counts the ticks that it missed; what it
/// could not count (it was killed, the end is torn off) is seen from the clocks.
fn gaps(used: &[&Sample], period_ns: Option<u64>, window: Option<(u64, u64)>) -> u64 {
    let Some(period_ns) = period_ns else {
        return used.iter().skip(1).map(|sample| u64::from(sample.missed)).sum();
    };
    // A late tick is no missed one: up to three quarters of a period are forgiven.
    let ticks = |ns: u64| (ns + period_ns / 4) / period_ns;
    let between = used.iter().zip(used.iter().skip(1)).map(|(before, sample)| {
        let seen = ticks(sample.mono_ns.saturating_sub(before.mono_ns)).saturating_sub(1);
        seen.max(u64::from(sample.missed))
    });
    let outside = match (window, used.first(), used.last()) {
        (Some((from, to)), Some(first), Some(last)) => {
            first.epoch_ns.saturating_sub(from) / period_ns
                + to.saturating_sub(last.epoch_ns) / period_ns
        }
        (Some((from, to)), _, _) => to.saturating_sub(from) / period_ns,
        (None, _, _) => 0,
    };
    between.sum::<u64>() + outside
}

/// The usual time between samples; absent below two.
fn period_ns(samples: &[Sample]) -> Option<u64> {
    let mut steps: Vec<u64> = samples
        .iter()
        .zip(samples.iter().skip(1))
        .map(|(before, sample)| sample.mono_ns.saturating_sub(before.mono_ns))
        .filter(|step| *step > 0)
        .collect();
    let middle = steps.len() / 2;
    steps.sort_unstable();
    steps.get(middle).copied()
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
fn seconds_of(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes and sums of increments; a cast saturates"
)]
fn bytes(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A recording with one sample a second from second 100 on; `None` is an absent value.
    fn recording(series: &[(&str, &str, &[Option<f64>])]) -> Recording {
        let mut recording = Recording::default();
        let length = series.iter().map(|(_, _, values)| values.len()).max().unwrap_or(0);
        recording.samples = (0..length as u64)
            .map(|tick| Sample {
                epoch_ns: (100 + tick) * SECOND,
                mono_ns: (5 + tick) * SECOND,
                ..Sample::default()
            })
            .collect();
        for (id, (name, labels, values)) in (0_u32..).zip(series) {
            let pairs = labels.split_terminator(',').map(|pair| pair.split_once('=').unwrap());
            let labels = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            recording.series.insert(id, Series { id, name: (*name).to_owned(), labels });
            for (sample, value) in recording.samples.iter_mut().zip(*values) {
                sample.values.extend(value.map(|value| (id, value)));
            }
        }
        recording
    }

    fn all(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn a_whole_run_in_figures() {
        let run = recording(&[
            ("node_cpu_seconds_total", "mode=user", &all(&[100.0, 101.0, 103.5])),
            ("node_cpu_seconds_total", "mode=idle", &all(&[900.0, 950.0, 990.0])),
            ("node_cpu_seconds_total", "mode=iowait", &all(&[1.0, 2.0, 3.0])),
            ("node_cpu_seconds_total", "mode=steal", &all(&[0.0, 0.25, 0.5])),
            ("node_memory_bytes", "kind=total", &all(&[1000.0, 1000.0, 1000.0])),
            ("node_memory_bytes", "kind=available", &all(&[900.0, 400.0, 700.0])),
            ("node_network_bytes_total", "device=a,direction=receive", &all(&[5.0, 6.0, 8.0])),
            ("node_network_bytes_total", "device=b,direction=receive", &all(&[0.0, 0.0, 100.0])),
            ("node_network_bytes_total", "device=a,direction=transmit", &all(&[1.0, 1.0, 1.0])),
            ("node_disk_bytes_total", "device=sda,op=read", &all(&[512.0, 512.0, 1024.0])),
            ("job_cpu_seconds_total", "mode=user", &all(&[10.0, 11.0, 12.0])),
            ("job_cpu_seconds_total", "mode=system", &all(&[1.0, 1.5, 2.0])),
            ("step_cpu_seconds_total", "step=0,mode=user", &all(&[0.0, 500.0, 500.0])),
            ("job_memory_bytes", "kind=current", &all(&[50.0, 70.0, 60.0])),
            ("job_memory_bytes", "kind=limit", &all(&[9e9, 9e9, 9e9])),
            ("job_memory_peak_bytes", "", &all(&[50.0, 88.0, 88.0])),
            ("service_memory_bytes", "kind=used,replica=0,service=llm", &all(&[1.0, 40.0, 30.0])),
            ("service_memory_bytes", "kind=used,replica=1,service=llm", &all(&[1.0, 10.0, 30.0])),
            ("service_memory_bytes", "kind=resident,replica=0,service=llm", &all(&[99.0; 3])),
            ("agent_cpu_seconds_total", "mode=user", &all(&[0.0, 0.125, 0.25])),
            ("agent_memory_bytes", "kind=resident", &all(&[20.0, 30.0, 25.0])),
            ("agent_memory_bytes", "kind=peak", &all(&[99.0, 99.0, 99.0])),
        ]);
        let figures = node_resources("n1", &run, None);
        let expected = NodeResources {
            node: "n1".into(),
            samples: 3,
            gaps: 0,
            seconds: 2.0,
            node_cpu_seconds: Some(4.0),
            job_cpu_seconds: Some(3.0),
            node_memory_max_bytes: Some(600),
            job_memory_max_bytes: Some(88),
            network_received_bytes: Some(103),
            network_sent_bytes: Some(0),
            disk_read_bytes: Some(512),
            disk_written_bytes: None,
            service_cpu_seconds: BTreeMap::new(),
            service_memory_max_bytes: BTreeMap::from([("llm".into(), 60)]),
            agent_cpu_seconds: Some(0.25),
            agent_memory_max_bytes: Some(30),
        };
        assert_eq!(figures, expected);
    }

    #[test]
    fn services_and_steps_begin_at_zero_and_begin_anew() {
        let run = recording(&[
            // Starts, is started again at the third second, ends.
            (
                "service_cpu_seconds_total",
                "mode=user,replica=0,service=llm",
                &[None, Some(2.0), Some(5.0), Some(1.0), Some(1.5), None],
            ),
            ("service_cpu_seconds_total", "mode=user,replica=0,service=db", &all(&[7.0, 8.0])),
            ("step_cpu_seconds_total", "mode=user,step=batch", &all(&[3.0, 3.5, 3.5, 3.5, 3.5])),
            ("step_cpu_seconds_total", "mode=user,step=1", &[None, None, Some(4.0), None]),
            ("step_memory_bytes", "kind=current,step=batch", &all(&[10.0, 10.0, 10.0])),
            ("step_memory_bytes", "kind=current,step=1", &[None, None, Some(5.0), Some(12.0)]),
        ]);
        let figures = node_resources("n1", &run, None);
        let services = BTreeMap::from([("llm".into(), 6.5), ("db".into(), 1.0)]);
        assert_eq!(figures.service_cpu_seconds, services);
        assert_eq!(figures.job_cpu_seconds, Some(4.5));
        assert_eq!(figures.job_memory_max_bytes, Some(15));
        assert_eq!(figures.node_cpu_seconds, None);
    }

    #[test]
    fn other_counters_that_appear_late_count_from_their_first_value() {
        let run = recording(&[
            ("node_cpu_seconds_total", "mode=user", &[None, Some(5e6), Some(5e6 + 1.0)]),
            ("job_cpu_seconds_total", "mode=user", &[None, None, Some(5e6)]),
            ("agent_cpu_seconds_total", "mode=user", &all(&[1.0])),
        ]);
        let figures = node_resources("n1", &run, None);
        assert_eq!(figures.node_cpu_seconds, Some(1.0));
        assert_eq!((figures.job_cpu_seconds, figures.agent_cpu_seconds), (None, None));
    }

    #[test]
    fn only_the_window_counts() {
        let run = recording(&[
            ("node_cpu_seconds_total", "mode=user", &all(&[0.0, 10.0, 11.0, 13.0, 99.0])),
            ("node_memory_bytes", "kind=total", &all(&[100.0; 5])),
            ("node_memory_bytes", "kind=available", &all(&[0.0, 50.0, 40.0, 45.0, 0.0])),
            ("job_memory_bytes", "kind=current", &all(&[9.0, 2.0, 3.0, 2.0, 9.0])),
            ("job_memory_peak_bytes", "", &all(&[9.0; 5])),
        ]);
        let window = Some((101 * SECOND - 1, 103 * SECOND + SECOND / 2));
        let figures = node_resources("n1", &run, window);
        assert_eq!((figures.samples, figures.gaps, figures.seconds), (3, 0, 2.0));
        assert_eq!(figures.node_cpu_seconds, Some(3.0));
        assert_eq!(figures.node_memory_max_bytes, Some(60));
        // The kernel's peak is older than the window.
        assert_eq!(figures.job_memory_max_bytes, Some(3));

        let empty = node_resources("n1", &run, Some((300 * SECOND, 310 * SECOND)));
        let expected = NodeResources { node: "n1".into(), gaps: 10, ..NodeResources::default() };
        assert_eq!(empty, expected);
    }

    #[test]
    fn gaps_are_counted_by_the_recorder_or_seen_from_its_clock() {
        let mut run = recording(&[("agent_cpu_seconds_total", "mode=user", &all(&[0.0; 10]))]);
        assert_eq!(node_resources("n1", &run, None).gaps, 0);
        // Late by 0.7 s: still one tick.
        run.samples[3].mono_ns += 7 * SECOND / 10;
        assert_eq!(node_resources("n1", &run, None).gaps, 0);
        run.samples[4].missed = 2;
        assert_eq!(node_resources("n1", &run, None).gaps, 2);
        for sample in &mut run.samples[8..] {
            sample.mono_ns += 5 * SECOND;
        }
        assert_eq!(node_resources("n1", &run, None).gaps, 7);
        run.samples[8].missed = 5;
        assert_eq!(node_resources("n1", &run, None).gaps, 7);
        // The first of the window does not tell about the window.
        let window = Some((104 * SECOND, 112 * SECOND));
        assert_eq!(node_resources("n1", &run, window).gaps, 5 + 3);
    }

    #[test]
    fn a_series_that_got_a_new_number_goes_on() {
        let mut run = recording(&[
            ("service_cpu_seconds_total", "mode=user,service=a", &[Some(1.0), Some(2.0)]),
            ("service_cpu_seconds_total", "mode=user,service=a", &[None, None, Some(2.5)]),
        ]);
        assert_eq!(node_resources("n1", &run, None).service_cpu_seconds["a"], 1.5);
        run.samples.truncate(0);
        assert_eq!(node_resources("n1", &run, None).service_cpu_seconds.len(), 0);
    }
}
