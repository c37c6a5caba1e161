//! Logs of a local run on their way to Loki.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod common;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aifb_schema::{
    logs::LogLedger,
    names::{exit, file},
};
use common::{GONE_WITHIN, PATIENCE, Run, agent, any_file_contains, request_with, wait_for};
use loki_stand_in::{Config, Fault, Faults, Receiver};

/// A service that writes a line of each level ten times a second.
fn recipe(loki: &str, more: &str) -> String {
    let script = "echo ready; n=0; while :; do n=$((n+1)); echo \"INFO tick $n\"; \
                  echo \"ERROR tock $n\" >&2; sleep 0.1; done";
    format!(
        "aifb: 1\nname: t\nservices:\n  - name: web\n    kind: container\n    program: /bin/sh\n    \
         args: [-c, {script:?}]\n    health: {{log: ready, every: 10ms, deadline: 20s}}\n\
         monitor:\n  loki: {loki}\n{more}"
    )
}

/// Texts that a stream of the run has received.
fn texts(receiver: &Receiver, stream: &str) -> Vec<String> {
    let store = receiver.store();
    let found = store
        .streams
        .iter()
        .find(|(labels, _)| labels.get("stream").map(String::as_str) == Some(stream));
    found.map_or_else(Vec::new, |(_, of)| of.entries.iter().map(|e| e.text.clone()).collect())
}

/// The ledger of the one node.
fn ledger(run: &Run) -> LogLedger {
    let mut nodes = std::fs::read_dir(run.run_dir().join("nodes")).unwrap();
    let path = nodes.next().unwrap().unwrap().path().join(file::LOG_LEDGER);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Lines of a service's own file.
fn own_lines(run: &Run, log: &str) -> Vec<String> {
    run.file(&format!("services/web/{log}.log")).lines().map(str::to_owned).collect()
}

#[test]
fn logs_arrive_with_their_labels_and_the_ledger_is_closed() {
    let receiver =
        Receiver::start(Config { token: Some("s3cr3t".into()), ..Config::default() }).unwrap();
    let loki = format!(
        "{{url: {:?}, tenant: lab, token: {{secret_env: MY_LOKI_TOKEN}}, encoding: json}}",
        receiver.url()
    );
    let recipe = recipe(&loki, "");
    let mut run = Run::start_with(&recipe, &[], &[("MY_LOKI_TOKEN", "s3cr3t")]);
    run.ready();
    wait_for("lines of all streams", || {
        let all = ["stdout", "stderr", "log"].map(|stream| texts(&receiver, stream).len());
        all.iter().all(|count| *count >= 3).then_some(())
    });
    let shown = wait_for("the counts on /metrics", || {
        let (_, text) = run.http("GET /metrics", None);
        text.contains("aifb_log_unsent_bytes").then_some(text)
    });
    assert!(shown.contains("result=\"acknowledged\""), "{shown}");
    assert_eq!(run.end(), "completed");
    let run_id = run.record()["run_id"].as_str().unwrap().to_owned();
    let store = receiver.store();
    let labels: Vec<&BTreeMap<String, String>> = store.streams.keys().collect();
    assert_eq!(labels.len(), 3);
    for labels in labels {
        assert_eq!((labels["job"].as_str(), &labels["run_id"]), ("aifb", &run_id));
        assert_eq!(labels.len(), 8, "{labels:?}");
    }
    drop(store);
    for stream in ["stdout", "stderr"] {
        assert_eq!(texts(&receiver, stream), own_lines(&run, stream), "{stream}");
    }
    let ledger = ledger(&run);
    assert!(ledger.streams.iter().all(|stream| stream.balanced()), "{ledger:?}");
    assert_eq!((ledger.bytes_unsent(), ledger.trouble), (0, None));
    assert_eq!(receiver.tenants().first().unwrap(), "lab");
    assert_eq!(any_file_contains(&run.run_dir(), "s3cr3t"), None);
}

#[test]
fn a_receiver_that_is_away_costs_nothing_and_the_rest_is_sent_later() {
    let receiver = Receiver::start(Config::default()).unwrap();
    receiver.set_down(true);
    let mut run = Run::start(&recipe(&format!("{:?}", receiver.url()), ""));
    run.ready();
    wait_for("a few lines", || (own_lines(&run, "stdout").len() > 5).then_some(()));
    assert_eq!(run.end(), "completed");
    let ledger = ledger(&run);
    assert!(ledger.bytes_unsent() > 0 && ledger.trouble.is_some(), "{ledger:?}");
    receiver.set_down(false);
    let resend = || {
        let ran = agent()
            .arg("ship")
            .arg(run.run_dir())
            .args(["--loki", &receiver.url(), "--json"])
            .output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(exit::OK), "{}", String::from_utf8_lossy(&ran.stderr));
        serde_json::from_slice::<LogLedger>(&ran.stdout).unwrap()
    };
    assert_eq!(resend().bytes_unsent(), 0);
    let stored = receiver.store().summary()["stored"].clone();
    for stream in ["stdout", "stderr"] {
        assert_eq!(texts(&receiver, stream), own_lines(&run, stream), "{stream}");
    }
    // Once more changes nothing.
    assert_eq!(resend().bytes_unsent(), 0);
    let summary = receiver.store().summary();
    assert_eq!((&summary["stored"], &summary["doubled"]), (&stored, &0.into()));
}

