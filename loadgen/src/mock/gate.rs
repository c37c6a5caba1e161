//! The capacity of the server: how many requests it serves at a time, and where the others wait.
//!
//! Two models, both with service times that are known exactly, and with one first-come,
//! first-served queue:
//!
//! - `--slots C`: a request holds one of C slots from its start until its last token is due, so
//!   the service time is `S = ttft + (tokens − 1) · itl` and the capacity is `C / S` requests a
//!   second (M/D/C under Poisson arrivals).
//! - `--capacity R`: a single slot is held for `S = 1 / R`, whatever the answer's length; tokens
//!   stream independently of it (M/D/1). Capacity is R.
//!
//! With one slot and Poisson arrivals of rate λ, ρ = λS, the mean wait before the start is
//! `ρS / (2(1 − ρ))` (Pollaczek–Khinchine), and the wait exceeds t ≤ S with probability
//! `1 − (1 − ρ)·e^{λt}` (Erlang's formula for M/D/1, first interval). A request's tokens are due
//! `start + ttft + k · itl`, where the start is the later of its arrival and the instant at which
//! a slot became free. That instant is computed, not observed: a server that is late itself
//! starts nobody later.

use std::{cell::RefCell, cmp::Reverse, collections::BinaryHeap};

use tokio::sync::{Notify, Semaphore};

use super::alarm::Alarms;
use crate::clock::mono_ns;

/// How long a slot is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Until the last token of the answer is due.
    Answer,
    /// For this time from the start.
    Nanos(u64),
}

/// Slots and the queue before them.
pub(super) struct Gate {
    /// Whoever has it is at the head of the queue; fair.
    line: Semaphore,
    /// When each unused slot is (or was) free.
    free: RefCell<BinaryHeap<Reverse<u64>>>,
    returned: Notify,
    hold: Hold,
    alarms: Alarms,
}

/// A slot that is held; it is free again when this is dropped.
pub(super) struct Slot<'a> {
    gate: &'a Gate,
    /// When the service began.
    pub(super) start: u64,
    /// When it becomes free, if that is known.
    until: Option<u64>,
}

impl Gate {
    /// A gate with `slots` slots.
    pub(super) fn new(slots: u32, hold: Hold, alarms: Alarms) -> Self {
        let free = (0..slots.max(1)).map(|_| Reverse(0)).collect();
        Self {
            line: Semaphore::new(1),
            free: RefCell::new(free),
            returned: Notify::new(),
            hold,
            alarms,
        }
    }

    /// Waits for a slot. Dropping the future leaves the queue.
    pub(super) async fn enter(&self, arrived: u64) -> Slot<'_> {
        // The semaphore is never closed; if it were, no request would have to wait.
        let _head = self.line.acquire().await;
        let start = loop {
            let next = self.free.borrow().peek().map(|Reverse(at)| *at);
            match next {
                None => self.returned.notified().await,
                Some(at) => {
                    self.alarms.until(at).await;
                    if let Some(Reverse(at)) = self.free.borrow_mut().pop() {
                        break arrived.max(at);
                    }
                }
            }
        };
        let until = match self.hold {
            Hold::Answer => None,
            Hold::Nanos(nanos) => Some(start.saturating_add(nanos)),
        };
        Slot { gate: self, start, until }
    }
}

