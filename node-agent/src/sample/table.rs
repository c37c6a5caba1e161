//! Which series there are in this record, and the values of one tick.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aifb_schema::{
    metric::Family,
    samples::{Frame, Sample, Series},
};

/// Values of one tick. A node has a few hundred; what is above is a fault of some source, and one
/// frame must stay far below `samples::FRAME_MAX`.
const VALUES_MAX: usize = 8192;

/// Ticks after which a series without a value is forgotten, so that a job of many short steps
/// does not grow the table without end. It gets a new number if it comes back.
const FORGET_TICKS: u64 = 120;

/// A series: one family with one set of label values.
#[derive(Debug)]
pub(crate) struct SeriesInfo {
    /// Number within the record.
    pub(crate) id: u32,
    pub(crate) family: &'static Family,
    pub(crate) labels: Vec<(&'static str, String)>,
}

#[derive(Debug)]
struct Entry {
    info: Arc<SeriesInfo>,
    last_tick: u64,
    declared: bool,
}

/// All series of a record.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<String, Entry>,
    next_id: u32,
    tick: u64,
    key: String,
    /// Whether some series may still have to be declared.
    undeclared: bool,
}

/// The values of one tick.
#[derive(Debug)]
pub(crate) struct Tick<'a> {
    table: &'a mut Table,
    values: Vec<(Arc<SeriesInfo>, f64)>,
    dropped: u64,
}

impl Table {
    /// Begins a tick.
    pub(super) fn begin(&mut self) -> Tick<'_> {
        self.tick += 1;
        if self.tick.is_multiple_of(FORGET_TICKS) {
            let oldest = self.tick - FORGET_TICKS;
            self.entries.retain(|_, entry| entry.last_tick >= oldest);
        }
        Tick { table: self, values: Vec::with_capacity(256), dropped: 0 }
    }

    /// Encodes a sample, with declarations of all of its series that are not declared yet.
    pub(super) fn encode(&mut self, sample: Sample, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.undeclared) {
            self.declare(out);
        }
        Frame::Sample(sample).encode(out);
    }

    fn declare(&mut self, out: &mut Vec<u8>) {
        let tick = self.tick;
        let fresh = self.entries.values_mut().filter(|entry| entry.last_tick == tick);
        for entry in fresh.filter(|entry| !entry.declared) {
            let labels: BTreeMap<_, _> = entry
                .info
                .labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect();
            let name = entry.info.family.name.to_owned();
            Frame::Series(Series { id: entry.info.id, name, labels }).encode(out);
            entry.declared = true;
        }
        // What has no value now waits for its next one.
        self.undeclared = self.entries.values().any(|entry| !entry.declared);
    }

    /// A chunk with declarations may be lost: all are declared again with the next sample.
    pub(super) fn declare_again(&mut self) {
        for entry in self.entries.values_mut() {
            entry.declared = false;
        }
        self.undeclared = true;
    }
}

impl Tick<'_> {
    /// Records a value. Values that are no numbers, and a second value of one series, are left
    /// out.
    pub(crate) fn put(
        &mut self,
        family: &'static Family,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        if !value.is_finite() {
            return;
        }
        if self.values.len() >= VALUES_MAX {
            self.dropped += 1;
            return;
        }
        if let Some(info) = self.table.series(family, labels) {
            self.values.push((info, value));
        }
    }

    /// Records a count.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 PB, or 104 days in ns")]
    pub(crate) fn put_u64(
        &mut self,
        family: &'static Family,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.put(family, labels, value as f64);
    }

    /// How many values there are so far.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// How many values were left out at the bound.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ends the tick.
    pub(super) fn finish(self) -> Vec<(Arc<SeriesInfo>, f64)> {
        self.values
    }
}

impl Table {
    /// The series, unless it has a value in this tick already.
    fn series(
        &mut self,
        family: &'static Family,
        labels: &[(&'static str, &str)],
    ) -> Option<Arc<SeriesInfo>> {
        self.key.clear();
        self.key.push_str(family.name);
        let foreign = family.engine_name().is_some();
        for (name, value) in labels {
            self.key.push('\0');
            if foreign {
                // Families of ours have one set of label names each, those of engines may not.
                self.key.push_str(name);
                self.key.push('=');
            }
            self.key.push_str(value);
        }
        if let Some(entry) = self.entries.get_mut(self.key.as_str()) {
            let fresh = entry.last_tick != self.tick;
            entry.last_tick = self.tick;
            return fresh.then(|| Arc::clone(&entry.info));
        }
        debug_assert!(
            labels.iter().map(|(key, _)| *key).eq(family.labels.iter().copied()),
            "labels of {} differ from its declaration",
            family.name
        );
        let info = Arc::new(SeriesInfo {
            id: self.next_id,
            family,
            labels: labels.iter().map(|(key, value)| (*key, clean(value))).collect(),
        });
        self.next_id += 1;
        let entry = Entry { info: Arc::clone(&info), last_tick: self.tick, declared: false };
        self.entries.insert(self.key.clone(), entry);
        self.undeclared = true;
        Some(info)
    }
}

/// Label values come from file names too: NUL separates fields in the record.
fn clean(value: &str) -> String {
    value.replace('\0', "")
}

#[cfg(test)]
mod tests {
    use aifb_schema::{metric, samples};

    use super::*;

    fn sample(values: &[(Arc<SeriesInfo>, f64)]) -> Sample {
        Sample {
            values: values.iter().map(|(info, value)| (info.id, *value)).collect(),
            ..Sample::default()
        }
    }

    #[test]
    fn a_series_is_declared_once_before_its_first_value() {
        let mut table = Table::default();
        let mut bytes = samples::MAGIC.to_vec();
        for round in 0..3_u32 {
            let mut tick = table.begin();
            tick.put(&metric::NODE_CPU, &[("mode", "user")], f64::from(round));
            tick.put(&metric::NODE_CPU, &[("mode", "user")], 99.0);
            tick.put(&metric::NODE_CPU, &[("mode", "idle")], f64::NAN);
            let values = tick.finish();
            table.encode(sample(&values), &mut bytes);
        }
        let recording = samples::read(&bytes).unwrap();
        assert_eq!(recording.series.len(), 1);
        assert_eq!(recording.torn_bytes, 0);
        let seen: Vec<_> = recording.samples.iter().map(|sample| sample.values.clone()).collect();
        assert_eq!(seen, [[(0, 0.0)], [(0, 1.0)], [(0, 2.0)]]);
    }

    #[test]
    fn ended_series_are_forgotten() {
        let mut table = Table::default();
        let mut tick = table.begin();
        for step in 0..50 {
            tick.put(
                &metric::STEP_THREADS,
                &[("step", &step.to_string()), ("role", "client")],
                1.0,
            );
        }
        drop(tick);
        for _ in 0..2 * FORGET_TICKS {
            drop(table.begin());
        }
        assert_eq!(table.entries.len(), 0);
    }

    #[test]
    fn values_are_bounded() {
        let mut table = Table::default();
        let mut tick = table.begin();
        for step in 0..=VALUES_MAX {
            tick.put(
                &metric::STEP_THREADS,
                &[("step", &step.to_string()), ("role", "client")],
                1.0,
            );
        }
        assert_eq!((tick.len(), tick.dropped()), (VALUES_MAX, 1));
    }
}
