//! The driver that docs/developer/drivers.md explains, compiled and run.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::Arc,
};

use aifb_schema::{control::LoadPlan, run::Endpoint};
use tokio::sync::{oneshot, watch};

use crate::{
    clock::mono_ns,
    drive,
    driver::{any::over_http, example_driver::Embed},
    job::{Job, Link, Start},
    record::Progress,
};

/// Answers every request on one connection after the other.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut text = Vec::new();
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    text.extend_from_slice(&buffer[..count]);
                    // Its bodies end with the only brace.
                    if text.ends_with(b"}") {
                        let found = String::from_utf8_lossy(&text).contains("POST /embed HTTP/1.1");
                        assert!(found);
                        text.clear();
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}", answer.len());
                        write!(stream, "{head}\r\n\r\n{answer}").unwrap();
                    }
                }
            });
        }
    });
    url
}

fn run(answer: &'static str, engine: &str) -> crate::record::checkpoint::WorkerRecord {
    let folder = tempfile::tempdir().unwrap();
    let json = format!(
        r#"{{"name": "x", "driver": "http", "connection": {{"engine": "{engine}"}}, "arrival": {{"concurrency": 2}},
        "phases": {{"measure": {{"requests": 20}}}}}}"#
    );
    let url = server(answer);
    let plan = LoadPlan {
        run_id: "none".into(),
        folder: folder.path().display().to_string(),
        load: serde_json::from_str(&json).unwrap(),
        point: 0,
        settings: Default::default(),
        repeat: 0,
        size: 1,
        rank: None,
        endpoints: vec![Endpoint {
            service: "external".into(),
            replica: 0,
            node: String::new(),
            host: "127.0.0.1".into(),
            port: 0,
            url,
            ports: std::collections::BTreeMap::new(),
            healthy_epoch_ns: 0,
        }],
        model: None,
        secrets: Default::default(),
    };
    let mut job = Job::new(plan, 0).unwrap();
    job.make().unwrap();
    let (ready, _is_ready) = oneshot::channel();
    let (begin, start) = oneshot::channel();
    begin.send(Start { at_mono_ns: mono_ns(), clock_error_ns: 0 }).unwrap();
    let (_ends, stop) = watch::channel(None);
    let link = Link { ready, start, stop, progress: Arc::new(Progress::default()) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    let run = async {
        let driver = over_http::<Embed>(&job).await?;
        drive::run(&job, driver, 64, link).await
    };
    runtime.block_on(run).unwrap()
}

#[test]
fn it_runs_on_every_engine() {
    for engine in ["hyper", "raw"] {
        let record = run("[[0.5,-0.25]]", engine);
        assert_eq!((record.tally.sent, record.tally.ok), (20, 20), "{:?}", record.examples);
        let record = run("[[]]", engine);
        assert_eq!(record.tally.failed, 20);
        assert_eq!(record.tally.errors[&crate::fault::Class::EmptyResponse], 20);
    }
}
