//! From the files of all workers to the load's result.
//!
//! Nothing is taken over from the running processes, so the result can be computed again from
//! the run folder at any time.

mod comparable;
mod operations;
mod part;
mod probe;
pub(crate) mod rebuild;
mod values;
mod verdict;

use std::{collections::BTreeMap, io, path::Path};

use aifb_schema::{
    names,
    recipe::{Arrival, Measure},
    result::{
        ClientRecord, Comparable, Compatible, Counts, Distribution, LoadResult, Metrics, PlanFile,
        PlanRecord, RESULT_VERSION, StoppedBecause,
    },
};
use aifb_stats::distribution::{of_histogram, seconds};

use crate::{
    error::Fatal,
    job::Job,
    plan::Shape,
    record::{
        series,
        tally::{Histograms, METRICS, OWN_LAG, Tally},
    },
    sys,
};
use comparable::Others;
use part::Part;
use probe::Probing;
use values::{GENERATION, Values};

/// Computes the result of `job`'s load from its folder.
///
/// # Errors
/// If the files of a worker that came to its end cannot be read.
pub(crate) fn result(job: &Job, lost: &[u32]) -> Result<LoadResult, Fatal> {
    // The worker's connections, in the process of a worker.
    sys::give_memory_back();
    let mut histograms = Histograms::default();
    let mut parts: Vec<Part> = (0..job.plan.size)
        .map(|rank| Part::open(job, rank, lost.contains(&rank), &mut histograms))
        .collect::<Result<_, _>>()?;
    let mut values = Values::default();
    let mut others = Others::new(job.plan.load.slo);
    let wanted = values.admit(histograms.iter().map(|(_, histogram)| histogram.count()).sum());
    let mut probing = Probing::default();
    for part in &mut parts {
        let client = part.record.client.clone();
        part.read_rows(job, wanted, |row| {
            values.add(row);
            others.add(row);
            if job.plan.load.search.is_some() {
                probing.add(row, &client);
            }
        })?;
        others.next_worker();
    }
    let from_rows = values.usable() && parts.iter().all(|part| part.rows_complete);
    let distribution = |name: &str| {
        if from_rows { values.of(name) } else { histograms.get(name).and_then(of_histogram) }
    };
    let mut tally = Tally::default();
    parts.iter().for_each(|part| tally.merge(&part.tally));
    let counts = counts(&parts, &tally);
    let duration = duration(&parts);
    let metrics = metrics(job, &tally, counts.planned, duration, &distribution);
    let operations = operations::of(
        &tally,
        metrics.duration_seconds,
        &distribution,
        &names(&histograms, &values),
    );
    let start = parts.iter().filter_map(Part::measure_start_epoch_ns).min().unwrap_or(0);
    let complete = parts.iter().all(|part| part.complete);
    let lost_workers: Vec<u32> =
        parts.iter().filter(|part| part.lost).map(|part| part.rank).collect();
    let client = client(job, &parts, &tally);
    let own_lag = distribution(OWN_LAG);
    let service_times = histograms.get("service");
    let evidence = verdict::Evidence { metrics: &metrics, own_lag, service_times };
    let verdicts = verdict::all(job, &parts, &counts, &tally, &evidence, &client);
    let mut examples = BTreeMap::new();
    for (class, text) in parts.iter().flat_map(|part| &part.record.examples) {
        examples.entry(class.to_string()).or_insert_with(|| text.clone());
    }
    let service = job.plan.load.service.as_ref().map(ToString::to_string);
    let service = service.or_else(|| job.plan.endpoints.first().map(|e| e.service.clone()));
    Ok(LoadResult {
        version: RESULT_VERSION,
        load: job.plan.load.name.to_string(),
        point: job.plan.point,
        settings: job.plan.settings.clone(),
        repeat: job.plan.repeat,
        service: service.unwrap_or_default(),
        driver: job.plan.load.driver.as_str().to_owned(),
        counts,
        probe: probing
            .record(&job.plan.load, &counts, &tally, &metrics, &values)
            .filter(|_| from_rows)
            .map(Box::new),
        search: None,
        comparable: from_rows.then(|| others.finish()).filter(some).map(Box::new),
        compatible: from_rows.then(|| Box::new(compatible(&metrics, &values))),
        metrics,
        operations,
        errors: tally.errors.iter().map(|(class, count)| (class.to_string(), *count)).collect(),
        error_examples: examples,
        verdicts,
        complete,
        stopped_because: stopped_because(job, &parts),
        lost_workers,
        source: if from_rows { "rows" } else { "histograms" }.to_owned(),
        plan: plan_record(job, &parts),
        client,
        measure_start_epoch_ns: start,
        measure_end_epoch_ns: start.saturating_add(duration.unwrap_or(0)),
    })
}

