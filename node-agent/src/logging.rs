//! Which log lines are sent and written just now: from the recipe, and changed while the run
//! lives. Clones share it.

use std::sync::{Arc, Mutex, PoisonError};

use aifb_schema::{
    logs::LoggingChange,
    recipe::{LogLevel, Logging},
};

use crate::clock;

/// What is left out just now.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedLogging(Arc<Mutex<Logging>>);

impl SharedLogging {
    pub(crate) fn new(logging: Logging) -> Self {
        Self(Arc::new(Mutex::new(logging)))
    }

    pub(crate) fn get(&self) -> Logging {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it; what it is from now on.
    pub(crate) fn change(&self, change: LoggingChange) -> Logging {
        let mut logging = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *logging = change.applied_to(*logging);
        *logging
    }

    /// Whether a line of this level is written now.
    pub(crate) fn writes(&self, level: LogLevel) -> bool {
        let Logging { level: lowest, until } = self.get();
        level >= lowest && until.is_none_or(|until| clock::epoch_ns() <= until.epoch_ns)
    }
}
