//! The job's script: when it ended.
//!
//! Slurm tells a step only that the job ends. A script that had ended before that ended by itself;
//! one that lives until then was cancelled, or ran into the time limit.

use std::time::Duration;

use aifb_schema::control::ProcessId;

use super::coordinator::Handle;
use crate::{process::script::lives, sys};

/// Polling interval on an older kernel.
const EVERY: Duration = Duration::from_millis(100);

/// Tells the coordinator when the script has ended.
pub(crate) async fn watch(script: ProcessId, coordinator: Handle) {
    let process = sys::process_end(script.pid);
    while lives(script) {
        match &process {
            Ok(process) => {
                let _ended = process.readable().await;
                break;
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
    coordinator.script_ended();
}
