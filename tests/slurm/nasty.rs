//! Nasty cases that live side by side with other jobs; NASTY.md gives each its number.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{cluster::Case, recipes};

const MINUTES: Duration = Duration::from_secs(180);

/// Asks the service and shows that nothing of SPANK is left in the script's environment.
pub const ASK: &str = "curl -sf $SERVICE_URL/; echo \"spank $(env | grep -c SPANK)\"";

/// Does `action` (shell, `$pid` is the process) to the job's processes on `node` whose command
/// line matches, as root; there must be one.
#[track_caller]
fn on_process(case: &Case, node: &str, job: u32, pattern: &str, action: &str) {
    let script = format!(
        r#"for f in $(grep -l -E '/job_{job}(/|$)' /proc/[0-9]*/cgroup); do pid=${{f#/proc/}}; pid=${{pid%/cgroup}}
           tr '\0' ' ' < /proc/$pid/cmdline | grep -q -E '{pattern}' && {{ {action}; }} && echo done; done; true"#
    );
    let ran = case.cluster.root(node, &script);
    let found = ran.stdout.contains("done");
    assert!(found, "nothing matched '{pattern}' on {node}: {ran:?}\n{}", case.state_text());
}

/// Where the host can compile, a shared library from `source` in the case's folder.
fn library(case: &Case, name: &str, source: &str) {
    case.write(&format!("{name}.c"), source);
    let out = case.outside.join(format!("{name}.so"));
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .arg(&out)
        .arg(case.outside.join(format!("{name}.c")))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::set_permissions(out, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Ends the job, which is to be running, and checks that nothing is left.
fn cancel(case: &Case, job: u32) {
    case.run(&["scancel", &job.to_string()]).ok();
    case.wait(job, MINUTES);
    case.nothing_left(job);
}

pub fn started(case: &Case) {
    case.until("the script", MINUTES, || case.outside.join("started").exists().then_some(()));
}

/// Case 12: the recipe travels where the user's environment does not.
#[test]
fn other_ways_to_an_environment() {
    let case = case!("environments");
    case.write("x.yaml", &recipes::service(""));
    case.write("file", "PATH=/usr/bin:/bin\0A=b\0");
    for option in ["--export-file=file", "--get-user-env"] {
        let job = case.sbatch(&["--aifb-recipe=x.yaml", option], ASK);
        assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{option}: {}", case.state_text());
        assert_eq!(case.read("job.out"), "hello\nspank 0\n", "{option}");
        case.nothing_left(job);
    }
}

/// Case 13.
#[test]
fn an_array_of_a_thousand() {
    let case = case!("thousand");
    case.write("x.yaml", &recipes::service(""));
    let submitted = Instant::now();
    let options = ["--aifb-recipe=x.yaml", "--array=0-999%2", "--mem=100", "--output=out-%a"];
    let job = case.sbatch(&options, ASK);
    assert!(submitted.elapsed() < Duration::from_secs(60), "{:?}", submitted.elapsed());
    let queue = ["squeue", "-h", "-r", "-o", "%i", "-j", &job.to_string()];
    case.until("four finished tasks", MINUTES, || {
        (0..4).all(|task| case.read(&format!("out-{task}")).contains("spank")).then_some(())
    });
    assert!(case.run(&queue).ok().lines().count() > 900);
    case.run(&["scancel", &job.to_string()]).ok();
    case.until("an empty queue", MINUTES, || {
        case.run(&queue).stdout.trim().is_empty().then_some(())
    });
    assert_eq!(case.read("out-3"), "hello\nspank 0\n");
    let runs = case.runs();
    assert!((4..20).contains(&runs.len()), "{runs:?}");
    for task in 0..4 {
        let run = format!("aifb-{job}_{task}");
        assert!(runs.iter().any(|path| path.ends_with(&run)), "{run}: {runs:?}");
    }
}

/// Case 14: Slurm would start component 1 without the batch step that starts the services.
#[test]
fn the_flag_on_a_later_component_is_refused() {
    let case = case!("later");
    case.write("x.yaml", &recipes::service(""));
    case.write("job.sh", "#!/bin/bash\ntrue\n");
    let ran =
        case.run(&["sbatch", "-J", "later", "-N1", ":", "-N1", "--aifb-recipe=x.yaml", "job.sh"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("behind the first ':'"), "{ran:?}");
    assert_eq!(case.run(&["squeue", "-h", "-n", "later"]).ok(), "");
}

/// Case 16: an allocation without a shell; `aifb up` as a step of it.
#[test]
fn salloc_without_a_shell() {
    let case = case!("no-shell");
    case.write("x.yaml", &recipes::service(""));
    let words = ["salloc", "--no-shell", "--mem=200", "-J", "no-shell", "--aifb-recipe=x.yaml"];
    let granted = case.run(&words);
    assert_eq!(granted.code, 0, "{granted:?}");
    let job = granted.stderr.split("allocation ").nth(1).unwrap().split_whitespace().next();
    let job: u32 = job.unwrap().parse().unwrap();
    let id = job.to_string();
    // Nothing has started, and a step of the user does not inherit the recipe.
    assert!(case.runs().is_empty());
    let seen = case.run(&["srun", "--jobid", &id, "env"]).ok();
    assert!(!seen.contains("SPANK") && !seen.contains("AIFB_"), "{seen}");
    case.run(&["srun", "--jobid", &id, "--overlap", "aifb", "up", "x.yaml"]).ok();
    let asked = case.sh(&format!("eval \"$(aifb env {id} --sh)\" && curl -sf $SERVICE_URL/"));
    assert_eq!(asked.ok(), "hello\n");
    cancel(&case, job);
}

/// Case 18: the plugin is not there on this way, the snapshot travels as a variable.
#[test]
fn submission_by_rest() {
    let case = case!("rest");
    case.write("x.yaml", &recipes::service(""));
    case.write(
        "submit.py",
        r##"import json, os, subprocess, sys
job = {"script": "#!/bin/bash\ncurl -sf $SERVICE_URL/; echo spank $(env | grep -c SPANK)\n"}
job["job"] = {
    "name": "rest", "current_working_directory": os.getcwd(), "standard_output": os.getcwd() + "/job.out",
    "memory_per_node": {"set": True, "number": 200},
    "environment": ["PATH=/usr/bin:/bin", "SLURM_SPANK_AIFB_SNAPSHOT=" + sys.argv[1]],
}
answer = subprocess.run(
    ["curl", "-s", "--unix-socket", "s.sock", "-H", "Content-Type: application/json", "-d", json.dumps(job),
     "http://localhost/slurm/" + sys.argv[2] + "/job/submit"], stdout=subprocess.PIPE, check=True)
print(json.loads(answer.stdout)["job_id"])
"##,
    );
    // The newest version of the protocol that this release speaks.
    let script = r#"set -e
        version=$(slurmrestd -d list 2>&1 | grep -o 'v0\.0\.[0-9]*' | sort -V | tail -n 1)
        slurmrestd -a rest_auth/local -s slurmctld -d "$version" unix:$PWD/s.sock > rest.log 2>&1 & server=$!
        trap 'kill $server' EXIT
        until [ -S s.sock ]; do sleep 0.05; kill -0 $server; done
        python3 submit.py "$(aifb-agent prepare --recipe x.yaml)" "$version""#;
    let ran = case.sh(script);
    let job =
        ran.stdout.trim().parse().unwrap_or_else(|_| panic!("{ran:?} {}", case.read("rest.log")));
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert_eq!(case.read("job.out"), "hello\nspank 0\n");
    case.nothing_left(job);
}

/// Case 22: every process that loads the library or runs one of these commands leaves a file with
/// the name of its user. None of them may be root's.
#[test]
fn hostile_variables_have_no_effect_as_root() {
    let case = case!("hostile");
    case.write("x.yaml", &recipes::service(""));
    case.sh("mkdir -m 777 seen evil").ok();
    let seen = format!("{}/seen", case.inside);
    library(
        &case,
        "evil",
        &format!(
            r#"#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {{
    char name[400];
    snprintf(name, sizeof name, "{seen}/library-%d-%d", (int)getuid(), (int)geteuid());
    int fd = open(name, O_CREAT | O_WRONLY, 0666);
    if (fd >= 0) close(fd);
}}
"#
        ),
    );
    let wrapper = "#!/bin/sh\n: > SEEN/command-$(/usr/bin/id -ru)-$(/usr/bin/id -u)\nprogram=${0##*/}\n\
                   for d in /opt/aifb/bin /usr/bin /usr/sbin; do [ -x $d/$program ] && exec $d/$program \"$@\"; done\n";
    for program in ["srun", "bash", "python3", "aifb-agent", "scontrol", "slurmstepd"] {
        case.write(&format!("evil/{program}"), &wrapper.replace("SEEN", &seen));
    }
    case.sh("chmod 755 evil/*").ok();
    let evil = format!("{}/evil.so", case.inside);
    let variables = format!(
        "export LD_PRELOAD={evil} LD_AUDIT= PATH=$PWD/evil:$PATH RUST_LOG=trace RUST_BACKTRACE=full \
         SLURM_SPANK_LD_PRELOAD={evil} SPANK_LD_PRELOAD={evil} \
         SLURM_SPANK_AIFB_PLUGIN=x AIFB_PLUGIN=x AIFB_BIN=$PWD/evil AIFB_RUN_DIR=/etc AIFB_JOB_ID=1 \
         SLURM_SPANK_AIFB_WAIT=nonsense; "
    );
    case.write("job.sh", &format!("#!/bin/bash\n{ASK}\n"));
    let script =
        format!("{variables}sbatch --wait --mem=300 --output=job.out --aifb-recipe=x.yaml job.sh");
    let ran = case.sh(&script);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", case.state_text());
    assert!(case.read("job.out").contains("hello"), "{}", case.state_text());
    case.sh(&format!("{variables}srun --mem=300 --aifb-recipe=x.yaml true")).ok();
    // Nor does a job without the flag notice.
    let plain = format!("{variables}RUST_MIN_STACK=1 srun --mem=300 echo ran");
    assert_eq!(case.sh(&plain).ok(), "ran\n");
    let mut left: Vec<String> = fs::read_dir(case.outside.join("seen"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    // The user's own processes ran them, so the trap works.
    assert_eq!(left, ["command-1001-1001", "library-1001-1001"]);
}

/// Case 22: a snapshot that no plugin made is not believed, and blamed by name.
#[test]
fn forged_snapshots_are_refused() {
    let case = case!("forged");
    for forged in ["garbage", "aifb1:", "aifb1:AAAA", "aifb1:%s%s%n", "aifb1:KLUv/QRY"] {
        let ran = case.run(&[
            "env",
            &format!("SLURM_SPANK_AIFB_SNAPSHOT={forged}"),
            "sbatch",
            "--wait",
            "--mem=100",
            "--output=job.out",
            "--wrap=echo the script has started",
        ]);
        let output = case.read("job.out");
        assert_eq!(ran.code, 2, "{forged}: {ran:?} {output}");
        assert!(output.contains("reading SLURM_SPANK_AIFB_SNAPSHOT: "), "{forged}: {output}");
        assert!(!output.contains("has started"), "{forged}: {output}");
    }
    assert!(case.runs().is_empty());
}

/// Case 26: the services stop in the reverse of their order, and the record is closed, in the
/// time that Slurm leaves (KillWait is 5 s on the test cluster).
#[test]
fn sigterm_leads_to_an_ordered_stop() {
    let case = case!("ordered");
    let first = recipes::service("");
    let second = first[first.find("  - name").unwrap()..].replace("name: web", "name: second");
    case.write("x.yaml", &format!("{first}{second}"));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "--aifb-set=start=sequential"],
        "touch started; sleep 100",
    );
    started(&case);
    let begun = Instant::now();
    cancel(&case, job);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(case.record()["ended"]["signal"], "TERM", "{}", case.state_text());
    let events = fs::read_to_string(case.only_run().join("events.jsonl")).unwrap();
    let stopped: Vec<&str> = events
        .lines()
        .filter(|line| line.contains("\"message\":\"stopped"))
        .map(|line| if line.contains("\"subject\":\"web\"") { "web" } else { "second" })
        .collect();
    assert_eq!(stopped, ["second", "web"], "{events}");
    assert!(events.trim_end().lines().last().unwrap().contains("\"cancelled\""), "{events}");
}

/// Case 28: nobody is left to stop the daemon but Slurm.
#[test]
fn a_daemon_of_a_service_whose_agent_was_killed() {
    let case = case!("orphan");
    case.write("x.yaml", &recipes::service(", --double-fork"));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "-w", "n1"], "touch started; sleep 3");
    started(&case);
    on_process(&case, "n1", job, "^[^ ]*aifb-agent run", "kill -9 $pid");
    case.wait(job, MINUTES);
    case.nothing_left(job);
}

