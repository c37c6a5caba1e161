//! Mergeable histograms of times.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram as Hdr,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};

use crate::rank::Quantile;

/// Finest resolution: below it lies the cost of reading the clock twice.
pub const LOWEST_NS: u64 = 100;

/// Longest time, one hour; longer ones are counted as this.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;

/// Significant decimal digits: a value and its bucket differ by at most 0.1 %.
pub const DIGITS: u8 = 3;

/// Counts of times in nanoseconds, 100 ns to 1 h with three digits. Adding and merging are exact
/// in the counts; values are exact to 0.1 %.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram(Hdr<u64>);

/// Text that is not an encoded histogram of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(String);

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a histogram: {}", self.0)
    }
}

impl std::error::Error for DecodeError {}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the bounds are constants that are known to be valid")]
    pub fn new() -> Self {
        Self(Hdr::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).expect("valid bounds"))
    }

    /// Counts one time.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.min(HIGHEST_NS));
    }

    /// Counts one time so often.
    pub fn record_many(&mut self, ns: u64, times: u64) {
        self.0.saturating_record_n(ns.min(HIGHEST_NS), times);
    }

    /// The times that were counted, ascending, each to the width of its bucket, and how often.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
    }

    /// How many times were at most as long as each of these bounds.
    #[must_use]
    pub fn cumulative<const N: usize>(&self, bounds_seconds: &[f64; N]) -> [u64; N] {
        let mut counts = [0; N];
        for (ns, count) in self.buckets() {
            let seconds = std::time::Duration::from_nanos(ns).as_secs_f64();
            for (sum, bound) in counts.iter_mut().zip(bounds_seconds) {
                *sum += if seconds <= *bound { count } else { 0 };
            }
        }
        counts
    }

    /// Counts all times of `other`.
    pub fn merge(&mut self, other: &Self) {
        // Cannot fail: all our histograms have the same bounds, and decoding checks them.
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok(), "equal bounds");
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Times counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantile in nanoseconds by the rank rule of [`crate::rank`]: the upper end of the
    /// bucket in which that rank lies; `None` without values.
    #[must_use]
    pub fn quantile(&self, quantile: Quantile) -> Option<u64> {
        let (bucket, _) = self.bucket_of(quantile)?;
        Some(self.0.highest_equivalent(bucket).min(self.0.max()))
    }

    /// The smallest and the largest value of the bucket in which the rank of a quantile lies, and
    /// that rank among the values of the bucket, from 1; `None` without values.
    #[must_use]
    pub(crate) fn place(&self, quantile: Quantile) -> Option<((u64, u64), u64)> {
        let (bucket, rank) = self.bucket_of(quantile)?;
        let (lowest, highest) =
            (self.0.lowest_equivalent(bucket), self.0.highest_equivalent(bucket));
        // Longer times are counted as the longest.
        let highest = if highest >= self.0.high() { u64::MAX } else { highest };
        Some(((lowest, highest), rank))
    }

    /// A value of the bucket in which the rank of a quantile lies, and that rank within the bucket.
    fn bucket_of(&self, quantile: Quantile) -> Option<(u64, u64)> {
        let rank = quantile.rank(self.count())?;
        let mut below = 0;
        self.0.iter_recorded().find_map(|bucket| {
            let before = below;
            below += bucket.count_at_value();
            (below >= rank).then(|| (bucket.value_iterated_to(), rank - before))
        })
    }

    /// Smallest time, to the width of its bucket; `None` without values.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.0.min())
    }

    /// Largest time, to the width of its bucket; `None` without values.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.0.max())
    }

    /// Mean of the bucket centres; `None` without values.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.0.mean())
    }

    /// Sample standard deviation of the bucket centres; `None` below two values.
    #[must_use]
    pub fn stddev(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "no load has 2^53 requests")]
        let count = self.count() as f64;
        // The crate divides by n.
        (count > 1.0).then(|| self.0.stdev() * (count / (count - 1.0)).sqrt())
    }

    /// HdrHistogram's V2 encoding, deflated: what the format's tools for other languages read.
    ///
    /// # Errors
    /// Only where memory runs out.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(|error| DecodeError(error.to_string()))?;
        Ok(bytes)
    }

    /// Reads [`Histogram::encode`].
    ///
    /// # Errors
    /// If the bytes are not such an encoding, or one with other bounds.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let found: Hdr<u64> = Deserializer::new()
            .deserialize(&mut bytes)
            .map_err(|error| DecodeError(error.to_string()))?;
        let ours = Self::new();
        if found.low() != ours.0.low()
            || found.high() != ours.0.high()
            || found.sigfig() != ours.0.sigfig()
        {
            return Err(DecodeError(format!(
                "bounds {} to {} ns with {} digits, expected {LOWEST_NS} to {HIGHEST_NS} with {DIGITS}",
                found.low(),
                found.high(),
                found.sigfig()
            )));
        }
        Ok(Self(found))
    }
}

