//! Histograms of times that other threads may read while the load runs.

use std::sync::atomic::{AtomicU64, Ordering};

use aifb_schema::live::{Bound, CLIENT_LAG, INTER_TOKEN, TOTAL, TTFT, Times};

use super::row::Row;

/// Times of the successful requests of the measured part that have ended.
#[derive(Debug)]
pub(crate) struct Live {
    /// To the end of the answer.
    pub(crate) total: Counted<{ TOTAL.len() }>,
    /// To the first token.
    pub(crate) ttft: Counted<{ TTFT.len() }>,
    /// Between tokens.
    pub(crate) inter_token: Counted<{ INTER_TOKEN.len() }>,
    /// To the first byte written.
    pub(crate) client_lag: Counted<{ CLIENT_LAG.len() }>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            total: Counted::new(&TOTAL),
            ttft: Counted::new(&TTFT),
            inter_token: Counted::new(&INTER_TOKEN),
            client_lag: Counted::new(&CLIENT_LAG),
        }
    }
}

impl Live {
    /// Counts a request that has ended. One thread alone may do so.
    pub(crate) fn add(&self, row: &Row) {
        row.total().into_iter().for_each(|ns| self.total.add(ns));
        row.ttft().into_iter().for_each(|ns| self.ttft.add(ns));
        row.seen.gaps.iter().for_each(|ns| self.inter_token.add(ns));
        row.client_lag().into_iter().for_each(|ns| self.client_lag.add(ns));
    }
}

/// Times counted by bounds.
#[derive(Debug)]
pub(crate) struct Counted<const N: usize> {
    bounds: &'static [Bound; N],
    /// Of each bucket alone, so that sums of them never fall, whenever somebody looks.
    counts: [AtomicU64; N],
    sum_ns: AtomicU64,
}

impl<const N: usize> Counted<N> {
    fn new(bounds: &'static [Bound; N]) -> Self {
        Self { bounds, counts: [const { AtomicU64::new(0) }; N], sum_ns: AtomicU64::new(0) }
    }

    fn add(&self, ns: u64) {
        let at = self.bounds.partition_point(|(bound, _)| *bound < ns);
        // The last bound is above every time.
        self.counts.get(at).into_iter().for_each(|count| raise(count, 1));
        raise(&self.sum_ns, ns);
    }

    /// All so far.
    pub(crate) fn times(&self) -> Times {
        let mut below = 0;
        let counts = self.counts.iter().map(|count| {
            below += count.load(Ordering::Relaxed);
            below
        });
        Times { counts: counts.collect(), sum_ns: self.sum_ns.load(Ordering::Relaxed) }
    }
}

/// Adds to a sum that no other thread changes: without the lock on the memory that
/// `fetch_add` takes.
fn raise(sum: &AtomicU64, by: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::tests::streamed;

    #[test]
    fn a_time_is_in_the_first_bucket_that_it_does_not_exceed() {
        let counted = Counted::new(&TOTAL);
        assert!(counted.times().is_empty());
        for ns in [0, 1_000_000, 1_000_001, 500_000_000, 10_000_000_000, 10_000_000_001] {
            counted.add(ns);
        }
        let times = counted.times();
        assert_eq!(times.counts, [2, 3, 3, 4, 4, 4, 4, 5, 6]);
        assert_eq!((times.count(), times.sum_ns), (6, 20_502_000_002));
        counted.add(u64::MAX);
        assert_eq!(counted.times().count(), 7);
    }

    /// TTFT 60 ms, gaps of 20 and 30 ms, 111 ms in all, half a microsecond of lag; and one of
    /// 100 ms that has no content.
    #[test]
    fn each_time_of_a_request_is_counted_once() {
        let live = Live::default();
        let mut row = streamed();
        live.add(&row);
        row.seen = crate::record::row::Seen::default();
        row.end_ns = row.planned_ns + 100_000_000;
        live.add(&row);
        let below = |times: &Times, bounds: &[Bound], le: &str| {
            times.counts[bounds.iter().position(|bound| bound.1 == le).unwrap()]
        };
        let total = live.total.times();
        assert_eq!((total.count(), total.sum_ns), (2, 211_000_000));
        assert_eq!((below(&total, &TOTAL, "0.01"), below(&total, &TOTAL, "0.1")), (0, 1));
        let ttft = live.ttft.times();
        assert_eq!((ttft.count(), ttft.sum_ns), (1, 60_000_000));
        assert_eq!((below(&ttft, &TTFT, "0.05"), below(&ttft, &TTFT, "0.1")), (0, 1));
        let gaps = live.inter_token.times();
        assert_eq!((gaps.count(), gaps.sum_ns), (2, 50_000_000));
        for (le, count) in [("0.01", 0), ("0.02", 1), ("0.03", 2)] {
            assert_eq!(below(&gaps, &INTER_TOKEN, le), count, "{le}");
        }
        let lag = live.client_lag.times();
        assert_eq!((lag.counts[0], lag.count(), lag.sum_ns), (1, 1, 500));
    }
}
