//! `aifb logs`: what a run could not send, and copies of its logs.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
};

use loki_stand_in::{Config, Receiver};

use crate::{runs::make_run, stand_ins::place};

fn texts(receiver: &Receiver, stream: &str) -> Vec<String> {
    let store = receiver.store();
    let of = store.streams.iter().find(|(labels, _)| labels["stream"] == stream);
    of.map_or_else(Vec::new, |(_, of)| of.entries.iter().map(|e| e.text.clone()).collect())
}

/// A run whose recipe named no Loki, and one whose recipe did.
#[test]
fn what_was_not_sent_is_sent_once() {
    let place = place();
    let folder = make_run(&place, "c-17", None, "completed");
    let ran = place.aifb(&["logs", "resend", "17"]);
    assert!(ran.code == 2 && ran.stderr.contains("its recipe has no Loki URL"), "{ran:?}");
    assert!(ran.stderr.contains("hint: give the URL: --loki"), "{ran:?}");
    let receiver = Receiver::start(Config::default()).unwrap();
    let recipe = fs::read_to_string(folder.join("recipe.yaml")).unwrap();
    let loki =
        format!("{recipe}monitor: {{loki: {:?}}}\nlogging: {{level: info}}\n", receiver.url());
    fs::write(folder.join("recipe.yaml"), loki).unwrap();
    let report = place.aifb(&["report", "17"]).stdout;
    assert!(report.contains("how many of its log lines were sent is not known"), "{report}");

    receiver.set_down(true);
    let ran = place.aifb(&["logs", "resend", "17", "--patience", "1s"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.stderr.contains("hint: aifb logs resend"), "{ran:?}");
    let report = place.aifb(&["report", "17"]).stdout;
    assert!(report.contains("bytes of its logs were not sent"), "{report}");

    receiver.set_down(false);
    let sent = place.aifb(&["logs", "resend", "17"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    assert!(
        sent.stdout.contains("services/web/stdout.log: 3 lines read = 3 acknowledged"),
        "{sent:?}"
    );
    assert_eq!(texts(&receiver, "stdout"), ["first", "second", "third"]);
    assert_eq!(texts(&receiver, "stderr"), ["problem"]);
    assert_eq!(texts(&receiver, "log"), ["agent line"]);
    let again = place.aifb(&["logs", "resend", "17", "--json"]).json();
    assert_eq!(again["streams"][0]["lines_read"], 1, "the agent's own");
    let summary = receiver.store().summary();
    assert_eq!((&summary["stored"], &summary["resent"]), (&5.into(), &0.into()));
    let report = place.aifb(&["report", "17"]).stdout;
    assert!(!report.contains("log lines") && !report.contains("its logs"), "{report}");
}

/// A log that cannot be read is not sent, and nobody is told that all is well.
#[test]
fn a_log_that_cannot_be_read_is_told() {
    let place = place();
    let folder = make_run(&place, "c-17", None, "completed");
    let receiver = Receiver::start(Config::default()).unwrap();
    let log = folder.join("services/web/stderr.log");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    let words = ["logs", "resend", "17", "--patience", "1s", "--loki"];
    let ran = place.aifb(&[&words[..], &[&receiver.url()]].concat());
    assert!(ran.code == 5 && ran.stderr.contains("not a regular file"), "{ran:?}");
    assert_eq!(texts(&receiver, "stdout"), ["first", "second", "third"]);
}

#[test]
fn logs_are_copied_to_the_names_that_others_expect() {
    let place = place();
    let folder = make_run(&place, "c-17", Some(17), "completed");
    let submit_dir = place.folder.path().join("submitted");
    fs::create_dir(&submit_dir).unwrap();
    fs::write(submit_dir.join("slurm-17.out"), "of the script\n").unwrap();
    let record = fs::read_to_string(folder.join("run.json")).unwrap();
    let record = record.replace("\"submit_dir\":\"/\"", &format!("\"submit_dir\":{submit_dir:?}"));
    fs::write(folder.join("run.json"), record).unwrap();
    let ran = place.aifb(&["logs", "export", "17", "--to", "copies", "--json"]).json();
    let names: Vec<&str> =
        ran["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "web_out.log",
            "logs/web_17.out",
            "web_err.log",
            "logs/web_17.err",
            "logs/benchmark_17.out",
            "logs/c-17.log",
        ]
    );
    let copies = place.folder.path().join("copies");
    let read = |name: &str| fs::read_to_string(Path::new(&copies).join(name)).unwrap();
    assert_eq!(read("web_out.log"), "first\nsecond\nthird\n");
    assert_eq!(read("logs/web_17.err"), "problem\n");
    assert_eq!(read("logs/benchmark_17.out"), "of the script\n");
    assert_eq!(read("logs/c-17.log"), "2023-11-14T22:13:21.500000000Z n1 service web: healthy\n");
    // Once more, over what is there, as the third task of an array.
    fs::write(submit_dir.join("slurm-15_3.out"), "of a task\n").unwrap();
    let record = fs::read_to_string(folder.join("run.json")).unwrap();
    let array = record.replacen("\"id\":17", "\"id\":17,\"array\":[15,3]", 1);
    assert_ne!(array, record);
    fs::write(folder.join("run.json"), array).unwrap();
    assert_eq!(place.aifb(&["logs", "export", "17", "--to", "copies"]).code, 0);
    assert_eq!(read("logs/benchmark_17.out"), "of a task\n");
}

#[test]
fn a_run_that_has_ended_has_nothing_to_set() {
    let place = place();
    make_run(&place, "c-17", None, "completed");
    let ran = place.aifb(&["logs", "set", "17", "--level", "debug"]);
    assert!(ran.code == 5 && ran.stderr.contains("none of them is running"), "{ran:?}");
    assert_eq!(place.aifb(&["logs", "set", "17"]).code, 2);
    assert_eq!(place.aifb(&["logs", "set", "17", "--until", "soon"]).code, 2);
}

/// One agent that is gone does not keep the others from being told.
#[test]
fn every_agent_that_lives_is_told() {
    let place = place();
    let folder = make_run(&place, "c-17", None, "measuring");
    let living = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = living.local_addr().unwrap();
    for (node, address) in [("n1", "127.0.0.1:1".to_owned()), ("n2", address.to_string())] {
        let record = serde_json::json!({"protocol": 1, "node": node, "pid": 1, "address": address,
            "socket": "x", "coordinator": node == "n1", "started_epoch_ns": 1});
        fs::create_dir_all(folder.join("nodes").join(node)).unwrap();
        fs::write(folder.join("nodes").join(node).join("agent.json"), record.to_string()).unwrap();
    }
    let agent = thread::spawn(move || {
        let (mut stream, _) = living.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.extend(byte);
        }
        let body = "{\"level\":\"error\"}";
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    let ran = place.aifb(&["logs", "set", "17", "--level", "error"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "n2: error\n"), "{ran:?}");
    assert!(ran.stderr.contains("asking the agent at '127.0.0.1:1'"), "{ran:?}");
    let asked = agent.join().unwrap();
    assert!(
        asked.starts_with("PUT /v1/logging ") && asked.ends_with("{\"level\":\"error\"}"),
        "{asked}"
    );
}

/// The folder of a run may be somebody else's: what stands in it becomes no path.
#[test]
fn a_run_id_that_is_a_path_is_refused() {
    let place = place();
    let folder = make_run(&place, "c-17", None, "completed");
    let record = fs::read_to_string(folder.join("run.json")).unwrap();
    for id in ["../../../outside", ".", "", "a\\nb"] {
        let record = record.replace("\"run_id\":\"c-17\"", &format!("\"run_id\":\"{id}\""));
        fs::write(folder.join("run.json"), record).unwrap();
        let ran = place.aifb(&["logs", "export", folder.to_str().unwrap(), "--to", "a/b/copies"]);
        assert!(ran.code == 2 && ran.stderr.contains("is not the name of a folder"), "{ran:?}");
    }
    assert!(!place.folder.path().join("a").exists());
}
