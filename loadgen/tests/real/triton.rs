//! Triton with the models of tests/more/triton.py: what we count is what they were asked and
//! gave.

use std::{path::Path, process::Command};

use aifb_schema::result::LoadResult;

use crate::{
    given,
    server::{Server, free_ports, post},
    support::{for_each_engine, measure, measured},
};

struct Triton {
    server: Server,
    http: u16,
    grpc: u16,
}

/// What the models say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Requests of `ident`.
    ident: u64,
    /// Requests of `gen`.
    generating: u64,
    /// Answers of `gen`.
    responses: u64,
}

impl Triton {
    fn start() -> Option<Self> {
        let python = given("AIFB_REAL_TRITON_PYTHON")?;
        let ports = free_ports(3);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/more/triton.py");
        let mut command = Command::new(python);
        command.arg(script).args(ports.iter().map(u16::to_string));
        let (http, grpc) = (ports[0], ports[1]);
        // The model that is loaded last.
        let server = Server::start(&mut command, ports, "/v2/models/count/ready");
        Some(Self { server, http, grpc })
    }

    fn counts(&self) -> Counts {
        let asked = r#"{"inputs":[{"name":"of","datatype":"INT64","shape":[1],"data":[0]}]}"#;
        let (status, body) =
            post(self.http, "/v2/models/count/infer", asked).expect("the model's counts");
        assert_eq!(status, 200, "{body}");
        let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let value = |name: &str| {
            let outputs = json["outputs"].as_array().expect("outputs");
            let output = outputs.iter().find(|output| output["name"] == name).expect(name);
            output["data"][0].as_u64().expect(name)
        };
        Counts { ident: value("ident"), generating: value("gen"), responses: value("responses") }
    }

    fn since(&self, before: Counts) -> Counts {
        let now = self.counts();
        Counts {
            ident: now.ident - before.ident,
            generating: now.generating - before.generating,
            responses: now.responses - before.responses,
        }
    }

    fn url(&self, driver: &str) -> String {
        let port = if driver == "kserve-grpc" { self.grpc } else { self.http };
        format!("http://127.0.0.1:{port}")
    }

    fn run(&self, driver: &str, model: &str, options: &[&str]) -> LoadResult {
        let url = self.url(driver);
        let result = measured(
            &[&["--driver", driver, "--url", &url, "--model", model][..], options].concat(),
        );
        println!("{driver} {model} {options:?}: {:?}", result.counts);
        result
    }
}

const REQUESTS: u64 = 1_000;
const IDENT: [&str; 4] = ["--concurrency", "8", "--requests", "1000"];

fn all_good(result: &LoadResult, requests: u64, triton: &Triton) {
    let counts = &result.counts;
    assert_eq!(
        (counts.ok, counts.failed, counts.cancelled, counts.unfinished),
        (requests, 0, 0, 0),
        "{:?}\n{}",
        result.error_examples,
        triton.server.log()
    );
}

#[test]
fn inferences_over_http() {
    let Some(triton) = Triton::start() else { return };
    let shape = r#"{"inputs":[{"name":"INPUT0","shape":[1,16]}],
        "outputs":[{"name":"OUTPUT0","shape":[1,16]}]"#;
    for_each_engine(|engine| {
        for kserve in [format!("{shape}}}"), format!("{shape},\"binary\":false}}")] {
            let before = triton.counts();
            let options = [&IDENT[..], &["--kserve", &kserve], engine].concat();
            all_good(&triton.run("kserve-http", "ident", &options), REQUESTS, &triton);
            assert_eq!(triton.since(before).ident, REQUESTS, "as the model counted");
        }
    });
}

#[test]
fn inferences_over_grpc() {
    let Some(triton) = Triton::start() else { return };
    let kserve = r#"{"inputs":[{"name":"INPUT0","shape":[2,16],"data":[0.5]}],
        "outputs":[{"name":"OUTPUT0","shape":[2,16]}]}"#;
    let before = triton.counts();
    let result = triton.run("kserve-grpc", "ident", &[&IDENT[..], &["--kserve", kserve]].concat());
    all_good(&result, REQUESTS, &triton);
    assert_eq!(triton.since(before).ident, 2 * REQUESTS, "two rows in each");
    assert_eq!(result.metrics.ttft_seconds, None, "one answer is no stream");
}

/// 300 requests of 20 answers each, by both ways in which Triton streams.
#[test]
fn decoupled_models_stream() {
    let Some(triton) = Triton::start() else { return };
    let options = ["--concurrency", "4", "--requests", "300", "--output-tokens", "20"];
    // Over gRPC the inputs come from the metadata, and so would a random number of tokens.
    let tokens = r#"{"inputs":[{"name":"text_input","data":"text"},
        {"name":"max_tokens","data":[20]}]}"#;
    for (driver, more) in [
        ("triton-generate", &["--engine", "hyper"][..]),
        ("triton-generate", &["--engine", "raw"]),
        ("kserve-grpc", &["--kserve", tokens]),
    ] {
        let before = triton.counts();
        let result = triton.run(driver, "gen", &[&options[..], more].concat());
        all_good(&result, 300, &triton);
        let since = triton.since(before);
        assert_eq!((since.generating, since.responses), (300, 300 * 20), "{driver}: the model's");
        assert_eq!(result.metrics.output_tokens, Some(since.responses), "{driver}: ours");
        assert_eq!(result.metrics.token_source.as_deref(), Some("chunks"));
        assert_eq!(result.metrics.inter_token_seconds.as_ref().map(|d| d.count), Some(300 * 19));
        assert_eq!(result.metrics.ttft_seconds.as_ref().map(|d| d.count), Some(300));
    }
}

/// An error in the middle of a stream, an input that does not fit, a model that is not there.
#[test]
fn failures_have_their_class() {
    let Some(triton) = Triton::start() else { return };
    let fail = ["--concurrency", "2", "--requests", "20", "--prompt", "please fail"];
    let tokens = r#"{"inputs":[{"name":"text_input","data":"text"},
        {"name":"max_tokens","data":[9]}]}"#;
    for driver in ["triton-generate", "kserve-grpc"] {
        let result = triton.run(driver, "gen", &[&fail[..], &["--kserve", tokens]].concat());
        assert_eq!(result.errors.get("error_event_in_200"), Some(&20), "{:?}", result.errors);
        let example = &result.error_examples["error_event_in_200"];
        assert!(example.contains("as asked for"), "{driver}: {example}");
    }
    let wrong = r#"{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,3]}]}"#;
    for driver in ["kserve-http", "kserve-grpc"] {
        let options = ["--concurrency", "1", "--requests", "5", "--kserve", wrong];
        let result = triton.run(driver, "ident", &options);
        assert_eq!(result.errors.get("status_4xx"), Some(&5), "{:?}", result.errors);
        let url = triton.url(driver);
        let absent = ["--driver", driver, "--url", &url, "--model", "no", "--concurrency", "1"];
        let output = measure(&[&absent[..], &["--requests", "1"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{stderr}");
        assert!(stderr.contains("waiting for model 'no' to be ready"), "{stderr}");
    }
}
