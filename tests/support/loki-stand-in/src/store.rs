//! What was received: streams, their entries, and what is wrong with them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::{Value, json};

use crate::decode::{Entry, Pushed};

/// Of how many entries one is looked at for the time in it.
const LATENCY_EVERY: u64 = 16;

/// Everything that was stored.
#[derive(Debug, Default)]
pub struct Store {
    /// Streams by their labels.
    pub streams: BTreeMap<BTreeMap<String, String>, Stream>,
    /// Requests by the answer that they got; 0: none.
    pub answers: BTreeMap<u16, u64>,
    /// Bytes of all texts that were stored.
    pub bytes: u64,
    counts_only: bool,
    latencies_ms: Vec<f64>,
}

/// One stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// Its entries as they came, those that came again left out. Empty where only counts are kept.
    pub entries: Vec<Entry>,
    /// How many there are.
    pub stored: u64,
    /// Entries that came again with the same time and text, and so are one.
    pub resent: u64,
    /// Texts that are there with another time too.
    pub doubled: u64,
    /// Entries that came behind one of a later time.
    pub disordered: u64,
    /// Time of its newest entry.
    pub newest_ns: u64,
    seen: HashSet<(u64, u64)>,
    texts: HashMap<u64, u32>,
}

impl Store {
    pub(crate) fn new(counts_only: bool) -> Self {
        Self { counts_only, ..Self::default() }
    }

    /// Stores the entries of `pushed` that `refuse` has nothing against; the first reason of
    /// those that it has.
    pub(crate) fn add(
        &mut self,
        pushed: Pushed,
        now: u64,
        refuse: impl Fn(&Entry, u64) -> Option<String>,
    ) -> Option<String> {
        let counts_only = self.counts_only;
        let stream = self.streams.entry(pushed.labels).or_default();
        let mut first = None;
        for entry in pushed.entries {
            match refuse(&entry, stream.newest_ns) {
                Some(reason) => first = first.or(Some(reason)),
                None => {
                    self.bytes += entry.text.len() as u64;
                    if stream.stored.is_multiple_of(LATENCY_EVERY)
                        && let Some(written) = written_ns(&entry.text)
                    {
                        #[expect(clippy::cast_precision_loss, reason = "milliseconds to show")]
                        self.latencies_ms.push(now.saturating_sub(written) as f64 / 1e6);
                    }
                    stream.add(entry, counts_only);
                }
            }
        }
        first
    }

    /// What people and scripts want to know of it.
    #[must_use]
    pub fn summary(&self) -> Value {
        let sum = |of: fn(&Stream) -> u64| self.streams.values().map(of).sum::<u64>();
        let mut sorted = self.latencies_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let part =
            |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1));
        let latency = (!sorted.is_empty())
            .then(|| json!({"p50": part(50), "p95": part(95), "p99": part(99), "max": part(100)}));
        let streams: Vec<Value> = self
            .streams
            .iter()
            .map(|(labels, stream)| {
                json!({"labels": labels, "stored": stream.stored, "resent": stream.resent,
                       "doubled": stream.doubled, "disordered": stream.disordered})
            })
            .collect();
        json!({
            "answers": self.answers,
            "stored": sum(|stream| stream.stored),
            "resent": sum(|stream| stream.resent),
            "doubled": sum(|stream| stream.doubled),
            "disordered": sum(|stream| stream.disordered),
            "bytes": self.bytes,
            "write_to_stored_ms": latency,
            "streams": streams,
        })
    }
}

impl Stream {
    fn add(&mut self, entry: Entry, counts_only: bool) {
        let newest = self.newest_ns;
        self.newest_ns = newest.max(entry.time_ns);
        if counts_only {
            self.stored += 1;
            self.disordered += u64::from(entry.time_ns <= newest);
            return;
        }
        let mut hasher = DefaultHasher::new();
        entry.text.hash(&mut hasher);
        let text = hasher.finish();
        if !self.seen.insert((entry.time_ns, text)) {
            self.resent += 1;
            return;
        }
        self.stored += 1;
        self.disordered += u64::from(entry.time_ns <= newest);
        let times = self.texts.entry(text).or_default();
        *times += 1;
        self.doubled += u64::from(*times > 1);
        self.entries.push(entry);
    }
}

/// The instant in `… t=1795780800000000000 …`, as `loki-stand-in write` makes lines.
fn written_ns(text: &str) -> Option<u64> {
    text.split_once(" t=")?.1.split(' ').next()?.parse().ok()
}
