//! One run from submission to report; also what is run on the other Slurm releases.

use std::time::Duration;

use serde_json::Value;

use crate::{cluster::json, recipes};

const MINUTES: Duration = Duration::from_secs(180);

#[test]
fn a_full_run_with_a_program_service() {
    let case = case!("full");
    // Every answer is waited for, however slow the machine.
    let recipe = recipes::service_and_load("", "4s").replace("drain: 2s", "drain: 30s");
    case.write("x.yaml", &format!("{recipe}    clients: 4\n"));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-N3", "--ntasks-per-node=2"],
        "aifb load && aifb report --json > report.json && aifb report > report.txt",
    );
    let end = case.wait(job, MINUTES);
    assert_eq!(end.state, "COMPLETED", "{}", case.state_text());
    case.nothing_left(job);
    assert_eq!(case.record()["state"], "completed", "{}", case.state_text());

    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    let counts = &report["counts"];
    assert_eq!(counts["sent"], 200, "50/s for 4 s: {counts:#}");
    assert_eq!(counts["ok"], 200, "{report:#}");
    for metric in ["e2e_seconds", "total_seconds", "service_seconds", "client_lag_seconds"] {
        let distribution = &report["metrics"][metric];
        assert_eq!(distribution["count"], 200, "{metric}: {distribution}");
        assert!(distribution["p50"].as_f64().unwrap() <= distribution["p99"].as_f64().unwrap());
    }
    let nodes = report["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3, "{report:#}");
    for node in nodes {
        assert!(node["samples"].as_u64().unwrap() >= 4, "{node:#}");
        assert!(node["node_cpu_seconds"].as_f64().unwrap() > 0.0, "{node:#}");
        assert!(node["job_memory_max_bytes"].as_u64().unwrap() > 1_000_000, "{node:#}");
    }
    let text = case.read("report.txt");
    for word in ["requests", "e2e", "p50", "p99", "n1", "CPU", "memory"] {
        assert!(text.contains(word), "'{word}' is missing:\n{text}");
    }
    // The agent is a step of its own, in the job's accounting.
    let steps = case
        .run(&["sacct", "-nP", "-j", &job.to_string(), "-o", "JobID,JobName,NNodes,MaxRSS"])
        .ok();
    let agent =
        steps.lines().find(|line| line.contains("aifb-agent")).unwrap_or_else(|| panic!("{steps}"));
    assert!(agent.contains("|3|"), "{steps}");
}

#[test]
fn one_command_submits_waits_and_reports() {
    let case = case!("one-command");
    let slurm = "slurm: {nodes: 2, mem: 200, time: \"00:05:00\"}\n";
    case.write(
        "x.yaml",
        &recipes::service_and_load("", "2s").replace("services:", &format!("{slurm}services:")),
    );
    let ran = case.run(&["aifb", "run", "x.yaml"]);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", case.state_text());
    assert!(ran.stdout.contains("e2e"), "{ran:?}");
    let record = case.record();
    assert_eq!(record["state"], "completed", "{record:#}");
    assert_eq!(record["mode"], "plugin");
    let result = json(&case.only_run().join("load/hits/p0/r0/result.json"));
    assert_eq!(result["counts"]["ok"], 100, "{result:#}");
}

#[test]
fn a_sweep_runs_every_point_and_repeat() {
    let case = case!("sweep");
    case.write(
        "x.yaml",
        &format!(
            "{}    repeat: 2\nsweep: {{matrix: {{load.hits.arrival.rate: [20/s, 40/s]}}}}\n",
            recipes::service_and_load("", "1s")
        ),
    );
    let job = case
        .sbatch(&["--aifb-recipe=x.yaml", "-N2"], "aifb load && aifb report --json > report.json");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    let sent: Vec<u64> = report["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["counts"]["sent"].as_u64().unwrap())
        .collect();
    assert_eq!(sent, [20, 20, 40, 40], "{report:#}");
    case.nothing_left(job);
}

/// Distributions of a result whose percentiles are compared.
const COMPARED: [&str; 4] =
    ["e2e_seconds", "total_seconds", "service_seconds", "client_lag_seconds"];

/// `srun -N2 -n8 aifb-loadgen` is one load: one plan, one start, one result; and its histograms,
/// merged, say the same as the rows of all tasks together.
#[test]
fn several_tasks_are_one_load() {
    let case = case!("one-load");
    case.write("x.yaml", &recipes::service_and_load("", "6s").replace("50/s", "400/s"));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-N3", "--ntasks-per-node=4"],
        "srun --overlap --overcommit -N2 -n8 -w n2,n3 aifb-loadgen --load hits; echo code $?
         aifb report --json > report.json",
    );
    let end = case.wait(job, MINUTES);
    assert_eq!(end.state, "COMPLETED", "{}", case.state_text());
    assert!(case.read("job.out").contains("code 0"), "{}", case.state_text());
    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    let [result] = report["results"].as_array().unwrap().as_slice() else {
        panic!("one load has one result: {report:#}")
    };
    assert_eq!(result["counts"]["sent"], 2_400, "400/s for 6 s over all tasks: {result:#}");
    assert_eq!(result["counts"]["ok"], 2_400, "{result:#}");
    assert_eq!((&result["plan"]["workers"], &result["source"]), (&8.into(), &"rows".into()));
    let client = &result["client"];
    let (skew, error) = (&client["start_skew_ns"], &client["clock_error_ns"]);
    assert!(skew.is_u64() && error.as_u64().is_some_and(|error| error > 0), "{client:#}");
    let clocks = client["clocks"].as_array().unwrap();
    assert!(!clocks.is_empty(), "{client:#}");
    for clock in clocks {
        let count = clock["measurements"].as_u64().unwrap();
        assert!(count >= 2, "before the start and at the end: {clock:#}");
    }
    println!(
        "8 tasks on 2 nodes: start skew {} us, clock error {} us, drift {:?} ns",
        skew.as_u64().unwrap() / 1_000,
        error.as_u64().unwrap() / 1_000,
        clocks.iter().map(|clock| clock["drift_ns"].as_i64().unwrap()).collect::<Vec<_>>()
    );
    // The same load from the histograms of its workers, as if a row of each had been lost.
    case.sh("cp -r aifb-runs/* copy && rm copy/load/hits/p0/r0/result.json
         sed -i 's/\"rows_dropped\":0/\"rows_dropped\":1/' copy/load/hits/p0/r0/worker-*.hdr
         aifb report --json copy > merged.json");
    let merged: Value = serde_json::from_str(&case.read("merged.json")).unwrap();
    let merged = &merged["results"][0];
    assert_eq!(merged["source"], "histograms", "{merged:#}");
    let mut worst = 0.0_f64;
    for (metric, percentile) in
        COMPARED.iter().flat_map(|metric| ["p50", "p90", "p95", "p99"].map(|p| (*metric, p)))
    {
        let of = |result: &Value| result["metrics"][metric][percentile].as_f64().unwrap();
        let (rows, histograms) = (of(result), of(merged));
        // Histograms tell times apart from 100 ns on.
        let error = ((histograms - rows).abs() - 100e-9).max(0.0) / rows;
        assert!(error <= 1.001e-3, "{metric} {percentile}: {rows} and {histograms}");
        worst = worst.max(error);
    }
    println!("merged histograms and concatenated rows differ by at most {:.4} %", worst * 100.0);
    let series = case.only_run().join("load/hits/p0/r0/series.jsonl");
    let seconds = std::fs::read_to_string(series).unwrap();
    let ok: u64 = seconds
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["ok"].as_u64().unwrap())
        .sum();
    assert_eq!(ok, 2_400, "{seconds}");
    case.nothing_left(job);
}

/// Two steps, started by hand, are one load.
#[test]
fn several_steps_are_one_load() {
    let case = case!("two-steps");
    case.write("x.yaml", &recipes::service_and_load("", "2s"));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-N3", "--ntasks-per-node=4"],
        "for part in '-n3 -w n2' '-n2 -w n3'; do
           srun --overlap --overcommit -N1 $part aifb-loadgen --load hits --workers 5 &
         done
         wait; aifb report --json > report.json",
    );
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 1, "{report:#}");
    assert_eq!(results[0]["counts"]["ok"], 100, "50/s for 2 s: {report:#}");
    assert_eq!(results[0]["plan"]["workers"], 5, "{report:#}");
    assert_eq!(results[0]["complete"], true, "{report:#}");
    case.nothing_left(job);
}

