//! GPUs of scenarios, through the library that stands in for NVIDIA's: exact values.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::record::{Record, Sampler};

/// The stand-in, built as a dependency of this test.
pub(crate) fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.with_file_name("libaifb_fake_nvml.so")
}

struct Scene {
    _folder: tempfile::TempDir,
    sampler: Sampler,
}

/// A process that uses a GPU, as far as the scenario says; ended with the test.
struct Service(Child);

impl Service {
    fn start() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok(), "{ended:?}");
    }
}

impl Scene {
    fn start(scenario: &Value, arguments: &[&str]) -> Self {
        Self::with_library(&library(), scenario, arguments)
    }

    fn with_library(library: &Path, scenario: &Value, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scenario.json");
        fs::write(&file, scenario.to_string()).unwrap();
        let library = library.to_str().unwrap();
        let own = ["--every", "100ms", "--nvml", library];
        let out = folder.path().join("out");
        let sampler = Sampler::start(&out, &[&own[..], arguments].concat(), Some(&file));
        Self { _folder: folder, sampler }
    }

    /// The first sample that has `series`, and all that begins with `gpu` or is about it.
    fn first_with(&self, series: &str) -> BTreeMap<String, f64> {
        let record = self.sampler.wait_for(|record| !record.values(series).is_empty());
        let samples = (0..record.0.samples.len()).map(|at| about_gpus(&record, at));
        samples.into_iter().find(|values| values.contains_key(series)).unwrap()
    }
}

fn about_gpus(record: &Record, at: usize) -> BTreeMap<String, f64> {
    let mut values = record.at(at);
    values.retain(|name, _| name.contains("gpu") && !name.starts_with("agent_source_duration"));
    values.retain(|name, _| !name.starts_with("gpu_reading_age"));
    values
}

#[track_caller]
fn assert_values(values: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    let expected: BTreeMap<String, f64> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    assert_eq!(*values, expected);
}

fn gpu(number: u32) -> Value {
    json!({
        "name": "H100", "uuid": format!("GPU-{number}"),
        "utilization": 87, "memory_utilization": 40,
        "memory_total": 85_899_345_920_u64, "memory_used": 1_073_741_824,
        "power": 350_123, "power_limit": 700_000, "energy": 8_000_000_123_u64, "temperature": 61,
        "clock_graphics": 1980, "clock_sm": 1975, "clock_memory": 2619,
        "throttle_reasons": 0x4 | 0x40 | 0x1,
        "violation_power": 1_500_000_000_u64, "violation_thermal": 250_000_000,
        "violation_sync_boost": 0, "violation_board_limit": 0, "violation_reliability": 0,
        "ecc_corrected": 3, "ecc_uncorrected": 0,
        "nvlink_receive": 2, "nvlink_transmit": 5,
    })
}

