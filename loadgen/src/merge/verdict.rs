//! Doubts about a result: each says what was seen and what the limit is.

use aifb_schema::{
    recipe::Arrival,
    result::{ClientRecord, Counts, Distribution, Metrics, Verdict},
};
use aifb_stats::{distribution::seconds, histogram::Histogram, plateau, rank::Quantile};

use super::{float, part::Part};
use crate::{
    job::Job,
    record::{checkpoint::WorkloadRecord, start, tally::Tally},
};

/// Client lag that is always allowed, seconds: the scheduler's latency on a busy node.
const LAG_MIN: f64 = 1e-3;

/// Client lag allowed as a share of the median response time.
const LAG_SHARE: f64 = 0.02;

/// Share of a core that the sending thread may use before its queueing shows in the figures.
const CPU_SHARE: f64 = 0.85;

/// Share of the time that the sending thread may wait for a CPU: answers that come meanwhile are
/// stamped late, and no lag of sending shows it.
const WAIT_SHARE: f64 = 0.05;

/// Share of the planned requests that has to be sent in time.
const DELIVERED_SHARE: f64 = 0.99;

/// Largest error of the common start, nanoseconds: a start that is uncertain by more than the
/// latency of a local network says nothing about a burst.
const CLOCK_ERROR_MAX_NS: u64 = 1_000_000;

/// Share of input tokens from the server's cache that is allowed above what the plan repeats:
/// templates and system prompts around every prompt are the same.
const CACHED_SHARE: f64 = 0.1;

/// What verdicts look at besides sums.
pub(super) struct Evidence<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) own_lag: Option<Distribution>,
    /// Of all workers.
    pub(super) service_times: Option<&'a Histogram>,
}