/// Clients in two components of a heterogeneous job are one load.
#[test]
fn components_are_one_load() {
    let case = case!("het-load");
    let load = recipes::service_and_load("", "2s");
    case.write("x.yaml", &format!("{load}    clients: 3\n    nodes: all\n"));
    case.write("job.sh", "#!/bin/bash\naifb load && aifb report --json > report.json\n");
    let text = case
        .sh("sbatch --parsable --output=job.out --mem=200 -N1 --aifb-recipe=x.yaml : -N2 -n2 --mem=200 job.sh")
        .ok();
    let job: u32 = text.trim().split(['+', ';']).next().unwrap().parse().unwrap();
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 1, "{report:#}");
    assert_eq!(results[0]["counts"]["ok"], 100, "{report:#}");
    assert_eq!(results[0]["plan"]["workers"], 3, "{report:#}");
    case.nothing_left(job);
}

/// Without a run: the tasks of a step meet through files of a shared folder.
#[test]
fn tasks_without_an_agent_meet_through_files() {
    let case = case!("join");
    let job = case.sbatch(
        &["-N3", "--ntasks-per-node=4", "--overcommit"],
        "python3 /aifb/tests/support/service.py --host 0.0.0.0 --port 18931 & web=$!
         until curl -sf http://$(hostname):18931/health; do sleep 0.2; done
         srun --overlap --overcommit -N2 -n6 -w n2,n3 aifb-loadgen run --driver http \\
           --url http://$(hostname):18931 --rate 90/s --process constant --for 3s --join joined
         echo code $?; kill $web",
    );
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert!(case.read("job.out").contains("code 0"), "{}", case.read("job.out"));
    let result: Value = serde_json::from_str(&case.read("joined/result.json")).unwrap();
    assert_eq!(result["counts"]["ok"], 270, "{result:#}");
    assert_eq!((&result["plan"]["workers"], &result["complete"]), (&6.into(), &true.into()));
    println!(
        "6 tasks on 2 nodes by files: start skew {} ns, stated clock error {} ns",
        result["client"]["start_skew_ns"], result["client"]["clock_error_ns"]
    );
}

