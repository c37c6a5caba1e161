//! Small run folders, as agents and load workers would have left them. They are kept in
//! `tests/fixtures/runs`, so that a change of the formats shows, and are made from here:
//! `AIFB_BLESS=1 cargo test -p aifb report` writes them anew.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use aifb_runfolder::{RunFolder, worker};
use aifb_schema::{
    names::{PROTOCOL, file},
    result::{
        ClientRecord, Comparable, Compatible, Counts, Distribution, Interpolated, LoadResult,
        Metrics, PlanRecord, RESULT_VERSION, Verdict,
    },
    run::{AgentRecord, Ended, Event, Failure, Job, JobRecord, Owner, RunRecord, State},
    samples::{Frame, MAGIC, Sample, Series},
};

/// Start of every run here: 2025-01-02 03:04:05Z.
pub(super) const START: u64 = 1_735_787_045 * SECOND;

pub(super) const SECOND: u64 = 1_000_000_000;

/// Recipe of every run here.
const RECIPE: &str = "aifb: 1
name: demo
services:
  - {name: llm, kind: container, program: /bin/server, port: auto, health: {http: /health}}
load:
  - {name: chat, service: llm, driver: openai-chat, arrival: {rate: 20/s}, phases: {measure: 5s}}
report: [text, json]
";

/// Files of a run folder by their relative names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folder(pub(super) BTreeMap<String, Vec<u8>>);

/// All fixtures by name.
pub(super) fn all() -> Vec<(&'static str, Folder)> {
    vec![
        ("complete", complete()),
        ("sweep", sweep()),
        ("service-failed", service_failed()),
        ("coordinator-lost", coordinator_lost()),
    ]
}

/// Where the fixtures are kept.
pub(super) fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runs").join(name)
}

/// A run folder whose paths are relative to it.
fn relative() -> RunFolder {
    RunFolder::new("")
}

