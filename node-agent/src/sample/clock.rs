//! The two clocks of a sample.

use std::time::Duration;

pub(super) use crate::clock::{epoch_ns, mono_ns};

/// A duration in nanoseconds.
pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Steps of the wall clock that count as jumps: above what keeping it in time does to it.
const JUMP_NS: u64 = 100_000_000;

/// Counts jumps of the wall clock against CLOCK_MONOTONIC.
#[derive(Debug, Default)]
pub(super) struct Jumps {
    last: Option<(u64, u64)>,
    count: u64,
}

impl Jumps {
    /// Takes both clocks of a sample; how many jumps there were so far.
    pub(super) fn note(&mut self, mono_ns: u64, epoch_ns: u64) -> u64 {
        if let Some((last_mono, last_epoch)) = self.last.replace((mono_ns, epoch_ns)) {
            let expected = last_epoch.saturating_add(mono_ns.saturating_sub(last_mono));
            self.count += u64::from(expected.abs_diff(epoch_ns) > JUMP_NS);
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_a_jump_and_a_late_tick_is_none() {
        const S: u64 = 1_000_000_000;
        let mut jumps = Jumps::default();
        let samples = [(1, 100), (2, 101), (9, 108), (10, 109 + 3600), (11, 110), (12, 111)];
        let counts = samples.map(|(mono, epoch)| jumps.note(mono * S, epoch * S));
        assert_eq!(counts, [0, 0, 0, 1, 2, 2]);
        assert_eq!(jumps.note(13 * S, 112 * S + JUMP_NS), 2);
    }
}
