//! The report as text: first what a hurried reader needs, then the rest. Deterministic, so that
//! two reports can be compared line by line.

use std::fmt::Write as _;

use aifb_schema::{
    result::{Distribution, LoadResult, Metrics, NodeResources, Report},
    run::{RunRecord, State},
};
use serde_json::Value;

use super::{
    quantity::{bytes, digits, seconds},
    tables,
};
use crate::{observe::view, output::table};

/// The whole text, with a line end at its end.
pub(crate) fn text(report: &Report, folder: &str) -> String {
    let mut out = table(&head(report, folder));
    for result in &report.results {
        out.push('\n');
        put_load(&mut out, result);
    }
    for load in loads(&report.results) {
        if let [first, _, ..] = load.as_slice() {
            let _infallible = writeln!(out, "\nload {}: all points", first.load);
            out.push_str(&indented(&tables::sweep(&load)));
        }
    }
    for found in &report.searches {
        let (answer, probes) = tables::search(found);
        let _infallible = writeln!(out, "\n{}", tables::search_title(found));
        out.push_str(&indented(&answer));
        out.push('\n');
        out.push_str(&indented(&probes));
    }
    if report.results.len() > 1 {
        let _infallible =
            write!(out, "\nall loads together\n{}", indented(&[counts_row(&report.counts)]));
    }
    if !report.nodes.is_empty() {
        out.push('\n');
        put_nodes(&mut out, report);
    }
    if !report.warnings.is_empty() {
        out.push_str("\nwarnings\n");
        for warning in &report.warnings {
            let _infallible = writeln!(out, "  {warning}");
        }
    }
    out
}

/// The results of each load, in their order.
fn loads(results: &[LoadResult]) -> Vec<Vec<&LoadResult>> {
    results.chunk_by(|a, b| a.load == b.load).map(|load| load.iter().collect()).collect()
}

/// What the run is and how it ended.
fn head(report: &Report, folder: &str) -> Vec<Vec<String>> {
    let run = &report.run;
    let mut rows = Vec::new();
    let mut row = |what: &str, text: String| rows.push(vec![what.to_owned(), text]);
    row("run", format!("{} ({}, {})", run.run_id, run.name, run.mode));
    row("state", report.state.as_str().to_owned());
    if let Some(failure) = &run.failure {
        let (first, more) = split_first_line(&failure.render());
        row("failure", first);
        more.into_iter().for_each(|line| row("", line));
    }
    if let Some(job) = job(run) {
        row("job", job);
    }
    let nodes: Vec<String> = run.job.components.iter().map(|nodes| nodes.join(" ")).collect();
    row("nodes", nodes.join(" : "));
    row("time", times(run));
    let sets = match run.sets.as_slice() {
        [] => String::new(),
        sets => format!(", with {}", sets.join(" ")),
    };
    row("recipe", format!("{}{sets}", run.recipe_path));
    row("folder", folder.to_owned());
    if report.results.is_empty() {
        row("results", "none: no load has ended".into());
    }
    rows
}

fn split_first_line(text: &str) -> (String, Vec<String>) {
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.collect())
}

fn job(run: &RunRecord) -> Option<String> {
    let mut text = run.job.id?.to_string();
    if let Some(cluster) = &run.job.cluster {
        let _infallible = write!(text, " on {cluster}");
    }
    if let Some(slurm) = &run.slurm {
        let _infallible = write!(text, ": {}", slurm.state);
        if let Some(code) = slurm.exit_code {
            let _infallible = write!(text, ", exit code {code}");
        }
        if let Some(signal) = slurm.signal {
            let _infallible = write!(text, ", signal {signal}");
        }
        if let Some(reason) = &slurm.reason {
            let _infallible = write!(text, ", {reason}");
        }
    }
    Some(text)
}

fn times(run: &RunRecord) -> String {
    let after = |epoch_ns: u64| view::length(epoch_ns.saturating_sub(run.started_epoch_ns));
    let mut text = format!("started {}", view::wall_clock(run.started_epoch_ns));
    if let Some(healthy) = run.healthy_epoch_ns {
        let _infallible = write!(text, ", healthy after {}", after(healthy));
    }
    if let Some(ended) = &run.ended {
        let _infallible = write!(text, ", ended after {}", after(ended.epoch_ns));
        // Slurm ends the agents of every job with a signal: of a completed run it says nothing.
        if let Some(signal) = ended.signal.as_ref().filter(|_| run.state != State::Completed) {
            let _infallible = write!(text, " by {signal}");
        }
    }
    text
}

