//! When to try again.

use std::time::{Duration, Instant};

/// Pause after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses of one stream.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    asked: Option<Duration>,
}

impl Backoff {
    /// Whether it is time to try.
    pub(super) fn due(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// The receiver requested this pause before the next attempt.
    pub(super) fn asked(&mut self, pause: Option<Duration>) {
        self.asked = pause;
    }

    /// A try failed. Pauses differ by up to half, so that the agents of a job do not come back
    /// all at once.
    pub(super) fn failed(&mut self) {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        let pause = doubled.mul_f64(rand::random_range(0.5..=1.0));
        let pause = pause.max(self.asked.take().unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause);
    }

    /// A try succeeded.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let pause = |backoff: &Backoff| backoff.not_before.unwrap() - Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.due());
        backoff.failed();
        assert!(!backoff.due() && pause(&backoff) <= FIRST);
        for _ in 0..40 {
            backoff.failed();
        }
        assert!((Duration::from_secs(2)..=LONGEST).contains(&pause(&backoff)));
        backoff.asked(Some(Duration::from_secs(20)));
        backoff.failed();
        assert!(pause(&backoff) > Duration::from_secs(15));
        backoff.succeeded();
        assert!(backoff.due());
    }
}
