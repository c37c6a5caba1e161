//! The job's script, as a process of this node.

use aifb_schema::control::ProcessId;

use super::tree::Stat;

/// Whether the script's process is there.
pub(crate) fn lives(script: ProcessId) -> bool {
    Stat::read(script.pid)
        .is_some_and(|stat| stat.start_ticks == script.start_ticks && !stat.zombie)
}
