use std::{collections::HashMap, path::Path};

use aifb_schema::{control::LoadPlan, result::Distribution};

use super::*;
use crate::{
    fault::Class,
    record::{
        checkpoint::{self, ClientState, WorkerRecord},
        checkpoint_path,
        row::{Outcome, Row},
        rows::RowWriter,
        rows_path,
        tally::{Histograms, Limits},
    },
};

const START: u64 = 1_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A load of 100/s for 10 s in three parts.
fn job(folder: &Path) -> Job {
    let load = serde_json::json!({
        "name": "x", "driver": "openai-chat", "arrival": {"process": "constant", "rate": "100/s"},
        "phases": {"measure": "10s"}, "slo": {"ttft": "300ms"},
    });
    let plan = LoadPlan {
        run_id: "r".into(),
        folder: folder.display().to_string(),
        load: serde_json::from_value(load).unwrap(),
        point: 0,
        settings: BTreeMap::new(),
        repeat: 0,
        size: 3,
        rank: None,
        endpoints: Vec::new(),
        model: None,
        secrets: BTreeMap::new(),
    };
    Job::new(plan, 0).unwrap()
}

/// One worker's part, as it would be measured.
struct Worker {
    rows: Vec<Row>,
    record: WorkerRecord,
}

/// A part in which every request did well.
fn worker(job: &Job, rank: u32) -> Worker {
    let plan = job.shape.worker(rank).unwrap();
    let crate::plan::Sends::Open { measure, .. } = &plan.sends else { panic!("open") };
    let rows = measure.iter().enumerate().map(|(index, due)| {
        let mut row = crate::record::row::tests::streamed();
        let planned = START + due;
        // Times of many magnitudes: 10 ms to 600 ms.
        let wait = 10_000_000 + (index as u64 * 7_919 + u64::from(rank) * 31) % 997 * 590_000;
        row.planned_ns = planned;
        row.dequeued_ns = planned + 10_000;
        row.seen = crate::record::row::Seen {
            first_write_ns: Some(planned + 20_000 + wait / 10_000),
            output_tokens: Some(3),
            token_source: Some(crate::record::row::TokenSource::Usage),
            ..Default::default()
        };
        for token in 0..3 {
            row.seen.content(planned + wait + token * (5_000_000 + wait / 50));
        }
        row.end_ns = row.seen.last_content_ns.unwrap() + 1_000;
        row
    });
    let record = WorkerRecord {
        rank,
        size: 3,
        ended: true,
        planned: plan.planned(),
        plan_hash: plan.hash,
        client: ClientState {
            start_mono_ns: START,
            start_late_ns: u64::from(rank) * 1_000,
            measure_start_ns: START,
            measure_end_ns: Some(START + 10 * SECOND),
            epoch_minus_mono_ns: 7 * SECOND as i64,
            cpu_ns: SECOND,
            thread_wall_ns: 10 * SECOND,
            thread_cpu_ns: SECOND,
            peak_rss_bytes: 1 << 20,
            ..ClientState::default()
        },
        ..WorkerRecord::default()
    };
    Worker { rows: rows.collect(), record }
}

impl Worker {
    /// Writes the files as the recorder would.
    fn write(mut self, folder: &Path) {
        let rank = self.record.rank;
        let limits = Limits { ttft_ns: Some(300_000_000), ..Limits::default() };
        let limits = Limits { window_end_ns: self.record.client.measure_end_ns, ..limits };
        let mut histograms = Histograms::default();
        for row in &self.rows {
            self.record.tally.begin(row, &limits);
            self.record.tally.end(row, &limits);
            histograms.add(row);
        }
        self.record.rows = self.rows.len() as u64;
        let mut writer = RowWriter::create(&rows_path(folder, rank), HashMap::new()).unwrap();
        writer.append(&self.rows).unwrap();
        writer.finish().unwrap();
        checkpoint::write(&checkpoint_path(folder, rank), &self.record, &histograms).unwrap();
    }
}

