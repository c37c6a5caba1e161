//! Which log lines are sent and written just now: from the recipe, and changed while the run
//! lives. Clones share it.

use std::sync::{Arc, Mutex, PoisonError};

use aifb_schema::{
    logs::LoggingChange,
    recipe::{LogLevel, Logging},
};

use crate::clock;

/// The current filter. Without a setting: nothing, and the agent's own log begins at `info`.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedLogging(Arc<Mutex<Option<Logging>>>);

impl SharedLogging {
    pub(crate) fn new(logging: Option<Logging>) -> Self {
        Self(Arc::new(Mutex::new(logging)))
    }

    fn asked(&self) -> Option<Logging> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Logging {
        self.asked().unwrap_or_default()
    }

    /// Changes it; what it is from now on.
    pub(crate) fn change(&self, change: LoggingChange) -> Logging {
        let mut logging = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change.applied_to(logging.unwrap_or_default());
        *logging = Some(changed);
        changed
    }

    /// Whether the agent writes a line of this level into its own log.
    pub(crate) fn writes(&self, level: LogLevel) -> bool {
        match self.asked() {
            None => level >= LogLevel::Info,
            Some(Logging { level: lowest, until }) => {
                level >= lowest && until.is_none_or(|until| clock::epoch_ns() <= until.epoch_ns)
            }
        }
    }
}
