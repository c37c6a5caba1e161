//! Which request: what send times, contents and records of one request have in common.

use super::Phase;

/// Which request: enough to make its content from the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Phase it belongs to.
    pub(crate) phase: Phase,
    /// Number within the phase, over all workers.
    pub(crate) id: u64,
    /// Which item of the workload: a prompt or a conversation ([`crate::workload`]).
    pub(crate) item: u64,
    /// Which request of a conversation, from 0.
    pub(crate) turn: u32,
}

impl Ask {
    /// Request `id` of a phase, which asks an item of its own.
    pub(crate) fn new(phase: Phase, id: u64) -> Self {
        let mut ask = Self { phase, id, item: 0, turn: 0 };
        ask.item = ask.key();
        ask
    }

    /// A number that no other request of the load has.
    pub(crate) fn key(self) -> u64 {
        match self.phase {
            Phase::Warmup => self.id | 1 << 63,
            Phase::Measure => self.id,
        }
    }
}
