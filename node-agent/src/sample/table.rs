//! Which series there are in this record, and the values of one tick.

use std::{
    collections::{BTreeMap, HashMap},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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

/// How far ahead of what is expected the present series is looked for.
const LOOK_AHEAD: usize = 16;

/// A series: one family with one set of label values.
#[derive(Debug)]
pub(crate) struct SeriesInfo {
    /// Number within the record.
    pub(crate) id: u32,
    pub(crate) family: &'static Family,
    pub(crate) labels: Vec<(&'static str, String)>,
    /// The last tick in which it had a value. Only the ticker's thread looks at it.
    last_tick: AtomicU64,
}

impl SeriesInfo {
    fn is(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> bool {
        // Families of engines also differ by label names.
        let own = self.labels.iter().map(|(name, value)| (*name, value.as_str()));
        ptr::eq(self.family, family) && own.eq(labels.iter().copied())
    }

    /// Notes a value in this tick; false if there is one already.
    fn enter(&self, tick: u64) -> bool {
        self.last_tick.swap(tick, Ordering::Relaxed) != tick
    }

    /// The last tick in which it had a value.
    pub(super) fn last_tick(&self) -> u64 {
        self.last_tick.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Entry {
    info: Arc<SeriesInfo>,
    declared: bool,
}

/// All series of a record.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<String, Entry>,
    next_id: u32,
    tick: u64,
    key: String,
    /// The series of the last tick in their order: most ticks have the same.
    expected: Vec<Arc<SeriesInfo>>,
    /// Which of these comes next.
    next: usize,
    /// Whether a series came that was not expected.
    surprised: bool,
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
            self.entries.retain(|_, entry| entry.info.last_tick() >= oldest);
        }
        (self.next, self.surprised) = (0, false);
        let values = Vec::with_capacity(self.expected.len());
        Tick { table: self, values, dropped: 0 }
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
        let fresh = self.entries.values_mut().filter(|entry| entry.info.last_tick() == tick);
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
        if self.table.surprised || self.values.len() != self.table.expected.len() {
            self.table.expected = self.values.iter().map(|(info, _)| Arc::clone(info)).collect();
        }
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
        let expected = self.expected.get(self.next).filter(|info| info.is(family, labels));
        let info = match expected.map(Arc::clone) {
            Some(info) => {
                self.next += 1;
                info
            }
            None => self.look_up(family, labels),
        };
        info.enter(self.tick).then_some(info)
    }

    /// The series by its name and labels, wherever it comes; a new one is made.
    fn look_up(
        &mut self,
        family: &'static Family,
        labels: &[(&'static str, &str)],
    ) -> Arc<SeriesInfo> {
        self.surprised = true;
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
        if let Some(entry) = self.entries.get(self.key.as_str()) {
            let ahead = self.expected.iter().skip(self.next).take(LOOK_AHEAD);
            // What stands before it has no value in this tick.
            if let Some(skipped) = ahead.into_iter().position(|one| Arc::ptr_eq(one, &entry.info)) {
                self.next += skipped + 1;
            }
            return Arc::clone(&entry.info);
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
            last_tick: AtomicU64::new(0),
        });
        self.next_id += 1;
        let entry = Entry { info: Arc::clone(&info), declared: false };
        self.entries.insert(self.key.clone(), entry);
        self.undeclared = true;
        info
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
    fn each_series_keeps_its_number_in_whatever_order_they_come() {
        let mut table = Table::default();
        let mut round = |modes: &[&str]| {
            let mut tick = table.begin();
            for (value, mode) in (0..).zip(modes) {
                tick.put(&metric::NODE_CPU, &[("mode", *mode)], f64::from(value));
            }
            let values = tick.finish();
            values.iter().map(|(info, value)| (info.id, *value)).collect::<Vec<_>>()
        };
        assert_eq!(round(&["a", "b", "c"]), [(0, 0.0), (1, 1.0), (2, 2.0)]);
        assert_eq!(round(&["a", "c"]), [(0, 0.0), (2, 1.0)]);
        assert_eq!(round(&["a", "b", "d", "c"]), [(0, 0.0), (1, 1.0), (3, 2.0), (2, 3.0)]);
        assert_eq!(round(&["c", "b", "b", "a"]), [(2, 0.0), (1, 1.0), (0, 3.0)]);
        assert_eq!(round(&["c", "b", "a", "a"]), [(2, 0.0), (1, 1.0), (0, 2.0)]);
    }

    /// What is read once a second stands on the page between its readings, and no value stands twice.
    #[test]
    fn values_of_rare_series_are_shown_until_the_next() {
        const S: u64 = 1_000_000_000;
        let (mut table, mut board) = (Table::default(), super::super::Board::default());
        let mut shown = |at_ns: u64, delay: Option<f64>| {
            let mut tick = table.begin();
            tick.put(&metric::NODE_CPU, &[("mode", "user")], 1.0);
            if let Some(delay) = delay {
                tick.put(&metric::NODE_RUN_DELAY, &[], delay);
            } else {
                tick.put(&metric::NODE_CPU, &[("mode", "idle")], 1.0);
            }
            board.show(tick.finish(), at_ns);
            let earlier = board.earlier.iter().map(|(info, value, _)| (info.family.name, *value));
            earlier.collect::<Vec<_>>()
        };
        assert_eq!(shown(S, Some(1.0)), []);
        let delay = "node_run_delay_seconds_total";
        // The other value that is missing is gone at once.
        assert_eq!(shown(2 * S, None), [(delay, 1.0)]);
        assert_eq!(shown(3 * S, None), [(delay, 1.0)]);
        assert_eq!(shown(4 * S - 1, Some(2.0)), []);
        assert_eq!(shown(4 * S, None), [(delay, 2.0)]);
        assert_eq!(shown(7 * S, None), []);
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
