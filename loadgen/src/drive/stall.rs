//! Notices when the client itself does not run.

/// Time between two looks at the clock: 50 wake-ups a second cost less than 0.1 % of a core.
const BEAT_NS: u64 = 20_000_000;

/// Delay of a look that is a stall: ten times what a busy node's scheduler takes.
pub(crate) const STALL_NS: u64 = 100_000_000;

/// Looks at the clock, and what was missed between them.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    last_ns: u64,
    max_ns: u64,
    sum_ns: u64,
}

impl Stalls {
    /// The first look.
    pub(super) fn begin(&mut self, now: u64) {
        self.last_ns = now;
    }

    /// A look; the loop takes one whenever it runs, at the latest after [`BEAT_NS`].
    pub(super) fn beat(&mut self, now: u64) {
        let late = now.saturating_sub(self.last_ns).saturating_sub(BEAT_NS);
        self.last_ns = now;
        if late > STALL_NS {
            self.max_ns = self.max_ns.max(late);
            self.sum_ns += late;
        }
    }

    /// Time until the next look.
    pub(super) fn until_beat(&self, now: u64) -> u64 {
        (self.last_ns + BEAT_NS).saturating_sub(now)
    }

    /// Longest stall.
    pub(super) fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// All stalls together.
    pub(super) fn sum_ns(&self) -> u64 {
        self.sum_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_gaps_are_stalls() {
        let mut stalls = Stalls::default();
        stalls.begin(1_000);
        stalls.beat(1_000 + BEAT_NS);
        stalls.beat(1_000 + 2 * BEAT_NS + STALL_NS);
        assert_eq!((stalls.max_ns(), stalls.sum_ns()), (0, 0));
        let last = 1_000 + 2 * BEAT_NS + STALL_NS;
        stalls.beat(last + BEAT_NS + 1_000_000_000);
        stalls.beat(last + 2 * BEAT_NS + 1_500_000_000);
        assert_eq!((stalls.max_ns(), stalls.sum_ns()), (1_000_000_000, 1_500_000_000));
        assert_eq!(stalls.until_beat(last + 2 * BEAT_NS + 1_500_000_000), BEAT_NS);
    }
}