/// The result of three workers, changed by `change`.
fn merged(change: impl Fn(&mut Worker)) -> LoadResult {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    for rank in 0..3 {
        let mut worker = worker(&job, rank);
        change(&mut worker);
        worker.write(folder.path());
    }
    let result = result(&job, &[]).unwrap();
    assert!(result.counts.balanced(), "{:?}", result.counts);
    result
}

fn kinds(result: &LoadResult) -> Vec<&str> {
    result.verdicts.iter().map(|verdict| verdict.kind.as_str()).collect()
}

#[test]
fn three_good_parts_are_one_result_without_doubt() {
    let result = merged(|_| {});
    assert_eq!(kinds(&result), [""; 0]);
    let counts = result.counts;
    assert_eq!(
        (counts.planned, counts.sent, counts.ok, counts.unsent),
        (Some(1000), 1000, 1000, Some(0))
    );
    assert!(result.complete);
    assert_eq!(result.source, "rows");
    assert_eq!(result.metrics.output_tokens, Some(3000));
    assert_eq!(result.operations["chat"].total_seconds.unwrap().count, 1000);
    assert_eq!(result.client.cpu_seconds, 3.0);
    assert_eq!(result.client.cpu_us_per_token, Some(1000.0));
    assert_eq!(result.client.start_skew_ns, Some(2_000));
    assert_eq!(result.measure_start_epoch_ns, START + 7 * SECOND);
    // The last requests end after the window: then the window does not end before them.
    let duration = result.metrics.duration_seconds.unwrap();
    assert!(duration > 10.0 && duration < 10.7, "{duration}");
    let attained = result.metrics.attainment_ratio.unwrap();
    assert!((0.4..0.6).contains(&attained), "{attained}");
    assert_eq!(result.metrics.goodput_per_second.unwrap(), attained * 1000.0 / duration);
}

#[test]
fn merged_histograms_agree_with_the_rows_to_a_thousandth() {
    let rows = merged(|_| {});
    // A row that was dropped: the rows are not complete, the histograms are.
    let histograms = merged(|worker| worker.record.rows_dropped = 1);
    assert_eq!(histograms.source, "histograms");
    assert_eq!(kinds(&histograms), ["incomplete"]);
    let metrics = |result: &LoadResult| -> Vec<Distribution> {
        let metrics = &result.metrics;
        [
            metrics.ttft_seconds,
            metrics.inter_token_seconds,
            metrics.tpot_seconds,
            metrics.e2e_seconds,
            metrics.total_seconds,
            metrics.service_seconds,
            metrics.client_lag_seconds,
            result.operations["chat"].total_seconds,
        ]
        .into_iter()
        .map(Option::unwrap)
        .collect()
    };
    for (exact, merged) in metrics(&rows).into_iter().zip(metrics(&histograms)) {
        assert_eq!(exact.count, merged.count);
        for (a, b) in [
            (exact.mean, merged.mean),
            (exact.min, merged.min),
            (exact.p50, merged.p50),
            (exact.p90, merged.p90),
            (exact.p95, merged.p95),
            (exact.p99, merged.p99),
            (exact.max, merged.max),
        ] {
            assert!((a - b).abs() <= a * 1.001e-3, "{a} and {b}");
        }
    }
}

#[test]
fn failures_count_but_have_no_latency() {
    let result = merged(|worker| {
        for row in worker.rows.iter_mut().step_by(2) {
            row.outcome = Outcome::Failed;
            row.error = Some(Class::Status5xx);
        }
        worker.record.examples.insert(Class::Status5xx, "503: busy".into());
    });
    let counts = result.counts;
    assert_eq!((counts.ok, counts.failed), (499, 501));
    assert_eq!(result.errors["status_5xx"], 501);
    assert_eq!(result.error_examples["status_5xx"], "503: busy");
    assert_eq!(result.metrics.ttft_seconds.unwrap().count, 499);
    assert!(result.metrics.attainment_ratio.unwrap() < 0.3, "failures are in the denominator");
}

