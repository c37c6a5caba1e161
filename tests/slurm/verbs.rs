//! Every verb of `aifb` on a running job and after it, also as JSON.

use std::time::Duration;

use serde_json::Value;

use crate::{
    cluster::{Case, Ran},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// Standard output as JSON, after a check that the command succeeded.
#[track_caller]
fn json(ran: Ran) -> Value {
    let text = ran.ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A job that measures for a long time, submitted by `aifb run --no-wait`.
fn measuring(case: &Case) -> (u32, String) {
    let slurm = "slurm: {nodes: 2, mem: 200, time: \"00:05:00\"}\n";
    let recipe = recipes::service_and_load("", "60s");
    case.write("x.yaml", &recipe.replace("services:", &format!("{slurm}services:")));
    let answer = json(case.run(&["aifb", "run", "x.yaml", "--no-wait", "--json"]));
    assert_eq!(answer["ok"], true);
    let job = u32::try_from(answer["job_id"].as_u64().unwrap()).unwrap();
    case.until("the measured part", MINUTES, || {
        (case.record()["state"] == "measuring").then_some(())
    });
    (job, job.to_string())
}

#[test]
fn a_run_is_seen_followed_and_stopped() {
    let case = case!("verbs");
    let (job, id) = measuring(&case);

    let status = json(case.run(&["aifb", "status", &id, "--json"]));
    assert_eq!(status["liveness"], "alive", "{status:#}");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 2, "{status:#}");
    assert_eq!(status["services"][0]["state"], "healthy", "{status:#}");
    assert_eq!(status["loads"][0]["load"], "hits", "{status:#}");
    let text = case.run(&["aifb", "status"]).ok();
    assert!(text.contains("measuring") && text.contains("web healthy http://"), "{text}");

    let list = json(case.run(&["aifb", "list", "--active", "--json"]));
    assert_eq!(list[0]["run"]["job"]["id"], job, "{list:#}");
    let waited = json(case.run(&["aifb", "wait", &id, "--json"]));
    assert_eq!(waited["endpoints"][0]["service"], "web", "{waited:#}");
    let env = json(case.run(&["aifb", "env", &id, "--json"]));
    assert_eq!(env["AIFB_JOB_ID"], id.as_str(), "{env:#}");
    let url = env["SERVICE_URL"].as_str().unwrap();
    assert_eq!(case.run(&["curl", "-sf", url]).ok(), "hello\n");
    let agent = case.run(&["aifb", "logs", "show", &id, "--agent", "--lines", "1"]).ok();
    assert!(agent.contains("n1/agent: ") || agent.contains("/agent: "), "{agent}");

    // What the agents tell at `info`, and nothing below; at `error` they have nothing to tell.
    let words = ["aifb", "logs", "show", &id, "--agent", "--lines", "1000", "--json", "--level"];
    let told = case.run(&[&words[..], &["info"]].concat()).ok();
    let levels: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["level"].clone())
        .collect();
    assert!(levels.contains(&"info".into()) && !levels.contains(&"debug".into()), "{told}");
    let told = case.run(&[&words[..], &["error"]].concat()).ok();
    assert_eq!(told, "");

    // Followers end with the run.
    let followers = case.outside.join("followed");
    let script = format!(
        "aifb watch {id} --json > followed 2>&1 & aifb logs follow {id} --json > lines 2>&1 & \
         sleep 2; aifb stop {id} --json; wait"
    );
    let stopped = json(case.sh(&script));
    assert_eq!((&stopped["how"], &stopped["state"]), (&"stopped".into(), &"cancelled".into()));
    let followed = std::fs::read_to_string(followers).unwrap();
    let last: Value = serde_json::from_str(followed.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["run"]["state"]), (&"end".into(), &"cancelled".into()));
    assert!(followed.lines().any(|line| line.contains("\"type\":\"load\"")), "{followed}");
    for line in case.read("lines").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["file"].as_str().unwrap().starts_with("web/"), "{line}");
    }

    // The script goes on after the stop; its load says that it was cut short.
    let end = case.wait(job, MINUTES);
    assert_eq!((end.state.as_str(), end.exit_code), ("FAILED", 5), "{}", case.state_text());
    case.nothing_left(job);
    let status = json(case.run(&["aifb", "status", &id, "--json"]));
    assert_eq!(status["run"]["slurm"]["exit_code"], 5, "{status:#}");
    // The report is there, and its code says that a part is missing.
    let reported = case.run(&["aifb", "report", &id, "--json"]);
    assert_eq!(reported.code, 5, "{reported:?}");
    let report: Value = serde_json::from_str(&reported.stdout).unwrap();
    let counts = &report["counts"];
    let sum: u64 = ["ok", "failed", "cancelled", "unfinished"]
        .iter()
        .map(|count| counts[count].as_u64().unwrap())
        .sum();
    assert_eq!(counts["sent"], sum, "{report:#}");
}