impl Slot<'_> {
    /// Sets when the answer's last token is due.
    pub(super) fn over_at(&mut self, due: u64) {
        if self.gate.hold == Hold::Answer {
            self.until = Some(due);
        }
    }

    /// Whether it has to be kept until the answer is over.
    pub(super) fn is_held(&self) -> bool {
        self.gate.hold == Hold::Answer
    }

    /// The client is gone: the service ends now.
    pub(super) fn abandon(&mut self) {
        if self.gate.hold == Hold::Answer {
            self.until = Some(mono_ns());
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let at = self.until.unwrap_or_else(mono_ns);
        self.gate.free.borrow_mut().push(Reverse(at));
        self.gate.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn inside<T>(test: impl AsyncFnOnce(Alarms) -> T) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap()
            .block_on(async { test(Alarms::start().unwrap()).await })
    }

    #[test]
    fn starts_are_computed_not_observed() {
        inside(async |alarms| {
            let gate = Rc::new(Gate::new(2, Hold::Answer, alarms));
            let t = mono_ns();
            let (mut a, mut b) = (gate.enter(t).await, gate.enter(t + 5).await);
            assert_eq!((a.start, b.start), (t, t + 5));
            a.over_at(t + 3_000_000);
            b.over_at(t + 1_000_000);
            // Later than they are due, and in the other order.
            drop(a);
            drop(b);
            let first = gate.enter(t + 10).await;
            let second = gate.enter(t + 20).await;
            let third =
                tokio::time::timeout(std::time::Duration::from_millis(5), gate.enter(t + 30));
            assert!(third.await.is_err(), "no slot is free");
            assert_eq!((first.start, second.start), (t + 1_000_000, t + 3_000_000));
        });
    }

    /// Arrivals faster than the service: each start is one service time after the one before it.
    #[test]
    fn a_rate_is_kept() {
        inside(async |alarms| {
            let gate = Gate::new(1, Hold::Nanos(2_000_000), alarms);
            let t = mono_ns();
            for k in 0..5 {
                assert_eq!(gate.enter(t).await.start, t + k * 2_000_000);
            }
            // After a pause the slot is idle: no credit is saved up.
            let late = t + 30_000_000;
            gate.alarms.until(late).await;
            assert_eq!(gate.enter(late).await.start, late);
        });
    }

    /// Poisson arrivals of the past, so that nobody has to wait for them: the waits are those of
    /// an M/D/1 queue.
    #[test]
    fn waits_are_those_of_the_formulas() {
        use rand::{RngExt, SeedableRng};
        const SERVICE_NS: u64 = 20_000;
        const ARRIVALS: u32 = 40_000;
        let (service, count) = (f64::from(20_000_u32), f64::from(ARRIVALS));
        for rho in [0.3, 0.5, 0.8] {
            let (sum, beyond) = inside(async |alarms| {
                let gate = Gate::new(1, Hold::Nanos(SERVICE_NS), alarms);
                let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
                let (mut sum, mut beyond) = (0.0, 0_u32);
                let mut at = 1_000_000.0;
                for _ in 0..ARRIVALS {
                    at += -(1.0 - random.random::<f64>()).ln() * service / rho;
                    let arrived = at as u64;
                    let wait = gate.enter(arrived).await.start - arrived;
                    sum += wait as f64;
                    beyond += u32::from(wait > SERVICE_NS / 2);
                }
                assert!(at < mono_ns() as f64, "all of it was in the past");
                (sum, beyond)
            });
            let mean = rho * service / (2.0 * (1.0 - rho));
            assert!((sum / count / mean - 1.0).abs() < 0.07, "{rho}: {} for {mean}", sum / count);
            let expected = 1.0 - (1.0 - rho) * (rho / 2.0).exp();
            let found = f64::from(beyond) / count;
            assert!((found - expected).abs() < 0.02, "{rho}: {found} for {expected}");
        }
    }

    #[test]
    fn who_leaves_the_queue_takes_nothing_along() {
        inside(async |alarms| {
            let gate = Gate::new(1, Hold::Answer, alarms);
            let t = mono_ns();
            let mut held = gate.enter(t).await;
            let wait = std::time::Duration::from_millis(2);
            assert!(tokio::time::timeout(wait, gate.enter(t)).await.is_err());
            assert!(tokio::time::timeout(wait, gate.enter(t)).await.is_err());
            held.abandon();
            drop(held);
            assert!(gate.enter(t).await.start > t);
        });
    }
}