/// The histogram of one tag in an HdrHistogram log, such as a worker's `.hdr` file; `None` where it
/// has none.
///
/// # Errors
/// It is there and cannot be read.
pub fn of_log(log: &str, tag: &str) -> Result<Option<Histogram>, DecodeError> {
    let of_tag =
        |line: &str| line.strip_prefix("Tag=")?.strip_prefix(tag)?.starts_with(',').then_some(());
    let Some(line) = log.lines().find(|line| of_tag(line).is_some()) else { return Ok(None) };
    let code = line.rsplit(',').next().unwrap_or_default();
    let bytes = STANDARD.decode(code).map_err(|error| DecodeError(error.to_string()))?;
    Histogram::decode(&bytes).map(Some)
}

/// One tag of several logs together; `None` where a log is missing or cannot be read.
pub fn of_logs(mut logs: impl Iterator<Item = Option<String>>, tag: &str) -> Option<Histogram> {
    logs.try_fold(Histogram::new(), |mut sum, log| {
        if let Some(part) = of_log(&log?, tag).ok()? {
            sum.merge(&part);
        }
        Some(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rank;

    /// Reproducible values over many magnitudes.
    fn values(count: u64) -> Vec<u64> {
        (1..=count).map(|n| 100 + (n * 7_919 % 10_007).pow(2) * (1 + n % 13)).collect()
    }

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        for value in values {
            histogram.record(*value);
        }
        histogram
    }

    #[test]
    fn quantiles_agree_with_sorted_values() {
        for count in [1, 2, 3, 99, 100, 101, 5_000] {
            let mut sorted = values(count);
            let histogram = of(&sorted);
            sorted.sort_unstable();
            for millionths in [0, 10_000, 500_000, 900_000, 990_000, 999_000, 1_000_000] {
                let quantile = Quantile::from_millionths(millionths).unwrap();
                let exact = rank::of_sorted(&sorted, quantile).unwrap();
                let found = histogram.quantile(quantile).unwrap();
                let error = found.abs_diff(exact);
                assert!(
                    error * 1_000 <= exact + 100_000,
                    "{millionths} of {count}: {found} for {exact}"
                );
            }
        }
    }

    #[test]
    fn merging_parts_equals_the_whole() {
        let values = values(10_000);
        let mut merged = Histogram::new();
        for part in values.chunks(777) {
            merged.merge(&of(part));
        }
        assert_eq!(merged, of(&values));
        assert_eq!(merged.count(), 10_000);
    }

    #[test]
    fn encoding_reads_back() {
        let histogram = of(&values(1_000));
        let bytes = histogram.encode().unwrap();
        assert!(bytes.len() < 8_192, "{} bytes", bytes.len());
        assert_eq!(Histogram::decode(&bytes).unwrap(), histogram);
        assert_eq!(Histogram::decode(&Histogram::new().encode().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn buckets_are_what_was_counted() {
        let mut histogram = of(&[1_000, 1_000, 5_000_000]);
        histogram.record_many(5_000_000, 7);
        let found: Vec<(u64, u64)> = histogram.buckets().collect();
        assert_eq!(found.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 8]);
        assert!(found[0].0.abs_diff(1_000) <= 64 && found[1].0.abs_diff(5_000_000) <= 5_000);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(Histogram::decode(b"").is_err());
        assert!(Histogram::decode(b"HISTFAAAAEV42pNp").is_err());
        let mut bytes = of(&values(10)).encode().unwrap();
        bytes.truncate(bytes.len() / 2);
        assert!(Histogram::decode(&bytes).is_err());
        let other = Hdr::<u64>::new_with_bounds(1, 1_000_000, 2).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&other, &mut bytes).unwrap();
        assert!(Histogram::decode(&bytes).unwrap_err().to_string().contains("bounds"));
    }

    #[test]
    fn out_of_range_values_are_counted() {
        let histogram = of(&[0, u64::MAX]);
        assert_eq!(histogram.count(), 2);
        assert!(histogram.max().unwrap() >= HIGHEST_NS);
        assert_eq!(Histogram::new().max(), None);
        assert_eq!(Histogram::new().quantile(Quantile::P50), None);
    }

    #[test]
    fn a_tag_of_a_log_is_found_by_its_whole_name() {
        let mut histogram = Histogram::new();
        histogram.record(5_000_000);
        let code = STANDARD.encode(histogram.encode().unwrap());
        let log = format!(
            "#aifb {{}}\nTag=totals,0.000,1.000,0.1,AAAA\nTag=total,0.000,1.000,0.1,{code}\n"
        );
        assert_eq!(of_log(&log, "total").unwrap(), Some(histogram));
        assert_eq!(of_log(&log, "tot").unwrap(), None);
        let both = of_logs([Some(log.clone()), Some(log.clone())].into_iter(), "total");
        assert_eq!(both.unwrap().buckets().map(|(_, count)| count).sum::<u64>(), 2);
        assert_eq!(of_logs([Some(log.clone()), None].into_iter(), "total"), None);
        assert_eq!(of_logs([Some(log.clone())].into_iter(), "totals"), None);
        assert!(of_log(&log, "totals").is_err());
    }

    #[test]
    fn cumulative_counts_are_of_all_below_a_bound() {
        let mut histogram = Histogram::new();
        for ms in [2, 2, 50, 20_000] {
            histogram.record(ms * 1_000_000);
        }
        assert_eq!(histogram.cumulative(&[0.001, 0.01, 0.1, f64::INFINITY]), [0, 2, 3, 4]);
    }
}
