//! Histograms of a load that runs: what its workers tell once a second, and `/metrics` shows.

use serde::{Deserialize, Serialize};

/// Upper bound of a bucket: nanoseconds, and how the label `le` writes it in seconds, in the one
/// form that OpenMetrics has for each number.
pub type Bound = (u64, &'static str);

const MS: u64 = 1_000_000;

/// The last bucket has everything.
const ALL: Bound = (u64::MAX, "+Inf");

/// Of times to the end of the answer: [`crate::gateway::BUCKETS_SECONDS`].
pub static TOTAL: [Bound; 9] = [
    (MS, "0.001"),
    (10 * MS, "0.01"),
    (100 * MS, "0.1"),
    (500 * MS, "0.5"),
    (1_000 * MS, "1.0"),
    (2_000 * MS, "2.0"),
    (5_000 * MS, "5.0"),
    (10_000 * MS, "10.0"),
    ALL,
];

/// Of times to first token: of a small model on the same node to a queue in front of a large one.
pub static TTFT: [Bound; 14] = [
    (MS, "0.001"),
    (5 * MS, "0.005"),
    (10 * MS, "0.01"),
    (25 * MS, "0.025"),
    (50 * MS, "0.05"),
    (100 * MS, "0.1"),
    (250 * MS, "0.25"),
    (500 * MS, "0.5"),
    (1_000 * MS, "1.0"),
    (2_500 * MS, "2.5"),
    (5_000 * MS, "5.0"),
    (10_000 * MS, "10.0"),
    (30_000 * MS, "30.0"),
    ALL,
];

/// Of gaps between tokens: closest together where a reader begins to wait for words.
pub static INTER_TOKEN: [Bound; 14] = [
    (MS, "0.001"),
    (MS * 5 / 2, "0.0025"),
    (5 * MS, "0.005"),
    (10 * MS, "0.01"),
    (20 * MS, "0.02"),
    (30 * MS, "0.03"),
    (50 * MS, "0.05"),
    (75 * MS, "0.075"),
    (100 * MS, "0.1"),
    (200 * MS, "0.2"),
    (500 * MS, "0.5"),
    (1_000 * MS, "1.0"),
    (5_000 * MS, "5.0"),
    ALL,
];

/// Of client lags: from a pacer that keeps its instants to a client that cannot keep up.
pub static CLIENT_LAG: [Bound; 11] = [
    (MS / 100, "1e-05"),
    (MS / 20, "5e-05"),
    (MS / 10, "0.0001"),
    (MS / 2, "0.0005"),
    (MS, "0.001"),
    (5 * MS, "0.005"),
    (10 * MS, "0.01"),
    (100 * MS, "0.1"),
    (1_000 * MS, "1.0"),
    (10_000 * MS, "10.0"),
    ALL,
];

/// Times so far, counted by the bounds of their metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// How many were at most as long as each bound: cumulative.
    pub counts: Vec<u64>,
    /// All of them, added up.
    pub sum_ns: u64,
}

impl Times {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.last().copied().unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Adds those of another worker, or of another repeat.
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        let both = self.counts.iter_mut().zip(&other.counts);
        both.for_each(|(sum, count)| *sum = sum.saturating_add(*count));
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::Delta, gateway::BUCKETS_SECONDS};

    #[test]
    fn bounds_ascend_and_are_written_as_they_are() {
        let all: [&[Bound]; 4] = [&TOTAL, &TTFT, &INTER_TOKEN, &CLIENT_LAG];
        for bounds in all {
            assert!(bounds.is_sorted_by(|a, b| a.0 < b.0), "{bounds:?}");
            let (last, finite) = bounds.split_last().unwrap();
            assert_eq!(*last, ALL);
            for (ns, le) in finite {
                let seconds = std::time::Duration::from_nanos(*ns).as_secs_f64();
                assert_eq!(le.parse::<f64>(), Ok(seconds), "{le}");
                assert!(le.contains('.') || le.contains("e-0"), "{le}");
            }
        }
    }

    #[test]
    fn total_times_have_the_bounds_of_the_gateway() {
        let seconds: Vec<f64> = TOTAL.iter().map(|(_, le)| le.parse().unwrap()).collect();
        assert_eq!(seconds, BUCKETS_SECONDS);
    }

    #[test]
    fn times_of_workers_add_up() {
        let mut sum = Times::default();
        assert!(sum.is_empty());
        sum.add(&Times { counts: vec![1, 2], sum_ns: 5 });
        sum.add(&Times::default());
        sum.add(&Times { counts: vec![0, 3], sum_ns: 7 });
        assert_eq!(sum, Times { counts: vec![1, 5], sum_ns: 12 });
        assert_eq!(sum.count(), 5);
    }

    /// Workers and agents of one protocol understand each other, with these times and without.
    #[test]
    fn a_delta_reads_back_and_one_without_these_times_is_still_read() {
        let delta = Delta {
            ttft: Times { counts: vec![0, 2], sum_ns: 9 },
            inter_token: Times { counts: vec![1, 4], sum_ns: 8 },
            client_lag: Times { counts: vec![2, 2], sum_ns: 7 },
            ..Delta::default()
        };
        let text = serde_json::to_string(&delta).unwrap();
        assert_eq!(serde_json::from_str::<Delta>(&text).unwrap(), delta);
        // As it was written before there were such times.
        let before = r#"{"phase":"measure","elapsed_ms":1000,"sent":3,"ok":2,"failed":1,
            "in_flight":0,"output_tokens":4,"planned":9,"durations":[0,2],"durations_ns":5}"#;
        let old: Delta = serde_json::from_str(before).unwrap();
        assert_eq!((old.ok, old.durations.as_slice(), old.durations_ns), (2, &[0, 2][..], 5));
        assert!(old.ttft.is_empty() && old.inter_token.is_empty() && old.client_lag.is_empty());
        let text = serde_json::to_string(&old).unwrap();
        for key in ["ttft", "inter_token", "client_lag"] {
            assert!(!text.contains(key), "{key} is not there before the first time: {text}");
        }
        let mut sum = delta.clone();
        sum.add_durations(&old);
        assert_eq!(sum.ttft, delta.ttft);
        sum.add_durations(&delta);
        assert_eq!(sum.inter_token, Times { counts: vec![2, 8], sum_ns: 16 });
        assert_eq!((sum.durations.as_slice(), sum.durations_ns), (&[0, 2][..], 5));
    }

    /// The longest message of a worker keeps far below the limit of a line.
    #[test]
    fn the_largest_counts_are_a_short_line() {
        let of =
            |bounds: &[Bound]| Times { counts: vec![u64::MAX; bounds.len()], sum_ns: u64::MAX };
        let delta = Delta {
            durations: of(&TOTAL).counts,
            ttft: of(&TTFT),
            inter_token: of(&INTER_TOKEN),
            client_lag: of(&CLIENT_LAG),
            ..Delta::default()
        };
        assert!(serde_json::to_string(&delta).unwrap().len() < 2_048);
    }
}
