//! Interrupts: noted when they come, looked at by the loops.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aifb_schema::names::exit;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use crate::error::{CommandError, Result};

/// What has come since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupts {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Interrupts {
    /// Notes SIGINT, SIGTERM and SIGHUP from now on, instead of dying of them.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn note() -> Result<Self> {
        let noted = Self::default();
        let register = || -> io::Result<()> {
            flag::register(SIGINT, Arc::clone(&noted.interrupted))?;
            flag::register(SIGTERM, Arc::clone(&noted.terminated))?;
            flag::register(SIGHUP, Arc::clone(&noted.terminated))?;
            Ok(())
        };
        register().map_err(|error| CommandError::usage("watching for signals", error))?;
        Ok(noted)
    }

    /// The exit code for what came, if anything came.
    pub(crate) fn code(&self) -> Option<i32> {
        if self.interrupted.load(Ordering::Relaxed) {
            Some(exit::INTERRUPTED)
        } else if self.terminated.load(Ordering::Relaxed) {
            Some(exit::TERMINATED)
        } else {
            None
        }
    }
}