/// Writes `result.json` and `series.jsonl`, each by rename.
///
/// # Errors
/// Of the file system.
pub(crate) fn write(folder: &Path, result: &LoadResult) -> Result<(), Fatal> {
    let wrong = |name: &str, error: io::Error| {
        Fatal::loadgen(format!("writing '{}': {error}", folder.join(name).display()))
    };
    let path = folder.join(names::file::RESULT);
    let new = folder.join(format!("{}.new", names::file::RESULT));
    let written =
        serde_json::to_vec_pretty(result).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            std::fs::write(&new, text)?;
            std::fs::rename(&new, &path)
        });
    written.map_err(|error| wrong(names::file::RESULT, error))?;
    series::merge(folder, result.plan.workers).map_err(|error| wrong(names::file::SERIES, error))
}

/// Why the measured part ended: a rule ends it for all workers.
fn stopped_because(job: &Job, parts: &[Part]) -> Option<StoppedBecause> {
    let because = |rule: &str, reason: Option<&str>| {
        Some(StoppedBecause { rule: rule.to_owned(), reason: reason.map(str::to_owned) })
    };
    let records = || parts.iter().map(|part| &part.record);
    if let Some(by) = records().find_map(|record| record.stopped_by.as_ref()) {
        return because(&by.rule, Some(&by.reason));
    }
    if let Some(reason) = records().find_map(|record| record.stopped.as_deref()) {
        return because("interrupted", Some(reason));
    }
    if parts.iter().any(|part| part.lost) {
        return None;
    }
    match (&job.shape.arrival, job.shape.measure) {
        (_, Measure::Requests(_)) => because("requests", None),
        (Arrival::Trace { .. }, _) => because("trace", None),
        _ => because("time", None),
    }
}

/// The plan. The requests are the same for all workers.
fn plan_record(job: &Job, parts: &[Part]) -> PlanRecord {
    let records = || parts.iter().map(|part| &part.record.workload);
    let first = records().find(|record| !record.hash.is_empty()).cloned().unwrap_or_default();
    let file = |(path, sha256): (String, String)| PlanFile { path, sha256 };
    PlanRecord {
        seed: job.plan.load.seed,
        hash: Shape::combined_hash(parts.iter().map(|part| part.record.plan_hash.as_str())),
        workload_hash: first.hash,
        workers: job.plan.size,
        files: first.files.into_iter().map(file).collect(),
        entries: first.entries,
        entries_left_out: first.left_out,
        entries_reused: first.entries.map(|_| records().map(|record| record.reused).sum()),
        prefix_reuse_ratio: verdict::planned_reuse(parts),
    }
}

fn counts(parts: &[Part], tally: &Tally) -> Counts {
    let planned: Option<u64> = parts.iter().map(|part| part.planned).sum();
    Counts {
        planned,
        sent: tally.sent,
        ok: tally.ok,
        failed: tally.failed,
        cancelled: tally.cancelled,
        unfinished: tally.sent.saturating_sub(tally.ok + tally.failed + tally.cancelled),
        unsent: planned.map(|planned| planned.saturating_sub(tally.sent)),
        warmup: tally.warmup,
    }
}

/// Length of the measured part: to the end of its time or of its last request, whichever is
/// later. So a server that falls behind does not gain from the requests it answers afterwards.
fn duration(parts: &[Part]) -> Option<u64> {
    parts.iter().filter_map(Part::duration_ns).max()
}