#[test]
fn every_value_of_a_gpu() {
    let scene = Scene::start(&json!({"driver": "550.54.15", "devices": [gpu(0)]}), &[]);
    assert_values(
        &scene.first_with("gpu_power_watts{gpu=0,uuid=GPU-0}"),
        &[
            ("gpu_clock_hertz{domain=graphics,gpu=0,uuid=GPU-0}", 1.98e9),
            ("gpu_clock_hertz{domain=memory,gpu=0,uuid=GPU-0}", 2.619e9),
            ("gpu_clock_hertz{domain=sm,gpu=0,uuid=GPU-0}", 1.975e9),
            ("gpu_ecc_errors_total{gpu=0,kind=corrected,uuid=GPU-0}", 3.0),
            ("gpu_ecc_errors_total{gpu=0,kind=uncorrected,uuid=GPU-0}", 0.0),
            ("gpu_energy_joules_total{gpu=0,uuid=GPU-0}", 8_000_000.123),
            ("gpu_info{driver=550.54.15,gpu=0,name=H100,uuid=GPU-0}", 1.0),
            ("gpu_memory_total_bytes{gpu=0,uuid=GPU-0}", 85_899_345_920.0),
            ("gpu_memory_used_bytes{gpu=0,uuid=GPU-0}", 1_073_741_824.0),
            ("gpu_memory_utilization_ratio{gpu=0,uuid=GPU-0}", 0.4),
            ("gpu_nvlink_bytes_total{direction=receive,gpu=0,uuid=GPU-0}", 2048.0),
            ("gpu_nvlink_bytes_total{direction=transmit,gpu=0,uuid=GPU-0}", 5120.0),
            ("gpu_power_limit_watts{gpu=0,uuid=GPU-0}", 700.0),
            ("gpu_power_watts{gpu=0,uuid=GPU-0}", 350.123),
            ("gpu_temperature_celsius{gpu=0,uuid=GPU-0}", 61.0),
            ("gpu_throttle_seconds_total{gpu=0,reason=board_limit,uuid=GPU-0}", 0.0),
            ("gpu_throttle_seconds_total{gpu=0,reason=power,uuid=GPU-0}", 1.5),
            ("gpu_throttle_seconds_total{gpu=0,reason=reliability,uuid=GPU-0}", 0.0),
            ("gpu_throttle_seconds_total{gpu=0,reason=sync_boost,uuid=GPU-0}", 0.0),
            ("gpu_throttle_seconds_total{gpu=0,reason=thermal,uuid=GPU-0}", 0.25),
            ("gpu_throttled{gpu=0,reason=application_clocks,uuid=GPU-0}", 0.0),
            ("gpu_throttled{gpu=0,reason=hardware,uuid=GPU-0}", 0.0),
            ("gpu_throttled{gpu=0,reason=power_brake,uuid=GPU-0}", 0.0),
            ("gpu_throttled{gpu=0,reason=power_cap,uuid=GPU-0}", 1.0),
            ("gpu_throttled{gpu=0,reason=sync_boost,uuid=GPU-0}", 0.0),
            ("gpu_throttled{gpu=0,reason=thermal,uuid=GPU-0}", 1.0),
            ("gpu_utilization_ratio{gpu=0,uuid=GPU-0}", 0.87),
            ("gpu_xid_errors_total{gpu=0,uuid=GPU-0}", 0.0),
        ],
    );
}

/// Others start a program for each look at the GPUs. The page faults of children that were waited for
/// count in their parent for good.
#[test]
fn no_process_is_started_to_look_at_gpus() {
    let scene = Scene::start(&json!({"devices": [gpu(0)]}), &[]);
    let series = "gpu_power_watts{gpu=0,uuid=GPU-0}";
    scene.sampler.wait_for(|record| record.values(series).len() >= 10);
    let pid = scene.sampler.pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let faults_of_children = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(8);
    assert_eq!(faults_of_children, Some("0"), "{stat}");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    for task in tasks {
        let children =
            fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        assert_eq!(children, "");
    }
}

#[test]
fn values_change_over_time_and_keep_their_order() {
    let steps: Vec<u64> = (1..=1000).map(|step| step * 1000).collect();
    let device = json!({"uuid": "GPU-0", "energy": steps});
    let scene = Scene::start(&json!({"devices": [device]}), &[]);
    let series = "gpu_energy_joules_total{gpu=0,uuid=GPU-0}";
    let record = scene.sampler.wait_for(|record| record.values(series).len() >= 5);
    let values = record.values(series);
    assert!(values.iter().all(|joules| joules.fract() == 0.0 && *joules >= 1.0), "{values:?}");
    assert!(values.is_sorted() && values[0] < values[4], "{values:?}");
}

#[test]
fn what_is_not_there_is_absent() {
    let device = json!({
        "uuid": "GPU-0", "power": "NOT_SUPPORTED", "energy": u64::MAX, "temperature": u32::MAX,
        "memory_total": 9_223_372_036_854_775_794_u64, "memory_used": 7, "utilization": 101,
        "clock_sm": "FUNCTION_NOT_FOUND", "ecc_corrected": "NO_PERMISSION", "power_limit": 1000,
        "processes": [{"pid": 1, "memory": null}],
    });
    let scene = Scene::start(&json!({"driver": "1", "devices": [device]}), &[]);
    assert_values(
        &scene.first_with("gpu_power_limit_watts{gpu=0,uuid=GPU-0}"),
        &[
            ("gpu_info{driver=1,gpu=0,name=,uuid=GPU-0}", 1.0),
            ("gpu_memory_used_bytes{gpu=0,uuid=GPU-0}", 7.0),
            ("gpu_power_limit_watts{gpu=0,uuid=GPU-0}", 1.0),
            ("gpu_xid_errors_total{gpu=0,uuid=GPU-0}", 0.0),
        ],
    );
}