fn name(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

impl Folder {
    fn json(mut self, name: impl Into<String>, value: &impl serde::Serialize) -> Self {
        let text = serde_json::to_string_pretty(value).unwrap() + "\n";
        self.0.insert(name.into(), text.into_bytes());
        self
    }

    fn run(self, record: &RunRecord) -> Self {
        let mut folder = self.json(file::RUN, record);
        folder.0.insert(file::RECIPE.into(), RECIPE.into());
        folder
    }

    fn samples(mut self, node: &str, bytes: Vec<u8>) -> Self {
        self.0.insert(name(&relative().node(node).samples_path()), bytes);
        self
    }

    fn result(self, result: &LoadResult) -> Self {
        let repeat = relative().repeat(&result.load, result.point, result.repeat);
        self.json(name(&repeat.result_path()), result)
    }

    /// Writes all files below `root`.
    pub(super) fn write(&self, root: &Path) {
        for (name, bytes) in &self.0 {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

fn record(run_id: &str, job: Option<u32>, nodes: &[&str]) -> RunRecord {
    RunRecord {
        protocol: PROTOCOL,
        version: "0.1.0".into(),
        run_id: run_id.into(),
        name: "demo".into(),
        mode: if job.is_some() { "plugin" } else { "local" }.into(),
        uid: 1000,
        state: State::Completed,
        recipe_path: "/home/ada/demo.yaml".into(),
        recipe_sha256: "ab".repeat(32),
        sets: Vec::new(),
        job: Job {
            id: job,
            cluster: job.map(|_| "aifb".into()),
            components: vec![nodes.iter().map(|&node| node.to_owned()).collect()],
            ..Job::default()
        },
        submit_dir: "/home/ada".into(),
        started_epoch_ns: START,
        healthy_epoch_ns: Some(START + 1_250_000_000),
        failure: None,
        ended: Some(Ended { epoch_ns: START + 64 * SECOND, ..Ended::default() }),
        warnings: Vec::new(),
        slurm: None,
    }
}

fn distribution(milliseconds: f64) -> Distribution {
    let seconds = milliseconds / 1000.0;
    Distribution {
        count: 100,
        mean: seconds * 1.25,
        stddev: Some(seconds * 0.5),
        min: seconds * 0.5,
        p50: seconds,
        p90: seconds * 2.0,
        p95: seconds * 2.5,
        p99: seconds * 4.0,
        max: seconds * 8.0,
    }
}

fn interpolated(value: f64) -> Interpolated {
    Interpolated {
        count: 100,
        average: value,
        median: value * 0.75,
        min: value * 0.5,
        max: value * 4.0,
        stddev: value * 0.25,
        p50: value * 0.75,
        p90: value * 2.0,
        p95: value * 2.5,
        p99: value * 3.0,
    }
}

fn result(point: u32, repeat: u32) -> LoadResult {
    LoadResult {
        version: RESULT_VERSION,
        load: "chat".into(),
        point,
        settings: BTreeMap::new(),
        repeat,
        service: "llm".into(),
        driver: "openai-chat".into(),
        counts: Counts {
            planned: Some(103),
            sent: 102,
            ok: 100,
            failed: 1,
            cancelled: 1,
            unfinished: 0,
            unsent: Some(1),
            warmup: 25,
        },
        metrics: Metrics {
            duration_seconds: Some(5.0),
            requests_per_second: Some(20.0),
            output_tokens_per_second: Some(2560.0),
            output_tokens: Some(12_800),
            input_tokens: Some(51_200),
            token_source: Some("usage".into()),
            cached_input_tokens: Some(512),
            events_per_read: Some(0.98),
            goodput_per_second: Some(19.5),
            attainment_ratio: Some(0.975),
            ttft_seconds: Some(distribution(12.0)),
            ttfo_seconds: Some(distribution(15.0)),
            inter_token_seconds: Some(distribution(0.8)),
            tpot_seconds: Some(distribution(0.75)),
            e2e_seconds: Some(distribution(110.0)),
            total_seconds: Some(distribution(112.0)),
            service_seconds: Some(distribution(111.0)),
            client_lag_seconds: Some(distribution(0.02)),
            receive_lag_seconds: None,
            former_operations: BTreeMap::new(),
        },
        operations: BTreeMap::new(),
        comparable: Some(Box::new(Comparable {
            ttft_vllm_seconds: Some(distribution(3.0)),
            ttft_sglang_seconds: Some(distribution(11.0)),
            goodput_vllm_per_second: Some(19.0),
            attainment_sglang_ratio: Some(0.96),
            ..Comparable::default()
        })),
        compatible: Some(Box::new(Compatible {
            response_time: Some(interpolated(0.112)),
            throughput: Some(20.0),
            time_to_first_token: Some(interpolated(0.012)),
            tokens_generated_per_second: Some(interpolated(1142.5)),
        })),
        probe: None,
        search: None,
        errors: BTreeMap::from([("timeout".into(), 1)]),
        error_examples: BTreeMap::from([("timeout".into(), "no answer within 30 s".into())]),
        verdicts: Vec::new(),
        complete: true,
        stopped_because: None,
        lost_workers: Vec::new(),
        source: "rows".into(),
        plan: PlanRecord { seed: 42, hash: "cd".repeat(32), workers: 2, ..PlanRecord::default() },
        client: ClientRecord {
            cpu_seconds: 0.5,
            peak_rss_bytes: 9 << 20,
            ..ClientRecord::default()
        },
        measure_start_epoch_ns: START + 10 * SECOND,
        measure_end_epoch_ns: START + 15 * SECOND,
    }
}

/// Samples once a second from the start on: one more CPU second of user time and so on each.
struct Recorder {
    bytes: Vec<u8>,
    series: Vec<(&'static str, &'static [(&'static str, &'static str)])>,
}

type Labels = &'static [(&'static str, &'static str)];

const NODE_SERIES: &[(&str, Labels)] = &[
    ("node_cpu_seconds_total", &[("mode", "user")]),
    ("node_cpu_seconds_total", &[("mode", "idle")]),
    ("node_memory_bytes", &[("kind", "total")]),
    ("node_memory_bytes", &[("kind", "available")]),
    ("node_network_bytes_total", &[("device", "eth0"), ("direction", "receive")]),
    ("node_network_bytes_total", &[("device", "eth0"), ("direction", "transmit")]),
    ("job_cpu_seconds_total", &[("mode", "user")]),
    ("job_memory_bytes", &[("kind", "current")]),
    ("agent_cpu_seconds_total", &[("mode", "user")]),
    ("agent_memory_bytes", &[("kind", "resident")]),
];

const SERVICE_SERIES: &[(&str, Labels)] = &[
    ("service_cpu_seconds_total", &[("service", "llm"), ("replica", "0"), ("mode", "user")]),
    ("service_memory_bytes", &[("service", "llm"), ("replica", "0"), ("kind", "used")]),
    ("step_oom_kills_total", &[("step", "0"), ("role", "service")]),
];

impl Recorder {
    fn new(series: &[&[(&'static str, Labels)]]) -> Self {
        let series: Vec<_> = series.concat();
        let mut bytes = MAGIC.to_vec();
        for (id, (name, labels)) in (0_u32..).zip(&series) {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let labels = labels.collect();
            Frame::Series(Series { id, name: (*name).to_owned(), labels }).encode(&mut bytes);
        }
        Self { bytes, series }
    }

    /// Seconds `from..=to`; the last of them says how many ticks were missed before it.
    fn ticks(mut self, from: u32, to: u32, missed: u32, kills: f64) -> Self {
        for tick in from..=to {
            let second = f64::from(tick);
            let values = (0_u32..).zip(&self.series).map(|(id, (name, labels))| {
                let value = match (*name, labels.last().map_or("", |(_, value)| *value)) {
                    ("node_memory_bytes", "total") => 8e9,
                    ("node_memory_bytes", _) => 6e9 - second * 1e6,
                    ("node_network_bytes_total", "receive") => second * 2048.0,
                    ("node_network_bytes_total", _) => second * 1024.0,
                    ("job_memory_bytes", _) => 1e9 + second * 1e6,
                    ("agent_memory_bytes", _) => 4.0 * 1024.0 * 1024.0,
                    ("service_memory_bytes", _) => 5e8 + second * 1e6,
                    ("agent_cpu_seconds_total", _) => second / 1024.0,
                    ("job_cpu_seconds_total", _) => second / 2.0,
                    ("service_cpu_seconds_total", _) => second / 4.0,
                    ("step_oom_kills_total", _) => kills,
                    _ => second,
                };
                (id, value)
            });
            let sample = Sample {
                epoch_ns: START + u64::from(tick) * SECOND,
                mono_ns: u64::from(1000 + tick) * SECOND,
                missed: if tick == to { missed } else { 0 },
                collect_ns: 80_000,
                values: values.collect(),
            };
            Frame::Sample(sample).encode(&mut self.bytes);
        }
        self
    }

    fn ended(mut self) -> Vec<u8> {
        Frame::End { epoch_ns: START + 64 * SECOND }.encode(&mut self.bytes);
        self.bytes
    }
}

/// Two nodes, one load, all well.
fn complete() -> Folder {
    let mut record = record("aifb-7", Some(7), &["n1", "n2"]);
    record.sets = vec!["load.chat.seed=42".into()];
    record.slurm = Some(JobRecord {
        state: "COMPLETED".into(),
        exit_code: Some(0),
        source: "sacct".into(),
        ..JobRecord::default()
    });
    let n1 = Recorder::new(&[NODE_SERIES, SERVICE_SERIES]).ticks(0, 20, 0, 0.0).ended();
    let n2 = Recorder::new(&[NODE_SERIES]).ticks(0, 20, 0, 0.0).ended();
    Folder::default().run(&record).samples("n1", n1).samples("n2", n2).result(&result(0, 0))
}

/// Two points; one has a lost worker and doubts, one has not ended.
fn sweep() -> Folder {
    let mut record = record("aifb-8_3.r1", Some(8), &["n1"]);
    record.state = State::Failed;
    record.failure = Some(Failure::new(Owner::Loadgen, "chat", "worker 1 was lost"));
    let at = |rate: &str| BTreeMap::from([("load.chat.arrival.rate".into(), rate.into())]);
    let first = LoadResult { settings: at("20/s"), ..result(0, 0) };
    let mut second = LoadResult { settings: at("40/s"), ..result(1, 0) };
    second.counts = Counts {
        planned: Some(204),
        sent: 203,
        ok: 150,
        failed: 3,
        cancelled: 0,
        unfinished: 50,
        unsent: Some(1),
        warmup: 50,
    };
    second.complete = false;
    second.lost_workers = vec![1];
    second.source = "histograms".into();
    second.verdicts = vec![Verdict {
        kind: "client_saturated".into(),
        message: "a client used 97 % of a core; the limit is 80 %".into(),
    }];
    second.measure_start_epoch_ns = START + 30 * SECOND;
    second.measure_end_epoch_ns = START + 35 * SECOND;
    let samples = Recorder::new(&[NODE_SERIES, SERVICE_SERIES])
        .ticks(0, 20, 0, 0.0)
        .ticks(24, 40, 0, 0.0)
        .ended();
    let begun = name(&worker::checkpoint(relative().repeat("chat", 1, 1).path(), 0));
    let mut folder =
        Folder::default().run(&record).samples("n1", samples).result(&first).result(&second);
    folder.0.insert(begun, b"#[StartTime: 0]\n".to_vec());
    folder
}

/// The service ran out of memory before any load; a node left torn samples, another none.
fn service_failed() -> Folder {
    let mut record = record("aifb-9", Some(9), &["n1", "n2"]);
    record.state = State::Failed;
    record.healthy_epoch_ns = None;
    let mut failure = Failure::new(Owner::Service, "llm", "killed by signal 9 (out of memory)")
        .with_hint("give the job more with --mem");
    failure.log_tail = Some("loading the model\nallocating 80 GiB\n".into());
    record.failure = Some(failure);
    record.warnings = vec!["service llm: asked for n2, runs on n1".into()];
    record.slurm = Some(JobRecord {
        state: "FAILED".into(),
        exit_code: Some(4),
        reason: Some("NonZeroExitCode".into()),
        source: "scontrol".into(),
        ..JobRecord::default()
    });
    let mut samples = Recorder::new(&[NODE_SERIES, SERVICE_SERIES]).ticks(0, 3, 0, 2.0).bytes;
    samples.truncate(samples.len() - 7);
    let event = |message: &str| Event {
        epoch_ns: START,
        mono_ns: 1,
        node: "n1".into(),
        kind: "warning".into(),
        subject: "recipe".into(),
        message: message.into(),
        fields: BTreeMap::new(),
    };
    let events = [event("asked for n2, runs on n1"), event("the time limit is short")]
        .map(|event| serde_json::to_string(&event).unwrap() + "\n");
    let mut folder = Folder::default().run(&record).samples("n1", samples);
    folder.0.insert(file::EVENTS.into(), (events.concat() + "{\"epoch_ns\": 17").into_bytes());
    folder
}

/// A local run whose coordinator was killed while it measured.
fn coordinator_lost() -> Folder {
    let mut record = record("local-20250102T030405Z-ab12", None, &["laptop"]);
    record.state = State::Measuring;
    record.ended = None;
    let agent = AgentRecord {
        protocol: PROTOCOL,
        node: "laptop".into(),
        // Above the largest number that Linux gives to a process.
        pid: 4_194_305,
        address: "127.0.0.1:1".into(),
        socket: "aifb-none".into(),
        coordinator: true,
        started_epoch_ns: START,
    };
    let samples = Recorder::new(&[NODE_SERIES, SERVICE_SERIES]).ticks(0, 12, 0, 0.0).bytes;
    let mut folder = Folder::default()
        .run(&record)
        .samples("laptop", samples)
        .json(name(&relative().node("laptop").agent_path()), &agent);
    let begun = name(&worker::checkpoint(relative().repeat("chat", 0, 0).path(), 0));
    folder.0.insert(begun, b"#[StartTime: 0]\n".to_vec());
    folder
}