fn put_load(out: &mut String, result: &LoadResult) {
    let metrics = &result.metrics;
    let name = view::load_name(&result.load, result.point, result.repeat);
    let clients = match result.plan.workers {
        1 => "1 client".to_owned(),
        count => format!("{count} clients"),
    };
    let _infallible =
        write!(out, "load {name}: {} on {}, {clients}", result.driver, result.service);
    if let Some(duration) = metrics.duration_seconds {
        let _infallible = write!(out, ", measured for {}", seconds(duration));
    }
    out.push('\n');
    let mut rows = Vec::new();
    if !result.settings.is_empty() {
        let settings =
            result.settings.iter().map(|(path, value)| format!("{path}={}", plain(value)));
        rows.push(vec!["at".to_owned(), settings.collect::<Vec<_>>().join(" ")]);
    }
    rows.push(counts_row(&result.counts));
    rows.extend(throughput_row(metrics));
    rows.extend(tokens_row(metrics));
    rows.extend(result.compatible.as_deref().and_then(tables::compatible));
    for (class, count) in &result.errors {
        let example = result
            .error_examples
            .get(class)
            .map_or(String::new(), |example| format!(": {example}"));
        rows.push(vec!["failed".to_owned(), format!("{count} with {class}{example}")]);
    }
    for verdict in &result.verdicts {
        rows.push(vec!["verdict".to_owned(), format!("{}: {}", verdict.kind, verdict.message)]);
    }
    out.push_str(&indented(&rows));
    let distributions = distributions(result);
    if !distributions.is_empty() {
        out.push('\n');
        out.push_str(&indented(&distributions));
    }
    let operations = tables::operations(&result.operations);
    if !operations.is_empty() {
        out.push('\n');
        out.push_str(&indented(&operations));
    }
    if let Some(others) = &result.comparable {
        out.push('\n');
        out.push_str(&indented(&tables::comparable(others)));
    }
    if result.source != "rows" {
        let _infallible = writeln!(out, "  percentiles from {}", result.source);
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn counts_row(counts: &aifb_schema::result::Counts) -> Vec<String> {
    let mut text = format!(
        "{} sent = {} ok + {} failed + {} cancelled + {} unfinished",
        counts.sent, counts.ok, counts.failed, counts.cancelled, counts.unfinished
    );
    if let (Some(planned), Some(unsent)) = (counts.planned, counts.unsent) {
        let _infallible = write!(text, "; {planned} planned, {unsent} unsent");
    }
    if counts.warmup > 0 {
        let _infallible = write!(text, "; {} before, to warm up", counts.warmup);
    }
    vec!["requests".to_owned(), text]
}

fn throughput_row(metrics: &Metrics) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    if let Some(rate) = metrics.requests_per_second {
        parts.push(format!("{} requests/s", digits(rate)));
    }
    if let Some(rate) = metrics.output_tokens_per_second {
        parts.push(format!("{} output tokens/s", digits(rate)));
    }
    if let Some(rate) = metrics.goodput_per_second {
        let share = metrics.attainment_ratio.map_or(String::new(), |ratio| {
            format!(" ({} % within the SLO)", digits(ratio * 100.0))
        });
        parts.push(format!("goodput {}/s{share}", digits(rate)));
    }
    (!parts.is_empty()).then(|| vec!["throughput".to_owned(), parts.join(", ")])
}

fn tokens_row(metrics: &Metrics) -> Option<Vec<String>> {
    let output = metrics.output_tokens?;
    let mut text = format!("{output} output");
    if let Some(input) = metrics.input_tokens {
        let _infallible = write!(text, ", {input} input");
        if let Some(cached) = metrics.cached_input_tokens {
            let _infallible = write!(text, " ({cached} of them from the server's cache)");
        }
    }
    match metrics.token_source.as_deref() {
        Some("usage") => text.push_str(" (the server's count)"),
        Some("chunks") => text.push_str(" (content events: the server does not count)"),
        Some("mixed") => text.push_str(" (the server's count, content events where it has none)"),
        _ => {}
    }
    if let Some(events) = metrics.events_per_read {
        let _infallible = write!(text, ", {} events a read", digits(events));
    }
    Some(vec!["tokens".to_owned(), text])
}

/// One row for each distribution that was measured.
fn distributions(result: &LoadResult) -> Vec<Vec<String>> {
    let metrics = &result.metrics;
    let named = [
        ("TTFT", &metrics.ttft_seconds),
        // Where nothing thinks first, it is the same.
        (
            "TTFO",
            if metrics.ttfo_seconds == metrics.ttft_seconds {
                &None
            } else {
                &metrics.ttfo_seconds
            },
        ),
        ("inter-token", &metrics.inter_token_seconds),
        ("TPOT", &metrics.tpot_seconds),
        ("e2e", &metrics.e2e_seconds),
        ("total", &metrics.total_seconds),
        ("service", &metrics.service_seconds),
        ("client lag", &metrics.client_lag_seconds),
    ];
    let named = named.into_iter().filter_map(|(name, one)| Some((name.to_owned(), one.as_ref()?)));
    // A single operation is what `total` shows already.
    let several = result.operations.iter().filter(|_| result.operations.len() > 1);
    let operations = several.flat_map(|(name, one)| {
        let ok = one.total_seconds.as_ref().map(|total| (name.clone(), total));
        let failed = one.failed_total_seconds.as_ref();
        ok.into_iter().chain(failed.map(|total| (format!("{name}, failed"), total)))
    });
    let rows: Vec<Vec<String>> =
        named.chain(operations).map(|(name, one)| distribution_row(name, one)).collect();
    if rows.is_empty() {
        return rows;
    }
    let head = ["", "p50", "p90", "p95", "p99", "mean", "stddev", "min", "max", "count"];
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
}

fn distribution_row(name: String, one: &Distribution) -> Vec<String> {
    let mut row = vec![name];
    row.extend([one.p50, one.p90, one.p95, one.p99, one.mean].map(seconds));
    row.push(one.stddev.map_or_else(absent, seconds));
    row.extend([one.min, one.max].map(seconds));
    row.push(one.count.to_string());
    row
}

fn put_nodes(out: &mut String, report: &Report) {
    let span = match &report.window {
        Some(window) => {
            let length = window.end_epoch_ns.saturating_sub(window.start_epoch_ns);
            format!("from the start of the measured part to its end ({})", view::length(length))
        }
        None => "over the whole run".to_owned(),
    };
    let _infallible = writeln!(out, "resources {span}");
    let mut rows =
        vec![["node", "of", "CPU time", "cores", "memory max"].map(str::to_owned).to_vec()];
    report.nodes.iter().for_each(|node| put_node(&mut rows, node));
    out.push_str(&indented(&rows));
    out.push('\n');
    let head = ["node", "received", "sent", "disk read", "disk written", "samples", "missing"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let size = |value: Option<u64>| value.map_or_else(absent, bytes);
    for node in &report.nodes {
        rows.push(vec![
            node.node.clone(),
            size(node.network_received_bytes),
            size(node.network_sent_bytes),
            size(node.disk_read_bytes),
            size(node.disk_written_bytes),
            node.samples.to_string(),
            node.gaps.to_string(),
        ]);
    }
    out.push_str(&indented(&rows));
}

/// What stands where nothing was measured.
fn absent() -> String {
    "-".to_owned()
}

fn put_node(rows: &mut Vec<Vec<String>>, node: &NodeResources) {
    let mut row = |of: String, cpu: Option<f64>, memory: Option<u64>| {
        let cores = cpu.filter(|_| node.seconds > 0.0).map(|cpu| cpu / node.seconds);
        rows.push(vec![
            node.node.clone(),
            of,
            cpu.map_or_else(absent, seconds),
            cores.map_or_else(absent, |cores| format!("{cores:.2}")),
            memory.map_or_else(absent, bytes),
        ]);
    };
    row("node".into(), node.node_cpu_seconds, node.node_memory_max_bytes);
    if node.job_cpu_seconds.is_some() || node.job_memory_max_bytes.is_some() {
        row("job".into(), node.job_cpu_seconds, node.job_memory_max_bytes);
    }
    let names = node.service_cpu_seconds.keys().chain(node.service_memory_max_bytes.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let cpu = node.service_cpu_seconds.get(name).copied();
        let memory = node.service_memory_max_bytes.get(name).copied();
        row(format!("service {name}"), cpu, memory);
    }
    row("agent".into(), node.agent_cpu_seconds, node.agent_memory_max_bytes);
}

/// A table, two blanks further in.
fn indented(rows: &[Vec<String>]) -> String {
    table(rows).lines().fold(String::new(), |mut text, line| {
        let _infallible = writeln!(text, "  {line}");
        text
    })
}
