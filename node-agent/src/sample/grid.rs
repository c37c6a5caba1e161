//! When ticks are due.

use std::time::Duration;

use super::clock;

/// Multiples of a period from one origin, on CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    origin_ns: u64,
    period_ns: u64,
}

impl Grid {
    /// Begins now.
    pub(super) fn from_now(period: Duration) -> Self {
        Self { origin_ns: clock::mono_ns(), period_ns: clock::ns(period).max(1) }
    }

    /// The same origin with another period.
    pub(super) fn with_period(self, period: Duration) -> Self {
        Self { period_ns: clock::ns(period).max(1), ..self }
    }

    pub(super) fn origin_ns(self) -> u64 {
        self.origin_ns
    }

    pub(super) fn period_ns(self) -> u64 {
        self.period_ns
    }

    /// The first instant of the grid that is later than `now_ns`.
    pub(super) fn after(self, now_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.origin_ns) / self.period_ns;
        self.origin_ns + (passed + 1) * self.period_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_instant_is_on_the_grid_whatever_the_period() {
        let grid = Grid { origin_ns: 100, period_ns: 10 };
        assert_eq!([100, 109, 110, 99].map(|now| grid.after(now)), [110, 110, 120, 110]);
        let fine = grid.with_period(Duration::from_nanos(3));
        assert_eq!([100, 102, 103].map(|now| fine.after(now)), [103, 103, 106]);
    }
}
