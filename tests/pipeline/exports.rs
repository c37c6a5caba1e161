//! What leaves a run for a real Prometheus and a real Pushgateway.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use aifb_schema::{metric, samples};
use serde_json::Value;

use super::{
    LOAD, Local, recipe,
    servers::{Server, free, get, unpacked},
    text,
};

/// Longest time for what takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A recipe whose service shows metrics of its own.
fn monitored(monitor: &str, measure: &str) -> String {
    recipe("", &format!("{}monitor: {{{monitor}}}\n", LOAD.replace("MEASURE", measure)))
        .replace("    health:", "    metrics: {path: /metrics}\n    health:")
}

fn run_id(local: &Local) -> String {
    local.record()["run_id"].as_str().unwrap().to_owned()
}

/// The address of the run's agent.
pub(crate) fn agent(local: &Local) -> Option<String> {
    let mut nodes = fs::read_dir(local.only_run()?.join("nodes")).ok()?;
    let record = fs::read(nodes.next()?.ok()?.path().join("agent.json")).ok()?;
    let record: Value = serde_json::from_slice(&record).ok()?;
    record["address"].as_str().map(str::to_owned)
}

fn until_measuring(local: &Local) {
    local.until("the measured part", PATIENCE, || local.record()["state"] == "measuring");
}

#[test]
fn every_sample_is_in_prometheus_2_once() {
    every_sample_is_in_prometheus("bookworm");
}

#[test]
fn every_sample_is_in_prometheus_3_once() {
    every_sample_is_in_prometheus("sid");
}

