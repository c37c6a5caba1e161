//! Faults, drawn by a seed.

use std::time::Duration;

use rand::{Rng as _, RngExt as _, SeedableRng, rngs::StdRng};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, nothing is stored.
    Status(u16),
    /// Everything is stored, and then this status.
    StoredStatus(u16),
    /// The connection is reset, nothing is stored.
    Reset,
    /// Everything is stored, and the connection is reset.
    StoredReset,
    /// Stored and answered after this time.
    Slow(Duration),
    /// Stored, and never answered: the connection is closed after this time.
    Silent(Duration),
}

/// Which faults, and how often.
#[derive(Debug, Clone)]
pub struct Faults {
    /// The share of requests that meet one, 0 to 1.
    pub share: f64,
    /// Those that occur, each as often as the others.
    pub kinds: Vec<Fault>,
    /// Where the dice begin.
    pub seed: u64,
}

impl Faults {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self { share: 0.0, kinds: Vec::new(), seed: 1 }
    }

    /// All that a Loki and what is in front of it are known for, in this share of requests.
    #[must_use]
    pub fn mixed(share: f64, seed: u64) -> Self {
        let kinds = vec![
            Fault::Status(429),
            Fault::StoredStatus(429),
            Fault::Status(500),
            Fault::StoredStatus(503),
            Fault::Status(260),
            Fault::Reset,
            Fault::StoredReset,
            Fault::Slow(Duration::from_millis(400)),
        ];
        Self { share, kinds, seed }
    }

    pub(crate) fn dice(self) -> Dice {
        Dice { random: StdRng::seed_from_u64(self.seed), faults: self }
    }
}

/// Draws faults.
#[derive(Debug)]
pub(crate) struct Dice {
    random: StdRng,
    faults: Faults,
}

impl Dice {
    pub(crate) fn draw(&mut self) -> Option<Fault> {
        let kinds = &self.faults.kinds;
        if kinds.is_empty() || !self.random.random_bool(self.faults.share) {
            return None;
        }
        let index = self.random.next_u32() as usize % kinds.len();
        kinds.get(index).copied()
    }
}