#[test]
fn stopping_with_the_job_cancels_it() {
    let case = case!("stop-job");
    let (job, id) = measuring(&case);
    let stopped = json(case.run(&["aifb", "stop", &id, "--job", "--json"]));
    assert_eq!(stopped["how"], "stopped; job cancelled");
    let end = case.wait(job, MINUTES);
    assert!(["CANCELLED", "FAILED"].contains(&end.state.as_str()), "{end:?}");
    case.nothing_left(job);
    assert_eq!(case.record()["state"], "cancelled", "{}", case.state_text());
}

/// The first Ctrl-C leaves the job alone.
#[test]
fn an_interrupted_follower_says_how_to_go_on() {
    let case = case!("detach");
    let slurm = "slurm: {mem: 200, time: \"00:05:00\"}\n";
    let recipe = recipes::service_and_load("", "30s");
    case.write("x.yaml", &recipe.replace("services:", &format!("{slurm}services:")));
    let ran = case.sh("aifb run x.yaml > out 2> err & follower=$!
        until [ -s out ]; do sleep 0.1; done; sleep 2; kill -INT $follower; wait $follower; echo code $?");
    let code: i32 = ran.stdout.trim().strip_prefix("code ").unwrap().parse().unwrap();
    assert_eq!(code, 130, "{ran:?} {}", case.read("err"));
    let job = case.read("out").trim().strip_prefix("ok ").unwrap().to_owned();
    assert!(case.read("err").contains(&format!("aifb stop {job} --job")), "{}", case.read("err"));
    let queue = case.run(&["squeue", "-h", "-j", &job, "-o", "%T"]).ok();
    assert!(!queue.trim().is_empty(), "the job is gone");
    case.run(&["aifb", "stop", &job, "--job"]).ok();
    case.wait(job.parse().unwrap(), MINUTES);
}

/// What waits in the queue has no run folder that could be looked up.
#[test]
fn a_waiting_job_is_cancelled() {
    let case = case!("stop-waiting");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "--hold"], "true");
    let id = job.to_string();
    let ran = case.run(&["aifb", "stop", &id]);
    assert_eq!(ran.code, 2, "without --job it is left alone: {ran:?}");
    let stopped = json(case.run(&["aifb", "stop", &id, "--job", "--json"]));
    assert_eq!((&stopped["job_id"], &stopped["run_id"]), (&job.into(), &Value::Null));
    assert!(case.wait(job, MINUTES).state.starts_with("CANCELLED"));
    let again = case.run(&["aifb", "stop", &id, "--job"]);
    assert_eq!(again.code, 2, "{again:?}");
}

#[test]
fn a_refused_submission_answers_ko() {
    let case = case!("ko");
    case.write("x.yaml", &recipes::service_and_load("", "1s"));
    let ran = case.run(&["aifb", "run", "x.yaml", "--set", "slurm.partition=nonsense"]);
    assert_eq!((ran.code, ran.stdout.lines().next()), (3, Some("ko")), "{ran:?}");
    assert!(ran.stderr.to_lowercase().contains("invalid partition"), "{ran:?}");
    let ran = case.run(&["aifb", "run", "x.yaml", "--set", "slurm.time=soon", "--json"]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &answer["ok"]), (3, &false.into()), "{ran:?}");
    assert!(answer["reason"].as_str().unwrap().contains("sbatch: error:"), "{answer:#}");
    assert!(case.runs().is_empty());
}

#[test]
fn a_dry_run_is_a_command_that_can_be_pasted() {
    let case = case!("dry-run");
    case.write("x.yaml", &recipes::service_and_load("", "1s"));
    let shown = case
        .run(&["aifb", "run", "x.yaml", "--dry-run", "--plugin", "never", "--set", "slurm.mem=200"])
        .ok();
    assert!(case.runs().is_empty());
    let job: u32 = case.sh(&shown).ok().trim().parse().unwrap();
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert_eq!(case.record()["mode"], "wrapper");
    case.nothing_left(job);
}

