//! One load at one point in one repeat.

use std::collections::BTreeMap;

use aifb_schema::{
    figure::{Better, Figure, Unit, Value},
    result::{Comparable, Compatible, Counts, Distribution, LoadResult, Metrics, OperationResult},
};

use crate::{
    observe::view,
    report::{
        model::{Cell, Column, Section, Table},
        quantity::seconds,
    },
};

/// Its counts, rates, failures and verdicts, then its times.
pub(super) fn section(result: &LoadResult) -> Section {
    let metrics = &result.metrics;
    let mut tables = Vec::new();
    if !result.settings.is_empty() {
        let settings =
            result.settings.iter().map(|(path, value)| format!("{path}={}", plain(value)));
        tables.push(Table::words("at", settings.collect::<Vec<_>>().join(" ")));
    }
    tables.push(counts(&result.counts));
    tables.extend(throughput(metrics));
    tables.extend(tokens(metrics));
    tables.extend(result.compatible.as_deref().and_then(averages));
    tables.extend(result.comparable.as_deref().and_then(others_rates));
    tables.extend(failures(result));
    tables.extend(verdicts(result));
    if result.source != "rows" {
        tables.push(Table::words("percentiles", format!("from {}", result.source)));
    }
    tables.extend(times(result));
    tables.extend(operations(&result.operations));
    tables.extend(result.comparable.as_deref().and_then(others_times));
    Section { title: title(result), tables }
}

fn title(result: &LoadResult) -> String {
    let name = view::load_name(&result.load, result.point, result.repeat);
    let clients = match result.plan.workers {
        1 => "1 client".to_owned(),
        count => format!("{count} clients"),
    };
    let measured = result.metrics.duration_seconds;
    let measured =
        measured.map_or_else(String::new, |length| format!(", measured for {}", seconds(length)));
    format!("load {name}: {} on {}, {clients}{measured}", result.driver, result.service)
}

pub(super) fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Requests by what became of them.
pub(super) fn counts(counts: &Counts) -> Table {
    let bad = |name| Column::new(name, Unit::Count, Better::Lower);
    let columns = vec![
        Column::count("sent"),
        Column::count("ok").joined(" = "),
        bad("failed").joined(" + "),
        Column::count("cancelled").joined(" + "),
        bad("unfinished").joined(" + "),
        Column::count("planned").joined("; "),
        bad("not sent"),
        Column::count("warm-up requests (excluded)")
            .singular("warm-up request (excluded)")
            .joined("; "),
    ];
    Table::line("requests", columns).row(vec![
        Cell::Count(counts.sent),
        Cell::Count(counts.ok),
        Cell::Count(counts.failed),
        Cell::Count(counts.cancelled),
        Cell::Count(counts.unfinished),
        Cell::of(counts.planned, Cell::Count),
        Cell::of(counts.unsent, Cell::Count),
        Cell::of(Some(counts.warmup).filter(|warmup| *warmup > 0), Cell::Count),
    ])
}

/// A figure's cell, where it is a single value.
fn cell(figure: &Figure<'_>) -> Cell {
    match (figure.value, figure.unit) {
        (Value::Count(count), Unit::Bytes) => Cell::Bytes(count),
        (Value::Count(count), _) => Cell::Count(count),
        (Value::Number(value), Unit::Seconds) => Cell::Seconds(value),
        (Value::Number(value), Unit::Share) => Cell::Share(value),
        (Value::Number(value), _) => Cell::Rate(value),
        (Value::Distribution(_), _) => Cell::Absent,
    }
}

/// The figures that are rates or shares, on one line.
fn throughput(metrics: &Metrics) -> Option<Table> {
    let figures = metrics.each();
    let figures: Vec<&Figure<'_>> = figures
        .iter()
        .filter(|figure| matches!(figure.unit, Unit::PerSecond | Unit::Share))
        .collect();
    let columns = figures
        .iter()
        .map(|figure| Column::new(figure.label.to_owned(), figure.unit, figure.better))
        .collect();
    let row = figures.iter().map(|figure| cell(figure)).collect();
    (!figures.is_empty()).then(|| Table::line("throughput", columns).row(row))
}