#[test]
fn a_gpu_that_is_lost_says_so_and_the_other_goes_on() {
    let mut lost = gpu(0);
    lost["power"] = json!([350_000, "GPU_IS_LOST"]);
    lost["xids"] = json!([31, 79]);
    let refused = json!({"uuid": "GPU-2", "handle": "NO_PERMISSION"});
    let scenario = json!({"driver": "1", "devices": [lost, gpu(1), refused]});
    let scene = Scene::start(&scenario, &[]);
    let values = scene.first_with("gpu_absent_info{gpu=0,reason=gpu_is_lost,uuid=GPU-0}");
    let of_lost: Vec<_> = values.iter().filter(|(name, _)| name.contains("GPU-0")).collect();
    assert_eq!(
        of_lost,
        [
            (&"gpu_absent_info{gpu=0,reason=gpu_is_lost,uuid=GPU-0}".to_owned(), &1.0),
            (&"gpu_info{driver=1,gpu=0,name=H100,uuid=GPU-0}".to_owned(), &1.0),
            (&"gpu_last_xid{gpu=0,uuid=GPU-0}".to_owned(), &79.0),
            (&"gpu_xid_codes_total{gpu=0,uuid=GPU-0,xid=31}".to_owned(), &1.0),
            (&"gpu_xid_codes_total{gpu=0,uuid=GPU-0,xid=79}".to_owned(), &1.0),
            (&"gpu_xid_errors_total{gpu=0,uuid=GPU-0}".to_owned(), &2.0),
        ]
    );
    assert_eq!(values["gpu_power_watts{gpu=1,uuid=GPU-1}"], 350.123);
    assert_eq!(values["gpu_absent_info{gpu=2,reason=permission_denied,uuid=}"], 1.0);
    scene.sampler.signal(nix::sys::signal::Signal::SIGTERM);
    let (code, output, _, _) = scene.sampler.end();
    assert_eq!(code, 0);
    assert!(output.contains("GPU 0 (GPU-0): gpu_is_lost"), "{output}");
}

/// Values about critical errors in a sample.
fn about_xids(mut values: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    values.retain(|name, _| name.contains("xid"));
    values
}

#[test]
fn critical_errors_are_counted_by_number_and_told() {
    let mut device = gpu(0);
    // One at a call; 999 is the library's word for "unknown".
    device["xids"] = json!([31, null, 31, 999, null, 79]);
    let scene = Scene::start(&json!({"devices": [device, gpu(1)]}), &[]);
    let by_number = "gpu_xid_codes_total{gpu=0,uuid=GPU-0,xid=79}";
    assert_values(
        &about_xids(scene.first_with(by_number)),
        &[
            ("gpu_last_xid{gpu=0,uuid=GPU-0}", 79.0),
            ("gpu_xid_codes_total{gpu=0,uuid=GPU-0,xid=31}", 2.0),
            (by_number, 1.0),
            ("gpu_xid_codes_total{gpu=0,uuid=GPU-0,xid=unknown}", 1.0),
            ("gpu_xid_errors_total{gpu=0,uuid=GPU-0}", 4.0),
            ("gpu_xid_errors_total{gpu=1,uuid=GPU-1}", 0.0),
        ],
    );
    scene.sampler.signal(nix::sys::signal::Signal::SIGTERM);
    let (code, output, _, _) = scene.sampler.end();
    assert_eq!(code, 0);
    let told = ["31 (memory page fault, most likely of the program)", "unknown", "79 (the GPU has"];
    for told in told.map(|xid| format!("GPU 0 (GPU-0): critical error XID {xid}")) {
        assert!(output.contains(&told), "{output}");
    }
}

