//! This node's CLOCK_MONOTONIC against the coordinator's.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use aifb_schema::control::{ClockOffset, ClockReading};

use super::{client::Client, context::Context};
use crate::clock;

/// Questions of one measurement: the smallest of so many round trips met no other traffic.
const ROUND_TRIPS: usize = 32;

/// Longest time for one measurement: the start of a load may wait for it.
const MEASURE_DEADLINE: Duration = Duration::from_millis(150);

/// A measurement older than this is repeated before a start. Clocks of nodes drift by some
/// microseconds in that time.
const FRESH: Duration = Duration::from_secs(10);

/// Within this time one measurement serves all workers of a node.
const MOMENT: Duration = Duration::from_secs(1);

/// How often the clock is measured while loads run.
const EVERY: Duration = Duration::from_secs(60);

/// The clock of the coordinator, as seen from this node.
#[derive(Debug)]
pub(crate) struct CoordinatorClock {
    context: Rc<Context>,
    /// Absent where the coordinator is in this agent: then both clocks are one.
    client: Option<Client>,
    last: Cell<Option<(ClockOffset, Instant)>>,
}

impl CoordinatorClock {
    /// Of a coordinator elsewhere, or of this agent's own.
    pub(crate) fn new(context: Rc<Context>, coordinator: Option<SocketAddr>) -> Self {
        let client = coordinator
            .map(|address| Client::new(address, context.token.clone(), MEASURE_DEADLINE));
        Self { context, client, last: Cell::new(None) }
    }

    /// An instant of the coordinator's clock on this node's, and the error of that.
    pub(crate) async fn translate(&self, coordinator_ns: u64) -> (u64, u64) {
        let fresh = self.last.get().is_some_and(|(_, at)| at.elapsed() <= FRESH);
        if !fresh {
            self.measure().await;
        }
        match self.last.get() {
            Some((offset, _)) => {
                (coordinator_ns.saturating_add_signed(offset.offset_ns), offset.error_ns)
            }
            None => (coordinator_ns, 0),
        }
    }

    /// Measures, unless that was done a moment ago for another worker.
    pub(crate) async fn refresh(&self) {
        if self.last.get().is_none_or(|(_, at)| at.elapsed() > MOMENT) {
            self.measure().await;
        }
    }

    /// Measures and tells the coordinator.
    pub(crate) async fn measure(&self) {
        let Some(client) = &self.client else { return };
        let mut best: Option<ClockOffset> = None;
        let work = async {
            for _ in 0..ROUND_TRIPS {
                let sent = clock::mono_ns();
                let Ok(reading) = client.get::<ClockReading>("/v1/clock").await else { return };
                let offset = offset(sent, reading.mono_ns, clock::mono_ns());
                if best.is_none_or(|best| offset.error_ns < best.error_ns) {
                    best = Some(offset);
                }
            }
        };
        let _what_was_measured_counts = tokio::time::timeout(MEASURE_DEADLINE, work).await;
        match best {
            Some(offset) => {
                self.last.set(Some((offset, Instant::now())));
                self.context.outbox.clock(offset);
            }
            None => tracing::warn!("the coordinator's clock could not be read"),
        }
    }

    /// Measures again now and then while `busy` says that a load runs here.
    pub(crate) async fn keep_measuring(&self, busy: impl Fn() -> bool) {
        loop {
            tokio::time::sleep(EVERY).await;
            if busy() {
                self.measure().await;
            }
        }
    }
}

/// The coordinator read its clock somewhere between the question and its answer: most likely
/// halfway.
fn offset(sent: u64, theirs: u64, received: u64) -> ClockOffset {
    let half = received.saturating_sub(sent) / 2;
    let middle = sent + half;
    let difference = i128::from(middle) - i128::from(theirs);
    ClockOffset {
        offset_ns: i64::try_from(difference).unwrap_or(0),
        error_ns: half,
        measured_mono_ns: received,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_taken_at_the_middle_of_the_round_trip() {
        let measured = offset(1_000, 500_100, 1_200);
        assert_eq!((measured.offset_ns, measured.error_ns), (-499_000, 100));
        let measured = offset(u64::MAX / 4, 100, u64::MAX / 4 + 10);
        assert_eq!(measured.offset_ns, i64::try_from(u64::MAX / 4 + 5 - 100).unwrap());
    }
}
