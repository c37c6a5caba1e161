//! From the report to its sections: first what a hurried reader needs, then the rest. Pure.

mod head;
mod load;
mod nodes;
mod search;
mod sweep;

use std::collections::BTreeSet;

use aifb_schema::result::{LoadResult, Report};

use super::model::{Section, Table};

/// The whole report; `folder` is where it was made from.
pub(super) fn sections(report: &Report, folder: &str) -> Vec<Section> {
    let mut sections = vec![head::section(report, folder)];
    sections.extend(report.results.iter().map(load::section));
    let loads = report.results.chunk_by(|a, b| a.load == b.load);
    sections.extend(loads.filter(|load| load.len() > 1).filter_map(sweep::section));
    sections.extend(report.searches.iter().map(search::section));
    if report.results.len() > 1 {
        let tables = vec![load::counts(&report.counts)];
        sections.push(Section { title: "all loads together".to_owned(), tables });
    }
    sections.extend(terms(&report.results));
    sections.extend(nodes::section(report));
    if !report.warnings.is_empty() {
        let lines = report.warnings.iter().map(|warning| Table::words("", warning.clone()));
        sections.push(Section { title: "warnings".to_owned(), tables: lines.collect() });
    }
    sections
}

/// What the names of the times mean that stand in the report.
fn terms(results: &[LoadResult]) -> Option<Section> {
    let mut known = BTreeSet::new();
    let figures = results.iter().flat_map(|result| result.metrics.each());
    let tables: Vec<Table> = figures
        .filter(|figure| !figure.meaning.is_empty() && known.insert(figure.name.to_owned()))
        .map(|figure| Table::words(figure.label.to_owned(), figure.meaning))
        .collect();
    (!tables.is_empty()).then(|| Section { title: "terms".to_owned(), tables })
}

#[cfg(test)]
mod tests {
    use aifb_schema::figure::{Better, Unit};

    use super::*;
    use crate::report::{
        Life, build,
        fixture::{self, Folder},
        model::{Cell, Layout},
        quantity::shown,
    };
    use crate::store::RunFolder;

    fn of(name: &str) -> Vec<Section> {
        let temporary = tempfile::tempdir().unwrap();
        let (_, folder): (_, Folder) =
            fixture::all().into_iter().find(|(known, _)| *known == name).unwrap();
        folder.write(temporary.path());
        let run = RunFolder::open(temporary.path()).unwrap();
        let report =
            build(&run, run.record().unwrap(), &Life::Over, &|_| Err("nothing".to_owned()));
        sections(&report, "/runs/x")
    }

    /// Every table can be made into CSV: a cell for each column, in the unit of the column.
    #[test]
    fn cells_fit_their_columns() {
        for (name, _) in fixture::all() {
            let sections = of(name);
            for table in sections.iter().flat_map(|section| &section.tables) {
                for row in &table.rows {
                    assert_eq!(row.len(), table.columns.len(), "{name}: {table:?}");
                    for (cell, column) in row.iter().zip(&table.columns) {
                        let fits = match cell {
                            Cell::Seconds(_) => column.unit == Unit::Seconds,
                            Cell::Bytes(_) => column.unit == Unit::Bytes,
                            Cell::Count(_) => column.unit == Unit::Count,
                            Cell::Rate(_) => {
                                matches!(column.unit, Unit::PerSecond | Unit::Number)
                            }
                            Cell::Share(_) => column.unit == Unit::Share,
                            Cell::Text(_) => column.unit == Unit::Text,
                            Cell::Absent => true,
                        };
                        assert!(fits, "{name}: {cell:?} in {column:?}");
                    }
                }
            }
        }
    }

    /// The raw cells are the figures of the result, unrounded.
    #[test]
    fn cells_are_the_figures_of_the_result() {
        let sections = of("complete");
        let load = sections.iter().find(|section| section.title.starts_with("load ")).unwrap();
        let times = load.tables.iter().find(|table| table.layout == Layout::Grid).unwrap();
        let ttft = times.rows.iter().find(|row| row[0] == Cell::text("TTFT")).unwrap();
        let report = fixture_result();
        let one = report.metrics.ttft_seconds.unwrap();
        assert_eq!(ttft[1], Cell::Seconds(one.p50));
        assert_eq!(ttft[9], Cell::Count(one.count));
        assert_eq!(
            (times.columns[1].unit, times.columns[1].better),
            (Unit::Seconds, Better::Lower)
        );
        let rates = load.tables.iter().find(|table| table.name == "throughput").unwrap();
        assert_eq!(rates.columns[0].better, Better::Higher);
        assert_eq!(rates.rows[0][0], Cell::of(report.metrics.requests_per_second, Cell::Rate));
    }

    fn fixture_result() -> LoadResult {
        let (_, folder) = fixture::all().into_iter().next().unwrap();
        serde_json::from_slice(&folder.0["load/chat/p0/r0/result.json"]).unwrap()
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut result = fixture_result();
        let deviation = |result: &LoadResult| {
            let section = load::section(result);
            let grid = section.tables.into_iter().find(|table| table.layout == Layout::Grid);
            shown(&grid.unwrap().rows[0][6])
        };
        assert_ne!(deviation(&result), "-");
        result.metrics.ttft_seconds.as_mut().unwrap().stddev = None;
        assert_eq!(deviation(&result), "-");
        result.counts.planned = None;
        let counts = load::counts(&result.counts);
        let planned = counts.columns.iter().position(|column| column.name == "planned").unwrap();
        assert_eq!(counts.rows[0][planned], Cell::Absent);
        result.metrics = Default::default();
        let section = load::section(&result);
        assert!(section.tables.iter().all(|table| table.name != "throughput"), "{section:?}");
        assert!(terms(&[result]).is_none());
    }
}
