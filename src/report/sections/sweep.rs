//! A line for each point and repeat of a load that has several.

use aifb_schema::{
    figure::{Better, Unit},
    result::{Distribution, LoadResult},
};

use super::load::plain;
use crate::report::{
    model::{Cell, Column, Section, Table},
    quantity::digits,
};

/// All results of one load; nothing where there is none.
pub(super) fn section(results: &[LoadResult]) -> Option<Section> {
    let rate = |name: &'static str| Column::new(name, Unit::PerSecond, Better::Higher);
    let time = |name: &'static str| Column::new(name, Unit::Seconds, Better::Lower);
    let columns = vec![
        Column::text(""),
        Column::text("at"),
        Column::count("sent"),
        Column::count("ok"),
        rate("requests"),
        time("TTFT p50"),
        time("TTFT p99"),
        time("TPOT p50"),
        time("e2e p50"),
        time("e2e p99"),
        rate("tokens"),
        rate("goodput"),
        Column::text("verdicts"),
    ];
    let mut table = Table::grid("", columns);
    table.rows.extend(results.iter().map(row));
    let title = format!("load {}: all points", results.first()?.load);
    Some(Section { title, tables: vec![table.without_empty_columns()] })
}

fn row(result: &LoadResult) -> Vec<Cell> {
    let metrics = &result.metrics;
    let at = |one: &Option<Distribution>, of: fn(&Distribution) -> f64| {
        Cell::of(one.as_ref(), |one| Cell::Seconds(of(one)))
    };
    let kinds: Vec<&str> = result.verdicts.iter().map(|verdict| verdict.kind.as_str()).collect();
    vec![
        Cell::text(format!("p{} r{}", result.point, result.repeat)),
        Cell::text(settings(result)),
        Cell::Count(result.counts.sent),
        Cell::Count(result.counts.ok),
        Cell::of(metrics.requests_per_second, Cell::Rate),
        at(&metrics.ttft_seconds, |one| one.p50),
        at(&metrics.ttft_seconds, |one| one.p99),
        at(&metrics.tpot_seconds, |one| one.p50),
        at(&metrics.e2e_seconds, |one| one.p50),
        at(&metrics.e2e_seconds, |one| one.p99),
        Cell::of(metrics.output_tokens_per_second, Cell::Rate),
        Cell::of(metrics.goodput_per_second, Cell::Rate),
        Cell::text(kinds.join(" ")),
    ]
}

/// The point's values by the last words of their paths.
fn settings(result: &LoadResult) -> String {
    let own = format!("load.{}.", result.load);
    let short = |path: &str| {
        let path = path.strip_prefix(&own).unwrap_or(path);
        path.strip_prefix("arrival.").unwrap_or(path).to_owned()
    };
    let probe = result.probe.as_ref().map(|probe| format!("level={}", digits(probe.level)));
    let values =
        result.settings.iter().map(|(path, value)| format!("{}={}", short(path), plain(value)));
    values.chain(probe).collect::<Vec<_>>().join(" ")
}