fn tokens(metrics: &Metrics) -> Option<Table> {
    let output = metrics.output_tokens?;
    let source = match metrics.token_source.as_deref() {
        Some("usage") => Cell::text("token counts from the server's `usage`"),
        Some("chunks") => Cell::text("one per content event: the server sent no `usage`"),
        Some("mixed") => {
            Cell::text("token counts from the server's `usage`, content events where it sent none")
        }
        _ => Cell::Absent,
    };
    let columns = vec![
        Column::count("output"),
        Column::count("input"),
        Column::count("of them from the server's cache"),
        Column::text("source").joined("; "),
        Column::new("events per socket read", Unit::Number, Better::Neither).joined("; "),
    ];
    Some(Table::line("tokens", columns).row(vec![
        Cell::Count(output),
        Cell::of(metrics.input_tokens, Cell::Count),
        Cell::of(metrics.cached_input_tokens, Cell::Count),
        source,
        Cell::of(metrics.events_per_read, Cell::Rate),
    ]))
}

/// The main figures by the names of earlier benchmarks: their averages.
fn averages(figures: &Compatible) -> Option<Table> {
    let (lower, higher) = (Better::Lower, Better::Higher);
    let average = |one: &Option<aifb_schema::result::Interpolated>| one.map(|one| one.average);
    let cells = [
        ("response_time", Unit::Seconds, lower, average(&figures.response_time)),
        ("time_to_first_token", Unit::Seconds, lower, average(&figures.time_to_first_token)),
        (
            "tokens_generated_per_second",
            Unit::Number,
            higher,
            average(&figures.tokens_generated_per_second),
        ),
        ("throughput", Unit::PerSecond, higher, figures.throughput),
    ];
    let columns =
        cells.iter().map(|(name, unit, better, _)| Column::new(*name, *unit, *better).name_first());
    let row = cells.iter().map(|(_, unit, _, value)| match unit {
        Unit::Seconds => Cell::of(*value, Cell::Seconds),
        _ => Cell::of(*value, Cell::Rate),
    });
    cells
        .iter()
        .any(|(.., value)| value.is_some())
        .then(|| Table::line("averages", columns.collect()).row(row.collect()))
}

/// Rates by other tools' definitions.
fn others_rates(others: &Comparable) -> Option<Table> {
    let figures = others.each();
    let figures: Vec<&Figure<'_>> =
        figures.iter().filter(|figure| figure.distribution().is_none()).collect();
    let columns = figures.iter().map(|figure| {
        Column::new(figure.label.to_owned(), figure.unit, figure.better).name_first()
    });
    let row = figures.iter().map(|figure| cell(figure)).collect();
    (!figures.is_empty()).then(|| Table::line("other tools", columns.collect()).row(row))
}