#[test]
fn a_lost_worker_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    // Rank 1 left nothing at all, rank 2 stopped in the middle.
    worker(&job, 0).write(folder.path());
    let mut third = worker(&job, 2);
    third.record.ended = false;
    third.rows.truncate(100);
    third.write(folder.path());
    let result = result(&job, &[1, 2]).unwrap();
    assert!(result.counts.balanced());
    assert_eq!((result.complete, result.lost_workers.as_slice()), (false, &[1, 2][..]));
    assert_eq!((result.counts.planned, result.counts.sent), (Some(1000), 334 + 100));
    assert_eq!(result.counts.unsent, Some(1000 - 434));
    let message = &result.verdicts.iter().find(|v| v.kind == "incomplete").unwrap().message;
    assert!(message.contains("2 of 3 workers lost: rank 1, 2"), "{message}");
    assert_eq!(
        result.plan.hash,
        Shape::combined_hash(
            (0..3)
                .map(|rank| job.shape.worker(rank).unwrap().hash)
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
        ),
        "the plan of a lost worker is known"
    );
}

/// Each verdict fires where it should; the good result above has none.
#[test]
fn verdicts_fire() {
    let lag = |worker: &mut Worker| {
        for row in worker.rows.iter_mut().step_by(50) {
            row.seen.first_write_ns = Some(row.planned_ns + 9_000_000);
        }
    };
    assert_eq!(kinds(&merged(lag)), ["client_saturated"]);
    let busy = |worker: &mut Worker| worker.record.client.thread_cpu_ns = 9 * SECOND;
    assert_eq!(kinds(&merged(busy)), ["client_saturated"]);
    let waiting = |worker: &mut Worker| worker.record.client.thread_waited_ns = SECOND * 6 / 10;
    assert_eq!(kinds(&merged(waiting)), ["client_saturated"]);
    let little = |worker: &mut Worker| worker.record.client.thread_waited_ns = SECOND * 4 / 10;
    assert_eq!(kinds(&merged(little)), [""; 0]);
    let stall = |worker: &mut Worker| worker.record.client.stall_max_ns = SECOND / 2;
    assert_eq!(kinds(&merged(stall)), ["client_stall"]);
    let unsent = |worker: &mut Worker| worker.rows.truncate(320);
    assert_eq!(kinds(&merged(unsent)), ["rate_not_delivered"]);
    let late = |worker: &mut Worker| {
        for row in worker.rows.iter_mut().rev().take(5) {
            row.dequeued_ns = START + 10 * SECOND + 20_000_000;
        }
    };
    assert_eq!(kinds(&merged(late)), ["rate_not_delivered"]);
    let few = |worker: &mut Worker| {
        for row in worker.rows.iter_mut().skip(20) {
            row.outcome = Outcome::Cancelled;
        }
    };
    assert_eq!(kinds(&merged(few)), ["too_few_samples"]);
    let clock = |worker: &mut Worker| worker.record.client.clock_error_ns = 1_500_000;
    assert_eq!(kinds(&merged(clock)), ["clock_error"]);
    let stopped = |worker: &mut Worker| worker.record.stopped = Some("asked for".into());
    assert_eq!(kinds(&merged(stopped)), ["incomplete"]);
    // Three of four answers wait for the timer of delayed acknowledgements.
    let plateau = |worker: &mut Worker| {
        for (index, row) in worker.rows.iter_mut().enumerate() {
            let service = if index % 4 == 0 { 200_000 } else { 41_000_000 + index as u64 * 1_000 };
            let written = row.planned_ns + 20_000;
            row.seen =
                crate::record::row::Seen { first_write_ns: Some(written), ..Default::default() };
            row.end_ns = written + service;
        }
    };
    assert_eq!(kinds(&merged(plateau)), ["delayed_ack_plateau"]);
    let cached = |worker: &mut Worker| {
        for row in &mut worker.rows {
            row.seen.input_tokens = Some(100);
            row.seen.cached_tokens = Some(60);
        }
    };
    let result = merged(cached);
    assert_eq!(kinds(&result), ["cached_prompts"]);
    assert_eq!(result.metrics.cached_input_tokens, Some(60_000));
    // The template around the prompts is the same each time.
    let template = |worker: &mut Worker| {
        for row in &mut worker.rows {
            row.seen.input_tokens = Some(100);
            row.seen.cached_tokens = Some(8);
        }
    };
    assert_eq!(kinds(&merged(template)), [""; 0]);
}

