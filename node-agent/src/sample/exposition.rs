//! `/metrics`: OpenMetrics 1.0 for who asks for it, else the text format 0.0.4.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use aifb_schema::metric::{self, Family, Kind};

use super::table::SeriesInfo;
use crate::http::accept;

/// Media type of the answer in OpenMetrics.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Media type of the answer in the text format.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One value to show.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) family: &'static Family,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
}

impl Shown {
    pub(super) fn of(info: &Arc<SeriesInfo>, value: f64) -> Self {
        Self { family: info.family, labels: info.labels.clone(), value }
    }
}

/// Whether an `Accept` header prefers OpenMetrics 1.0 to plain text.
pub(super) fn prefers_open_metrics(header: &str) -> bool {
    let mut open = 0.0;
    let mut text = 0.0;
    for choice in accept::choices(header) {
        let version = choice.parameter("version").unwrap_or_default();
        match choice.name.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" if matches!(version, "" | "1.0.0") => {
                open = choice.quality.max(open);
            }
            "text/plain" => text = choice.quality.max(text),
            _ => {}
        }
    }
    open > 0.0 && open >= text
}

/// Writes all values, grouped by family, each with the common labels: ours in the order of their
/// table, then those of engines by name.
pub(super) fn encode(values: &[Shown], common: &[(&'static str, String)], open: bool) -> Vec<u8> {
    let mut out = String::with_capacity(values.len() * 128);
    for family in metric::ALL {
        let of_family = values.iter().filter(|shown| std::ptr::eq(shown.family, *family));
        match family.histogram() {
            None => block(&mut out, family, of_family, common, open),
            // The first part brings all of them.
            Some(stem) if family.name.ends_with("_bucket") => {
                histogram(&mut out, (family, stem), values, common, open);
            }
            Some(_) => {}
        }
    }
    // An engine's family stands once for each set of label names.
    let mut engines: BTreeMap<&str, Vec<&Shown>> = BTreeMap::new();
    for shown in values {
        if let Some(name) = shown.family.engine_name() {
            engines.entry(name).or_default().push(shown);
        }
    }
    for of_name in engines.values() {
        if let Some(first) = of_name.first() {
            block(&mut out, first.family, of_name.iter().copied(), common, open);
        }
    }
    if open {
        out.push_str("# EOF\n");
    }
    out.into_bytes()
}

/// One family and all its values; nothing where it has none.
fn block<'a>(
    out: &mut String,
    family: &Family,
    values: impl Iterator<Item = &'a Shown>,
    common: &[(&'static str, String)],
    open: bool,
) {
    let name = family.exported();
    let mut lines: Vec<String> = values.map(|shown| line(&name, shown, common)).collect();
    if lines.is_empty() {
        return;
    }
    lines.sort_unstable();
    head(out, family, &name, open);
    lines.iter().for_each(|line| out.push_str(line));
}

/// A histogram under one head, load by load: its buckets in the order of their bounds, its sum,
/// its count. OpenMetrics wants what belongs together in one place.
fn histogram(
    out: &mut String,
    (bucket, stem): (&'static Family, &'static str),
    values: &[Shown],
    common: &[(&'static str, String)],
    open: bool,
) {
    let mut parts: Vec<_> = values
        .iter()
        .filter(|shown| shown.family.histogram() == Some(stem))
        .map(|shown| {
            let whose = shown.labels.iter().filter(|(key, _)| *key != "le");
            let part = metric::ALL.iter().position(|family| std::ptr::eq(*family, shown.family));
            (whose.map(|(_, value)| value).collect::<Vec<_>>(), part, shown)
        })
        .collect();
    if parts.is_empty() {
        return;
    }
    // Stable: buckets stay as they came.
    parts.sort_by(|(a, a_part, _), (b, b_part, _)| (a, a_part).cmp(&(b, b_part)));
    head(out, bucket, &format!("{}{stem}", metric::PREFIX), open);
    for (_, _, shown) in parts {
        out.push_str(&line(&shown.family.exported(), shown, common));
    }
}

/// HELP, TYPE and UNIT. OpenMetrics names a family without the suffix of its type.
fn head(out: &mut String, family: &Family, name: &str, open: bool) {
    let (name, kind) = match (family.kind, open) {
        (Kind::Counter, true) => (name.strip_suffix("_total").unwrap_or(name), "counter"),
        (Kind::Info, true) => (name.strip_suffix("_info").unwrap_or(name), "info"),
        (Kind::Info, false) => (name, "gauge"),
        (Kind::Unknown, false) => (name, "untyped"),
        (kind, _) => (name, kind.as_str()),
    };
    let _infallible = writeln!(out, "# HELP {name} {}", escape_help(family.help, open));
    let _infallible = writeln!(out, "# TYPE {name} {kind}");
    if let (Some(unit), true) = (family.unit, open) {
        let _infallible = writeln!(out, "# UNIT {name} {unit}");
    }
}

fn line(name: &str, shown: &Shown, common: &[(&'static str, String)]) -> String {
    let mut line = format!("{name}{{");
    for (at, (key, value)) in common.iter().chain(&shown.labels).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _infallible = write!(line, "{comma}{key}=\"{}\"", escape_label(value));
    }
    let _infallible = writeln!(line, "}} {}", shown.value);
    line
}

fn escape_label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn escape_help(help: &str, open: bool) -> String {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    if open { help.replace('"', "\\\"") } else { help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<Shown> {
        let mode = |mode: &str, value| Shown {
            family: &metric::NODE_CPU,
            labels: vec![("mode", mode.to_owned())],
            value,
        };
        let label = "a\"b\\c\nd".to_owned();
        vec![
            mode("user", 1.5),
            Shown {
                family: &metric::RUN_INFO,
                labels: vec![("name", label), ("version", "0.1.0".to_owned())],
                value: 1.0,
            },
            mode("idle", 12_345_678_901.0),
        ]
    }

    #[test]
    fn open_metrics_has_units_type_names_and_an_end() {
        let common = [("run_id", "aifb-7".to_owned()), ("node", "n1".to_owned())];
        let text = String::from_utf8(encode(&values(), &common, true)).unwrap();
        assert_eq!(
            text,
            "# HELP aifb_run What runs: name of the recipe and version of the agent.\n\
             # TYPE aifb_run info\n\
             aifb_run_info{run_id=\"aifb-7\",node=\"n1\",name=\"a\\\"b\\\\c\\nd\",version=\"0.1.0\"} 1\n\
             # HELP aifb_node_cpu_seconds CPU time of the whole node by mode; user includes guests.\n\
             # TYPE aifb_node_cpu_seconds counter\n\
             # UNIT aifb_node_cpu_seconds seconds\n\
             aifb_node_cpu_seconds_total{run_id=\"aifb-7\",node=\"n1\",mode=\"idle\"} 12345678901\n\
             aifb_node_cpu_seconds_total{run_id=\"aifb-7\",node=\"n1\",mode=\"user\"} 1.5\n\
             # EOF\n"
        );
    }

    #[test]
    fn text_has_full_names_and_no_end() {
        let text = String::from_utf8(encode(&values(), &[], false)).unwrap();
        assert!(text.contains("# TYPE aifb_node_cpu_seconds_total counter\n"), "{text}");
        assert!(text.contains("# TYPE aifb_run_info gauge\n"), "{text}");
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    }

    #[test]
    fn a_histogram_has_one_head_and_stands_load_by_load() {
        let shown = |family, load: &str, le: Option<&str>, value| {
            let le = le.map(|le| ("le", le.to_owned()));
            let load = std::iter::once(("load", load.to_owned()));
            Shown { family, labels: load.chain(le).collect(), value }
        };
        let bucket = |load, le, value| shown(&metric::TTFT_BUCKET, load, Some(le), value);
        let sum = |load, value| shown(&metric::TTFT_SUM, load, None, value);
        let count = |load, value| shown(&metric::TTFT_COUNT, load, None, value);
        let all = [
            count("m", 3.0),
            bucket("m", "0.5", 1.0),
            bucket("m", "10.0", 2.0),
            bucket("m", "+Inf", 3.0),
            sum("m", 22.5),
            bucket("l", "0.5", 1.0),
            bucket("l", "+Inf", 1.0),
            sum("l", 0.25),
            count("l", 1.0),
        ];
        let text = String::from_utf8(encode(&all, &[], true)).unwrap();
        let name = "aifb_ttft_seconds";
        let (_, after_help) = text.split_once('\n').unwrap();
        assert_eq!(
            after_help,
            format!(
                "# TYPE {name} histogram\n# UNIT {name} seconds\n\
                 {name}_bucket{{load=\"l\",le=\"0.5\"}} 1\n\
                 {name}_bucket{{load=\"l\",le=\"+Inf\"}} 1\n\
                 {name}_sum{{load=\"l\"}} 0.25\n\
                 {name}_count{{load=\"l\"}} 1\n\
                 {name}_bucket{{load=\"m\",le=\"0.5\"}} 1\n\
                 {name}_bucket{{load=\"m\",le=\"10.0\"}} 2\n\
                 {name}_bucket{{load=\"m\",le=\"+Inf\"}} 3\n\
                 {name}_sum{{load=\"m\"}} 22.5\n\
                 {name}_count{{load=\"m\"}} 3\n# EOF\n"
            )
        );
    }

    #[test]
    fn the_accept_header_decides() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, open) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text; version=\"1.0.0\"", true),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.5", false),
            ("text/plain", false),
            ("*/*", false),
            ("", false),
            (";;,=,q", false),
        ] {
            assert_eq!(prefers_open_metrics(accept), open, "{accept}");
        }
    }
}
