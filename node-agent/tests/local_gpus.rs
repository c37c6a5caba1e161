//! GPUs of a local run, through the library that stands in for NVIDIA's.

mod common;

use common::{Run, wait_for};

const RECIPE: &str = "aifb: 1\nname: t\nmonitor: {sample: 100ms}\nservices:\n  - name: web\n    \
                      kind: container\n    program: /bin/sh\n    args: [-c, 'echo ready; exec \
                      sleep 1000']\n    health: {log: ready, every: 10ms}\n";

#[test]
fn a_lost_gpu_and_a_critical_error_are_warnings_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let library = std::env::current_exe().unwrap().with_file_name("libaifb_fake_nvml.so");
    std::os::unix::fs::symlink(library, folder.path().join("libnvidia-ml.so.1")).unwrap();
    let scenario = folder.path().join("scenario.json");
    let gpu = r#"{"uuid": "GPU-a", "power": [1000, 2000, "GPU_IS_LOST"], "xids": [79]}"#;
    std::fs::write(&scenario, format!(r#"{{"devices": [{gpu}]}}"#)).unwrap();
    let variables = [
        ("LD_LIBRARY_PATH", folder.path().to_str().unwrap()),
        ("FAKE_NVML_SCENARIO", scenario.to_str().unwrap()),
    ];
    let mut run = Run::start_with(RECIPE, &[], &variables);
    run.ready();
    let told = "GPU 0 (GPU-a): gpu_is_lost";
    let event = wait_for("the event", || {
        let events = run.file("events.jsonl");
        events.lines().find(|line| line.contains(told)).map(str::to_owned)
    });
    let event: serde_json::Value = serde_json::from_str(&event).unwrap();
    assert_eq!((event["kind"].as_str(), event["subject"].as_str()), (Some("warning"), Some("gpu")));
    assert!(event["fields"]["sample_epoch_ns"].as_u64() <= event["epoch_ns"].as_u64(), "{event}");
    let error = "GPU 0 (GPU-a): critical error XID 79 (the GPU has fallen off the bus)";
    let event = wait_for("the event of the error", || {
        let events = run.file("events.jsonl");
        events.lines().find(|line| line.contains(error)).map(str::to_owned)
    });
    let event: serde_json::Value = serde_json::from_str(&event).unwrap();
    let fields = &event["fields"];
    assert_eq!(
        (&fields["gpu"], &fields["uuid"], &fields["xid"], &fields["count"]),
        (&"0".into(), &"GPU-a".into(), &79.into(), &1.into())
    );
    assert!(fields["sample_epoch_ns"].as_u64() <= event["epoch_ns"].as_u64(), "{event}");
    wait_for("the warning of the run", || run.file("run.json").contains(told).then_some(()));
    let (_, page) = run.http("GET /metrics", None);
    assert!(page.contains("reason=\"gpu_is_lost\"} 1\n"), "{page}");
}