#[test]
fn doctor_finds_this_cluster_fit() {
    let case = case!("doctor");
    let checks = json(case.run(&["aifb", "doctor", "--admin", "--json"]));
    let checks = checks.as_array().unwrap();
    let bad: Vec<&Value> = checks.iter().filter(|check| check["verdict"] == "fail").collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let of = |name: &str| checks.iter().find(|check| check["name"] == name);
    assert_eq!(of("srun in batch jobs").unwrap()["verdict"], "ok", "{checks:#?}");
    let plugin =
        checks.iter().find(|check| check["name"].as_str().unwrap().starts_with("plugin on "));
    assert_eq!(plugin.unwrap()["verdict"], "ok", "{checks:#?}");
}

/// The loads of a recipe with a section of their own become components of one job.
#[test]
fn clients_of_their_own_component() {
    let case = case!("components");
    let slurm = "slurm: {nodes: 1, mem: 200, time: \"00:05:00\"}\n";
    let recipe = recipes::service_and_load("", "2s");
    case.write(
        "x.yaml",
        &format!(
            "{}    clients: 2\n    nodes: all\n    slurm: {{partition: gpu, nodes: 2, mem: 200}}\n",
            recipe.replace("services:", &format!("{slurm}services:"))
        ),
    );
    for plugin in ["always", "never"] {
        let answer = json(case.run(&["aifb", "run", "x.yaml", "--json", "--plugin", plugin]));
        assert_eq!(answer["state"], "completed", "{plugin}: {answer:#}");
        let report = json(case.run(&["aifb", "report", "--json"]));
        assert_eq!(report["counts"]["ok"], 100, "{plugin}: {report:#}");
        assert_eq!(report["nodes"].as_array().unwrap().len(), 3, "{plugin}: {report:#}");
    }
}

/// What a user does by hand, step by step.
#[test]
fn recipes_are_found_checked_and_run_by_hand() {
    let case = case!("by-hand");
    case.write("x.yaml", &recipes::service_and_load("", "1s"));
    let valid = json(case.run(&["aifb", "validate", "x.yaml", "--json"]));
    assert_eq!((&valid["ok"], &valid["recipe"]["name"]), (&true.into(), &"case".into()));
    let listed = case.run(&["aifb", "recipe", "list"]).ok();
    for line in listed.lines() {
        let name = line.split_whitespace().next().unwrap();
        case.write("example.yaml", &case.run(&["aifb", "recipe", "show", name]).ok());
        let valid = json(case.run(&["aifb", "validate", "example.yaml", "--json"]));
        assert_eq!(valid["ok"], true, "{name}");
    }
    assert!(listed.lines().count() > 3, "{listed}");
    let schema = json(case.run(&["aifb", "recipe", "schema"]));
    assert!(schema["properties"]["services"].is_object(), "{schema:#}");
    let drivers = json(case.run(&["aifb", "drivers", "--json"]));
    assert!(drivers.as_array().unwrap().len() > 10, "{drivers:#}");
    let services = case.run(&["aifb", "services"]).ok();
    assert!(services.contains("llama-server") && services.contains("external"), "{services}");
    let preset = case.run(&["aifb", "services", "show", "vllm"]).ok();
    assert!(preset.contains("docker://vllm/vllm-openai"), "{preset}");
    case.sh("aifb completions bash | bash -n").ok();
    case.sh("aifb man pages && grep -q '^\\.TH' pages/aifb-run.1").ok();
    let job = case.sbatch(&[], "aifb up x.yaml --json > up.json && aifb load --json > load.json");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let up: Value = serde_json::from_str(&case.read("up.json")).unwrap();
    assert_eq!(up["AIFB_JOB_ID"], job.to_string(), "{up:#}");
    let load: Value = serde_json::from_str(&case.read("load.json")).unwrap();
    assert_eq!(load["counts"]["ok"], 50, "{load:#}");
    let metrics = case.run(&["aifb", "metrics", &job.to_string()]).ok();
    assert!(metrics.contains("# TYPE ") && metrics.contains("benchmark_"), "{metrics}");
    case.nothing_left(job);
}

/// A verb that is added is tried on the cluster too.
#[test]
fn every_verb_has_a_case() {
    let case = case!("all-verbs");
    let help = case.run(&["aifb", "--help"]).ok();
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let cases = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slurm"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect::<String>();
    let mut seen = 0;
    for line in verbs.take_while(|line| !line.is_empty()) {
        let verb = line.split_whitespace().next().unwrap();
        let used = [format!("\"aifb\", \"{verb}\""), format!("aifb {verb}")];
        assert!(verb == "help" || used.iter().any(|words| cases.contains(words)), "{verb}");
        seen += 1;
    }
    assert!(seen > 10, "{help}");
}
