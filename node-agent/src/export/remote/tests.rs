//! Remote write against a receiver that does what receivers do: it is down, slow, full of
//! complaints, or breaks off.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use aifb_schema::metric;

use super::{
    Config, Note, Noted, RemoteWrite, SentTo, StaleSeries,
    sender::{Answer, understand},
    wire::{STALE, decoded::decode},
};
use crate::{
    clock,
    export::fixture::{Reply, Stand},
    sample::{Batch, Shown, Sink as _},
};

/// Longest wait for something that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the receiver stored: value by name, load and time.
type Stored = Arc<Mutex<BTreeMap<(String, i64), f64>>>;

/// A receiver that stores what it takes; `fault` says what becomes of each request.
fn receiver(
    fault: impl Fn(usize, &[(String, i64, f64)]) -> Option<Reply> + Send + Sync + 'static,
) -> (Stand, Stored) {
    let stored = Stored::default();
    let of_server = Arc::clone(&stored);
    let stand = Stand::start(move |number, request| {
        assert_eq!(request.header("content-encoding"), Some("snappy"));
        assert_eq!(request.header("x-prometheus-remote-write-version"), Some("0.1.0"));
        let mut rows = Vec::new();
        for series in decode(&request.body).timeseries {
            let sorted = series.labels.is_sorted_by(|a, b| a.name < b.name);
            assert!(sorted && series.labels.iter().all(|label| !label.value.is_empty()));
            let load = series.labels.iter().find(|label| label.name == "load").unwrap();
            for sample in series.samples {
                rows.push((load.value.clone(), sample.timestamp, sample.value));
            }
        }
        if let Some(reply) = fault(number, &rows) {
            return reply;
        }
        let mut stored = of_server.lock().unwrap();
        for (load, at, value) in rows {
            if let Some(before) = stored.insert((load, at), value) {
                assert_eq!(before.to_bits(), value.to_bits(), "another value for the same time");
            }
        }
        Reply::Status(204, String::new())
    });
    (stand, stored)
}

fn start(stand: &Stand) -> RemoteWrite {
    start_noting(stand, Box::new(|_| {}))
}

fn start_noting(stand: &Stand, note: Note) -> RemoteWrite {
    let (sink, _own) = RemoteWrite::start(Config {
        url: format!("http://{}/api/v1/write", stand.address),
        token: None,
        common: vec![("run_id", "r".to_owned()), ("job", String::new())],
        spool: std::env::temp_dir(),
        note,
    })
    .unwrap();
    sink
}

