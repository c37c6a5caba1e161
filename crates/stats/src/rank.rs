//! The rank rule.
//!
//! Nearest rank: the p-quantile of n values is the smallest of them that at least the share p of
//! all values does not exceed, that is the value of rank ⌈p·n⌉, counted from 1 (Hyndman and Fan,
//! "Sample Quantiles in Statistical Packages", The American Statistician 50(4), 1996, definition
//! 1). It is always a value that was measured, and it is the rule of HdrHistogram.

/// A share of all values in millionths, so that ranks are computed without rounding errors
/// (`0.07 * 100.0` is above 7 in binary floating point).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantile(u32);

/// One whole in the unit of [`Quantile`].
const WHOLE: u32 = 1_000_000;

impl Quantile {
    /// Median.
    pub const P50: Self = Self(500_000);
    /// 90th percentile.
    pub const P90: Self = Self(900_000);
    /// 95th percentile.
    pub const P95: Self = Self(950_000);
    /// 99th percentile.
    pub const P99: Self = Self(990_000);
    /// 99.9th percentile.
    pub const P999: Self = Self(999_000);

    /// `millionths` of a whole; `None` above one whole.
    #[must_use]
    pub const fn from_millionths(millionths: u32) -> Option<Self> {
        if millionths <= WHOLE { Some(Self(millionths)) } else { None }
    }

    /// Rank of this quantile among `count` values, from 1; `None` without values.
    #[must_use]
    pub fn rank(self, count: u64) -> Option<u64> {
        if count == 0 {
            return None;
        }
        let scaled = u128::from(count) * u128::from(self.0);
        let rank = scaled.div_ceil(u128::from(WHOLE));
        // Never above `count`, which is a u64; the 0-quantile is the smallest value.
        u64::try_from(rank).ok().map(|rank| rank.max(1))
    }

    /// Fewest values for which this quantile is not simply the largest one.
    #[must_use]
    pub fn values_needed(self) -> u64 {
        u64::from(WHOLE).div_ceil(u64::from((WHOLE - self.0).max(1)))
    }
}

/// The quantile of values that are already in ascending order; `None` without values.
#[must_use]
pub fn of_sorted<T: Copy>(sorted: &[T], quantile: Quantile) -> Option<T> {
    let rank = quantile.rank(u64::try_from(sorted.len()).ok()?)?;
    sorted.get(usize::try_from(rank.checked_sub(1)?).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_exact() {
        let hundred: Vec<u32> = (1..=100).collect();
        for percent in 1..=100_u32 {
            let quantile = Quantile::from_millionths(percent * 10_000).unwrap();
            assert_eq!(of_sorted(&hundred, quantile), Some(percent), "p{percent} of 1..=100");
        }
        assert_eq!(of_sorted(&hundred, Quantile::from_millionths(0).unwrap()), Some(1));
        assert_eq!(of_sorted(&hundred, Quantile::P999), Some(100));
    }

    #[test]
    fn ranks_of_few_values() {
        for (count, p50, p90, p99) in [(1, 1, 1, 1), (2, 1, 2, 2), (3, 2, 3, 3), (11, 6, 10, 11)] {
            assert_eq!(Quantile::P50.rank(count), Some(p50), "p50 of {count}");
            assert_eq!(Quantile::P90.rank(count), Some(p90), "p90 of {count}");
            assert_eq!(Quantile::P99.rank(count), Some(p99), "p99 of {count}");
        }
        assert_eq!(Quantile::P50.rank(0), None);
        assert_eq!(of_sorted::<u8>(&[], Quantile::P50), None);
        assert_eq!(Quantile::P50.rank(u64::MAX), Some(u64::MAX / 2 + 1));
    }

    #[test]
    fn a_quantile_needs_values_beyond_it() {
        assert_eq!(Quantile::P50.values_needed(), 2);
        assert_eq!(Quantile::P99.values_needed(), 100);
        assert_eq!(Quantile::P999.values_needed(), 1000);
        assert!(Quantile::from_millionths(1_000_001).is_none());
    }
}
