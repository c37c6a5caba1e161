//! The next probe of a load that searches for its largest rate or concurrency.

use std::path::Path;

use aifb_runfolder::worker;
use aifb_schema::{
    recipe::Load,
    run::{Failure, Owner},
    search::ProbeRecord,
};
use aifb_stats::search::{Next, Range, next};

/// Most probes that are looked for: more than a recipe may ask for.
const PROBES_MAX: u32 = 1_000;

/// `load` as it is to be run in `folder` (`…/<load>/p<point>/r<repeat>`): of a search the next
/// probe, by the results of those before it; else itself.
///
/// # Errors
/// If the search is over.
pub(super) fn next_probe(load: &Load, folder: &Path) -> Result<Load, Failure> {
    let Some(search) = &load.search else { return Ok(load.clone()) };
    let failed = |reason: String| Failure::new(Owner::Recipe, load.name.as_str(), reason);
    match next(&Range::of(search, &load.arrival), &before(folder)) {
        Next::Probe(level) => load.at_level(level).map_err(failed),
        Next::Done(reason) => Err(failed(format!("its search is over: {reason}"))
            .with_hint("aifb report shows what it found")),
    }
}

/// The probes before the repeat of this folder.
fn before(folder: &Path) -> Vec<ProbeRecord> {
    let (Some(point), Some(number)) = (folder.parent(), number(folder)) else { return Vec::new() };
    (0..number.min(PROBES_MAX)).filter_map(|repeat| probe(&worker::repeat(point, repeat))).collect()
}

fn number(folder: &Path) -> Option<u32> {
    folder.file_name()?.to_str()?.strip_prefix('r')?.parse().ok()
}

/// What a repeat's result says; nothing where it has none.
fn probe(folder: &Path) -> Option<ProbeRecord> {
    let result = worker::read_result(folder).ok()?;
    result.probe.map(|probe| *probe)
}

#[cfg(test)]
mod tests {
    use aifb_schema::recipe::{self, Arrival};

    use super::*;

    fn load(search: &str) -> Load {
        let text = format!(
            "aifb: 1\nname: t\nservices:\n  - {{name: a, kind: container, program: /x}}\nload:\n  - \
             {{name: l, driver: http, arrival: {{rate: 1/s}}, phases: {{measure: 1s}}{search}}}\n"
        );
        recipe::parse(&text, &[]).unwrap().load.remove(0)
    }

    const SEARCH: &str =
        ", search: {slo: {e2e_p99: 1s}, from: 1/s, to: 100/s, probes: 2, probe: 3s}";

    fn rate(load: &Load) -> f64 {
        let Arrival::Open { rate, .. } = load.arrival else { panic!("{load:?}") };
        rate.get()
    }

    #[test]
    fn a_load_without_a_search_is_itself() {
        let load = load("");
        assert_eq!(next_probe(&load, Path::new("/nowhere/r0")).unwrap(), load);
    }

    #[test]
    fn probes_follow_from_the_results_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let load = load(SEARCH);
        let at = |repeat: u32| worker::repeat(folder.path(), repeat);
        let first = next_probe(&load, &at(0)).unwrap();
        assert!((rate(&first) - 10.0).abs() < 1e-9);
        assert_eq!(serde_json::to_value(first.phases.measure).unwrap(), "3s");
        let result = |level: f64, beyond: u64| {
            serde_json::json!({
                "version": 1, "load": "l", "point": 0, "repeat": 0, "service": "a", "driver": "http",
                "counts": {"sent": 900, "ok": 900, "failed": 0, "cancelled": 0, "unfinished": 0,
                           "warmup": 0},
                "metrics": {}, "verdicts": [], "complete": true, "source": "rows",
                "probe": {"level": level, "objectives": [{"name": "e2e_p99", "limit": 1.0,
                          "beyond": beyond, "of": 900, "allowed_ratio": 0.01}]},
                "plan": {"seed": 0, "hash": "", "workers": 1},
                "client": {"cpu_seconds": 0.1, "peak_rss_bytes": 1},
                "measure_start_epoch_ns": 0, "measure_end_epoch_ns": 0,
            })
        };
        let write = |repeat: u32, text: String| {
            std::fs::create_dir_all(at(repeat)).unwrap();
            std::fs::write(at(repeat).join("result.json"), text).unwrap();
        };
        write(0, result(10.0, 0).to_string());
        assert!((rate(&next_probe(&load, &at(1)).unwrap()) - 30.0).abs() < 1e-9);
        // One that was lost says nothing.
        write(1, "{".to_owned());
        assert!((rate(&next_probe(&load, &at(2)).unwrap()) - 30.0).abs() < 1e-9);
        write(2, result(30.0, 500).to_string());
        let over = next_probe(&load, &at(3)).unwrap_err();
        assert_eq!(over.owner, Owner::Recipe);
        assert!(over.reason.contains("search is over: no probe is left"), "{}", over.reason);
    }
}
