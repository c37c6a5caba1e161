//! Single values, for exact percentiles.

use std::collections::BTreeMap;

use aifb_schema::result::{Distribution, Interpolated};
use aifb_stats::{
    distribution, interpolated,
    rank::{self, Quantile},
};

use crate::{
    plan::Phase,
    record::{
        row::{Gaps, Outcome, Row},
        tally::{of_operation, values},
    },
};

/// Values kept for exact percentiles: 80 MB where most are of tokens. A load with more is computed
/// from histograms, which are exact to 0.1 %.
const VALUES_MAX: u64 = 20_000_000;

/// Bytes of values that lie together.
const PIECE_BYTES: usize = 32 * 1024;

/// Name of the values of [`generation`].
pub(super) const GENERATION: &str = "generation";

/// Tokens in a thousand seconds of one request, from the planned instant to its last content.
fn generation(row: &Row) -> Option<u64> {
    let tokens = u128::from(row.seen.output_tokens.filter(|tokens| *tokens > 0)?);
    let rate = (tokens * 1_000_000_000_000).checked_div(u128::from(row.e2e()?))?;
    u64::try_from(rate).ok()
}

/// The values of a metric that each token has, packed.
#[derive(Debug, Default)]
struct Packed(Vec<Gaps>);

impl Packed {
    fn push(&mut self, value: u64) {
        match self.0.last_mut() {
            Some(piece) if piece.bytes() < PIECE_BYTES => piece.push(value),
            _ => {
                let mut piece = Gaps::with_room(PIECE_BYTES + 10);
                piece.push(value);
                self.0.push(piece);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(Gaps::iter)
    }
}

/// Values by metric.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// One of each request.
    by_name: std::cell::RefCell<BTreeMap<String, Vec<u64>>>,
    /// One of each token.
    of_tokens: BTreeMap<&'static str, Packed>,
    count: u64,
}

impl Values {
    /// Whether `more` values can be kept besides those that are there; if not, none are.
    pub(super) fn admit(&mut self, more: u64) -> bool {
        if self.count.saturating_add(more) > VALUES_MAX {
            self.count = VALUES_MAX + 1;
            self.by_name.get_mut().clear();
            self.of_tokens.clear();
        }
        self.usable()
    }

    /// Adds a request, if it is a measured one that was answered or failed.
    pub(super) fn add(&mut self, row: &Row) {
        if row.phase != Phase::Measure || !self.usable() {
            return;
        }
        for (prefix, value) in of_operation(row) {
            self.push(&format!("{prefix}{}", row.operation), Some(value));
        }
        if row.outcome != Outcome::Ok {
            return;
        }
        for (name, value) in values(row) {
            self.push(name, value);
        }
        self.push_each("inter_token", &row.seen.gaps);
        self.push_each("receive_lag", &row.seen.receive_lags);
        self.push(GENERATION, generation(row));
        // Rows beyond what their checkpoint counts (a worker that was lost).
        self.admit(0);
    }

    fn push(&mut self, name: &str, value: Option<u64>) {
        let Some(value) = value else { return };
        self.count += 1;
        let by_name = self.by_name.get_mut();
        match by_name.get_mut(name) {
            Some(values) => values.push(value),
            None => {
                by_name.insert(name.to_owned(), vec![value]);
            }
        }
    }

    fn push_each(&mut self, name: &'static str, values: &Gaps) {
        if values.bytes() == 0 {
            return;
        }
        let packed = self.of_tokens.entry(name).or_default();
        for value in values.iter() {
            packed.push(value);
            self.count += 1;
        }
    }

    /// Whether all values could be kept.
    pub(super) fn usable(&self) -> bool {
        self.count <= VALUES_MAX
    }

    /// Names of the metrics that requests have values of.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.by_name.borrow().keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// How many values a metric of requests has, and how many of them are at most `limit`.
    pub(super) fn within(&self, name: &str, limit: u64) -> (u64, u64) {
        let by_name = self.by_name.borrow();
        let values = by_name.get(name).map_or(&[][..], Vec::as_slice);
        let within = values.iter().filter(|value| **value <= limit).count();
        (u64::try_from(values.len()).unwrap_or(u64::MAX), u64::try_from(within).unwrap_or(u64::MAX))
    }

    /// The value that the share `beyond` of the values of a metric of requests exceeds.
    pub(super) fn quantile_of(&self, name: &str, beyond: f64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "up to 1e6")]
        let quantile = Quantile::from_millionths(((1.0 - beyond) * 1e6).round() as u32)?;
        let mut by_name = self.by_name.borrow_mut();
        let values = by_name.get_mut(name)?;
        values.sort_unstable();
        rank::of_sorted(values, quantile)
    }

    /// The same by the rules of the compatible report, in units of so many.
    pub(super) fn interpolated(&self, name: &str, unit: f64) -> Option<Interpolated> {
        let by_name = self.by_name.borrow();
        #[expect(clippy::cast_precision_loss, reason = "a time of 2^53 ns is 104 days")]
        let mut values: Vec<f64> =
            by_name.get(name)?.iter().map(|value| *value as f64 / unit).collect();
        interpolated::of_values(&mut values)
    }

    /// The distribution of a metric.
    pub(super) fn of(&self, name: &str) -> Option<Distribution> {
        if let Some(packed) = self.of_tokens.get(name) {
            return distribution::of_nanos(|| packed.iter());
        }
        let by_name = self.by_name.borrow();
        let values = by_name.get(name)?;
        distribution::of_nanos(|| values.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_values_leave_none() {
        let mut values = Values::default();
        let row = crate::record::row::tests::streamed();
        values.add(&row);
        assert_eq!(values.of("ttft").unwrap().count, 1);
        assert_eq!(values.of("inter_token").unwrap().max, 0.03);
        assert!(values.admit(VALUES_MAX - values.count));
        assert!(!values.admit(VALUES_MAX));
        assert_eq!((values.of("ttft"), values.of("inter_token")), (None, None));
        values.add(&row);
        assert!(!values.usable() && values.names().next().is_none());
    }
}