/// Case 31: the kernel takes the agent.
#[test]
fn the_agent_runs_out_of_memory() {
    let case = case!("oom-agent");
    case.write("x.yaml", &recipes::service(", --allocate, '400'"));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-w", "n3"],
        "touch started; until [ -e go ]; do sleep 0.1; done; curl -s -m 20 $SERVICE_URL/allocate; sleep 1",
    );
    started(&case);
    on_process(
        &case,
        "n3",
        job,
        "^[^ ]*aifb-agent run",
        "grep -qx 0 /proc/$pid/oom_score_adj && echo 1000 > /proc/$pid/oom_score_adj",
    );
    case.write("go", "");
    case.wait(job, MINUTES);
    case.nothing_left(job);
    let report = case.run(&["aifb", "report", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["state"], "failed", "{report:#}");
}

/// Case 32: a service that forks without end meets the user's own limit, and the job can be ended.
#[test]
fn a_service_that_forks_without_end() {
    let case = case!("forks");
    case.write(
        "bomb.py",
        "import os, time\nwhile True:\n    try:\n        if os.fork() == 0:\n            time.sleep(600)\n    except OSError:\n        print('no more', flush=True)\n        time.sleep(600)\n",
    );
    let recipe = recipes::service("");
    let arguments = recipe.lines().find(|line| line.contains("args:")).unwrap();
    let bomb = format!("    args: [{}/bomb.py]", case.inside);
    let recipe = recipe.replace(arguments, &bomb).replace("{http: /health}", "{log: no more}");
    case.write("x.yaml", &recipe);
    // Counted over all processes of the user on this machine, so some room above the present number.
    case.write("job.sh", "#!/bin/bash\ntouch started\nsleep 100\n");
    let script = "ulimit -u $(($(ps --no-headers -LU alice | wc -l) + 1000)); \
                  sbatch --parsable --propagate=NPROC --mem=4000 --output=job.out --aifb-recipe=x.yaml job.sh";
    let job = case.sh(script).ok().trim().parse().unwrap();
    started(&case);
    cancel(&case, job);
}

