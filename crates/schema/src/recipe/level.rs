//! The one level of a load, and the load at another: the probes of a search.

use super::{Arrival, Load, Measure};
use crate::units::Rate;

impl Load {
    /// How large it is: requests a second, or in flight; a trace has no one level.
    #[must_use]
    pub fn level(&self) -> Option<f64> {
        match self.arrival {
            Arrival::Open { rate, .. } => Some(rate.get()),
            Arrival::Closed { concurrency, .. } => Some(f64::from(concurrency)),
            Arrival::Trace { .. } => None,
        }
    }

    /// This load as a probe at `level`; without a search it is the load itself. A number in
    /// flight is rounded.
    ///
    /// # Errors
    /// If the level is no possible load.
    pub fn at_level(&self, level: f64) -> Result<Self, String> {
        let Some(search) = &self.search else { return Ok(self.clone()) };
        let mut load = self.clone();
        load.phases.measure = Measure::Time(search.probe);
        load.arrival = match self.arrival {
            Arrival::Closed { think, .. } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "saturates, and is checked by the plan"
                )]
                let concurrency = level.round().max(1.0) as u32;
                Arrival::Closed { concurrency, think, ramp: None }
            }
            Arrival::Open { process, .. } => {
                let rate = Rate::per_second(level).map_err(|error| error.to_string())?;
                Arrival::Open { process, rate, ramp: None }
            }
            Arrival::Trace { .. } => return Err("a trace has its own rate".to_owned()),
        };
        Ok(load)
    }
}
