//! What a search decides by, from the rows of one probe.

use aifb_schema::{
    recipe::{Load, SearchLimit, Target},
    result::{Counts, Metrics},
    search::{Objective, ProbeRecord},
};
use aifb_stats::{distribution::seconds, growth::response_growth};

use super::{float, values::Values};
use crate::{
    plan::Phase,
    record::{
        checkpoint::ClientState,
        row::{Outcome, Row},
        tally::Tally,
    },
};

/// Requests that growth is computed from: the same bound as for values.
const REQUESTS_MAX: usize = 20_000_000;

/// The requests of a probe so far.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// Planned, from the start of the measured part, and response time; nanoseconds.
    requests: Vec<(u64, u64)>,
    answered: u64,
    /// Length of the measured part.
    length_ns: u64,
}

impl Probing {
    /// Adds a request of a worker whose measured part is `client`'s.
    pub(super) fn add(&mut self, row: &Row, client: &ClientState) {
        let start = client.measure_start_ns;
        let Some(end) = client.measure_end_ns else { return };
        self.length_ns = end.saturating_sub(start);
        if row.outcome == Outcome::Ok && (start..end).contains(&row.end_ns) {
            self.answered += 1;
        }
        // One that failed at once says nothing about waiting; one that was given up waited so long.
        let waited = row.outcome != Outcome::Failed;
        if row.phase == Phase::Measure
            && waited
            && self.requests.len() < REQUESTS_MAX
            && let (Some(planned), Some(total)) = (row.planned_ns.checked_sub(start), row.total())
        {
            self.requests.push((planned, total));
        }
    }

    /// The record; `None` where the load is no probe.
    pub(super) fn record(
        &self,
        load: &Load,
        counts: &Counts,
        tally: &Tally,
        metrics: &Metrics,
        values: &Values,
    ) -> Option<ProbeRecord> {
        let search = load.search.as_ref()?;
        let due = counts.planned.unwrap_or(counts.sent);
        let objectives = search.slo.iter().filter_map(|(name, limit)| {
            let (limit, measured, within, allowed_ratio) = match (Target::of(name)?, limit) {
                (Target::Attainment, SearchLimit::Share(share)) => {
                    (*share, metrics.attainment_ratio, tally.good, 1.0 - share)
                }
                (Target::Quantile(metric, allowed), SearchLimit::Time(span)) => {
                    let limit_ns = u64::try_from(span.get().as_nanos()).unwrap_or(u64::MAX);
                    let (there, within) = values.within(metric, limit_ns);
                    // An answer of a single token has no time per token that could be too long.
                    let without = if metric == "tpot" { tally.ok.saturating_sub(there) } else { 0 };
                    let measured = values.quantile_of(metric, allowed).map(seconds);
                    (seconds(limit_ns), measured, within + without, allowed)
                }
                _ => return None,
            };
            let beyond = due.saturating_sub(within);
            Some(Objective { name: name.clone(), limit, measured, beyond, of: due, allowed_ratio })
        });
        let length = seconds(self.length_ns);
        let times = self.requests.iter().map(|(at, response)| (seconds(*at), seconds(*response)));
        Some(ProbeRecord {
            level: load.level()?,
            offered_per_second: counts
                .planned
                .filter(|_| length > 0.0)
                .map(|planned| float(planned) / length),
            objectives: objectives.collect(),
            answered_per_second: (length > 0.0).then(|| float(self.answered) / length),
            mean_response_seconds: metrics.total_seconds.map(|total| total.mean),
            response_growth: response_growth(times, 0.0, length),
        })
    }
}