/// A script that ends well at the signal USR1, and only so.
const TRAP: &str = "trap 'echo got usr1; exit 0' USR1; touch started; while :; do sleep 0.2; done";

/// Case 34.
#[test]
fn signals_in_every_way() {
    for options in [&["--full", "-s", "USR1"][..], &["--batch", "-s", "USR1"]] {
        let case = case!("signal");
        case.write("x.yaml", &recipes::service(""));
        let job = case.sbatch(&["--aifb-recipe=x.yaml"], TRAP);
        started(&case);
        let mut words = vec!["scancel"];
        words.extend(options);
        let id = job.to_string();
        words.push(&id);
        case.run(&words).ok();
        assert_eq!(
            case.wait(job, MINUTES).state,
            "COMPLETED",
            "{options:?}\n{}",
            case.state_text()
        );
        // `sleep` may have got it as well, which bash mentions.
        assert!(case.read("job.out").contains("got usr1"), "{options:?}: {}", case.read("job.out"));
        case.nothing_left(job);
        assert_eq!(case.record()["state"], "completed", "{options:?}\n{}", case.state_text());
    }
    // To the steps only: the agent lives on, and so does the service.
    let case = case!("signal-steps");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml"],
        "touch started; until [ -e go ]; do sleep 0.1; done; curl -sf $SERVICE_URL/",
    );
    started(&case);
    case.run(&["scancel", "-s", "USR1", &job.to_string()]).ok();
    case.write("go", "");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert_eq!(case.read("job.out"), "hello\n");
    case.nothing_left(job);
}