#[test]
fn a_receiver_that_never_answers_does_not_hold_up_the_end() {
    let silent = Faults { share: 1.0, kinds: vec![Fault::Silent(4 * PATIENCE)], seed: 1 };
    let receiver = Receiver::start(Config { faults: silent, ..Config::default() }).unwrap();
    let mut run = Run::start(&recipe(&format!("{:?}", receiver.url()), ""));
    run.ready();
    wait_for("a request", || (receiver.store().answers.get(&0) >= Some(&1)).then_some(()));
    let begun = Instant::now();
    assert_eq!(run.end(), "completed");
    assert!(begun.elapsed() < GONE_WITHIN, "{:?}", begun.elapsed());
    let ledger = ledger(&run);
    assert!(ledger.bytes_unsent() > 0 && ledger.streams.iter().all(|stream| stream.balanced()));
}

#[test]
fn level_and_end_are_changed_while_it_runs() {
    let receiver = Receiver::start(Config::default()).unwrap();
    let mut run =
        Run::start(&recipe(&format!("{:?}", receiver.url()), "logging: {level: error}\n"));
    run.ready();
    wait_for("errors", || (texts(&receiver, "stderr").len() > 3).then_some(()));
    assert_eq!(texts(&receiver, "stdout"), Vec::<String>::new());
    let put = |body: &str| {
        let record = run.agent_record();
        let address = record["address"].as_str().unwrap();
        request_with(address, "PUT /v1/logging", Some(&run.token()), body)
    };
    let (status, now) = put(r#"{"logLevel": 0}"#);
    assert_eq!((status, now.trim()), (200, r#"{"level":"info"}"#));
    wait_for("infos", || (!texts(&receiver, "stdout").is_empty()).then_some(()));
    // What was left out before is not sent now.
    assert!(!texts(&receiver, "stdout").iter().any(|text| text == "INFO tick 1"));
    assert_eq!(put(r#"{"until": "2026-01-01T00:00:00Z"}"#).0, 200);
    let after = own_lines(&run, "stdout").len();
    wait_for("more lines", || (own_lines(&run, "stdout").len() > after + 15).then_some(()));
    let sent = texts(&receiver, "stdout");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(texts(&receiver, "stdout"), sent, "after the end nothing is sent");
    let log =
        run.file(&format!("nodes/{}/agent.log", run.agent_record()["node"].as_str().unwrap()));
    assert_eq!(put(r#"{"until": "soon"}"#).0, 400);
    let record = run.agent_record();
    let address = record["address"].as_str().unwrap();
    assert_eq!(request_with(address, "PUT /v1/logging", None, "{}").0, 401);
    assert_eq!(run.end(), "completed");
    assert_eq!(
        run.file(&format!("nodes/{}/agent.log", record["node"].as_str().unwrap())),
        log,
        "the agent's own log has ended too"
    );
    let ledger = ledger(&run);
    assert!(ledger.streams.iter().all(|stream| stream.balanced()), "{ledger:?}");
    let filtered: u64 = ledger.streams.iter().map(|stream| stream.lines_filtered).sum();
    assert!(filtered > 10, "{ledger:?}");
}

/// Node, replica and rank of each text that a service's streams have received.
fn origins(receiver: &Receiver, service: &str) -> Vec<(String, [Option<String>; 3])> {
    let store = receiver.store();
    let of_service = |labels: &BTreeMap<String, String>| {
        labels.get("service").map(String::as_str) == Some(service)
    };
    let streams = store.streams.iter().filter(|(labels, _)| of_service(labels));
    let origins = streams.flat_map(|(labels, stream)| {
        stream.entries.iter().map(|entry| {
            let of = |name: &str| entry.metadata.get(name).cloned();
            let node = labels.get("node").cloned();
            (entry.text.clone(), [node, of("replica"), of("rank")])
        })
    });
    origins.collect()
}

#[test]
fn every_line_says_which_node_replica_and_rank_it_is_from() {
    for encoding in ["json", "protobuf"] {
        let receiver = Receiver::start(Config::default()).unwrap();
        let loki = format!("{{url: {:?}, encoding: {encoding}}}", receiver.url());
        let lines = "(Worker_TP1 pid=7) INFO one|[rank0]: two|ready";
        let script = format!("echo '{lines}' | tr '|' '\\n'; exec sleep 1000");
        let mut run = Run::start(&format!(
            "aifb: 1\nname: t\nservices:\n  - name: web\n    kind: container\n    program: /bin/sh\n    \
             args: [-c, {script:?}]\n    health: {{log: ready, every: 10ms, deadline: 20s}}\n\
             monitor:\n  loki: {loki}\n"
        ));
        run.ready();
        let node = run.agent_record()["node"].as_str().unwrap().to_owned();
        let expected = |replica: &str| {
            let line = |text: &str, rank: Option<&str>| {
                let owned = |text: &str| Some(text.to_owned());
                (text.to_owned(), [owned(&node), owned(replica), rank.and_then(owned)])
            };
            vec![
                line("(Worker_TP1 pid=7) INFO one", Some("TP1")),
                line("[rank0]: two", Some("0")),
                line("ready", None),
            ]
        };
        wait_for("the lines", || (origins(&receiver, "web").len() == 3).then_some(()));
        assert_eq!(origins(&receiver, "web"), expected("0"));
        assert_eq!(run.end(), "completed");
        // Another replica's folder, sent after the end.
        let services = run.run_dir().join("services");
        std::fs::create_dir(services.join("web.1")).unwrap();
        std::fs::copy(services.join("web/stdout.log"), services.join("web.1/stdout.log")).unwrap();
        let mut ship = agent();
        ship.arg("ship").arg(run.run_dir()).args(["--loki", &receiver.url()]);
        let ran = ship.args(["--loki-encoding", encoding]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(origins(&receiver, "web.1"), expected("1"));
    }
}
