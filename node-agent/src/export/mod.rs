//! What leaves the node for others: remote write of every sample, the summary on a Pushgateway,
//! lists of targets; and what comes from a service's own metrics.
//!
//! None of it is needed by a run, and none can hold one up: each sends from a thread of its own,
//! behind a bounded queue, and every request has a deadline.

pub(crate) mod engine;
#[cfg(test)]
mod fixture;
pub(crate) mod gateway;
pub(crate) mod remote;
pub(crate) mod targets;
