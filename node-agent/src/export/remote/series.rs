//! The series that are sent: their numbers, their labels, and which of them live.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    backlog::Waiting,
    wire::{STALE, encode_labels},
};
use crate::sample::{Batch, GONE_AFTER, is_rare};

/// Refusals in a row after which a series is left out for a while: each costs a handful of
/// requests, because the culprit has to be found among its neighbours.
const STRIKES: u32 = 3;

/// How long such a series is left out.
const MUTED: Duration = Duration::from_secs(60);

/// Ended series that are remembered: their steps or processes may come back.
const ENDED_MAX: usize = 4096;

/// Limit of recorded labels in bytes: a node has some 100 KiB of them.
const TOLD_MAX: usize = 8 << 20;

/// All series of this agent.
#[derive(Debug)]
pub(super) struct AllSeries {
    /// Labels of series that are new since the last query, each as a line of JSON.
    fresh: Vec<u8>,
    /// Bytes of them so far.
    told: usize,
    common: Vec<(String, String)>,
    by_key: HashMap<String, u32>,
    /// Numbers of the record to ours.
    by_sampled: HashMap<u32, u32>,
    series: HashMap<u32, Series>,
    next: u32,
    key: String,
}

#[derive(Debug)]
struct Series {
    /// As they stand in a request.
    labels: Vec<u8>,
    /// Not every tick has a value of it.
    rare: bool,
    /// When it last had a value, in milliseconds since 1970; absent once it has ended.
    last_ms: Option<i64>,
    strikes: u32,
    muted_until: Option<Instant>,
}

impl AllSeries {
    pub(super) fn new(common: Vec<(String, String)>) -> Self {
        let (by_key, by_sampled, series, fresh, key) = Default::default();
        Self { common, by_key, by_sampled, series, next: 0, key, fresh, told: 0 }
    }

    /// Series of another agent, by their labels, as if they lived.
    pub(super) fn stale(all: impl IntoIterator<Item = Vec<(String, String)>>) -> Self {
        let mut stale = Self::new(Vec::new());
        for labels in all {
            stale.insert(labels, false, Some(i64::MIN));
        }
        stale
    }

