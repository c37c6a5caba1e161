//! Mean and standard deviation in one pass.

/// Running mean and variance.
///
/// Update: B. P. Welford, "Note on a method for calculating corrected sums of squares and
/// products", Technometrics 4(3), 1962. Merge: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating
/// formulae and a pairwise algorithm for computing sample variances", COMPSTAT 1982.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    /// Sum of squared differences from the mean.
    squares: f64,
}

/// Counts become floating point here only; they are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "no load has 2^53 requests")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Moments {
    /// Adds one value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / float(self.count);
        self.squares += delta * (value - self.mean);
    }

    /// Adds all values that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        let share = float(other.count) / float(count);
        self.mean += delta * share;
        self.squares += other.squares + delta * delta * float(self.count) * share;
        self.count = count;
    }

    /// Values seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean; `None` without values.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Sample standard deviation (divisor n − 1); `None` below two values, where there is no
    /// spread to estimate.
    #[must_use]
    pub fn stddev(&self) -> Option<f64> {
        (self.count > 1).then(|| (self.squares / float(self.count - 1)).max(0.0).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        for value in values {
            moments.add(*value);
        }
        moments
    }

    #[test]
    fn exact_values() {
        let moments = of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(moments.mean(), Some(5.0));
        assert!((moments.stddev().unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(of(&[]).mean(), None);
        assert_eq!(of(&[3.0]).stddev(), None);
        assert_eq!(of(&[3.0, 3.0]).stddev(), Some(0.0));
    }

    /// The textbook sum of squares loses all digits here.
    #[test]
    fn large_offset_keeps_its_digits() {
        let moments = of(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
        assert!((moments.stddev().unwrap() - 30.0_f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn merging_equals_adding() {
        let values: Vec<f64> = (0..1000).map(|n| f64::from(n * n % 977)).collect();
        let whole = of(&values);
        let mut merged = Moments::default();
        for part in values.chunks(37) {
            merged.merge(&of(part));
        }
        merged.merge(&Moments::default());
        assert_eq!(merged.count(), whole.count());
        assert!((merged.mean().unwrap() - whole.mean().unwrap()).abs() < 1e-9);
        assert!((merged.stddev().unwrap() - whole.stddev().unwrap()).abs() < 1e-9);
    }
}