/// The same prompt each time is planned reuse.
#[test]
fn a_planned_repetition_is_no_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    for rank in 0..3 {
        let mut worker = worker(&job, rank);
        worker.record.workload.input_tokens = 1_000;
        worker.record.workload.repeated_tokens = 990;
        for row in &mut worker.rows {
            row.seen.input_tokens = Some(100);
            row.seen.cached_tokens = Some(99);
        }
        worker.write(folder.path());
    }
    let result = result(&job, &[]).unwrap();
    assert_eq!(kinds(&result), [""; 0]);
}

#[test]
fn others_and_earlier_benchmarks_have_their_figures() {
    let result = merged(|_| {});
    let others = result.comparable.unwrap();
    let ours = result.metrics;
    // Taken up 10 µs after the plan, and C1 is what sglang counts.
    let (sglang, ttft) = (others.ttft_sglang_seconds.unwrap(), ours.ttft_seconds.unwrap());
    assert_eq!(sglang.count, 1000);
    assert!((ttft.p50 - sglang.p50 - 10e-6).abs() < ttft.p50 * 1e-3, "{sglang:?} {ttft:?}");
    assert_eq!(others.ttft_mlperf_seconds.unwrap().count, 1000);
    assert_eq!(others.ttft_vllm_seconds, None, "these rows have no choices");
    let compatible = result.compatible.unwrap();
    let response = compatible.response_time.unwrap();
    let total = ours.total_seconds.unwrap();
    assert_eq!((response.count, response.min, response.max), (1000, total.min, total.max));
    assert!((response.average - total.mean).abs() < 1e-9);
    assert_eq!(compatible.throughput, ours.requests_per_second);
    let tokens = compatible.tokens_generated_per_second.unwrap();
    // The fastest answer of three tokens takes about 20 ms.
    assert!(tokens.max > 100.0 && tokens.max < 160.0, "{tokens:?}");
    assert_eq!(compatible.time_to_first_token.unwrap().count, 1000);
    // Without every row there are none.
    let lost = merged(|worker| worker.record.rows_dropped = 1);
    assert_eq!((lost.comparable, lost.compatible), (None, None));
}

/// A probe of a search carries what the search decides by.
#[test]
fn a_probe_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(folder.path());
    job.plan.load.search = serde_json::from_value(serde_json::json!({
        "slo": {"ttft_p99": "300ms", "attainment": 0.4, "tpot_p50": "1s"},
        "from": "1/s", "to": "1000/s",
    }))
    .unwrap();
    for rank in 0..3 {
        let mut worker = worker(&job, rank);
        if rank == 0 {
            worker.rows[0].outcome = Outcome::Failed;
        }
        worker.write(folder.path());
    }
    let result = result(&job, &[]).unwrap();
    let probe = result.probe.unwrap();
    assert_eq!(probe.level, 100.0);
    let named = |name: &str| probe.objectives.iter().find(|one| one.name == name).unwrap();
    let (ttft, attainment, tpot) = (named("ttft_p99"), named("attainment"), named("tpot_p50"));
    assert_eq!((tpot.beyond, tpot.of), (1, 1000), "the one that failed");
    assert!(ttft.beyond > 400 && ttft.beyond == attainment.beyond, "{probe:#?}");
    assert!((ttft.limit, attainment.limit) == (0.3, 0.4));
    let growth = probe.response_growth.unwrap();
    assert!(growth.slope.abs() < 0.005, "{growth:?}");
    assert!(probe.answered_per_second.unwrap() > 90.0);
}

/// Every other request inserts; every fourth of these fails, 7 ms after its instant.
fn mixed(worker: &mut Worker) {
    for (index, row) in worker.rows.iter_mut().enumerate() {
        let insert = index % 2 == 1;
        row.operation = if insert { "insert" } else { "select" }.into();
        row.seen.items = insert.then_some(5);
        row.seen.payload_bytes = (!insert).then_some(1_000);
        row.seen.recall = (!insert).then_some(if index % 4 == 0 { 0.5 } else { 1.0 });
        if index % 8 == 1 {
            row.outcome = Outcome::Failed;
            row.error = Some(Class::Sql);
            row.end_ns = row.planned_ns + 7_000_000;
        }
    }
}

