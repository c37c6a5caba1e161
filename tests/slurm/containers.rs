//! Real services: llama.cpp's server in a real Apptainer container, PostgreSQL as a program.

use std::{process::Command, time::Duration};

use serde_json::Value;

use crate::cluster::json;

const MINUTES: Duration = Duration::from_secs(180);

const LLAMA: &str = "aifb: 1
name: llama
services:
  - name: llm
    kind: llama-server
    image: llama.sif
    model: tiny.gguf
    args: [--threads, '1', --parallel, '4', --ctx-size, '8192']
load:
  - name: chat
    driver: openai-chat
    clients: 2
    arrival: {process: constant, rate: 10/s}
    phases: {warmup: 1s, measure: 5s, drain: 10s}
    dataset: {kind: synthetic, input_tokens: 32, output_tokens: 16}
";

#[test]
fn a_language_model_in_a_container() {
    let case = case!("llama");
    case.llama("llama.sif", "tiny.gguf");
    case.write("x.yaml", LLAMA);
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-N2", "--mem=1000"],
        "aifb load && aifb report --json > report.json",
    );
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    case.nothing_left(job);
    let report: Value = serde_json::from_str(&case.read("report.json")).unwrap();
    assert_eq!(report["counts"]["ok"], 50, "{report:#}");
    let metrics = &report["metrics"];
    assert_eq!(metrics["output_tokens"], 50 * 16, "the server's count: {metrics:#}");
    assert_eq!(metrics["token_source"], "usage");
    assert_eq!(metrics["ttft_seconds"]["count"], 50, "{metrics:#}");
    assert!(metrics["inter_token_seconds"]["count"].as_u64().unwrap() > 50, "{metrics:#}");
    let ttft = metrics["ttft_seconds"]["p50"].as_f64().unwrap();
    let e2e = metrics["e2e_seconds"]["p50"].as_f64().unwrap();
    assert!(0.0 < ttft && ttft < e2e, "{metrics:#}");
}

#[test]
fn a_container_killed_and_a_container_cancelled() {
    for how in ["kill", "cancel"] {
        let case = case!("container");
        case.llama("llama.sif", "tiny.gguf");
        case.write("x.yaml", &LLAMA.replace("measure: 5s", "measure: 60s"));
        let job =
            case.sbatch(&["--aifb-recipe=x.yaml", "-N2", "--mem=1000", "-w", "n2,n3"], "aifb load");
        case.until("the measured part", MINUTES, || {
            (case.record()["state"] == "measuring").then_some(())
        });
        if how == "kill" {
            let script = format!(
                r#"for f in $(grep -l -E '/job_{job}(/|$)' /proc/[0-9]*/cgroup); do pid=${{f#/proc/}}; pid=${{pid%/cgroup}}
                   tr '\0' ' ' < /proc/$pid/cmdline | grep -q '^[^ ]*llama-server' && kill -9 $pid && echo killed; done; true"#
            );
            assert!(
                case.cluster.root("n2", &script).stdout.contains("killed"),
                "{}",
                case.state_text()
            );
        } else {
            case.run(&["scancel", &job.to_string()]).ok();
        }
        case.wait(job, MINUTES);
        case.nothing_left(job);
        let record = case.record();
        let expected = if how == "kill" { "failed" } else { "cancelled" };
        assert_eq!(record["state"], expected, "{record:#}");
    }
}

#[test]
fn a_container_sees_only_what_the_recipe_names() {
    let case = case!("clean");
    case.llama("llama.sif", "tiny.gguf");
    case.write("secret", "s3cret-value\n");
    case.write(
        "x.yaml",
        "aifb: 1
name: clean
services:
  - name: look
    kind: container
    image: llama.sif
    command: [sh, -c, 'env; ls -a $HOME; echo listening; exec sleep 1000']
    env: {OWN: value, API_TOKEN: {secret_file: secret}}
    health: {log: listening}
",
    );
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "--export=ALL,LEAKED=yes"],
        "cat $AIFB_RUN_DIR/services/look/stdout.log",
    );
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let output = case.read("job.out");
    assert!(output.contains("OWN=value") && output.contains("API_TOKEN=s3cret-value"), "{output}");
    assert!(
        !output.contains("LEAKED")
            && !output.contains("SLURM_JOB_ID")
            && !output.contains("tiny.gguf"),
        "{output}"
    );
    case.nothing_left(job);
    // The secret is in the service's own output, which asked for it, and nowhere else in the run.
    let run = case.only_run();
    let found = Command::new("grep").args(["-rl", "s3cret-value"]).arg(&run).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    assert!(found.lines().all(|line| line.ends_with("stdout.log")), "{found}");
}

#[test]
fn postgresql_with_a_mix_of_statements() {
    let case = case!("postgres");
    let binaries = case.sh("ls -d /usr/lib/postgresql/*/bin").ok().trim().to_owned();
    case.write(
        "x.yaml",
        &format!(
            "aifb: 1
name: sql
services:
  - name: db
    kind: postgresql
    program: {binaries}/postgres
load:
  - name: mix
    driver: postgresql
    clients: 2
    arrival: {{concurrency: 4}}
    phases: {{measure: {{requests: 400}}, drain: 5s}}
    postgresql: {{rows: 500, mix: {{select: 0.4, insert: 0.3, update: 0.2, delete: 0.1}}}}
"
        ),
    );
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "-N2", "--mem=500"], "aifb load");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    case.nothing_left(job);
    let result = json(&case.only_run().join("load/mix/p0/r0/result.json"));
    assert_eq!(result["counts"]["ok"], 400, "{result:#}\n{}", case.state_text());
    let operations = result["operations"].as_object().unwrap();
    let total: u64 = operations.values().map(|one| one["counts"]["ok"].as_u64().unwrap()).sum();
    assert_eq!((operations.len(), total), (4, 400), "{result:#}");
}