/// Case 34, from Slurm itself. It looks at its jobs every 30 s, so the signal comes 30 to 60 s after
/// the start: later than the trap, which a signal within the first seconds might not be.
#[test]
fn a_signal_ahead_of_the_time_limit() {
    let case = case!("signal-early");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "--signal=B:USR1@90", "--time=2"], TRAP);
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert!(case.read("job.out").contains("got usr1"), "{}", case.state_text());
    case.nothing_left(job);
}

/// Case 36: time passes, the agent and the service stand still; then all goes on.
#[test]
fn suspended_and_resumed() {
    let case = case!("suspended");
    case.write("x.yaml", &format!("{}    clients: 2\n", recipes::service_and_load("", "6s")));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "-N2"], "aifb load; echo load $?");
    case.until("the measured part", MINUTES, || {
        (case.record()["state"] == "measuring").then_some(())
    });
    let control = |verb: &str| case.cluster.root("ctl", &format!("scontrol {verb} {job}")).ok();
    control("suspend");
    std::thread::sleep(Duration::from_secs(4));
    control("resume");
    case.wait(job, MINUTES);
    let output = case.read("job.out");
    assert!(output.contains("load "), "{output}");
    case.nothing_left(job);
    let report = case.run(&["aifb", "report", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    let count = |key: &str| report["counts"][key].as_u64().unwrap();
    assert!(count("ok") > 100, "{report:#}");
    assert_eq!(
        count("sent"),
        count("ok") + count("failed") + count("cancelled") + count("unfinished"),
        "{report:#}"
    );
}

/// NASTY.md names every case once and in order, and only tests that there are.
#[test]
fn the_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/slurm/NASTY.md")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let numbers: Vec<u32> = rows.filter_map(|row| row.split(' ').next()?.parse().ok()).collect();
    assert_eq!(numbers, (1..=48).collect::<Vec<u32>>());
    let tests = table.split('`').filter_map(|word| word.split_once("::"));
    for (file, test) in tests.filter(|(_, test)| !test.is_empty()) {
        let path = match file.contains('/') {
            true => root.join(file),
            false => root.join("tests/slurm").join(format!("{file}.rs")),
        };
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "{file}::{test}");
    }
}
