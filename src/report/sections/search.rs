//! What a search for the largest load found, and its probes.

use aifb_schema::{
    figure::{Better, Unit},
    search::{ProbeOutcome, SearchResult},
};

use crate::report::model::{Cell, Column, Section, Table};

/// The answer, and a row for each probe.
pub(super) fn section(found: &SearchResult) -> Section {
    let load = |name: &'static str, value: Option<f64>| {
        // `1/s` as `12.3/s`, other units after a space.
        let column = match found.unit.as_str() {
            "1/s" => Column::new("", Unit::PerSecond, Better::Higher),
            unit => Column::new(unit.to_owned(), Unit::Number, Better::Higher),
        };
        Table::line(name, vec![column]).row(vec![Cell::of(value, Cell::Rate)])
    };
    let mut tables = vec![match found.beyond {
        Some(_) => load("maximum sustained load", found.capacity),
        None => load("maximum sustained load, at least", found.capacity),
    }];
    if found.beyond.is_some() {
        tables.push(load("lowest that failed", found.beyond));
    }
    let ended =
        vec![Column::text("reason"), Column::count("probes").singular("probe").joined(" after ")];
    let count = u64::try_from(found.probes.len()).unwrap_or(u64::MAX);
    let row = vec![Cell::text(&found.reason), Cell::Count(count)];
    tables.push(Table::line("ended", ended).row(row));
    if found.knee.is_some() {
        tables.push(load("knee", found.knee));
    }
    if found.client_limited {
        let doubt = "the client limited the upper end: use more clients";
        tables.push(Table::words("doubt", doubt));
    }
    tables.push(probes(&found.probes));
    Section { title: format!("search {} p{}", found.load, found.point), tables }
}

fn probes(probes: &[ProbeOutcome]) -> Table {
    let columns = vec![
        Column::text("probe"),
        Column::new("load", Unit::Number, Better::Neither),
        Column::new("answers", Unit::PerSecond, Better::Higher),
        Column::text("verdict"),
        Column::text("why"),
    ];
    let mut table = Table::grid("", columns);
    table.rows.extend(probes.iter().map(|probe| {
        let word = match (probe.passed, probe.certain) {
            (true, true) => "pass",
            (true, false) => "pass (not significant at 95 %)",
            (false, true) => "fail",
            (false, false) => "fail (not significant at 95 %)",
        };
        vec![
            Cell::text(format!("r{}", probe.repeat)),
            Cell::Rate(probe.level),
            Cell::of(probe.answered_per_second, Cell::Rate),
            Cell::text(word),
            Cell::text(&probe.why),
        ]
    }));
    table
}
