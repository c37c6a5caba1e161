//! The two clocks of a sample.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds.
pub(super) fn mono_ns() -> u64 {
    // The call cannot fail with a clock that every kernel has and a valid address.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| ns(Duration::from(now)))
}

/// Wall clock, nanoseconds since 1970.
pub(super) fn epoch_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ns)
}

/// A duration in nanoseconds.
pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