    /// Labels of series that are new since the last call, each as a line of JSON.
    pub(super) fn take_fresh(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fresh)
    }

    /// The values of a tick, and the end of every series that has none any more; of a rare one when it
    /// has had none for a while.
    pub(super) fn tick(&mut self, ms: i64, batch: &Batch) -> Waiting {
        let mut values = Vec::with_capacity(batch.sampled.len() + batch.published.len());
        for (info, value) in &batch.sampled {
            let number = match self.by_sampled.get(&info.id) {
                Some(number) => *number,
                None => {
                    let number = self.number(info.family, &info.labels);
                    self.by_sampled.insert(info.id, number);
                    number
                }
            };
            values.push((number, *value));
        }
        for shown in &batch.published {
            let number = self.number(shown.family, &shown.labels);
            values.push((number, shown.value));
        }
        for (number, _) in &values {
            if let Some(series) = self.series.get_mut(number) {
                series.last_ms = Some(ms);
            }
        }
        let oldest = ms.saturating_sub(i64::try_from(GONE_AFTER.as_millis()).unwrap_or(i64::MAX));
        for (number, series) in &mut self.series {
            let gone_at = if series.rare { oldest } else { ms.saturating_sub(1) };
            if series.last_ms.is_some_and(|last| last <= gone_at) {
                series.last_ms = None;
                values.push((*number, STALE));
            }
        }
        Waiting { ms, values }
    }

    /// The end of all that live.
    pub(super) fn end(&mut self, ms: i64) -> Waiting {
        let live = self
            .series
            .iter_mut()
            .filter_map(|(number, series)| series.last_ms.take().map(|_| (*number, STALE)));
        Waiting { ms, values: live.collect() }
    }

    /// The labels of a series, encoded.
    pub(super) fn labels(&self, number: u32) -> &[u8] {
        self.series.get(&number).map_or(&[], |series| series.labels.as_slice())
    }

    /// Whether values of a series may be sent now.
    pub(super) fn allowed(&mut self, number: u32, now: Instant) -> bool {
        let Some(series) = self.series.get_mut(&number) else { return false };
        if series.muted_until.is_some_and(|until| now >= until) {
            (series.muted_until, series.strikes) = (None, 0);
        }
        series.muted_until.is_none()
    }

    /// The receiver took a value of it.
    pub(super) fn taken(&mut self, number: u32) {
        if let Some(series) = self.series.get_mut(&number) {
            series.strikes = 0;
        }
    }

    /// The receiver refused a value of this series only.
    pub(super) fn refused(&mut self, number: u32, now: Instant) {
        if let Some(series) = self.series.get_mut(&number) {
            series.strikes += 1;
            if series.strikes >= STRIKES {
                series.muted_until = Some(now + MUTED);
            }
        }
    }

    /// Forgets ended series where there are many. Nothing of them may wait to be sent.
    pub(super) fn forget_ended(&mut self) {
        let ended = self.series.values().filter(|series| series.last_ms.is_none()).count();
        if ended > ENDED_MAX {
            self.series.retain(|_, series| series.last_ms.is_some());
            let series = &self.series;
            self.by_key.retain(|_, number| series.contains_key(number));
            self.by_sampled.retain(|_, number| series.contains_key(number));
        }
    }

    fn number(
        &mut self,
        family: &'static aifb_schema::metric::Family,
        labels: &[(&'static str, String)],
    ) -> u32 {
        self.key.clear();
        self.key.push_str(family.name);
        for (name, value) in labels {
            for part in ["\0", name, "=", value.as_str()] {
                self.key.push_str(part);
            }
        }
        if let Some(number) = self.by_key.get(self.key.as_str()) {
            return *number;
        }
        let own = labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let mut all: Vec<(String, String)> = self.common.iter().cloned().chain(own).collect();
        all.push(("__name__".to_owned(), family.exported()));
        self.tell(&all);
        let number = self.insert(all, is_rare(family), None);
        self.by_key.insert(self.key.clone(), number);
        number
    }

    fn insert(&mut self, labels: Vec<(String, String)>, rare: bool, last_ms: Option<i64>) -> u32 {
        let number = self.next;
        self.next += 1;
        let labels = encode_labels(labels);
        let series = Series { labels, rare, last_ms, strikes: 0, muted_until: None };
        self.series.insert(number, series);
        number
    }

    fn tell(&mut self, labels: &[(String, String)]) {
        if self.told < TOLD_MAX
            && let Ok(line) = serde_json::to_vec(labels)
        {
            self.told += line.len() + 1;
            self.fresh.extend_from_slice(&line);
            self.fresh.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use aifb_schema::metric;

    use super::*;
    use crate::sample::Shown;

    fn batch(loads: &[&str]) -> Batch {
        let shown = |load: &&str| Shown {
            family: &metric::REQUESTS_SENT,
            labels: vec![("load", (*load).to_owned())],
            value: 1.0,
        };
        Batch { epoch_ns: 0, sampled: Vec::new(), published: loads.iter().map(shown).collect() }
    }

    #[test]
    fn a_series_without_a_value_ends_and_may_come_back() {
        let mut all = AllSeries::new(vec![("node".into(), "n1".into())]);
        assert_eq!(all.tick(1, &batch(&["a", "b"])).values, [(0, 1.0), (1, 1.0)]);
        let second = all.tick(2, &batch(&["b"]));
        assert_eq!(second.values.len(), 2);
        let (ended, value) = second.values[1];
        assert_eq!((ended, value.to_bits()), (0, STALE.to_bits()));
        assert_eq!(all.tick(3, &batch(&["b"])).values, [(1, 1.0)]);
        assert_eq!(all.tick(4, &batch(&["a", "b"])).values, [(0, 1.0), (1, 1.0)]);
        assert_eq!(all.end(5).values.len(), 2);
        assert_eq!(all.end(6).values.len(), 0);
    }

    /// What is read once a second has no value in nine of ten ticks.
    #[test]
    fn a_rare_series_lives_between_its_values() {
        let shown = |value| Shown { family: &metric::NODE_RUN_DELAY, labels: Vec::new(), value };
        let rare = |ms, values: Vec<f64>| Batch {
            epoch_ns: ms,
            sampled: Vec::new(),
            published: values.into_iter().map(shown).collect(),
        };
        let mut all = AllSeries::new(Vec::new());
        assert_eq!(all.tick(100, &rare(100, vec![1.0])).values, [(0, 1.0)]);
        for ms in [200, 300, 1000] {
            assert_eq!(all.tick(ms, &rare(200, Vec::new())).values, [], "{ms}");
        }
        assert_eq!(all.tick(1_100, &rare(1_100, vec![2.0])).values, [(0, 2.0)]);
        let ended = all.tick(4_100, &rare(4_100, Vec::new())).values;
        assert_eq!((ended.len(), ended[0].1.to_bits()), (1, STALE.to_bits()));
        assert_eq!(all.tick(4_200, &rare(4_200, Vec::new())).values, []);
    }

    #[test]
    fn a_series_that_is_always_refused_is_left_out_for_a_while() {
        let mut all = AllSeries::new(Vec::new());
        all.tick(1, &batch(&["a"]));
        let now = Instant::now();
        all.refused(0, now);
        all.refused(0, now);
        all.taken(0);
        for _ in 0..STRIKES {
            assert!(all.allowed(0, now));
            all.refused(0, now);
        }
        assert!(!all.allowed(0, now));
        assert!(all.allowed(0, now + MUTED));
    }

    #[test]
    fn ended_series_do_not_pile_up() {
        let mut all = AllSeries::new(Vec::new());
        for (step, ms) in (0..=ENDED_MAX + 1).zip((0..).step_by(10_000)) {
            all.tick(ms, &batch(&[&step.to_string()]));
        }
        all.forget_ended();
        assert_eq!((all.series.len(), all.by_key.len()), (1, 1));
    }
}