#[test]
fn operations_are_counted_apart_and_balance() {
    let exact = merged(mixed);
    let from_histograms = merged(|worker| {
        mixed(worker);
        worker.record.rows_dropped = 1;
    });
    assert_eq!((exact.source.as_str(), from_histograms.source.as_str()), ("rows", "histograms"));
    for result in [&exact, &from_histograms] {
        let counts = |name: &str| result.operations[name].counts.unwrap();
        let (select, insert) = (counts("select"), counts("insert"));
        assert_eq!(result.operations.len(), 2);
        assert_eq!(select.sent + insert.sent, result.counts.sent);
        assert_eq!(select.ok + insert.ok, result.counts.ok);
        assert_eq!((select.failed, insert.failed), (0, result.counts.failed));
        let (select, insert) = (&result.operations["select"], &result.operations["insert"]);
        assert_eq!((select.errors.len(), insert.errors["sql"]), (0, result.counts.failed));
        assert_eq!(insert.items, Some(5 * insert.counts.unwrap().ok), "of successful ones");
        assert_eq!((select.items, select.items_per_second), (None, None));
        let duration = result.metrics.duration_seconds.unwrap();
        let bytes = select.payload_bytes.unwrap();
        assert_eq!(bytes, 1_000 * select.counts.unwrap().ok);
        assert_eq!(select.payload_bytes_per_second, Some(float(bytes) / duration));
        let failed = insert.failed_total_seconds.unwrap();
        assert_eq!(failed.count, result.counts.failed);
        assert!((failed.max - 0.007).abs() < 1e-5, "{failed:?}");
        assert!(insert.total_seconds.unwrap().min > 0.01, "failures are not in it");
        assert_eq!(select.failed_total_seconds, None);
        let recall = select.recall.unwrap();
        assert!((recall.min - 0.5).abs() < 1e-3 && (recall.max - 1.0).abs() < 1e-3, "{recall:?}");
        assert!((recall.mean - 0.75).abs() < 0.01, "{recall:?}");
        assert_eq!(insert.recall, None);
    }
}

/// A worker that was lost with requests in flight: their operations are known from its checkpoint.
#[test]
fn operations_of_a_lost_worker_balance() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    for rank in 0..3 {
        let mut worker = worker(&job, rank);
        mixed(&mut worker);
        if rank == 2 {
            worker.record.ended = false;
            for row in &worker.rows[..10] {
                worker.record.tally.begin(row, &Limits::default());
            }
        }
        worker.write(folder.path());
    }
    let result = result(&job, &[2]).unwrap();
    assert_eq!((result.counts.unfinished, result.counts.balanced()), (10, true));
    let counts = || result.operations.values().map(|one| one.counts.unwrap());
    assert_eq!(counts().map(|one| one.sent).sum::<u64>(), result.counts.sent);
    assert!(counts().all(|one| one.unfinished == 5), "{:?}", result.operations);
}

/// Checkpoints of earlier programs have no operations: the rows tell; without them the counts are
/// absent and the times are there.
#[test]
fn operations_of_earlier_programs_are_found_or_absent() {
    let rewrite = |dropped: u64| {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path());
        for rank in 0..3 {
            let mut worker = worker(&job, rank);
            mixed(&mut worker);
            worker.write(folder.path());
            let path = checkpoint_path(folder.path(), rank);
            let (mut record, histograms) = checkpoint::read(&path).unwrap();
            record.tally.operations = Default::default();
            record.rows_dropped = dropped;
            checkpoint::write(&path, &record, &histograms).unwrap();
        }
        result(&job, &[]).unwrap()
    };
    assert_eq!(rewrite(0).operations, merged(mixed).operations);
    let without_rows = rewrite(1).operations;
    let select = &without_rows["select"];
    assert_eq!((select.counts, select.items, select.requests_per_second), (None, None, None));
    assert!(select.total_seconds.unwrap().count > 400);
}
