//! An engine beside a running sampler.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use aifb_schema::samples;

use super::{Engines, poll::PATIENCE};
use crate::{
    export::fixture::{Reply, Stand},
    sample::{Attached, Config, Sampler, Watched},
};

const PAGE: &str = "# HELP e:running Requests that run\n# TYPE e:running gauge\n\
    e:running{model=\"m\",node=\"theirs\"} 3\n# TYPE e:wait_seconds histogram\n\
    e:wait_seconds_bucket{le=\"1\"} 4\ne:wait_seconds_sum 2.5\ne:wait_seconds_count 4\n";

#[test]
fn an_engine_is_asked_once_a_tick_recorded_and_shown() {
    let stand = Stand::start(|_, request| {
        assert_eq!(request.line, "GET /metrics HTTP/1.1");
        Reply::Status(200, PAGE.to_owned())
    });
    let hanging = Stand::start(|_, _| Reply::After(Duration::from_secs(3600), 200));
    let folder = tempfile::tempdir().unwrap();
    let engines = Engines::default();
    engines.set("llm", 1, format!("http://{}/metrics", stand.address));
    engines.set("stuck", 0, format!("http://{}/metrics", hanging.address));
    let config = Config {
        period: Duration::from_millis(100),
        node: "n1".into(),
        run_id: "local-1".into(),
        job_id: Some(7),
        file: folder.path().join("samples.bin"),
        proc_root: PathBuf::from("/proc"),
        cgroup_root: PathBuf::from("/sys/fs/cgroup"),
        sys_root: PathBuf::from("/sys"),
        nvml: None,
    };
    let attached = Attached { sources: vec![Box::new(engines.clone())], sink: None };
    let handle = Sampler::start(config.clone(), Watched::default(), attached).unwrap();
    let running = "\ne:running{run_id=\"local-1\",node=\"n1\",job=\"7\",service=\"llm\",replica=\"1\",\
        model=\"m\",exported_node=\"theirs\"} 3\n";
    let begun = Instant::now();
    let shown = || String::from_utf8(handle.metrics("").1).unwrap();
    while !(shown().contains(running) && stand.requests() > 5) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", shown());
        thread::sleep(Duration::from_millis(10));
    }
    let open = String::from_utf8(handle.metrics("application/openmetrics-text").1).unwrap();
    assert!(open.contains("# TYPE e:wait_seconds_sum unknown\n"), "{open}");
    engines.remove("llm", 1);
    let asked = stand.requests();
    handle.stop().unwrap();
    let recording = samples::read(&std::fs::read(&config.file).unwrap()).unwrap();
    assert!(asked <= recording.samples.len(), "{asked} of {}", recording.samples.len());
    // Asked again only when its time was over.
    let times_over = begun.elapsed().as_secs() / PATIENCE.as_secs();
    assert!(hanging.requests() as u64 <= 1 + times_over, "{}", hanging.requests());
    let names: Vec<&str> = recording
        .series
        .values()
        .map(|series| series.name.as_str())
        .filter(|name| name.starts_with("engine/"))
        .collect();
    assert_eq!(
        names,
        ["engine/e:running", "engine/e:wait_seconds_sum", "engine/e:wait_seconds_count"]
    );
}
