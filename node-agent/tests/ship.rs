//! `aifb-agent ship` against a receiver with Loki's words, over real sockets: every line once, in
//! order, whatever dies meanwhile.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, in its helpers, too, and shows its figures"
)]

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aifb_schema::logs::LogLedger;
use common::{agent, send, wait_for};
use loki_stand_in::{Config, Faults, Receiver};

/// A shipper of a folder, and what it says at its end.
struct Shipper(Child);

impl Shipper {
    fn start(folder: &Path, url: &str, more: &[&str]) -> Self {
        let child = command(folder, url, more)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Its exit code and ledger.
    fn end(mut self) -> (i32, LogLedger) {
        let child = &mut self.0;
        let status = wait_for("the shipper's end", || child.try_wait().unwrap());
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        (status.code().unwrap(), serde_json::from_str(&text).unwrap())
    }

    fn stop(self) -> (i32, LogLedger) {
        send(self.0.id(), "TERM");
        self.end()
    }
}

/// A test that fails leaves no shipper behind.
impl Drop for Shipper {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn command(folder: &Path, url: &str, more: &[&str]) -> Command {
    let mut command = agent();
    command.arg("ship").arg(folder).args(["--loki", url, "--json"]).args(more);
    command
}

fn append(path: &Path, text: &str) {
    let mut log = OpenOptions::new().append(true).create(true).open(path).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

/// What a test of loss does.
struct Proof {
    writers: usize,
    lines_each: usize,
    rate_each: f64,
    down: Duration,
    /// Longest time for the rest after the last line was written.
    patience: Duration,
}

fn line(writer: usize, number: usize) -> String {
    format!("INFO writer {writer} line {number} {}", "x".repeat(number % 40))
}

impl Proof {
    fn write(&self, folder: &Path, writer: usize) {
        let path = folder.join(format!("{writer}.log"));
        let begun = Instant::now();
        let mut written = 0;
        while written < self.lines_each {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small count"
            )]
            let due = (begun.elapsed().as_secs_f64() * self.rate_each) as usize;
            let due = due.min(self.lines_each);
            let burst: String = (written..due).map(|number| line(writer, number) + "\n").collect();
            append(&path, &burst);
            written = due;
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lines are written while the receiver fails in all ways and is away for a time, and the
    /// shipper is killed twice: in the middle of the work, and when the receiver comes back.
    fn run(&self) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let config = Config { faults: Faults::mixed(0.15, 7), ..Config::default() };
        let receiver = Receiver::start(config).unwrap();
        let all = (self.writers * self.lines_each) as u64;
        let stored = || receiver.store().streams.values().map(|stream| stream.stored).sum::<u64>();
        let begun = Instant::now();
        let wait_stored = |share: f64| {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            while (stored() as f64) < all as f64 * share {
                assert!(begun.elapsed() < self.patience, "{} of {all} stored", stored());
                thread::sleep(Duration::from_millis(2));
            }
        };
        let ledger = thread::scope(|scope| {
            for writer in 0..self.writers {
                scope.spawn(move || self.write(path, writer));
            }
            let shipper = Shipper::start(path, &receiver.url(), &["--follow"]);
            wait_stored(0.1);
            shipper.kill();
            let shipper = Shipper::start(path, &receiver.url(), &["--follow"]);
            wait_stored(0.2);
            receiver.set_down(true);
            thread::sleep(self.down);
            receiver.set_down(false);
            let before = stored();
            while stored() == before {
                assert!(begun.elapsed() < self.patience, "nothing came after the time away");
                thread::sleep(Duration::from_millis(1));
            }
            shipper.kill();
            let shipper = Shipper::start(path, &receiver.url(), &["--follow"]);
            wait_stored(1.0);
            let (code, ledger) = shipper.stop();
            assert_eq!(code, 0, "{ledger:?}");
            ledger
        });
        let store = receiver.store();
        println!(
            "{all} lines in {:.1} s; answers {:?}; {} entries came again",
            begun.elapsed().as_secs_f64(),
            store.answers,
            store.streams.values().map(|stream| stream.resent).sum::<u64>()
        );
        for (labels, stream) in &store.streams {
            let writer: usize = labels["file"].strip_suffix(".log").unwrap().parse().unwrap();
            assert_eq!((stream.doubled, stream.disordered), (0, 0), "{labels:?}");
            assert_eq!(stream.entries.len(), self.lines_each, "{labels:?}");
            for (number, entry) in stream.entries.iter().enumerate() {
                assert_eq!(entry.text, line(writer, number));
                assert_eq!(entry.metadata["level"], "info");
            }
        }
        assert_eq!(store.streams.len(), self.writers);
        assert!(store.answers.keys().any(|status| *status != 204), "{:?}", store.answers);
        for stream in &ledger.streams {
            assert!(stream.balanced());
            assert_eq!(stream.lines_read, self.lines_each as u64, "{stream:?}");
            assert_eq!(stream.lines_acknowledged, stream.lines_read, "{stream:?}");
        }
    }
}

#[test]
fn no_line_is_lost_or_doubled() {
    let proof = Proof {
        writers: 4,
        lines_each: 5_000,
        rate_each: 2_500.0,
        down: Duration::from_secs(2),
        patience: Duration::from_secs(120),
    };
    proof.run();
}

/// The proof in full, by `make test-more`: a million lines at 50 000 a second.
#[test]
#[ignore = "takes two minutes"]
fn no_line_of_a_million_is_lost_or_doubled() {
    let proof = Proof {
        writers: 4,
        lines_each: 250_000,
        rate_each: 12_500.0,
        down: Duration::from_secs(60),
        patience: Duration::from_secs(600),
    };
    proof.run();
}

#[test]
fn refused_lines_are_put_aside_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..3_000)
        .map(|number| match number {
            17 | 1_500 | 2_999 => format!("poison {number}\n"),
            _ => format!("line {number}\n"),
        })
        .collect();
    append(&folder.path().join("a.log"), &text);
    let config = Config {
        refuse: Some("poison".into()),
        faults: Faults::mixed(0.1, 3),
        ..Config::default()
    };
    let receiver = Receiver::start(config).unwrap();
    let checkpoint = folder.path().join("keep");
    let (code, ledger) = Shipper::start(
        folder.path(),
        &receiver.url(),
        &["--checkpoint", checkpoint.to_str().unwrap(), "--label", "team=a"],
    )
    .end();
    assert_eq!(code, 0);
    let stream = &ledger.streams[0];
    assert_eq!((stream.lines_read, stream.lines_quarantined), (3_000, 3));
    assert!(stream.balanced());
    let store = receiver.store();
    let (labels, stored) = store.streams.first_key_value().unwrap();
    assert_eq!((stored.stored, stored.doubled, labels["team"].as_str()), (2_997, 0, "a"));
    let quarantine = fs::read_to_string(folder.path().join("keep.quarantine.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        quarantine.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["poison 17", "poison 1500", "poison 2999"]);
    assert!(lines.iter().all(|line| line["reason"].as_str().unwrap().contains("not taken")));
}

/// Loki takes nothing older than a week. That is not found out line by line.
#[test]
fn lines_too_old_are_put_aside_together() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a.log");
    append(&log, &(0..5_000).map(|number| format!("line {number}\n")).collect::<String>());
    let old = std::time::SystemTime::now() - Duration::from_secs(10 * 24 * 3600);
    fs::File::options().append(true).open(&log).unwrap().set_modified(old).unwrap();
    let receiver = Receiver::start(Config::default()).unwrap();
    let (code, ledger) = Shipper::start(folder.path(), &receiver.url(), &[]).end();
    assert_eq!((code, ledger.streams[0].lines_quarantined), (0, 5_000));
    // The last line waits a moment for what may belong to it.
    let answers = receiver.store().answers.clone();
    assert!(answers.len() == 1 && answers[&400] <= 2, "{answers:?}");
}

#[test]
fn a_wrong_token_loses_nothing_and_the_right_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("a.log"), "one\nERROR two\nlast, without its end");
    let receiver =
        Receiver::start(Config { token: Some("right".into()), ..Config::default() }).unwrap();
    let token = folder.path().join("token");
    let token = token.to_str().unwrap();
    let more = ["--token-file", token, "--tenant", "lab", "--loki-encoding", "json"];
    fs::write(token, "wrong\n").unwrap();
    let shipper = Shipper::start(
        folder.path(),
        &receiver.url(),
        &[&more[..], &["--patience", "1s"]].concat(),
    );
    let (code, ledger) = shipper.end();
    assert_eq!((code, ledger.streams[0].lines_acknowledged), (5, 0));
    assert!(ledger.trouble.unwrap().contains("401"));
    fs::write(token, "right\n").unwrap();
    let (code, ledger) = Shipper::start(folder.path(), &receiver.url(), &more).end();
    assert_eq!((code, ledger.streams[0].lines_acknowledged), (0, 3));
    assert_eq!(receiver.tenants().last().unwrap(), "lab");
    let store = receiver.store();
    let entries = &store.streams.first_key_value().unwrap().1.entries;
    let texts: Vec<&str> = entries.iter().map(|entry| entry.text.as_str()).collect();
    assert_eq!(texts, ["one", "ERROR two", "last, without its end"]);
    assert_eq!(entries[1].metadata, BTreeMap::from([("level".into(), "error".into())]));
    drop(store);
    // Nothing is left, and nothing comes twice.
    let (code, _) = Shipper::start(folder.path(), &receiver.url(), &more).end();
    assert_eq!(code, 0);
    assert_eq!(receiver.store().summary()["stored"], 3);
    assert_eq!(receiver.store().summary()["resent"], 0);
}