/// A tick with a value of each load.
fn batch(epoch_ns: u64, loads: &[&str]) -> Batch {
    let shown = |load: &&str| Shown {
        family: &metric::REQUESTS_SENT,
        labels: vec![("load", (*load).to_owned())],
        value: 1.5,
    };
    Batch { epoch_ns, sampled: Vec::new(), published: loads.iter().map(shown).collect() }
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ticks of the last seconds, a millisecond apart.
fn ticks(count: u64) -> impl Iterator<Item = u64> {
    let begin = clock::epoch_ns() - count * 1_000_000;
    (0..count).map(move |tick| begin + tick * 1_000_000)
}

#[test]
fn nothing_is_lost_or_doubled_by_a_receiver_with_every_trouble() {
    let (stand, stored) = receiver(|number, _| match number {
        0 | 1 => Some(Reply::Status(500, "no".into())),
        2 => Some(Reply::Status(429, "slow down".into())),
        3 => Some(Reply::Reset),
        4 => Some(Reply::After(Duration::from_millis(300), 503)),
        _ => None,
    });
    let mut sink = start(&stand);
    let expected: Vec<u64> = ticks(50).collect();
    for epoch_ns in &expected {
        sink.take(batch(*epoch_ns, &["a", "b"]));
    }
    wait_until("all ticks", || stored.lock().unwrap().len() == 100);
    sink.end();
    sink.wait();
    let stored = stored.lock().unwrap();
    for load in ["a", "b"] {
        let of_load: Vec<(i64, f64)> = stored
            .iter()
            .filter(|(key, _)| key.0 == load)
            .map(|(key, value)| (key.1, *value))
            .collect();
        let times: Vec<i64> = of_load.iter().map(|(at, _)| *at).collect();
        let mut due: Vec<i64> =
            expected.iter().map(|ns| i64::try_from(ns / 1_000_000).unwrap()).collect();
        let (end, value) = of_load[50];
        assert!(end > due[49] && value.to_bits() == STALE.to_bits(), "{end} {value}");
        due.push(end);
        assert_eq!(times, due);
    }
    let figures = &sink.figures;
    assert_eq!(figures.sent.load(Relaxed), 102);
    assert!(figures.requests_failed.load(Relaxed) >= 5);
    for lost in [&figures.refused, &figures.late, &figures.dropped] {
        assert_eq!(lost.load(Relaxed), 0);
    }
}

#[test]
fn a_refused_series_takes_none_of_its_neighbours_with_it() {
    let bad = |rows: &[(String, i64, f64)]| rows.iter().any(|(load, ..)| load == "c");
    let (stand, stored) = receiver(move |number, rows| {
        // The same complaint comes with either status, depending on the release.
        let status = if number % 2 == 0 { 400 } else { 500 };
        // Some receivers go on to name every sample.
        let text = format!("too old sample{}", ", and another".repeat(1000));
        bad(rows).then_some(Reply::Status(status, text))
    });
    let mut sink = start(&stand);
    let loads = ["a", "b", "c", "d", "e"];
    for epoch_ns in ticks(10) {
        sink.take(batch(epoch_ns, &loads));
    }
    wait_until("all but one", || stored.lock().unwrap().len() == 40);
    assert!(stored.lock().unwrap().keys().all(|(load, _)| load != "c"));
    wait_until("the refusals", || sink.figures.refused.load(Relaxed) == 10);
    wait_until("the others", || sink.figures.sent.load(Relaxed) == 40);
    // Once it has been refused some times it is left out for a while: no further search for it.
    let before = stand.requests();
    sink.take(batch(clock::epoch_ns(), &loads));
    wait_until("the next tick", || stored.lock().unwrap().len() == 44);
    let requests = stand.requests() - before;
    assert!(requests <= 3, "{requests}: to find it takes five");
}

#[test]
fn a_receiver_that_hangs_holds_up_nobody() {
    let (stand, _) = receiver(|_, _| Some(Reply::After(Duration::from_secs(3600), 204)));
    let mut sink = start(&stand);
    sink.take(batch(clock::epoch_ns(), &["a"]));
    wait_until("the first request", || stand.requests() == 1);
    // The thread waits for the answer, and the queue takes what comes meanwhile, no more.
    let begun = Instant::now();
    while sink.figures.dropped.load(Relaxed) == 0 {
        sink.take(batch(clock::epoch_ns(), &["a"]));
        assert!(begun.elapsed() < PATIENCE, "there is no bound");
    }
    sink.end();
    sink.wait();
}

#[test]
fn the_clock_may_jump() {
    let (stand, stored) = receiver(|_, _| None);
    let mut sink = start(&stand);
    let now = clock::epoch_ns();
    let hour = 3_600 * 1_000_000_000;
    for epoch_ns in
        [now - 2 * hour, now - 1_000_000_000, now - 2_000_000_000, now - 500_000_000, now + hour]
    {
        sink.take(batch(epoch_ns, &["a"]));
    }
    wait_until("all is judged", || sink.figures.late.load(Relaxed) == 3);
    wait_until("the others", || sink.figures.sent.load(Relaxed) == 2);
    let millis = |ns: u64| i64::try_from(ns / 1_000_000).unwrap();
    let times: Vec<i64> = stored.lock().unwrap().keys().map(|(_, at)| *at).collect();
    assert_eq!(times, [millis(now - 1_000_000_000), millis(now - 500_000_000)]);
}

/// An agent that is killed says no last word: somebody else ends its series, by what it noted.
#[test]
fn series_of_a_killed_agent_are_ended_by_what_it_noted() {
    let (stand, stored) = receiver(|number, _| (number == 1).then_some(Reply::Reset));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("series");
    let noted = Arc::new(Mutex::new(Vec::new()));
    let of_note = Arc::clone(&noted);
    let mut sink = start_noting(&stand, Box::new(move |what| of_note.lock().unwrap().push(what)));
    let now = clock::epoch_ns();
    sink.take(batch(now - 2_000_000, &["a", "b"]));
    sink.take(batch(now - 1_000_000, &["a", "b", "c"]));
    wait_until("all values", || stored.lock().unwrap().len() == 5);
    let lines: Vec<u8> = noted
        .lock()
        .unwrap()
        .iter()
        .flat_map(|what| match what {
            Noted::Series(lines) => lines.clone(),
            Noted::Ended => panic!("nothing has ended"),
        })
        .collect();
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 3);
    // Written twice, and torn where the agent was killed.
    std::fs::write(&file, [&lines[..], &lines, b"[[\"load\",\"d"].concat()).unwrap();
    let to = SentTo { url: format!("http://{}/", stand.address), token: None };
    let stale = StaleSeries::of([file.clone(), folder.path().join("none")]);
    assert!(!stale.is_empty());
    stale.end(to.clone());
    let ended = || {
        let stored = stored.lock().unwrap();
        let ends = stored.iter().filter(|(_, value)| value.to_bits() == STALE.to_bits());
        ends.map(|((load, _), _)| load.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ended(), ["a", "b", "c"]);
    assert!(!file.exists() && StaleSeries::of([file.clone()]).is_empty());
    // An agent that ends in order leaves nothing to be done.
    sink.end();
    sink.wait();
    assert!(matches!(noted.lock().unwrap().last(), Some(Noted::Ended)));
    // Where nobody answers the file stays.
    std::fs::write(&file, lines).unwrap();
    drop(stand);
    StaleSeries::of([file.clone()]).end(SentTo { url: "http://127.0.0.1:1/".into(), token: None });
    assert!(file.exists());
}

#[test]
fn answers_are_understood() {
    for (status, text, answer) in [
        (200, "", Answer::Taken),
        (204, "", Answer::Taken),
        (400, "out of order sample", Answer::Wrong),
        (500, "too old sample", Answer::Wrong),
        (500, "disk full", Answer::Later),
        (429, "", Answer::Later),
        (503, "", Answer::Later),
        (401, "", Answer::Never),
        (404, "remote write receiver needs to be enabled", Answer::Never),
        (302, "", Answer::Never),
    ] {
        assert_eq!(understand(status, text), answer, "{status} {text}");
    }
}

#[test]
fn a_token_is_sent_and_a_spool_needs_no_folder() {
    let stand = Stand::start(|_, request| {
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
        Reply::Status(204, String::new())
    });
    let (mut sink, _own) = RemoteWrite::start(Config {
        url: format!("http://{}/", stand.address),
        token: Some("t0ken".into()),
        common: Vec::new(),
        spool: PathBuf::from("/nonexistent"),
        note: Box::new(|_| {}),
    })
    .unwrap();
    sink.take(batch(clock::epoch_ns(), &["a"]));
    wait_until("the value", || sink.figures.sent.load(Relaxed) == 1);
}
