//! How a run stands: whether it is alive, what of it is shown, what has changed since the last look.

pub(crate) mod follow;
mod liveness;
pub(crate) mod view;

pub(crate) use liveness::{Liveness, liveness};