fn every_sample_is_in_prometheus(release: &str) {
    let Some(unpacked) = unpacked(release) else { return };
    let prometheus = Server::prometheus(&unpacked, "");
    let url = prometheus.url("/api/v1/write");
    let local = Local::new(&monitored(&format!("sample: 200ms, remote_write: '{url}'"), "60s"));
    let mut child = local.start(&["run", "--local", "x.yaml"]);
    until_measuring(&local);
    let id = run_id(&local);
    // While the run lives: figures of the load, of the node, of the engine, and who it is.
    for expression in [
        format!("rate(aifb_requests_total{{outcome='ok',load='hits',run_id='{id}'}}[4s]) > 0"),
        format!("sum(rate(aifb_node_cpu_seconds_total{{run_id='{id}'}}[4s])) > 0"),
        format!("rate(aifb_service_cpu_seconds_total{{run_id='{id}',service='web'}}[4s]) > 0"),
        format!("looks_total{{run_id='{id}',service='web',replica='0'}} > 1"),
        format!(
            "histogram_quantile(0.5, aifb_request_duration_seconds_bucket{{run_id='{id}'}}) > 0"
        ),
        format!("histogram_quantile(0.5, aifb_schedule_lag_seconds_bucket{{run_id='{id}'}}) > 0"),
        format!("aifb_run_info{{run_id='{id}',name='local'}} == 1"),
        format!("aifb_export_samples_total{{run_id='{id}',outcome='sent'}} > 0"),
    ] {
        local.until(&expression, PATIENCE, || !prometheus.query(&expression).is_empty());
    }
    if release == "bookworm" {
        pages_are_clean(&local, &unpacked);
    }
    let output = local.run(&["stop"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let _code = child.wait().unwrap();
    // Without the marks of their end series would be there for five minutes.
    let living = format!("count({{run_id='{id}'}})");
    local.until("the end of all series", PATIENCE, || prometheus.query(&living).is_empty());
    let name = "node_cpu_seconds_total";
    let range = format!("aifb_{name}{{run_id='{id}',mode='idle'}}[1h]");
    let stored = prometheus.query(&range);
    assert_eq!(points(&stored[0]), recorded(&local, name, ("mode", "idle")));
    let looks = prometheus.query(&format!("looks_total{{run_id='{id}'}}[1h]"));
    assert_eq!(points(&looks[0]), recorded(&local, "engine/looks_total", ("service", "web")));
    let numbers: Vec<f64> = points(&looks[0]).iter().map(|(_, value)| *value).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "a look was shown twice: {numbers:?}");
    local.nothing_left();
}

/// An agent that is killed cannot end its series: its launcher does, and not five minutes later.
#[test]
fn series_of_a_killed_agent_end_in_prometheus_2() {
    series_of_a_killed_agent_end("bookworm");
}

#[test]
fn series_of_a_killed_agent_end_in_prometheus_3() {
    series_of_a_killed_agent_end("sid");
}

fn series_of_a_killed_agent_end(release: &str) {
    let Some(unpacked) = unpacked(release) else { return };
    let prometheus = Server::prometheus(&unpacked, "");
    let url = prometheus.url("/api/v1/write");
    let targets = tempfile::tempdir().unwrap();
    let monitor =
        format!("sample: 200ms, remote_write: '{url}', targets: '{}'", targets.path().display());
    let local = Local::new(&monitored(&monitor, "60s"));
    let mut child = local.start(&["run", "--local", "x.yaml"]);
    until_measuring(&local);
    let id = run_id(&local);
    let living = format!("count({{run_id='{id}'}})");
    // Values of every tick, those that the run publishes, and the engine's.
    for expression in [
        format!("sum(rate(aifb_node_cpu_seconds_total{{run_id='{id}'}}[4s])) > 0"),
        format!("aifb_run_info{{run_id='{id}'}} == 1"),
        format!("looks_total{{run_id='{id}'}} > 1"),
        format!("{living} > 50"),
    ] {
        local.until(&expression, PATIENCE, || !prometheus.query(&expression).is_empty());
    }
    let node = fs::read_dir(local.only_run().unwrap().join("nodes")).unwrap().next().unwrap();
    let node = node.unwrap().path();
    let noted = node.join("remote-series.jsonl");
    local.until("the list of its series", PATIENCE, || noted.exists());
    assert_eq!(fs::read_dir(targets.path()).unwrap().count(), 1);
    let record: Value =
        serde_json::from_slice(&fs::read(node.join("agent.json")).unwrap()).unwrap();
    let killed = Command::new("kill").args(["-9", &record["pid"].to_string()]).status().unwrap();
    assert!(killed.success());
    local.until("the end of all series", PATIENCE, || prometheus.query(&living).is_empty());
    // A load that has started goes on without an agent.
    if local.processes().iter().any(|(_, line)| line.contains("aifb-loadgen")) {
        local.kill("aifb-loadgen");
    }
    let _code = child.wait().unwrap();
    assert!(!noted.exists(), "the list is left");
    assert_eq!(fs::read_dir(targets.path()).unwrap().count(), 0, "a file of targets is left");
    // They have ended, and are there.
    let stored = prometheus.query(&format!("aifb_node_cpu_seconds_total{{run_id='{id}'}}[1h]"));
    assert!(stored.len() > 4 && stored.iter().all(|series| points(series).len() > 2), "{stored:?}");
    local.nothing_left();
}

/// Nobody listens when the run begins: what was sampled meanwhile comes when somebody does.
#[test]
fn samples_of_an_outage_are_in_prometheus_once() {
    let Some(unpacked) = unpacked("bookworm") else { return };
    let address = free();
    let monitor = format!("sample: 100ms, remote_write: 'http://{address}/api/v1/write'");
    let local = Local::new(&monitored(&monitor, "60s"));
    let mut child = local.start(&["run", "--local", "x.yaml"]);
    until_measuring(&local);
    let name = "node_cpu_seconds_total";
    local.until("some samples", PATIENCE, || recorded(&local, name, ("mode", "idle")).len() > 20);
    let prometheus = Server::prometheus_at(&unpacked, "", address);
    let sent = "aifb_export_samples_total{outcome='sent'} > 0";
    local.until(sent, PATIENCE, || !prometheus.query(sent).is_empty());
    let output = local.run(&["stop"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let _code = child.wait().unwrap();
    let stored = prometheus.query(&format!("aifb_{name}{{mode='idle'}}[1h]"));
    assert_eq!(points(&stored[0]), recorded(&local, name, ("mode", "idle")));
    local.nothing_left();
}

/// Time in milliseconds and value of each sample of a range.
fn points(series: &Value) -> Vec<(i64, f64)> {
    let point = |point: &Value| {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit")]
        let ms = (point[0].as_f64().unwrap() * 1e3).round() as i64;
        (ms, point[1].as_str().unwrap().parse().unwrap())
    };
    series["values"].as_array().unwrap().iter().map(point).collect()
}

/// The same from the run's own record.
fn recorded(local: &Local, name: &str, label: (&str, &str)) -> Vec<(i64, f64)> {
    let run = local.only_run().unwrap();
    let node = fs::read_dir(run.join("nodes")).unwrap().next().unwrap().unwrap().path();
    let recording = samples::read(&fs::read(node.join("samples.bin")).unwrap()).unwrap();
    let of_series = |series: &&samples::Series| {
        series.name == name && series.labels.get(label.0).is_some_and(|value| value == label.1)
    };
    let Some(series) = recording.series.values().find(of_series) else { return Vec::new() };
    let of_sample = |sample: &samples::Sample| {
        let value = sample.values.iter().find(|(of, _)| *of == series.id)?.1;
        Some((i64::try_from(sample.epoch_ns / 1_000_000).unwrap(), value))
    };
    recording.samples.iter().filter_map(of_sample).collect()
}

/// What `/metrics` shows has no finding in the tools of its formats.
pub(crate) fn pages_are_clean(local: &Local, unpacked: &Path) {
    let url = format!("http://{}/metrics", agent(local).unwrap());
    let page = get(&url, &[]).unwrap();
    let found = fed(Command::new(unpacked.join("bin/promtool")).args(["check", "metrics"]), &page);
    assert_eq!(found.trim(), "", "of promtool");
    let open = get(&url, &[("accept", "application/openmetrics-text; version=1.0.0")]).unwrap();
    let parse = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let mut python = Command::new("python3");
    python.args(["-c", parse]).env("PYTHONPATH", unpacked.join("python"));
    let series: usize = fed(&mut python, &open).trim().parse().unwrap();
    let lines = open.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series, lines);
    assert!((50..=400).contains(&series), "{series}");
}

/// What a program says to an input.
fn fed(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_pushgateway_has_the_summary_until_the_run_is_stopped() {
    let Some(unpacked) = unpacked("bookworm") else { return };
    let gateway = Server::pushgateway(&unpacked);
    let recipe = monitored(&format!("pushgateway: '{}'", gateway.url("")), "1s");
    let pushed = || get(&gateway.url("/metrics"), &[]).unwrap();
    // A run that completes leaves its summary.
    let local = Local::new(&recipe);
    let output = local.run(&["run", "--local", "x.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let id = run_id(&local);
    let labels = format!(
        "{{benchmark_id=\"{id}\",instance=\"{id}\",job=\"ai_factory_benchmark\",service=\"web\""
    );
    let page = pushed();
    for line in [
        format!("benchmark_requests_total{labels}}} 50"),
        format!("benchmark_requests_failed{labels}}} 0"),
        format!("benchmark_request_duration_seconds_bucket{labels},le=\"+Inf\"}} 50"),
        format!("benchmark_request_duration_seconds_count{labels}}} 50"),
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    }
    // One that is stopped takes it back. The environment names the gateway, not the recipe.
    let second = Local::new(&monitored("sample: 1s", "1s"));
    let script = "\"$AIFB_BIN/aifb\" load && while [ ! -e over ]; do sleep 0.1; done";
    let mut child = second
        .command(&["run", "--local", "x.yaml", "--", "sh", "-c", script])
        .env("PUSHGATEWAY_URL", gateway.url("/"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let has = |id: &str| pushed().contains(&format!("benchmark_id=\"{id}\""));
    second.until("its summary", PATIENCE, || second.only_run().is_some() && has(&run_id(&second)));
    let output = second.run(&["stop"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let stopped = run_id(&second);
    second.until("the end of its group", PATIENCE, || !has(&stopped));
    assert!(has(&id), "the other run's group is gone");
    // Of an ended run, too.
    let output = local.run(&["stop"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!has(&id), "{}", pushed());
    let output = local.run(&["metrics", "--delete"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!has(&id), "{}", pushed());
    let output = local.run(&["metrics", "--push"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Metrics pushed successfully!\n");
    assert!(has(&id) && pushed().contains("job=\"benchmark\""), "{}", pushed());
    fs::write(second.folder.path().join("over"), "").unwrap();
    let _code = child.wait().unwrap();
    second.nothing_left();
}

#[test]
fn targets_appear_with_the_run_and_vanish_with_it_in_prometheus_2() {
    targets_appear_and_vanish("bookworm");
}

#[test]
fn targets_appear_with_the_run_and_vanish_with_it_in_prometheus_3() {
    targets_appear_and_vanish("sid");
}

fn targets_appear_and_vanish(release: &str) {
    let Some(unpacked) = unpacked(release) else { return };
    let folder = tempfile::tempdir().unwrap();
    let local = Local::new(&monitored(&format!("targets: '{}'", folder.path().display()), "60s"));
    let mut child = local.start(&["run", "--local", "x.yaml"]);
    until_measuring(&local);
    let (id, agent) = (run_id(&local), agent(&local).unwrap());
    let file = folder.path().join(format!("aifb-{id}.json"));
    let by_http = get(&format!("http://{agent}/v1/targets"), &[]).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), by_http);
    let list: Value = serde_json::from_str(&by_http).unwrap();
    assert_eq!(list[0]["targets"], serde_json::json!([agent]));
    let prometheus = Server::prometheus(
        &unpacked,
        &format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n\
             - job_name: by-file\n  honor_labels: true\n  file_sd_configs:\n  \
             - {{files: ['{}/*.json'], refresh_interval: 1s}}\n\
             - job_name: by-http\n  honor_labels: true\n  http_sd_configs:\n  \
             - {{url: 'http://{agent}/v1/targets', refresh_interval: 1s}}\n",
            folder.path().display()
        ),
    );
    for job in ["by-file", "by-http"] {
        let up = format!("up{{run_id='{id}',role='node-agent',job='{job}'}} == 1");
        local.until(&up, PATIENCE, || !prometheus.query(&up).is_empty());
    }
    let scraped = format!("aifb_run_info{{run_id='{id}',job='by-file'}} == 1");
    local.until(&scraped, PATIENCE, || !prometheus.query(&scraped).is_empty());
    let output = local.run(&["stop"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let _code = child.wait().unwrap();
    assert!(!file.exists(), "the file of targets is left");
    let up = format!("up{{run_id='{id}',job='by-file'}}");
    local.until("the end of the target", PATIENCE, || prometheus.query(&up).is_empty());
    local.nothing_left();
}

/// No rule may ask for a name that no agent has.
#[test]
fn names_in_rules_are_those_of_the_agent() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring/rules");
    let rules = fs::read_to_string(folder.join("aifb.yml")).unwrap();
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names: Vec<&str> = words.filter_map(|word| word.strip_prefix("aifb_")).collect();
    assert!(names.contains(&"requests_total"), "{names:?}");
    for name in names {
        assert!(metric::find(name).is_some(), "no family aifb_{name}");
    }
}

#[test]
fn recording_rules_have_no_finding_and_mean_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring/rules");
    for release in ["bookworm", "sid"] {
        let Some(unpacked) = unpacked(release) else { continue };
        for words in [["check", "rules", "aifb.yml"], ["test", "rules", "aifb.test.yml"]] {
            let mut promtool = Command::new(unpacked.join("bin/promtool"));
            let output = promtool.args(words).current_dir(&folder).output().unwrap();
            assert!(output.status.success(), "{release}: {}", text(&output));
        }
    }
}
