//! The sampler as a whole, with its threads: on this machine's own /proc, and on files that
//! hold it up.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aifb_schema::{
    metric,
    samples::{self, Recording},
};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{Attached, Config, Sampler, Shared, Watched, fixture::FakeNode};

/// Longest wait for something that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn live(folder: &Path) -> Config {
    Config {
        period: Duration::from_millis(100),
        node: "n1".into(),
        run_id: "local-1".into(),
        job_id: None,
        file: folder.join("samples.bin"),
        proc_root: PathBuf::from("/proc"),
        cgroup_root: PathBuf::from("/sys/fs/cgroup"),
        sys_root: PathBuf::from("/sys"),
        nvml: None,
    }
}

/// Reads the growing record until `enough`.
fn wait_for(file: &Path, enough: impl Fn(&Recording) -> bool) -> Recording {
    let start = Instant::now();
    loop {
        let bytes = fs::read(file).unwrap();
        let recording = samples::read(&bytes).unwrap_or_default();
        if enough(&recording) {
            return recording;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain; {} samples", recording.samples.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn last(recording: &Recording, name: &str, label: (&str, &str)) -> Option<f64> {
    let id = recording.series.values().find(|series| {
        series.name == name && series.labels.get(label.0).is_some_and(|value| value == label.1)
    })?;
    let values = &recording.samples.last()?.values;
    values.iter().find(|(of, _)| *of == id.id).map(|(_, value)| *value)
}

/// Ends its process with the test.
struct Service(Child);

impl Service {
    /// A shell that lets a child of its own use some CPU time, waits for it, and stays.
    fn start() -> Self {
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let script = format!("sh -c '{burn}'; read line");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).process_group(0);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok(), "{ended:?}");
    }
}

#[test]
fn a_run_on_this_machine_is_recorded_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let config = live(folder.path());
    let watched = Watched::default();
    let service = Service::start();
    watched.set("llm", 0, service.0.id());
    let start = Instant::now();
    let handle = Sampler::start(config.clone(), watched.clone(), Attached::default()).unwrap();
    let user = |recording: &Recording| {
        last(recording, "service_cpu_seconds_total", ("mode", "user")).unwrap_or(0.0)
    };
    // Only its ended child used this much.
    let alone = |recording: &Recording| {
        last(recording, "service_processes", ("service", "llm")) == Some(1.0)
            && user(recording) >= 0.05
    };
    let recording = wait_for(&config.file, alone);
    assert!(user(&recording) <= start.elapsed().as_secs_f64() + 60.0);
    assert!(last(&recording, "node_cpu_seconds_total", ("mode", "idle")).is_some());
    assert!(last(&recording, "service_memory_bytes", ("kind", "used")).unwrap() > 50_000.0);

    handle.publish(
        "run",
        vec![Shared {
            family: &metric::RUN_INFO,
            labels: vec!["demo".into(), "0.1.0".into()],
            value: 1.0,
        }],
    );
    let (content_type, body) = handle.metrics("application/openmetrics-text;version=1.0.0");
    let text = String::from_utf8(body).unwrap();
    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(
        text.contains(
            "aifb_run_info{run_id=\"local-1\",node=\"n1\",name=\"demo\",version=\"0.1.0\"} 1\n"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "\naifb_node_cpu_seconds_total{run_id=\"local-1\",node=\"n1\",mode=\"user\"} "
        )
    );
    assert!(handle.metrics("").0.starts_with("text/plain; version=0.0.4"));

    handle.stop().unwrap();
    let recording = samples::read(&fs::read(&config.file).unwrap()).unwrap();
    assert!(recording.ended && recording.torn_bytes == 0);
    let monos: Vec<u64> = recording.samples.iter().map(|sample| sample.mono_ns).collect();
    assert!(monos.is_sorted_by(|a, b| a < b));
    let again = Sampler::start(config, watched, Attached::default()).unwrap_err();
    assert!(format!("{again:#}").contains("samples.bin': File exists"), "{again:#}");
}

#[test]
fn two_samples_at_least_however_short_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { period: Duration::from_secs(3600), ..live(folder.path()) };
    let handle = Sampler::start(config.clone(), Watched::default(), Attached::default()).unwrap();
    wait_for(&config.file, |recording| recording.samples.len() == 1);
    handle.stop().unwrap();
    let recording = samples::read(&fs::read(&config.file).unwrap()).unwrap();
    assert_eq!((recording.samples.len(), recording.ended), (2, true));
    // The last one has all that the first has, also what is read once a second at most.
    let ids = |at: usize| -> Vec<u32> {
        let values = recording.samples[at].values.iter();
        let known = values.filter(|(id, _)| recording.series[id].name.starts_with("node_"));
        known.map(|(id, _)| *id).collect()
    };
    assert_eq!(ids(0), ids(1));
}

#[test]
fn a_source_that_holds_the_tick_up_shows_as_a_gap() {
    let node = FakeNode::new();
    let pipe = node.path("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    fs::hard_link(&pipe, node.path("proc/schedstat")).unwrap();
    let config = Config { period: Duration::from_millis(100), ..node.config() };
    let handle = Sampler::start(config.clone(), Watched::default(), Attached::default()).unwrap();
    // The first tick now waits for somebody who opens the other end.
    std::thread::sleep(Duration::from_millis(450));
    assert_eq!(fs::read(&config.file).unwrap(), b"");
    node.write("file", "cpu0 0 0 0 0 0 0 7 1000000000 1\n");
    fs::rename(node.path("file"), node.path("proc/schedstat")).unwrap();
    drop(File::options().write(true).open(&pipe).and_then(|mut pipe| pipe.write_all(b"\n")));
    let recording = wait_for(&config.file, |recording| recording.samples.len() >= 3);
    handle.stop().unwrap();
    let [first, second, third, ..] = recording.samples.as_slice() else { panic!() };
    assert!(first.missed == 0 && first.collect_ns >= 400_000_000, "{first:?}");
    assert!(second.missed >= 3, "{second:?}");
    let ticks = (third.mono_ns - first.mono_ns) / 100_000_000;
    let missed = u64::from(second.missed + third.missed);
    assert!((missed + 1..=missed + 3).contains(&ticks), "{missed} missed in {ticks} ticks");
    let counted = recording.series.values().find(|one| one.name == "agent_missed_ticks_total");
    let counted = counted.unwrap().id;
    assert!(third.values.iter().any(|(id, value)| *id == counted && *value >= 3.0));
}