/// All verdicts.
pub(super) fn all(
    job: &Job,
    parts: &[Part],
    counts: &Counts,
    tally: &Tally,
    evidence: &Evidence<'_>,
    client: &ClientRecord,
) -> Vec<Verdict> {
    let metrics = evidence.metrics;
    [
        incomplete(parts),
        met_by_files(job),
        saturated_by_lag(metrics, evidence.own_lag),
        saturated_by_cpu(parts),
        saturated_by_waiting(parts),
        stalled(parts),
        not_delivered(job, counts, tally),
        too_few(metrics, counts),
        clock(client),
        delayed_ack(evidence.service_times),
        cached(parts, tally),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn verdict(kind: &str, message: String) -> Option<Verdict> {
    Some(Verdict { kind: kind.to_owned(), message })
}

fn incomplete(parts: &[Part]) -> Option<Verdict> {
    let lost: Vec<String> =
        parts.iter().filter(|part| part.lost).map(|part| part.rank.to_string()).collect();
    if !lost.is_empty() {
        let planned: u64 =
            parts.iter().filter(|part| part.lost).filter_map(|part| part.planned).sum();
        let of = if planned > 0 {
            format!(", which had {planned} requests to send")
        } else {
            String::new()
        };
        return verdict(
            "incomplete",
            format!("{} of {} workers lost: rank {}{of}", lost.len(), parts.len(), lost.join(", ")),
        );
    }
    let part = parts.iter().find(|part| !part.complete)?;
    let record = &part.record;
    let why = match (&record.stopped, &record.write_error) {
        (Some(reason), _) => {
            format!("worker {} was stopped before its plan was complete: {reason}", part.rank)
        }
        (None, error) => format!(
            "worker {} could not write {} rows: {}",
            part.rank,
            record.rows_dropped,
            error.as_deref().unwrap_or("the file system was too slow")
        ),
    };
    verdict("incomplete", why)
}

/// Inside a run, where the coordinator would lead.
fn met_by_files(job: &Job) -> Option<Verdict> {
    let why = start::because(&job.folder)?;
    verdict(
        "met_by_files",
        format!(
            "the workers synchronized through files, since {why}; there were no live metrics, and \
             clock offsets between nodes were not measured"
        ),
    )
}

fn saturated_by_lag(metrics: &Metrics, own_lag: Option<Distribution>) -> Option<Verdict> {
    let lag = own_lag?;
    let limit = LAG_MIN.max(LAG_SHARE * metrics.e2e_seconds.map_or(0.0, |e2e| e2e.p50));
    if lag.p99 <= limit {
        return None;
    }
    verdict(
        "client_saturated",
        format!(
            "load generator fell behind: p99 send delay (connecting excluded) {:.3} ms, limit \
             {:.3} ms (the larger of 1 ms and 2 % of the median response time); use more clients \
             or fewer requests",
            lag.p99 * 1e3,
            limit * 1e3
        ),
    )
}

fn saturated_by_cpu(parts: &[Part]) -> Option<Verdict> {
    let share = |part: &Part| {
        let client = &part.record.client;
        (client.thread_wall_ns > 0)
            .then(|| float(client.thread_cpu_ns) / float(client.thread_wall_ns))
    };
    let (worst, rank) = parts
        .iter()
        .filter_map(|part| Some((share(part)?, part.rank)))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    if worst <= CPU_SHARE {
        return None;
    }
    verdict(
        "client_saturated",
        format!(
            "worker {rank} used {:.0} % of a core, limit {:.0} %; use more clients",
            worst * 100.0,
            CPU_SHARE * 100.0
        ),
    )
}

fn saturated_by_waiting(parts: &[Part]) -> Option<Verdict> {
    let share = |part: &Part| {
        let client = &part.record.client;
        (client.thread_wall_ns > 0)
            .then(|| float(client.thread_waited_ns) / float(client.thread_wall_ns))
    };
    let (worst, rank) = parts
        .iter()
        .filter_map(|part| Some((share(part)?, part.rank)))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    if worst <= WAIT_SHARE {
        return None;
    }
    verdict(
        "client_saturated",
        format!(
            "worker {rank} was CPU-starved for {:.0} % of the run, limit {:.0} %; its timestamps \
             may be late; give the clients cores of their own",
            worst * 100.0,
            WAIT_SHARE * 100.0
        ),
    )
}

fn stalled(parts: &[Part]) -> Option<Verdict> {
    let worst = parts.iter().max_by_key(|part| part.record.client.stall_max_ns)?;
    let client = &worst.record.client;
    if client.stall_max_ns == 0 {
        return None;
    }
    verdict(
        "client_stall",
        format!(
            "worker {} stalled: longest pause {:.0} ms, {:.0} ms in total; the node was busy or \
             the client was suspended",
            worst.rank,
            seconds(client.stall_max_ns) * 1e3,
            seconds(client.stall_sum_ns) * 1e3
        ),
    )
}

fn not_delivered(job: &Job, counts: &Counts, tally: &Tally) -> Option<Verdict> {
    let at = match &job.shape.arrival {
        Arrival::Open { rate, ramp: None, .. } => format!("at {rate}"),
        Arrival::Open { rate, ramp: Some(ramp), .. } => format!("from {} to {rate}", ramp.from),
        Arrival::Trace { .. } => "according to the trace".to_owned(),
        Arrival::Closed { .. } => return None,
    };
    let planned = counts.planned.filter(|planned| *planned > 0)?;
    let share = float(tally.in_window) / float(planned);
    if share >= DELIVERED_SHARE {
        return None;
    }
    verdict(
        "rate_not_delivered",
        format!(
            "target rate not achieved: {} of {planned} requests ({:.1} %) were sent in time {at}, \
             limit {:.0} %; {} were not sent",
            tally.in_window,
            share * 100.0,
            DELIVERED_SHARE * 100.0,
            counts.unsent.unwrap_or(0)
        ),
    )
}

fn too_few(metrics: &Metrics, counts: &Counts) -> Option<Verdict> {
    let count = metrics.total_seconds.map_or(0, |total: Distribution| total.count);
    let needed = [("p99", Quantile::P99), ("p95", Quantile::P95), ("p90", Quantile::P90)];
    let lacking: Vec<&str> = needed
        .iter()
        .filter(|(_, quantile)| count < quantile.values_needed())
        .map(|(name, _)| *name)
        .collect();
    if lacking.is_empty() || counts.sent == 0 {
        return (counts.sent == 0).then(|| Verdict {
            kind: "too_few_samples".to_owned(),
            message: "no request was sent in the measured part".to_owned(),
        });
    }
    verdict(
        "too_few_samples",
        format!(
            "too few samples: {} {} the maximum ({count} successful requests, p99 needs {})",
            lacking.join(", "),
            if lacking.len() == 1 { "equals" } else { "equal" },
            Quantile::P99.values_needed()
        ),
    )
}

fn clock(client: &ClientRecord) -> Option<Verdict> {
    let error = client.clock_error_ns.filter(|error| *error > CLOCK_ERROR_MAX_NS)?;
    verdict(
        "clock_error",
        format!(
            "the error of the workers' common start is {:.3} ms, limit {:.3} ms",
            seconds(error) * 1e3,
            seconds(CLOCK_ERROR_MAX_NS) * 1e3
        ),
    )
}

fn delayed_ack(times: Option<&Histogram>) -> Option<Verdict> {
    let plateau = plateau::delayed_ack(times?)?;
    verdict(
        "delayed_ack_plateau",
        format!(
            "{:.0} % of the responses took 38 to 46 ms, the fastest {:.3} ms: the server waits \
             for a delayed acknowledgement between header and body; disable Nagle's algorithm in \
             the server (TCP_NODELAY)",
            plateau.share * 100.0,
            seconds(plateau.fastest_ns) * 1e3
        ),
    )
}

fn cached(parts: &[Part], tally: &Tally) -> Option<Verdict> {
    if tally.cache_known == 0 || tally.input_tokens == 0 {
        return None;
    }
    let share = float(tally.cached_tokens) / float(tally.input_tokens);
    let planned = planned_reuse(parts).unwrap_or(0.0);
    if share <= planned + CACHED_SHARE {
        return None;
    }
    verdict(
        "cached_prompts",
        format!(
            "{:.0} % of the input tokens came from the server's prefix cache, but the plan \
             repeats only {:.0} % (limit {:.0} %), so times to first token are too low; restart \
             the service or change the seed",
            share * 100.0,
            planned * 100.0,
            (planned + CACHED_SHARE) * 100.0
        ),
    )
}

/// Share of the input tokens that the plan itself repeats; none is known of records that do not
/// say so.
pub(super) fn planned_reuse(parts: &[Part]) -> Option<f64> {
    let sum = |figure: fn(&WorkloadRecord) -> u64| -> u64 {
        parts.iter().map(|part| figure(&part.record.workload)).sum()
    };
    let asked = sum(|record| record.input_tokens);
    (asked > 0).then(|| float(sum(|record| record.repeated_tokens)) / float(asked))
}