#[test]
fn a_file_that_is_replaced_or_cut_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a.log");
    append(&log, "old 1\nold 2\n");
    let receiver = Receiver::start(Config::default()).unwrap();
    let stored = || receiver.store().summary()["stored"].as_u64().unwrap();
    let shipper = Shipper::start(folder.path(), &receiver.url(), &["--follow"]);
    wait_for("the old lines", || (stored() == 2).then_some(()));
    append(&log, "old 3\n");
    fs::rename(&log, folder.path().join("a.log.1")).unwrap();
    append(&log, "new 1\n");
    wait_for("the new file", || (stored() == 4).then_some(()));
    fs::write(&log, "cut\n").unwrap();
    wait_for("the cut file", || (stored() == 5).then_some(()));
    let (code, ledger) = shipper.stop();
    assert_eq!((code, ledger.streams[0].replaced), (0, 2));
    assert!(ledger.streams[0].balanced());
}

#[test]
fn lines_are_left_out_by_level_and_time() {
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("a.log"), "INFO a\nWARNING b\nplain\nERROR c\n");
    let receiver = Receiver::start(Config::default()).unwrap();
    let (code, ledger) =
        Shipper::start(folder.path(), &receiver.url(), &["--level", "warning"]).end();
    let stream = &ledger.streams[0];
    assert_eq!((code, stream.lines_acknowledged, stream.lines_filtered), (0, 2, 2));
    append(&folder.path().join("b.log"), "ERROR too late\n");
    let (code, ledger) =
        Shipper::start(folder.path(), &receiver.url(), &["--until", "2026-01-01T00:00:00Z"]).end();
    assert_eq!((code, ledger.streams[1].lines_filtered), (0, 1));
    assert_eq!(receiver.store().summary()["stored"], 2);
}