/// The same requests by other tools' definitions, a row each.
fn others_times(others: &Comparable) -> Option<Table> {
    type Part = (&'static str, fn(&Distribution) -> f64);
    let parts: [Part; 4] = [
        ("p50", |one| one.p50),
        ("p90", |one| one.p90),
        ("p99", |one| one.p99),
        ("mean", |one| one.mean),
    ];
    let mut columns = vec![Column::text("")];
    columns.extend(parts.map(|(name, _)| Column::new(name, Unit::Seconds, Better::Lower)));
    let mut table = Table::grid("Same requests, by other tools' definitions", columns);
    for figure in others.each() {
        if let Some(one) = figure.distribution() {
            let mut row = vec![Cell::text(figure.label)];
            row.extend(parts.map(|(_, part)| Cell::Seconds(part(one))));
            table.rows.push(row);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn failures(result: &LoadResult) -> Option<Table> {
    let columns = vec![
        Column::new("requests", Unit::Count, Better::Lower).singular("request"),
        Column::text("class").joined(" with "),
        Column::text("example").joined(": "),
    ];
    let mut table = Table::line("failed", columns);
    table.rows.extend(result.errors.iter().map(|(class, count)| {
        let example = result.error_examples.get(class);
        vec![Cell::Count(*count), Cell::text(class), Cell::of(example, Cell::text)]
    }));
    (!table.rows.is_empty()).then_some(table)
}

fn verdicts(result: &LoadResult) -> Option<Table> {
    let columns = vec![Column::text("kind"), Column::text("message").joined(": ")];
    let mut table = Table::line("verdict", columns);
    table.rows.extend(
        result
            .verdicts
            .iter()
            .map(|verdict| vec![Cell::text(&verdict.kind), Cell::text(&verdict.message)]),
    );
    (!table.rows.is_empty()).then_some(table)
}

/// One row for each distribution that was measured.
fn times(result: &LoadResult) -> Option<Table> {
    let metrics = &result.metrics;
    let names = ["p50", "p90", "p95", "p99", "mean", "stddev", "min", "max"];
    let mut columns = vec![Column::text("")];
    columns.extend(names.map(|name| Column::new(name, Unit::Seconds, Better::Lower)));
    columns.push(Column::count("count"));
    let mut table = Table::grid("", columns);
    for figure in metrics.each() {
        let Some(one) = figure.distribution().filter(|_| !repeated(metrics, &figure)) else {
            continue;
        };
        table.rows.push(distribution(figure.label, one));
    }
    // A single operation is what the full response shows already.
    for (name, one) in result.operations.iter().filter(|_| result.operations.len() > 1) {
        table.rows.extend(one.total_seconds.as_ref().map(|total| distribution(name, total)));
        let failed = one.failed_total_seconds.as_ref();
        let row = failed.map(|total| distribution(&format!("{name}, failed"), total));
        table.rows.extend(row);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn distribution(name: &str, one: &Distribution) -> Vec<Cell> {
    let mut row = vec![Cell::text(name)];
    row.extend([one.p50, one.p90, one.p95, one.p99, one.mean].map(Cell::Seconds));
    row.push(Cell::of(one.stddev, Cell::Seconds));
    row.extend([one.min, one.max].map(Cell::Seconds));
    row.push(Cell::Count(one.count));
    row
}

/// What each operation did, where there are several or one that does several things; nothing for
/// results of programs that did not count by operation.
fn operations(operations: &BTreeMap<String, OperationResult>) -> Option<Table> {
    let single = operations.len() < 2
        && operations.values().all(|one| one.items.is_none() && one.recall.is_none());
    let columns = vec![
        Column::text("operation"),
        Column::count("sent"),
        Column::count("ok"),
        Column::new("failed", Unit::Count, Better::Lower),
        Column::new("requests", Unit::PerSecond, Better::Higher),
        Column::new("items", Unit::PerSecond, Better::Higher),
        Column::new("payload", Unit::Bytes, Better::Neither),
        Column::new("recall (mean)", Unit::Share, Better::Higher),
    ];
    let mut table = Table::grid("", columns);
    for (name, one) in operations.iter().filter(|_| !single) {
        let Some(counts) = one.counts else { continue };
        table.rows.push(vec![
            Cell::text(name),
            Cell::Count(counts.sent),
            Cell::Count(counts.ok),
            Cell::Count(counts.failed),
            Cell::of(one.requests_per_second, Cell::Rate),
            Cell::of(one.items_per_second, Cell::Rate),
            Cell::of(one.payload_bytes, Cell::Bytes),
            Cell::of(one.recall.map(|recall| recall.mean), Cell::Share),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Whether another row of the table says the same: first output and first token, where no token is
/// reasoning.
fn repeated(metrics: &Metrics, figure: &Figure<'_>) -> bool {
    figure.name == "ttfo_seconds" && metrics.ttfo_seconds == metrics.ttft_seconds
}
