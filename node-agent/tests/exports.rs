//! What a run does where nothing can be sent.

mod common;

use std::net::TcpListener;

use common::{Run, wait_for};

const SERVICE: &str = "aifb: 1\nname: t\nservices:\n  - name: web\n    kind: container\n    program: \
                       /bin/sh\n    args: [-c, 'echo ready; exec sleep 1000']\n    health: {log: \
                       ready, every: 10ms}\n";

#[test]
fn a_receiver_without_its_token_is_a_warning_and_no_failure() {
    let mut run = Run::start(&format!(
        "{SERVICE}monitor: {{remote_write: {{url: 'http://127.0.0.1:9/', token: {{secret_env: \
         NO_SUCH_TOKEN}}}}}}\n"
    ));
    run.ready();
    wait_for("the warning", || {
        let warnings = run.record()["warnings"].to_string();
        (warnings.contains("remote write") && warnings.contains("NO_SUCH_TOKEN")).then_some(())
    });
    assert_eq!(run.end(), "completed");
}

/// The receivers take connections and never answer: the run is as long and ends as it would.
#[test]
fn receivers_that_hang_hold_up_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut run = Run::start(&format!(
        "{SERVICE}monitor: {{sample: 100ms, remote_write: '{url}/api/v1/write', pushgateway: \
         '{url}', targets: '/nonexistent'}}\n"
    ));
    run.ready();
    let (status, page) = run.http("GET /v1/targets", None);
    assert_eq!(status, 200);
    assert!(page.contains("\"role\":\"node-agent\""), "{page}");
    assert!(run.http("GET /metrics", None).1.contains("aifb_export_spool_bytes"));
    // A folder that is not there is said, and no more.
    wait_for("the warning", || {
        let warnings = run.record()["warnings"].to_string();
        (warnings.contains("records were not written") && warnings.contains("/nonexistent"))
            .then_some(())
    });
    assert_eq!(run.end(), "completed");
}