/// A log that cannot be told is not sent, and the command does not say that all is well.
#[test]
fn logs_that_are_left_out_are_told() {
    use std::os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _};
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("a.log"), "one\nbad\n");
    append(&folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.log")), "two\n");
    let refuse = Some("bad".into());
    let receiver = Receiver::start(Config { refuse, ..Config::default() }).unwrap();
    let ran = agent().arg("ship").arg(folder.path()).args(["--loki", &receiver.url()]).output();
    let ran = ran.unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(5), "{said}");
    assert!(said.contains("1 files or folders were skipped"), "{said}");
    assert_eq!(receiver.store().summary()["stored"], 1);
    // Log lines may be nobody else's to read, wherever they are.
    for name in [".log-checkpoint.jsonl", ".log-checkpoint.quarantine.jsonl"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn wrong_usage_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let said = |url: &str, more: &[&str]| {
        let ran = command(folder.path(), url, more).output().unwrap();
        assert_eq!(ran.status.code(), Some(2));
        String::from_utf8(ran.stderr).unwrap()
    };
    for (url, more, expected) in [
        ("http://u:p@h:3100", &[][..], "expected http://host:port"),
        ("h:3100", &[], "expected http://host:port"),
        ("http://h", &["--label", "a-b=c"], "label 'a-b'"),
        ("http://h", &["--token-file", "/nowhere"], "reading token file"),
        ("http://h", &["--level", "loud"], "expected debug, info, warning or error"),
    ] {
        let text = said(url, more);
        assert!(text.contains(expected), "{text}");
    }
}

/// A real Loki, where there is one: `LOKI_URL=http://host:3100`.
#[test]
fn a_real_loki_has_every_line() {
    let Ok(url) = std::env::var("LOKI_URL") else {
        println!("SKIPPED: LOKI_URL is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let run = format!("run_id=test-{}", std::process::id());
    append(&folder.path().join("a.log"), "same\nsame\nERROR other\n");
    let (code, _) = Shipper::start(folder.path(), &url, &["--label", &run]).end();
    assert_eq!(code, 0);
    let (label, value) = run.split_once('=').unwrap();
    let query = format!("%7B{label}%3D%22{value}%22%7D");
    let address = url.strip_prefix("http://").unwrap();
    let lines = wait_for("the lines in Loki", || {
        let path = format!("GET /loki/api/v1/query_range?query={query}&since=1h");
        let (_, body) = common::request(address, &path, None);
        let body: serde_json::Value = serde_json::from_str(&body).ok()?;
        let streams = body["data"]["result"].as_array()?.clone();
        let count: usize =
            streams.iter().map(|one| one["values"].as_array().map_or(0, Vec::len)).sum();
        (count > 0).then_some(count)
    });
    assert_eq!(lines, 3);
}
