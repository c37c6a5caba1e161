//! What a number of requests beyond a limit says about a quantile.
//!
//! "At most a share q of all requests is beyond the limit" is accepted with confidence c when so
//! few were seen beyond it that a service at exactly q would do as well with a probability of at
//! most 1 − c. MLPerf's loadgen stops early by the same rule (its `MinPassingQueriesFinder`: the
//! smallest h with I_p(h, 1 + t) ≤ 1 − c for t requests beyond the limit, p = 1 − q).

use statrs::function::beta::beta_reg;

/// Confidence that decisions of a search have.
pub const CONFIDENCE: f64 = 0.95;

/// Most requests that [`min_passing`] looks for: beyond it no test ends.
const PASSING_MAX: u64 = 1 << 40;

/// Whether at most the share `allowed` is beyond the limit, with `confidence`, when `beyond` of
/// `of` were.
#[must_use]
pub fn surely_within(beyond: u64, of: u64, allowed: f64, confidence: f64) -> bool {
    let Some(within) = of.checked_sub(beyond).filter(|within| *within > 0) else { return false };
    allowed > 0.0
        && allowed < 1.0
        && tail(1.0 - allowed, within, beyond.saturating_add(1)) <= 1.0 - confidence
}

/// Whether more than the share `allowed` is beyond the limit, with `confidence`.
#[must_use]
pub fn surely_beyond(beyond: u64, of: u64, allowed: f64, confidence: f64) -> bool {
    if beyond == 0 || beyond > of {
        return false;
    }
    if allowed <= 0.0 {
        return true;
    }
    // Chance of at least so many among `of` at exactly the allowed share.
    allowed < 1.0 && tail(allowed, beyond, of - beyond + 1) <= 1.0 - confidence
}

/// Fewest requests within the limit that make up for `beyond` beyond it: MLPerf's table.
#[must_use]
pub fn min_passing(beyond: u64, allowed: f64, confidence: f64) -> Option<u64> {
    let enough = |within: u64| {
        let of = within.checked_add(beyond)?;
        Some(surely_within(beyond, of, allowed, confidence))
    };
    let (mut low, mut high) = (0, 1);
    while !enough(high)? {
        low = high;
        high = high.checked_mul(2).filter(|high| *high <= PASSING_MAX)?;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle)? { high = middle } else { low = middle }
    }
    Some(high)
}

/// I_p(a, b): the chance of at least `a` successes of share `p` in a + b − 1 trials.
fn tail(p: f64, a: u64, b: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no load has 2^53 requests")]
    beta_reg(a as f64, b as f64, p)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of the binomial distribution, computed with exact rational numbers.
    #[test]
    fn early_stopping_table() {
        for (allowed, table) in
            [(0.1, [44, 63, 79, 94]), (0.05, [90, 129, 163, 195]), (0.01, [459, 661, 836, 998])]
        {
            for (beyond, passing) in (0..).zip(table) {
                let found = min_passing(beyond, allowed, 0.99);
                assert_eq!(found, Some(passing), "{beyond} beyond {allowed}");
            }
        }
    }

    #[test]
    fn near_the_edge_nothing_is_sure() {
        // 1 % allowed of 1000 requests.
        for (beyond, within, over) in [
            (0, true, false),
            (4, true, false),
            (10, false, false),
            (17, false, true),
            (900, false, true),
        ] {
            assert_eq!(surely_within(beyond, 1000, 0.01, CONFIDENCE), within, "{beyond}");
            assert_eq!(surely_beyond(beyond, 1000, 0.01, CONFIDENCE), over, "{beyond}");
        }
        assert!(!surely_within(0, 0, 0.01, CONFIDENCE) && !surely_beyond(0, 0, 0.01, CONFIDENCE));
        assert!(surely_beyond(1, 10, 0.0, CONFIDENCE), "none is allowed");
        assert!(surely_beyond(5, 5, 0.5, CONFIDENCE) && !surely_within(5, 5, 0.5, CONFIDENCE));
    }
}
