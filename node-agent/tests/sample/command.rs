//! How it starts, ends and what it tells.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::record::{Record, Sampler};

const NO_GPU: [&str; 2] = ["--nvml", "/nonexistent.so"];

fn samples(record: &Record) -> usize {
    record.0.samples.len()
}

#[test]
fn two_seconds_give_samples_an_end_and_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    let own = format!("test={}", std::process::id());
    let arguments = ["--every", "1s", "--for", "2s", "--json", "--pid", &own];
    let sampler = Sampler::start(folder.path(), &[&arguments[..], &NO_GPU].concat(), None);
    let (code, output, messages, record) = sampler.end();
    assert_eq!((code, messages.as_str()), (0, ""));
    assert!(samples(&record) >= 2 && record.0.ended && record.0.torn_bytes == 0);
    let span = record.0.samples.last().unwrap().mono_ns - record.0.samples[0].mono_ns;
    // From the instant when the first was due: a thread may start late.
    let late = record.at(0)["agent_tick_lag_seconds{}"];
    let covered = Duration::from_nanos(span).as_secs_f64() + late;
    assert!(covered >= 2.0 - 1e-6, "{covered}");
    let last = record.last();
    assert!(last["service_processes{replica=0,service=test}"] >= 1.0, "{last:?}");

    let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(summary["samples"], samples(&record));
    assert_eq!(summary["series"], last.len());
    let cpu = |sample: usize| {
        let values = record.at(sample);
        ["user", "system"].map(|mode| values[&format!("agent_cpu_seconds_total{{mode={mode}}}")])
    };
    let [[user, system], [user_end, system_end]] = [0, samples(&record) - 1].map(cpu);
    let spent = (user_end - user) + (system_end - system);
    let told = summary["agent_cpu_seconds"].as_f64().unwrap();
    assert!((told - spent).abs() < 1e-9, "{told} {spent}");
    assert_eq!(summary["agent_peak_memory_bytes"], last["agent_memory_bytes{kind=peak}"]);
    for source in ["node", "services", "devices"] {
        assert!(summary["source_seconds"][source]["p50"].as_f64() > Some(0.0), "{summary}");
    }
}

#[test]
fn both_signals_end_the_record_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let sampler = Sampler::start(&folder.path().join("new/folder"), &NO_GPU, None);
        sampler.wait_for(|record| samples(record) >= 1);
        sampler.signal(signal);
        let (code, output, messages, record) = sampler.end();
        assert_eq!((code, messages.as_str()), (0, ""), "{signal}");
        assert!(samples(&record) >= 2 && record.0.ended, "{signal}");
        assert!(output.contains("CPU of the agent"), "{output}");
    }
}

#[test]
fn a_stopped_sampler_leaves_a_gap_and_no_values() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&["--every", "100ms"][..], &NO_GPU].concat();
    let sampler = Sampler::start(folder.path(), &arguments, None);
    let before = samples(&sampler.wait_for(|record| samples(record) >= 3));
    sampler.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    sampler.signal(Signal::SIGCONT);
    sampler.wait_for(|record| samples(record) >= before + 6);
    sampler.signal(Signal::SIGTERM);
    let (_, _, _, record) = sampler.end();
    let missed: Vec<u32> = record.0.samples.iter().map(|sample| sample.missed).collect();
    assert!(missed.iter().any(|missed| *missed >= 45), "{missed:?}");
    // Every tick is a sample or missed; the first and the last are beside the grid.
    let times: Vec<u64> = record.0.samples.iter().map(|sample| sample.mono_ns).collect();
    let ticks = (times[times.len() - 1] - times[0]) / 100_000_000;
    let told = u64::from(missed.iter().sum::<u32>()) + times.len() as u64 - 1;
    assert!(told.abs_diff(ticks) <= 2, "{told} told of {ticks}");
    let total = record.last()["agent_missed_ticks_total{}"];
    assert_eq!(total, f64::from(missed.iter().sum::<u32>()));
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::record::PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn listen_shows_the_last_sample_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    // The port is free again when the listener is dropped, and nobody asks for it in between.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let arguments = [&["--every", "100ms", "--listen", &address][..], &NO_GPU].concat();
    let sampler = Sampler::start(folder.path(), &arguments, None);
    sampler.wait_for(|record| samples(record) >= 2);
    let answer = get(&address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("aifb_node_cpu_seconds_total{run_id=\"local-"), "{answer}");
    assert!(answer.contains("source=\"gpu\",reason=\"library_not_found\""), "{answer}");
    assert!(get(&address, "/v1/status").starts_with("HTTP/1.1 404"));

    let other = tempfile::tempdir().unwrap();
    let second = Sampler::start(other.path(), &["--listen", &address], None);
    let (code, _, messages, record) = second.end();
    assert_eq!((code, samples(&record)), (5, 0));
    assert!(messages.contains(&format!("listening on '{address}'")), "{messages}");
}

/// As many clients as there are places, none of which takes its answers, lose their places.
#[test]
fn clients_that_take_nothing_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let arguments = [&["--every", "1s", "--listen", &address][..], &NO_GPU].concat();
    let sampler = Sampler::start(folder.path(), &arguments, None);
    sampler.wait_for(|record| samples(record) >= 1);
    // More answers than all buffers on the way have room for.
    let requests = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    let greedy: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(requests.as_bytes()).unwrap();
            stream
        })
        .collect();
    let answer = get(&address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    drop(greedy);
}

#[test]
fn wrong_usage_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("samples.bin"), "mine").unwrap();
    for (arguments, part, code) in [
        (&["--for", "1s"][..], "it already has a record\n  hint: name another folder", 2),
        (&["--every", "99ms"], "out of range\n  hint: from 100ms to 1h", 2),
        (&["--every", "2h"], "out of range\n  hint: from 100ms to 1h", 2),
        (&["--every", "1"], "expected a number with a unit", 2),
        (&["--pid", "llm"], "expected NAME=PID, such as llm=4711", 2),
        (&["--pid", "=1"], "expected a name before '='", 2),
        (&["--pid", "llm=0"], "expected a process id after '='", 2),
    ] {
        let (ended, _, messages, _) = Sampler::start(folder.path(), arguments, None).end();
        assert_eq!(ended, code, "{arguments:?}");
        assert!(messages.contains(part), "{arguments:?}: {messages}");
    }
    assert_eq!(std::fs::read(folder.path().join("samples.bin")).unwrap(), b"mine");
}

#[test]
fn a_device_that_hangs_delays_no_tick_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let counters = folder.path().join("sys/class/infiniband/mlx5_0/ports/1/counters");
    std::fs::create_dir_all(&counters).unwrap();
    // Whoever opens it waits for somebody who writes.
    nix::unistd::mkfifo(&counters.join("port_rcv_data"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let sys = format!("--sys-root={}", folder.path().join("sys").display());
    let arguments = [&["--every", "100ms", "--for", "2s", &sys][..], &NO_GPU].concat();
    let sampler = Sampler::start(&folder.path().join("out"), &arguments, None);
    let (code, _, messages, record) = sampler.end();
    assert_eq!((code, messages.as_str()), (0, ""));
    assert!(samples(&record) >= 3 && record.0.ended);
    let last = record.last();
    assert_eq!(last["agent_source_absent_info{reason=no_answer,source=devices}"], 1.0);
    assert!(last.contains_key("node_cpu_seconds_total{mode=user}"), "{last:?}");
}
