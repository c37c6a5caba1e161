//! `/metrics`: OpenMetrics 1.0 for who asks for it, else the text format 0.0.4.

use std::{fmt::Write as _, sync::Arc};

use aifb_schema::metric::{self, Family, Kind, PREFIX};

use super::table::SeriesInfo;

/// Media type of the answer in OpenMetrics.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Media type of the answer in the text format.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One value to show.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) family: &'static Family,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
}

impl Shown {
    pub(super) fn of(info: &Arc<SeriesInfo>, value: f64) -> Self {
        Self { family: info.family, labels: info.labels.clone(), value }
    }
}

/// Whether an `Accept` header prefers OpenMetrics 1.0 to plain text.
pub(super) fn prefers_open_metrics(accept: &str) -> bool {
    let mut open = 0.0;
    let mut text = 0.0;
    for choice in accept.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0_f64, String::new());
        for part in parts {
            match part.split_once('=') {
                Some(("q", value)) => quality = value.trim().parse().unwrap_or(0.0),
                Some(("version", value)) => version = value.trim_matches('"').to_owned(),
                _ => {}
            }
        }
        match media.as_str() {
            "application/openmetrics-text" if matches!(version.as_str(), "" | "1.0.0") => {
                open = quality.max(open);
            }
            "text/plain" => text = quality.max(text),
            _ => {}
        }
    }
    open > 0.0 && open >= text
}

/// Writes all values, grouped by family, each with the common labels.
pub(super) fn encode(values: &[Shown], common: &[(&'static str, String)], open: bool) -> Vec<u8> {
    let mut out = String::with_capacity(values.len() * 128);
    for family in metric::ALL {
        let mut lines: Vec<_> = values
            .iter()
            .filter(|shown| std::ptr::eq(shown.family, *family))
            .map(|shown| line(shown, common))
            .collect();
        if lines.is_empty() {
            continue;
        }
        lines.sort_unstable();
        head(&mut out, family, open);
        lines.iter().for_each(|line| out.push_str(line));
    }
    if open {
        out.push_str("# EOF\n");
    }
    out.into_bytes()
}

/// HELP, TYPE and UNIT. OpenMetrics names a family without the suffix of its type.
fn head(out: &mut String, family: &Family, open: bool) {
    let (name, kind) = match (family.kind, open) {
        (Kind::Counter, true) => {
            (family.name.strip_suffix("_total").unwrap_or(family.name), "counter")
        }
        (Kind::Info, true) => (family.name.strip_suffix("_info").unwrap_or(family.name), "info"),
        (Kind::Info, false) => (family.name, "gauge"),
        (kind, _) => (family.name, kind.as_str()),
    };
    let _infallible = writeln!(out, "# HELP {PREFIX}{name} {}", escape_help(family.help, open));
    let _infallible = writeln!(out, "# TYPE {PREFIX}{name} {kind}");
    if let (Some(unit), true) = (family.unit, open) {
        let _infallible = writeln!(out, "# UNIT {PREFIX}{name} {unit}");
    }
}

fn line(shown: &Shown, common: &[(&'static str, String)]) -> String {
    let mut line = format!("{PREFIX}{}{{", shown.family.name);
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