/// Names of all distributions.
fn names(histograms: &Histograms, values: &Values) -> Vec<String> {
    let mut names: Vec<String> = histograms.iter().map(|(name, _)| name.to_owned()).collect();
    names.extend(values.names());
    names
}

fn metrics(
    job: &Job,
    tally: &Tally,
    planned: Option<u64>,
    duration: Option<u64>,
    distribution: &dyn Fn(&str) -> Option<Distribution>,
) -> Metrics {
    let duration_seconds = duration.map(seconds).filter(|seconds| *seconds > 0.0);
    let rate = |count: u64| duration_seconds.map(|duration| float(count) / duration);
    let counted = tally.from_usage + tally.from_chunks > 0;
    let slo = job.plan.load.slo.is_some();
    let due = planned.unwrap_or(tally.sent);
    let [ttft, ttfo, inter_token, tpot, e2e, total, service, client_lag, receive_lag] =
        METRICS.map(distribution);
    Metrics {
        duration_seconds,
        requests_per_second: rate(tally.ok),
        output_tokens_per_second: rate(tally.output_tokens).filter(|_| counted),
        output_tokens: counted.then_some(tally.output_tokens),
        input_tokens: (tally.input_tokens > 0).then_some(tally.input_tokens),
        token_source: match (tally.from_usage, tally.from_chunks) {
            (0, 0) => None,
            (_, 0) => Some("usage".to_owned()),
            (0, _) => Some("chunks".to_owned()),
            _ => Some("mixed".to_owned()),
        },
        goodput_per_second: rate(tally.good).filter(|_| slo),
        attainment_ratio: (slo && due > 0).then(|| float(tally.good) / float(due)),
        cached_input_tokens: (tally.cache_known > 0).then_some(tally.cached_tokens),
        events_per_read: (tally.content_events > 0 && tally.reads > 0)
            .then(|| float(tally.content_events) / float(tally.reads)),
        ttft_seconds: ttft,
        ttfo_seconds: ttfo,
        inter_token_seconds: inter_token,
        tpot_seconds: tpot,
        e2e_seconds: e2e,
        total_seconds: total,
        service_seconds: service,
        client_lag_seconds: client_lag,
        receive_lag_seconds: receive_lag,
        former_operations: BTreeMap::new(),
    }
}

/// Whether anything could be compared: a protocol without content events has nothing.
fn some(comparable: &Comparable) -> bool {
    *comparable != Comparable::default()
}

/// The main figures by the names and rules of earlier benchmarks.
fn compatible(metrics: &Metrics, values: &Values) -> Compatible {
    Compatible {
        response_time: values.interpolated("total", 1e9),
        throughput: metrics.requests_per_second,
        time_to_first_token: values.interpolated("ttft", 1e9),
        tokens_generated_per_second: values.interpolated(GENERATION, 1e3),
    }
}

fn client(job: &Job, parts: &[Part], tally: &Tally) -> ClientRecord {
    let load = &job.plan.load;
    let clients = || parts.iter().map(|part| &part.record.client).filter(|c| c.start_mono_ns > 0);
    let cpu_ns: u64 = clients().map(|client| client.cpu_ns).sum();
    let tokens = tally.output_tokens + tally.warmup_tokens;
    let late = || clients().map(|client| client.start_late_ns);
    let skew = late().max().zip(late().min()).map(|(max, min)| max - min);
    ClientRecord {
        cpu_seconds: seconds(cpu_ns),
        cpu_us_per_token: (tokens > 0).then(|| float(cpu_ns) / 1e3 / float(tokens)),
        peak_rss_bytes: clients().map(|client| client.peak_rss_bytes).max().unwrap_or(0),
        quick_ack: load.driver.over_http().then(|| load.connection().quick_ack.unwrap_or(true)),
        start_skew_ns: skew.filter(|_| clients().count() > 1),
        clock_error_ns: clients().map(|client| client.clock_error_ns).max(),
        // The coordinator knows them.
        clocks: Vec::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no load has 2^53 requests or tokens")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