#[test]
fn a_driver_that_does_not_tell_critical_errors_says_why_and_the_rest_goes_on() {
    let (mut refused, mut later) = (gpu(0), gpu(0));
    refused["events"] = json!("NOT_SUPPORTED");
    later["xids"] = json!(["NOT_SUPPORTED"]);
    let (_folder, without_wait) = older(&["nvmlEventSetWait_v2"]);
    let (_other, without_sets) = older(&["nvmlEventSetCreate", "nvmlEventSetFree"]);
    for (library, device, reason) in [
        (library(), refused, "not_supported"),
        (library(), later, "not_supported"),
        (without_wait, gpu(0), "function_not_found"),
        (without_sets, gpu(0), "function_not_found"),
    ] {
        let scene = Scene::with_library(&library, &json!({"devices": [device]}), &[]);
        let values = scene.first_with("gpu_power_watts{gpu=0,uuid=GPU-0}");
        let absent = format!("agent_source_absent_info{{reason={reason},source=gpu_xid}}");
        assert_values(&about_xids(values), &[(&absent, 1.0)]);
    }
}

#[test]
fn waiting_for_critical_errors_delays_no_tick() {
    let scenario = json!({"slow_ms": {"nvmlEventSetWait_v2": 600_000}, "devices": [gpu(0)]});
    let scene = Scene::start(&scenario, &["--for", "2s"]);
    let (code, _, messages, record) = scene.sampler.end();
    assert_eq!((code, messages.as_str()), (0, ""));
    assert!(record.0.samples.len() >= 3 && record.0.ended);
}

#[test]
fn a_library_that_hangs_delays_no_tick_and_no_end() {
    let scenario = json!({"slow_ms": {"nvmlDeviceGetPowerUsage": 600_000}, "devices": [gpu(0)]});
    let scene = Scene::start(&scenario, &["--for", "2s"]);
    let (code, _, messages, record) = scene.sampler.end();
    assert_eq!((code, messages.as_str()), (0, ""));
    assert!(record.0.samples.len() >= 3 && record.0.ended);
    assert_values(
        &about_gpus(&record, record.0.samples.len() - 1),
        &[("agent_source_absent_info{reason=no_answer,source=gpu}", 1.0)],
    );
}

#[test]
fn a_slow_library_gives_values_with_their_age() {
    let scenario = json!({"slow_ms": {"nvmlDeviceGetPowerUsage": 700}, "devices": [gpu(0)]});
    let scene = Scene::start(&scenario, &[]);
    let record = scene.sampler.wait_for(|record| {
        let ages = record.values("gpu_reading_age_seconds{}");
        ages.iter().any(|age| *age > 0.3)
    });
    let took = record.values("agent_source_duration_seconds{source=gpu}");
    assert!(took.iter().all(|seconds| *seconds >= 0.7), "{took:?}");
}

/// The stand-in without some symbols, in a folder of its own.
fn older(symbols: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libolder.so");
    let mut bytes = fs::read(library()).unwrap();
    for symbol in symbols.iter().map(|name| format!("{name}\0").into_bytes()) {
        let windows = bytes.windows(symbol.len()).enumerate();
        let places: Vec<usize> =
            windows.filter(|(_, window)| *window == symbol).map(|(at, _)| at).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at] = b'x');
    }
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn a_symbol_that_an_older_library_lacks_costs_its_value_only() {
    let (_folder, older) = older(&["nvmlDeviceGetTotalEnergyConsumption"]);
    let scene = Scene::with_library(&older, &json!({"devices": [gpu(0)]}), &[]);
    let values = scene.first_with("gpu_power_watts{gpu=0,uuid=GPU-0}");
    assert!(values.keys().all(|name| !name.starts_with("gpu_energy")), "{values:?}");
    assert_eq!(values.len(), 27);
}

#[test]
fn without_a_library_a_driver_or_a_gpu_the_reason_is_told() {
    let none = Path::new("/nonexistent/libnvidia-ml.so.1");
    for (library, scenario, reason) in [
        (none, json!({"devices": []}), "library_not_found"),
        (Path::new("libc.so.6"), json!({"devices": []}), "function_not_found"),
        (&library(), json!({"devices": []}), "no_device"),
        (&library(), json!({"init": "DRIVER_NOT_LOADED", "devices": []}), "driver_not_loaded"),
    ] {
        let scene = Scene::with_library(library, &scenario, &[]);
        let series = format!("agent_source_absent_info{{reason={reason},source=gpu}}");
        assert_values(&scene.first_with(&series), &[(&series, 1.0)]);
    }
}

