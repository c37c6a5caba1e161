//! Lengths drawn from the seed.

use aifb_schema::recipe::{Bell, Lengths};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Normal, weighted::WeightedIndex};

/// A distribution of lengths, ready to be drawn from.
#[derive(Debug, Clone)]
pub(super) enum Draw {
    Fixed(u32),
    Uniform(u32, u32),
    Normal(Normal<f64>, Bell),
    Lognormal(LogNormal<f64>, Bell),
    Weighted(WeightedIndex<f64>, Vec<u32>),
}

impl Draw {
    /// As the recipe says, which has checked the figures; where the library still refuses them,
    /// the mean stands for the distribution.
    pub(super) fn new(lengths: &Lengths) -> Self {
        match lengths {
            Lengths::Fixed(length) => Self::Fixed(*length),
            Lengths::Uniform(min, max) => Self::Uniform(*min, *max),
            Lengths::Normal(bell) => match Normal::new(bell.mean, bell.stddev) {
                Ok(normal) => Self::Normal(normal, *bell),
                Err(_) => Self::Fixed(clamp(bell.mean, bell)),
            },
            // Mean m and standard deviation s of the lengths make σ² = ln(1 + s²/m²) and
            // μ = ln m − σ²/2 of their logarithms.
            Lengths::Lognormal(bell) => {
                let variance = (1.0 + (bell.stddev / bell.mean).powi(2)).ln();
                match LogNormal::new(bell.mean.ln() - variance / 2.0, variance.sqrt()) {
                    Ok(lognormal) => Self::Lognormal(lognormal, *bell),
                    Err(_) => Self::Fixed(clamp(bell.mean, bell)),
                }
            }
            Lengths::Weighted(list) => {
                let lengths: Vec<u32> = list.iter().map(|(length, _)| *length).collect();
                match WeightedIndex::new(list.iter().map(|(_, weight)| *weight)) {
                    Ok(index) => Self::Weighted(index, lengths),
                    Err(_) => Self::Fixed(lengths.first().copied().unwrap_or(1)),
                }
            }
        }
    }

    /// One length.
    pub(super) fn draw(&self, random: &mut ChaCha8Rng) -> u32 {
        match self {
            Self::Fixed(length) => *length,
            Self::Uniform(min, max) => random.random_range(*min..=*max),
            Self::Normal(normal, bell) => clamp(normal.sample(random), bell),
            Self::Lognormal(lognormal, bell) => clamp(lognormal.sample(random), bell),
            Self::Weighted(index, lengths) => {
                lengths.get(index.sample(random)).copied().unwrap_or(1)
            }
        }
    }
}

fn clamp(length: f64, bell: &Bell) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to two u32, and a cast of what is not a number is 0"
    )]
    let length = length.round().clamp(f64::from(bell.min), f64::from(bell.max)) as u32;
    length.max(bell.min)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn drawn(text: &str) -> Vec<f64> {
        let draw = Draw::new(&serde_json::from_str(text).unwrap());
        let mut random = ChaCha8Rng::seed_from_u64(1);
        (0..50_000).map(|_| f64::from(draw.draw(&mut random))).collect()
    }

    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (mean, (square / values.len() as f64).sqrt())
    }

    #[test]
    fn each_distribution_has_its_moments_and_limits() {
        for (text, mean, stddev) in [
            ("512", 512.0, 0.0),
            // (max − min + 1)²/12 of the discrete uniform distribution.
            (r#"{"uniform": [128, 1024]}"#, 576.0, 258.9),
            (r#"{"normal": {"mean": 512, "stddev": 64}}"#, 512.0, 64.0),
            (r#"{"lognormal": {"mean": 512, "stddev": 256}}"#, 512.0, 256.0),
            (r#"{"weighted": [[100, 3], [1000, 1]]}"#, 325.0, 389.7),
        ] {
            let values = drawn(text);
            let (found_mean, found_stddev) = moments(&values);
            assert!((found_mean - mean).abs() <= 0.02 * mean, "{text}: {found_mean}");
            assert!(
                (found_stddev - stddev).abs() <= 0.03 * stddev.max(1.0),
                "{text}: {found_stddev}"
            );
        }
        let values = drawn(r#"{"normal": {"mean": 10, "stddev": 100, "min": 5, "max": 20}}"#);
        let of = |wanted: f64| values.iter().filter(|value| **value == wanted).count();
        assert!(values.iter().all(|value| (5.0..=20.0).contains(value)));
        assert!(of(5.0) > 10_000 && of(20.0) > 10_000, "what is outside becomes the limit");
        let values = drawn(r#"{"uniform": [1, 3]}"#);
        assert!([1.0, 2.0, 3.0].iter().all(|wanted| values.contains(wanted)));
    }
}
