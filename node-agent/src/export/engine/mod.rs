//! A service's own Prometheus metrics ("engine metrics"): looked at once a tick by the agent of
//! the node where the replica runs and only by it, recorded and shown with the agent's own.
//!
//! Each replica has a thread of its own, so that a page that takes long holds up neither a tick nor
//! another replica: its values are in the tick after the answer. Values keep their names and
//! labels and get `service` and `replica`. Buckets of histograms and quantiles of summaries are
//! left out, `_sum` and `_count` stay: they would be ten times as many series as everything else.

mod family;
mod page;
mod poll;

#[cfg(test)]
mod tests;

pub(crate) use poll::{Address, Engines};
