//! Units of kernel counters.

use nix::unistd::{SysconfVar, sysconf};

/// Sizes that the kernel chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Units {
    /// Clock ticks a second of `/proc/stat` and `/proc/<pid>/stat` (USER_HZ).
    pub(super) ticks_per_second: u64,
    /// Bytes of a page.
    pub(super) page_bytes: u64,
}

impl Units {
    /// Those of this machine.
    pub(super) fn of_this_machine() -> Self {
        let ask = |variable, usual| match sysconf(variable) {
            Ok(Some(value)) if value > 0 => value.unsigned_abs(),
            _ => usual,
        };
        Self {
            ticks_per_second: ask(SysconfVar::CLK_TCK, 100),
            page_bytes: ask(SysconfVar::PAGE_SIZE, 4096),
        }
    }

    /// Clock ticks in seconds.
    pub(super) fn seconds(self, ticks: u64) -> f64 {
        ratio(ticks, self.ticks_per_second)
    }
}

/// Microseconds in seconds.
pub(super) fn seconds_of_us(us: u64) -> f64 {
    ratio(us, 1_000_000)
}

/// Millionths (of a joule, say) in wholes.
pub(super) fn millionths(count: u64) -> f64 {
    ratio(count, 1_000_000)
}

/// Nanoseconds in seconds.
pub(super) fn seconds_of_ns(ns: u64) -> f64 {
    ratio(ns, 1_000_000_000)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ns, 104 days of CPU time")]
fn ratio(value: u64, per_second: u64) -> f64 {
    value as f64 / per_second as f64
}
