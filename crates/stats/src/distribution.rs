//! From values or histograms to the distribution that results carry.

use aifb_schema::result::Distribution;

use crate::{
    histogram::Histogram,
    moments::Moments,
    rank::{self, Quantile},
};

/// Nanoseconds as seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a time of 2^53 ns is 104 days")]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Distribution in seconds of times in nanoseconds, which it sorts; `None` without values.
#[must_use]
pub fn of_nanos(values: &mut [u64]) -> Option<Distribution> {
    values.sort_unstable();
    let mut moments = Moments::default();
    for value in &*values {
        moments.add(seconds(*value));
    }
    let at = |quantile| rank::of_sorted(values, quantile).map(seconds);
    Some(Distribution {
        count: moments.count(),
        mean: moments.mean()?,
        stddev: moments.stddev(),
        min: seconds(*values.first()?),
        p50: at(Quantile::P50)?,
        p90: at(Quantile::P90)?,
        p95: at(Quantile::P95)?,
        p99: at(Quantile::P99)?,
        max: seconds(*values.last()?),
    })
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
        let mut values: Vec<u64> = (1..=1_000).rev().map(|ms| ms * 1_000_000).collect();
        let found = of_nanos(&mut values).unwrap();
        assert_eq!(found.count, 1_000);
        assert!((found.mean - 0.5005).abs() < 1e-12);
        assert_eq!((found.min, found.p50, found.max), (0.001, 0.5, 1.0));
        assert_eq!((found.p90, found.p95, found.p99), (0.9, 0.95, 0.99));
        assert!((found.stddev.unwrap() - 0.288_819_436_096).abs() < 1e-9);
    }

    #[test]
    fn nothing_measured_is_absent() {
        assert_eq!(of_nanos(&mut []), None);
        assert_eq!(of_histogram(&Histogram::new()), None);
        assert_eq!(of_nanos(&mut [5]).unwrap().stddev, None);
    }

    #[test]
    fn both_sources_agree_to_a_thousandth() {
        let mut values: Vec<u64> = (0..20_000_u64).map(|n| 50_000 + n * n % 3_999_971).collect();
        let mut histogram = Histogram::new();
        for value in &values {
            histogram.record(*value);
        }
        let exact = of_nanos(&mut values).unwrap();
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
