//! Percentiles between values, for the compatible report only.

use aifb_schema::result::Interpolated;

use crate::moments::Moments;

/// The distribution of `values`, which it sorts; `None` without values.
///
/// Percentile p of n sorted values lies at index (n − 1)·p/100, counted from 0, and is
/// interpolated linearly between the values beside it (Hyndman and Fan 1996, definition 7). The
/// standard deviation of a single value is 0, by the rule of the reports that this is for.
#[must_use]
pub fn of_values(values: &mut [f64]) -> Option<Interpolated> {
    values.sort_unstable_by(f64::total_cmp);
    let mut moments = Moments::default();
    values.iter().for_each(|value| moments.add(*value));
    let p50 = percentile(values, 50)?;
    Some(Interpolated {
        count: moments.count(),
        average: moments.mean()?,
        median: p50,
        min: *values.first()?,
        max: *values.last()?,
        stddev: moments.stddev().unwrap_or(0.0),
        p50,
        p90: percentile(values, 90)?,
        p95: percentile(values, 95)?,
        p99: percentile(values, 99)?,
    })
}

fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    // In whole hundredths of an index, so that no rounding picks another neighbour.
    let at = sorted.len().checked_sub(1)?.checked_mul(percent)?;
    let low = *sorted.get(at / 100)?;
    let high = sorted.get(at / 100 + 1).copied().unwrap_or(low);
    #[expect(clippy::cast_precision_loss, reason = "below 100")]
    let part = (at % 100) as f64 / 100.0;
    Some(low + (high - low) * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exact values of a known sample (numpy.percentile gives the same).
    #[test]
    fn known_sample() {
        let mut values = [0.4, 0.1, 0.3, 0.2];
        let found = of_values(&mut values).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} and {b}");
        assert_eq!((found.count, found.min, found.max), (4, 0.1, 0.4));
        close(found.average, 0.25);
        close(found.median, 0.25);
        close(found.p50, 0.25);
        close(found.p90, 0.37);
        close(found.p95, 0.385);
        close(found.p99, 0.397);
        close(found.stddev, (0.05_f64 / 3.0).sqrt());
    }

    #[test]
    fn one_value_and_none() {
        let found = of_values(&mut [7.0]).unwrap();
        assert_eq!((found.p50, found.p99, found.stddev), (7.0, 7.0, 0.0));
        assert_eq!(of_values(&mut []), None);
    }

    #[test]
    fn an_index_that_is_whole_is_a_value() {
        let mut values: Vec<f64> = (0..101).map(f64::from).collect();
        let found = of_values(&mut values).unwrap();
        assert_eq!((found.p50, found.p90, found.p95, found.p99), (50.0, 90.0, 95.0, 99.0));
    }
}
