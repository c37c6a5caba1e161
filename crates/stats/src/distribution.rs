//! From values or histograms to the distribution that results carry.

use std::collections::BTreeMap;

use aifb_schema::result::Distribution;

use crate::{histogram::Histogram, moments::Moments, rank::Quantile};

/// Nanoseconds as seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a time of 2^53 ns is 104 days")]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Distribution in seconds of times in nanoseconds, which can be gone through again: exact, with
/// memory for those only that share a histogram's bucket with a wanted rank. `None` without values.
#[must_use]
pub fn of_nanos<I: Iterator<Item = u64>>(values: impl Fn() -> I) -> Option<Distribution> {
    let mut counts = Histogram::new();
    let mut moments = Moments::default();
    let (mut min, mut max) = (u64::MAX, 0);
    for value in values() {
        counts.record(value);
        moments.add(seconds(value));
        (min, max) = (min.min(value), max.max(value));
    }
    let quantiles = [Quantile::P50, Quantile::P90, Quantile::P95, Quantile::P99];
    let mut places = Vec::with_capacity(quantiles.len());
    for quantile in quantiles {
        places.push(Place::of(&counts, quantile)?);
    }
    for value in values() {
        places.iter_mut().for_each(|place| place.look_at(value));
    }
    let at = |index: usize| places.get(index).and_then(Place::value).map(seconds);
    Some(Distribution {
        count: moments.count(),
        mean: moments.mean()?,
        stddev: moments.stddev(),
        min: seconds(min),
        p50: at(0)?,
        p90: at(1)?,
        p95: at(2)?,
        p99: at(3)?,
        max: seconds(max),
    })
}

/// The bucket in which a rank lies.
struct Place {
    lowest: u64,
    highest: u64,
    /// Rank among the values of the bucket, from 1.
    rank: u64,
    /// These values, and how often each was seen.
    seen: BTreeMap<u64, u64>,
}

impl Place {
    fn of(counts: &Histogram, quantile: Quantile) -> Option<Self> {
        let ((lowest, highest), rank) = counts.place(quantile)?;
        Some(Self { lowest, highest, rank, seen: BTreeMap::new() })
    }

    fn look_at(&mut self, value: u64) {
        if (self.lowest..=self.highest).contains(&value) {
            *self.seen.entry(value).or_default() += 1;
        }
    }

    /// The value of the rank.
    fn value(&self) -> Option<u64> {
        let mut below = 0;
        self.seen.iter().find_map(|(value, count)| {
            below += count;
            (below >= self.rank).then_some(*value)
        })
    }
}

/// Distribution in seconds of a histogram; `None` without values.
#[must_use]
pub fn of_histogram(histogram: &Histogram) -> Option<Distribution> {
    let at = |quantile| histogram.quantile(quantile).map(seconds);
    Some(Distribution {
        count: histogram.count(),
        mean: histogram.mean()? / 1e9,
        stddev: histogram.stddev().map(|ns| ns / 1e9),
        min: seconds(histogram.min()?),
        p50: at(Quantile::P50)?,
        p90: at(Quantile::P90)?,
        p95: at(Quantile::P95)?,
        p99: at(Quantile::P99)?,
        max: seconds(histogram.max()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_distribution() {
        let found = of_nanos(|| (1..=1_000).rev().map(|ms| ms * 1_000_000)).unwrap();
        assert_eq!(found.count, 1_000);
        assert!((found.mean - 0.5005).abs() < 1e-12);
        assert_eq!((found.min, found.p50, found.max), (0.001, 0.5, 1.0));
        assert_eq!((found.p90, found.p95, found.p99), (0.9, 0.95, 0.99));
        assert!((found.stddev.unwrap() - 0.288_819_436_096).abs() < 1e-9);
    }

    /// Equal values, values below and above what a histogram tells apart, few and many: always what
    /// sorting gives.
    #[test]
    fn ranks_are_those_of_sorted_values() {
        let shapes: [fn(u64) -> u64; 4] = [
            |_| 20_000_000,
            |n| n % 7,
            |n| n * n * 2_654_435_761 % 9_000_000_000_000,
            |n| if n % 50 == 0 { u64::MAX - n } else { 1_000_000 + n },
        ];
        for (shape, count) in shapes.iter().flat_map(|shape| [1, 2, 99, 5_000].map(|c| (shape, c)))
        {
            let mut sorted: Vec<u64> = (0..count).map(shape).collect();
            let found = of_nanos(|| sorted.iter().copied()).unwrap();
            sorted.sort_unstable();
            let at = |quantile| crate::rank::of_sorted(&sorted, quantile).map(seconds).unwrap();
            let quantiles = [Quantile::P50, Quantile::P90, Quantile::P95, Quantile::P99];
            assert_eq!([found.p50, found.p90, found.p95, found.p99], quantiles.map(at));
            assert_eq!((found.count, found.max), (count, seconds(*sorted.last().unwrap())));
        }
    }

    #[test]
    fn nothing_measured_is_absent() {
        assert_eq!(of_nanos(std::iter::empty), None);
        assert_eq!(of_histogram(&Histogram::new()), None);
        assert_eq!(of_nanos(|| std::iter::once(5)).unwrap().stddev, None);
    }

    #[test]
    fn both_sources_agree_to_a_thousandth() {
        let values: Vec<u64> = (0..20_000_u64).map(|n| 50_000 + n * n % 3_999_971).collect();
        let mut histogram = Histogram::new();
        for value in &values {
            histogram.record(*value);
        }
        let exact = of_nanos(|| values.iter().copied()).unwrap();
        let merged = of_histogram(&histogram).unwrap();
        assert_eq!(exact.count, merged.count);
        for (name, a, b) in [
            ("mean", exact.mean, merged.mean),
            ("stddev", exact.stddev.unwrap(), merged.stddev.unwrap()),
            ("min", exact.min, merged.min),
            ("p50", exact.p50, merged.p50),
            ("p90", exact.p90, merged.p90),
            ("p95", exact.p95, merged.p95),
            ("p99", exact.p99, merged.p99),
            ("max", exact.max, merged.max),
        ] {
            assert!((a - b).abs() <= a * 1.001e-3, "{name}: {a} and {b}");
        }
    }
}
