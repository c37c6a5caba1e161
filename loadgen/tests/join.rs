//! Workers of one load that meet through files.

mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use aifb_schema::result::{LoadResult, SeriesPoint};
use nix::sys::signal::Signal;
use support::{Mock, PROGRAM, Running, rows_in, until, verdicts};

/// Above the time after which a silent rank counts as lost.
const MOST: Duration = Duration::from_secs(60);

fn rank(mock: &Mock, folder: &Path, rank: u32, of: u32, more: &[&str]) -> Running {
    let child = Command::new(PROGRAM)
        .args(["run", "--driver", "openai-chat", "--url", &mock.url, "--output-tokens", "5"])
        .args(["--rank", &rank.to_string(), "--ranks", &of.to_string(), "--join"])
        .arg(folder)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a rank");
    Running(child)
}

fn output(running: &mut Running) -> (String, String) {
    let mut texts = (String::new(), String::new());
    let child = &mut running.0;
    let stdout = child.stdout.as_mut().expect("its output");
    std::io::Read::read_to_string(stdout, &mut texts.0).expect("text");
    let stderr = child.stderr.as_mut().expect("its errors");
    std::io::Read::read_to_string(stderr, &mut texts.1).expect("text");
    texts
}

fn result(folder: &Path) -> LoadResult {
    let text = std::fs::read(folder.join("result.json")).expect("result.json");
    let result: LoadResult = serde_json::from_slice(&text).expect("a result");
    assert!(result.counts.balanced(), "{:?}", result.counts);
    result
}

#[test]
fn ranks_without_an_agent_are_one_load() {
    let mock = Mock::start(&["--ttft", "20ms", "--itl", "5ms"]);
    let folder = tempfile::tempdir().unwrap();
    let more = ["--rate", "90/s", "--process", "constant", "--for", "2s", "--json"];
    let mut ranks: Vec<Running> =
        (0..3).map(|number| rank(&mock, folder.path(), number, 3, &more)).collect();
    let codes: Vec<i32> = ranks.iter_mut().map(|running| running.end(MOST)).collect();
    let texts: Vec<(String, String)> = ranks.iter_mut().map(output).collect();
    assert_eq!(codes, [0, 0, 0], "{texts:?}");
    let result = result(folder.path());
    let counts = result.counts;
    assert_eq!((counts.planned, counts.sent, counts.ok), (Some(180), 180, 180));
    assert!(result.complete && result.lost_workers.is_empty());
    assert_eq!((result.plan.workers, result.client.clock_error_ns), (3, Some(0)));
    assert!(result.client.start_skew_ns.is_some());
    let rows: usize =
        (0..3).map(|n| rows_in(&folder.path().join(format!("worker-{n}.arrows")))).sum();
    assert_eq!(rows, 180);
    // The seconds of all ranks, added up.
    let series = std::fs::read_to_string(folder.path().join("series.jsonl")).unwrap();
    let points: Vec<SeriesPoint> =
        series.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(points.iter().map(|point| point.ok).sum::<u64>(), 180, "{series}");
    assert_eq!(points.iter().map(|point| point.output_tokens).sum::<u64>(), 900, "{series}");
    assert!(points.iter().all(|point| point.client_cpu_seconds > 0.0), "{series}");
    assert!((2..=4).contains(&points.len()), "two seconds and the last answers: {series}");
    // Only the leader prints.
    let printed: LoadResult = serde_json::from_str(&texts[0].0).unwrap();
    assert_eq!(printed, result);
    assert!(texts[1].0.is_empty() && texts[2].0.is_empty(), "{texts:?}");
    // The folder is this load's.
    let mut again = rank(&mock, folder.path(), 1, 3, &more);
    assert_eq!(again.end(MOST), 5);
    let text = output(&mut again).1;
    assert!(text.contains("rank 1 has joined before"), "{text}");
}

#[test]
fn a_killed_leader_leaves_the_merging_to_the_next_rank() {
    let mock = Mock::start(&["--ttft", "100ms", "--itl", "20ms"]);
    let folder = tempfile::tempdir().unwrap();
    let more = ["--rate", "60/s", "--process", "constant", "--for", "3s"];
    let mut ranks: Vec<Running> =
        (0..3).map(|number| rank(&mock, folder.path(), number, 3, &more)).collect();
    let path = folder.path().join("worker-0.arrows");
    until(MOST, || {
        let file = std::fs::read(&path).ok()?;
        let batches = file.windows(4).filter(|word| *word == [0xff; 4]).count();
        (batches >= 3).then_some(())
    });
    ranks[0].signal(Signal::SIGKILL);
    assert_eq!(ranks[0].end(MOST), 128 + 9);
    assert_eq!((ranks[1].end(MOST), ranks[2].end(MOST)), (5, 5));
    let result = result(folder.path());
    assert_eq!((result.complete, result.lost_workers.as_slice()), (false, &[0][..]));
    assert!(verdicts(&result).contains(&"incomplete"), "{:?}", result.verdicts);
    assert!(result.counts.ok >= 120 + 10 && result.counts.unsent > Some(0), "{:?}", result.counts);
}

#[test]
fn ranks_of_different_loads_do_not_start() {
    let mock = Mock::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let of = |number: u32, requests: &str| {
        rank(&mock, folder.path(), number, 2, &["--concurrency", "2", "--requests", requests])
    };
    let (mut first, mut second) = (of(0, "4"), of(1, "5"));
    assert_eq!(first.end(MOST), 5);
    let text = output(&mut first).1;
    assert!(text.contains("rank 1 was started for another load"), "{text}");
    // Nobody gives it a start; it says so when it is asked to end.
    second.signal(Signal::SIGTERM);
    assert_eq!(second.end(MOST), 143);
    // A rank without a place.
    let output = Command::new(PROGRAM)
        .args(["run", "--driver", "openai-chat", "--url", &mock.url, "--concurrency", "1"])
        .args(["--requests", "1", "--join", "/nowhere"])
        .env_remove("SLURM_PROCID")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("number of ranks are unknown"), "{text}");
}