#[test]
fn a_service_on_two_nodes_and_two_runs_with_equal_names() {
    let case = case!("two-nodes");
    let other = crate::cluster::Case::new(case.cluster.clone(), "two-nodes-other");
    let recipe = recipes::service("").replace("    health:", "    nodes: all\n    health:");
    let mut jobs = Vec::new();
    for case in [&case, &other] {
        case.write("x.yaml", &recipe);
        let job = case.sbatch(
            &["--aifb-recipe=x.yaml", "-N2", "-w", "n1,n2"],
            "for url in ${SERVICE_URLS//,/ }; do curl -sf $url/ || exit 1; echo asked $url; done; sleep 2",
        );
        jobs.push((case, job));
    }
    for (case, job) in jobs {
        assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
        assert_eq!(case.read("job.out").matches("asked http").count(), 2, "{}", case.state_text());
        case.nothing_left(job);
    }
}

#[test]
fn services_start_one_after_the_other_when_asked() {
    let case = case!("sequential");
    let one = recipes::service(", --delay, '1'");
    let second = one[one.find("  - name").unwrap()..].replace("name: web", "name: second");
    case.write("x.yaml", &format!("{one}{second}"));
    for (order, sequential) in [("parallel", false), ("sequential", true)] {
        let case_order = crate::cluster::Case::new(case.cluster.clone(), order);
        case_order.write("x.yaml", &case.read("x.yaml"));
        let job = case_order
            .sbatch(&["--aifb-recipe=x.yaml", &format!("--aifb-set=start={order}")], "true");
        assert_eq!(case_order.wait(job, MINUTES).state, "COMPLETED", "{}", case_order.state_text());
        let endpoint = |name: &str| {
            let path = case_order.only_run().join(format!("services/{name}/endpoint.json"));
            json(&path)["healthy_epoch_ns"].as_u64().unwrap()
        };
        let apart = endpoint("second").abs_diff(endpoint("web"));
        assert_eq!(apart >= 1_000_000_000, sequential, "{order}: {apart} ns apart");
    }
}