#[test]
fn memory_of_parts_is_beside_that_of_the_gpu() {
    let mut whole = gpu(0);
    whole["mig"] = json!([
        {"uuid": "MIG-a", "memory_total": 20_000, "memory_used": 500,
         "processes": [{"pid": 1, "memory": 400}]},
        {"uuid": "MIG-b", "memory_total": 10_000, "memory_used": u64::MAX,
         "processes": [{"pid": 1, "memory": 30}], "graphics": [{"pid": 1, "memory": 31}]},
    ]);
    whole["utilization"] = json!("NOT_SUPPORTED");
    whole["processes"] = json!([{"pid": 1, "memory": 999}]);
    let scene = Scene::start(&json!({"devices": [whole]}), &[]);
    let mut values = scene.first_with("gpu_power_watts{gpu=0,uuid=GPU-0}");
    values.retain(|name, _| name.contains("instance") || name.contains("process"));
    assert_values(
        &values,
        &[
            ("gpu_instance_memory_total_bytes{gpu=0,instance=0,uuid=MIG-a}", 20_000.0),
            ("gpu_instance_memory_total_bytes{gpu=0,instance=1,uuid=MIG-b}", 10_000.0),
            ("gpu_instance_memory_used_bytes{gpu=0,instance=0,uuid=MIG-a}", 500.0),
            ("gpu_process_memory_bytes{gpu=0,role=other}", 431.0),
        ],
    );
}

#[test]
fn processes_count_for_their_service_and_their_role() {
    let service = Service::start();
    let mut device = gpu(0);
    device["processes"] =
        json!([{"pid": service.0.id(), "memory": 5000}, {"pid": std::process::id(), "memory": 70}]);
    device["graphics"] =
        json!([{"pid": service.0.id(), "memory": 5000}, {"pid": 4_000_000, "memory": 8}]);
    let named = format!("llm={}", service.0.id());
    let scene = Scene::start(&json!({"devices": [device]}), &["--pid", &named]);
    let mut values = scene.first_with("gpu_process_memory_bytes{gpu=0,role=service}");
    values.retain(|name, _| name.contains("process") || name.starts_with("service"));
    assert_values(
        &values,
        &[
            ("gpu_process_memory_bytes{gpu=0,role=other}", 78.0),
            ("gpu_process_memory_bytes{gpu=0,role=service}", 5000.0),
            ("service_gpu_memory_bytes{gpu=0,replica=0,service=llm}", 5000.0),
        ],
    );
}

/// The library of a real driver. Where there is none this proves nothing.
#[test]
fn a_real_gpu_has_plausible_values() {
    if !Path::new("/dev/nvidiactl").exists() {
        eprintln!("SKIPPED: this machine has no NVIDIA GPU (/dev/nvidiactl)");
        return;
    }
    let real = Path::new("libnvidia-ml.so.1");
    let scene = Scene::with_library(real, &json!({"devices": []}), &["--for", "3s"]);
    let (code, output, messages, record) = scene.sampler.end();
    assert_eq!((code, messages.as_str()), (0, ""), "{output}");
    let values = about_gpus(&record, record.0.samples.len() - 1);
    let of = |name: &str| {
        let found = values.iter().find(|(series, _)| series.starts_with(name));
        found.map(|(_, value)| *value).unwrap_or_else(|| panic!("no {name}: {values:#?}"))
    };
    assert!((0.0..=1.0).contains(&of("gpu_utilization_ratio")));
    assert!(of("gpu_memory_total_bytes") > of("gpu_memory_used_bytes"));
    assert!(of("gpu_memory_total_bytes") > 1e9);
    assert!((1.0..5_000.0).contains(&of("gpu_power_watts")));
    assert!((1.0..150.0).contains(&of("gpu_temperature_celsius")));
    assert!((1e7..1e10).contains(&of("gpu_clock_hertz")));
}
