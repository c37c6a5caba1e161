//! A narrow heap of times where the kernel's delayed acknowledgements put them.

use crate::histogram::Histogram;

/// Delayed ACK timer of Linux: 40 ms at least, and the scheduler's and the network's time
/// (loadgen: measured p50 43.4 ms against an S3 server, 41.97 ms with another client).
const FROM_NS: u64 = 38_000_000;

/// Upper end.
const TO_NS: u64 = 46_000_000;

/// Width of the neighbourhoods that it is compared with: the same.
const WIDTH_NS: u64 = TO_NS - FROM_NS;

/// Share of all times that it has to hold.
const SHARE_MIN: f64 = 0.1;

/// Fewest times: below it one heap is chance.
const COUNT_MIN: u64 = 50;

/// Share of times below half of it that shows that the server can answer faster.
const FAST_SHARE_MIN: f64 = 0.01;

/// A heap of times at the delayed ACK timer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plateau {
    /// Share of all times in it.
    pub share: f64,
    /// The shortest time of all.
    pub fastest_ns: u64,
}

/// The plateau of delayed acknowledgements in `times`, if there is one: 38 to 46 ms hold a tenth
/// of all, at least twice what each neighbourhood of that width holds, while some answers take
/// less than half of that. A service that simply needs 42 ms has no such fast answers.
#[must_use]
pub fn delayed_ack(times: &Histogram) -> Option<Plateau> {
    let count = times.count();
    if count < COUNT_MIN {
        return None;
    }
    let (mut inside, mut below, mut above, mut fast) = (0_u64, 0_u64, 0_u64, 0_u64);
    for (ns, count) in times.buckets() {
        match ns {
            FROM_NS..=TO_NS => inside += count,
            _ if (FROM_NS - WIDTH_NS..FROM_NS).contains(&ns) => below += count,
            _ if (TO_NS..TO_NS + WIDTH_NS).contains(&ns) => above += count,
            _ => {}
        }
        if ns < FROM_NS / 2 {
            fast += count;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "no load has 2^53 requests")]
    let share = |part: u64| part as f64 / count as f64;
    (share(inside) >= SHARE_MIN && inside >= 2 * below.max(above) && share(fast) >= FAST_SHARE_MIN)
        .then(|| Plateau { share: share(inside), fastest_ns: times.min().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        times.into_iter().for_each(|us| histogram.record(us * 1_000));
        histogram
    }

    #[test]
    fn a_heap_at_the_timer_is_seen() {
        // As measured: most wait for the timer, some do not.
        let found =
            delayed_ack(&of((0..200).map(|n| if n % 4 == 0 { 150 + n } else { 41_000 + n * 10 })))
                .unwrap();
        assert!((found.share - 0.75).abs() < 1e-9 && found.fastest_ns < 151_000, "{found:?}");
    }

    #[test]
    fn other_times_are_not() {
        // A service that needs 42 ms; one whose times pass over it; fast ones; few.
        assert_eq!(delayed_ack(&of((0..200).map(|n| 40_000 + n * 20))), None);
        assert_eq!(delayed_ack(&of((0..2_000).map(|n| 100 + n * 60))), None);
        assert_eq!(delayed_ack(&of((0..2_000).map(|n| 100 + n))), None);
        assert_eq!(delayed_ack(&of((0..40).map(|n| if n % 4 == 0 { 150 } else { 41_000 }))), None);
    }
}
