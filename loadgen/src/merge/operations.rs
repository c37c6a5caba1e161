//! The result by operation.

use std::collections::{BTreeMap, BTreeSet};

use aifb_schema::result::{Distribution, OperationCounts, OperationResult};

use super::float;
use crate::record::{
    operations::OperationTally,
    tally::{FAILED_OPERATION, OPERATION, RECALL, Tally},
};

/// The operations of a load whose measured part took so many seconds. `distribution` has the times
/// of each operation under its prefix; `named` are the names of all distributions.
pub(super) fn of(
    tally: &Tally,
    duration_seconds: Option<f64>,
    distribution: &dyn Fn(&str) -> Option<Distribution>,
    named: &[String],
) -> BTreeMap<String, OperationResult> {
    let sums: BTreeMap<&str, &OperationTally> = tally.operations.iter().collect();
    let with_times = named.iter().filter_map(|name| {
        [OPERATION, FAILED_OPERATION, RECALL].iter().find_map(|prefix| name.strip_prefix(prefix))
    });
    let names: BTreeSet<&str> = sums.keys().copied().chain(with_times).collect();
    names
        .into_iter()
        .map(|name| {
            let times = |prefix: &str| distribution(&format!("{prefix}{name}"));
            let counted = sums.get(name).map(|sums| of_sums(sums, duration_seconds));
            let operation = OperationResult {
                total_seconds: times(OPERATION),
                failed_total_seconds: times(FAILED_OPERATION),
                recall: times(RECALL),
                ..counted.unwrap_or_default()
            };
            (name.to_owned(), operation)
        })
        .collect()
}

/// What the sums of an operation say.
fn of_sums(sums: &OperationTally, duration_seconds: Option<f64>) -> OperationResult {
    let rate = |count: u64| duration_seconds.map(|duration| float(count) / duration);
    OperationResult {
        counts: Some(OperationCounts {
            sent: sums.sent,
            ok: sums.ok,
            failed: sums.failed,
            cancelled: sums.cancelled,
            unfinished: sums.sent.saturating_sub(sums.over()),
        }),
        errors: sums.errors.iter().map(|(class, count)| (class.to_string(), *count)).collect(),
        requests_per_second: rate(sums.ok),
        items: sums.items,
        items_per_second: sums.items.and_then(rate),
        payload_bytes: sums.payload_bytes,
        payload_bytes_per_second: sums.payload_bytes.and_then(rate),
        sent_bytes_per_second: rate(sums.bytes_sent),
        received_bytes_per_second: rate(sums.bytes_received),
        ..OperationResult::default()
    }
}
