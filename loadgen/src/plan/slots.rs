//! Closed loads: when each slot begins, and how long it pauses.

use aifb_schema::recipe::{Ramp, RampShape, Think};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};

use super::nanos;

/// The pause after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Always the same.
    Fixed(u64),
    /// Exponentially distributed around a mean, drawn from the seed for each request.
    Exponential {
        /// Mean.
        mean_ns: u64,
        /// Seed of the load.
        seed: u64,
    },
}

impl Pause {
    /// As the recipe says.
    pub(crate) fn new(think: Think, seed: u64) -> Self {
        match think {
            Think::Fixed(span) => Self::Fixed(nanos(span)),
            Think::Exponential(mean) => Self::Exponential { mean_ns: nanos(mean), seed },
        }
    }

    /// The think time after the request with this key; independent of the worker.
    pub(crate) fn after(self, key: u64) -> u64 {
        match self {
            Self::Fixed(ns) => ns,
            Self::Exponential { mean_ns, seed } => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(7);
                // 16 words of the generator for each request: none overlap.
                random.set_word_pos(u128::from(key) * 16);
                let draw: f64 = Exp1.sample(&mut random);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and the cast saturates far beyond the end of any load"
                )]
                {
                    (draw * aifb_stats::distribution::seconds(mean_ns) * 1e9).round() as u64
                }
            }
        }
    }

    /// Bytes for the hash of the plan.
    pub(super) fn bytes(self) -> [u8; 9] {
        let (kind, ns) = match self {
            Self::Fixed(ns) => (0, ns),
            Self::Exponential { mean_ns, .. } => (1, mean_ns),
        };
        let mut bytes = [kind; 9];
        if let Some(rest) = bytes.get_mut(1..) {
            rest.copy_from_slice(&ns.to_le_bytes());
        }
        bytes
    }
}

/// When slot `slot` of `to` begins, from the start of the measured part; none: at the very start.
pub(super) fn start(ramp: &Ramp<u32>, to: u32, slot: u32, length_ns: u64) -> Option<u64> {
    if slot < ramp.from {
        return None;
    }
    let (from, to, needed) = (f64::from(ramp.from), f64::from(to), f64::from(slot) + 1.0);
    let reached = match ramp.shape {
        RampShape::Linear => (needed - from) / (to - from),
        RampShape::Exponential => (needed / from).ln() / (to / from).ln(),
    };
    // In steps, the slots of a step begin with it: the first that has at least as many. The last
    // step is reached when 1 − 1/steps of the time is over.
    let reached = match ramp.steps {
        None => reached,
        Some(steps) => {
            let last = f64::from(steps.max(2) - 1);
            // Rounding must not push a slot into the step after its own.
            (reached * last - 1e-9).ceil().min(last) / f64::from(steps.max(2))
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive share of the measured part"
    )]
    Some((reached * aifb_stats::distribution::seconds(length_ns) * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use aifb_schema::units::Span;

    use super::*;

    fn ramp(from: u32, shape: RampShape, steps: Option<u32>) -> Ramp<u32> {
        Ramp { from, shape, steps, over: None }
    }

    #[test]
    fn slots_begin_as_the_ramp_says() {
        let starts = |ramp: &Ramp<u32>, to: u32| -> Vec<u64> {
            (0..to).map(|slot| start(ramp, to, slot, 1_000).unwrap_or(0)).collect()
        };
        assert_eq!(starts(&ramp(1, RampShape::Linear, None), 5), [0, 250, 500, 750, 1_000]);
        assert_eq!(starts(&ramp(4, RampShape::Linear, None), 4), [0, 0, 0, 0]);
        // 2, 4 and 6 in flight, a third of the time each.
        assert_eq!(starts(&ramp(2, RampShape::Linear, Some(3)), 6), [0, 0, 333, 333, 667, 667]);
        // 1, 2, 4, 8.
        assert_eq!(
            starts(&ramp(1, RampShape::Exponential, Some(4)), 8),
            [0, 250, 500, 500, 750, 750, 750, 750]
        );
        assert_eq!(start(&ramp(1, RampShape::Exponential, None), 8, 1, 900), Some(300));
    }

    #[test]
    fn pauses_have_their_mean_and_their_seed() {
        assert_eq!(Pause::new(Think::Fixed(Span::millis(3)), 1).after(7), 3_000_000);
        let pause = Pause::new(Think::Exponential(Span::millis(2)), 5);
        let draws: Vec<u64> = (0..20_000).map(|key| pause.after(key)).collect();
        let mean = draws.iter().sum::<u64>() as f64 / 20_000.0;
        assert!((mean - 2e6).abs() < 4.0 * 2e6 / 20_000_f64.sqrt(), "{mean}");
        assert_eq!(pause.after(7), draws[7]);
        assert_ne!(Pause::new(Think::Exponential(Span::millis(2)), 6).after(7), draws[7]);
    }
}
