//! Merging the records of many workers: exact, quick and in little memory.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Instant,
};

use aifb_schema::{control::LoadPlan, result::LoadResult};
use aifb_stats::{distribution::of_histogram, histogram::Histogram};
use base64::{Engine, engine::general_purpose::STANDARD};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use support::{Mock, PROGRAM, measure};

const WORKERS: u32 = 30;
const RECORDS: u64 = 10_000_000;

/// Ten million times of one worker: thousands of different ones over four magnitudes.
fn times(rank: u32) -> Histogram {
    let mut histogram = Histogram::new();
    let values = 5_000;
    for index in 0..values {
        let ns = 20_000 * (1 + u64::from(rank)) + index * index * 16;
        histogram.record_many(ns, RECORDS / values);
    }
    histogram
}

/// A worker's record as this version writes it, from a measurement.
fn record() -> Value {
    let mock = Mock::start(&["--ttft", "1ms", "--itl", "1ms"]);
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let output = measure(&[
        "--driver",
        "openai-chat",
        "--url",
        &mock.url,
        "--concurrency",
        "1",
        "--requests",
        "2",
        "--out",
        &out,
    ]);
    assert_eq!(output.status.code(), Some(0));
    let text = fs::read_to_string(folder.path().join("worker-0.hdr")).expect("a record");
    let line = text.lines().find_map(|line| line.strip_prefix("#aifb ")).expect("its record");
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn thirty_workers_of_ten_million_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = record();
    let names = ["ttft", "inter_token", "tpot", "e2e", "total", "service", "client_lag", "op:chat"];
    let mut whole = Histogram::new();
    for rank in 0..WORKERS {
        let histogram = times(rank);
        let code = STANDARD.encode(histogram.encode().unwrap());
        whole.merge(&histogram);
        record["rank"] = rank.into();
        record["size"] = WORKERS.into();
        for count in ["sent", "ok", "in_window"] {
            record["tally"][count] = RECORDS.into();
        }
        record["rows_dropped"] = RECORDS.into();
        let mut text = format!("#[Histogram log format version 1.3]\n#aifb {record}\n");
        for name in names {
            text.push_str(&format!("Tag={name},0.000,1.000,1.000,{code}\n"));
        }
        fs::write(folder.path().join(format!("worker-{rank}.hdr")), text).unwrap();
    }
    let load = json!({
        "name": "chat", "driver": "openai-chat", "arrival": {"concurrency": 64},
        "phases": {"measure": "60s"},
    });
    let plan = LoadPlan {
        run_id: "x".into(),
        folder: folder.path().display().to_string(),
        load: serde_json::from_value(load).unwrap(),
        point: 0,
        settings: BTreeMap::new(),
        repeat: 0,
        size: 0,
        rank: None,
        endpoints: Vec::new(),
        model: None,
        secrets: BTreeMap::new(),
    };
    let began = Instant::now();
    let mut merge = Command::new(PROGRAM)
        .arg("merge")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = merge.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(&plan).unwrap()).unwrap();
    drop(stdin);
    let output = merge.wait_with_output().unwrap();
    let took = began.elapsed();
    assert_eq!(output.status.code(), Some(0));
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() / 1024;
    println!("{WORKERS} workers of {RECORDS} records merged in {took:?}, {peak} MiB at most");
    assert!(peak < 300, "{peak} MiB");
    let result: LoadResult = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result.counts.ok, u64::from(WORKERS) * RECORDS);
    let exact = of_histogram(&whole).unwrap();
    for found in [result.metrics.ttft_seconds, result.metrics.client_lag_seconds] {
        assert_eq!(found, Some(exact), "merging loses nothing");
    }
}
