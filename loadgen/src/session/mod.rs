//! From the command line to a running worker and its end: standalone (`standalone`, `search`), with
//! others that meet through files (`join`), or inside a run, led by the coordinator through the
//! agent of the node (`in_run`).

mod agent;
mod files;
pub(crate) mod in_run;
mod join;
mod place;
mod progress;
mod search;
pub(crate) mod standalone;
mod stop_rules;
mod summary;
mod worker;
