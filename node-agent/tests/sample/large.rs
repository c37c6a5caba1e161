//! The node of 128 CPUs and 4 GPUs that `tests/bench/agent` measures, as a whole.

use std::{path::Path, process::Command};

use crate::{gpus::library, record::Sampler};

/// Series that a node of four GPUs may have.
const SERIES_MAX: usize = 400;

#[test]
fn a_large_node_has_all_sources_and_no_more_than_400_series() {
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/node_tree.py");
    let made = Command::new("python3").arg(script).arg(&node).status().unwrap();
    assert!(made.success());
    let root = |name: &str| format!("--{name}-root={}", node.join(name).display());
    let roots = ["proc", "cgroup", "sys"].map(root);
    let nvml = format!("--nvml={}", library().display());
    let [proc, cgroup, sys] = roots.each_ref().map(String::as_str);
    let arguments = [proc, cgroup, sys, &nvml, "--every=100ms", "--pid=llm=1000"];
    let scenario = node.join("scenario.json");
    let sampler = Sampler::start(&folder.path().join("out"), &arguments, Some(&scenario));
    let record = sampler.wait_for(|record| {
        let values = record.last();
        ["gpu_power_watts", "ib_port_bytes_total", "lustre_bytes_total"]
            .iter()
            .all(|name| values.keys().any(|series| series.starts_with(name)))
    });
    let values = record.last();
    assert!(values.len() <= SERIES_MAX, "{} series", values.len());
    let absent: Vec<_> = values.keys().filter(|name| name.contains("absent")).collect();
    assert!(absent.is_empty(), "{absent:?}");
    for (series, value) in [
        ("agent_dropped_series{}", 0.0),
        ("step_cpu_seconds_total{mode=user,role=service,source=cgroup,step=0}", 812.736_455),
        ("step_processes{role=client,step=2}", 3.0),
        ("service_processes{replica=0,service=llm}", 6.0),
        ("service_gpu_memory_bytes{gpu=3,replica=0,service=llm}", 38e9),
        ("gpu_process_memory_bytes{gpu=0,role=service}", 38e9),
        ("ib_port_bytes_total{device=mlx5_3,direction=receive,port=1}", 3_673_094_582_164.0),
        ("lustre_bytes_total{filesystem=scratch,op=read}", 9_182_736_455_412.0),
        ("nfs_bytes_total{mount=/apps,op=write}", 81_273.0),
        ("cpu_energy_joules_total{domain=dram,package=1}", 91_827.364_554),
    ] {
        assert_eq!(values.get(series), Some(&value), "{series}: {values:#?}");
    }
}
