//! Processes, signals, identities and neighbours (cases 21-42 and 46 of NASTY.md).

use std::time::Duration;

use crate::{cluster::Case, recipes};

const MINUTES: Duration = Duration::from_secs(180);

/// Lines of `/proc/<pid>/…` of the agent of a job on a node.
fn agent_status(case: &Case, node: &str, job: u32, file: &str) -> String {
    let script = format!(
        r#"for f in $(grep -l -E '/job_{job}(/|$)' /proc/[0-9]*/cgroup); do pid=${{f#/proc/}}; pid=${{pid%/cgroup}}
           tr '\0' ' ' < /proc/$pid/cmdline | grep -q '^[^ ]*aifb-agent run' && cat /proc/$pid/{file} && exit; done"#
    );
    case.cluster.root(node, &script).stdout
}

#[test]
fn the_agent_is_an_ordinary_task_of_the_user() {
    let case = case!("identity");
    case.write("x.yaml", &recipes::service(&format!(", --environment, {}/seen", case.inside)));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-w", "n1"],
        "srun --overlap -n1 cat /proc/self/status > task\nsleep 5",
    );
    case.until("the task's status", MINUTES, || case.read("task").contains("CapEff").then_some(()));
    let agent = agent_status(&case, "n1", job, "status");
    let task = case.read("task");
    for field in [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Umask:",
    ] {
        let line =
            |text: &str| text.lines().find(|line| line.starts_with(field)).map(str::to_owned);
        assert_eq!(line(&agent), line(&task), "{field}\n{agent}");
    }
    assert!(agent.contains("SigBlk:\t0000000000000000"), "{agent}");
    assert_eq!(agent_status(&case, "n1", job, "oom_score_adj").trim(), "0");
    let seen = case.read("seen");
    assert!(seen.contains("SigBlk:\t0000000000000000"), "{seen}");
    assert!(seen.contains("fds [0, 1, 2]"), "the service inherits nothing: {seen}");
    case.run(&["scancel", &job.to_string()]).ok();
    case.wait(job, MINUTES);
    case.nothing_left(job);
}

#[test]
fn an_agent_that_does_not_react_is_ended_by_slurm() {
    let case = case!("stopped-agent");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "-w", "n2"], "touch started; sleep 100");
    case.until("the script", MINUTES, || case.outside.join("started").exists().then_some(()));
    let script = format!(
        r#"for f in $(grep -l -E '/job_{job}(/|$)' /proc/[0-9]*/cgroup); do pid=${{f#/proc/}}; pid=${{pid%/cgroup}}
           tr '\0' ' ' < /proc/$pid/cmdline | grep -q '^[^ ]*aifb-agent run' && kill -STOP $pid && echo stopped; done"#
    );
    assert!(case.cluster.root("n2", &script).stdout.contains("stopped"));
    case.run(&["scancel", &job.to_string()]).ok();
    case.wait(job, MINUTES);
    // KillWait is 5 s here; then Slurm kills what is left.
    std::thread::sleep(Duration::from_secs(6));
    case.nothing_left(job);
}

#[test]
fn the_script_has_no_unknown_child() {
    let case = case!("children");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml"],
        "wait; echo waited $?\nexec python3 -c 'import os\ntry:\n  os.wait()\n  print(\"a child\")\nexcept ChildProcessError:\n  print(\"no child\")'",
    );
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let output = case.read("job.out");
    assert!(output.contains("waited 0") && output.contains("no child"), "{output}");
    case.nothing_left(job);
}

#[test]
fn a_script_that_kills_its_process_group() {
    let case = case!("kill0");
    case.write("x.yaml", &recipes::service(""));
    let job =
        case.sbatch(&["--aifb-recipe=x.yaml"], "trap '' TERM; kill 0; curl -sf $SERVICE_URL/");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert!(case.read("job.out").contains("hello"), "{}", case.state_text());
    case.nothing_left(job);
}

#[test]
fn a_script_that_ends_at_once() {
    let case = case!("short");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "--aifb-wait=none"], "true");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    case.nothing_left(job);
}

#[test]
fn a_plain_srun_is_not_held_up() {
    let case = case!("plain-srun");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-N2", "-n2"],
        "start=$(date +%s%N); srun -n2 true; echo took $((($(date +%s%N) - start) / 1000000)) ms",
    );
    assert_eq!(case.wait(job, MINUTES * 2).state, "COMPLETED", "{}", case.state_text());
    let output = case.read("job.out");
    let took: u64 =
        output.split("took ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(took < 60_000, "srun waited for the agent's resources: {output}");
}

#[test]
fn jobs_of_many_shapes() {
    for options in [
        &["--mem-per-cpu=100"][..],
        &["-c", "2"],
        &["-N2", "--ntasks-per-node=2"],
        &["-n", "3", "--ntasks-per-node=3", "--cpus-per-task=2"],
        &["--export=ALL,SLURM_DISTRIBUTION=cyclic"],
    ] {
        let case = case!("shape");
        case.write("x.yaml", &recipes::service(""));
        case.write("job.sh", "#!/bin/bash\ncurl -sf $SERVICE_URL/\n");
        let mut words = vec!["sbatch", "--parsable", "--output=job.out", "--aifb-recipe=x.yaml"];
        words.extend(options);
        words.push("job.sh");
        let job = case.run(&words).ok().trim().parse().unwrap();
        assert_eq!(
            case.wait(job, MINUTES).state,
            "COMPLETED",
            "{options:?}\n{}",
            case.state_text()
        );
        case.nothing_left(job);
    }
}

#[test]
fn signals_of_the_user_reach_the_script() {
    let case = case!("signals");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml"],
        "trap 'echo got usr1; exit 0' USR1; touch started; while :; do sleep 0.2; done",
    );
    case.until("the script", MINUTES, || case.outside.join("started").exists().then_some(()));
    case.run(&["scancel", "--batch", "-s", "USR1", &job.to_string()]).ok();
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert!(case.read("job.out").contains("got usr1"));
    case.nothing_left(job);
}

#[test]
fn two_users_on_one_node() {
    let case = case!("two-users");
    case.write("x.yaml", &recipes::service(""));
    let other = format!("/home/bob/{}", case.inside.rsplit('/').next().unwrap());
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "-w", "n1"],
        "touch started; sleep 4; curl -sf $SERVICE_URL/",
    );
    let recipe = recipes::service("");
    let bob = |script: &str| case.cluster.run("bob", "login", "/home/bob", &["bash", "-c", script]);
    bob(&format!("mkdir -p {other} && cd {other} && cat > x.yaml <<'E'\n{recipe}E\n")).ok();
    let output = bob(&format!(
        "cd {other} && sbatch --wait --mem=200 -w n1 --output=job.out --aifb-recipe=x.yaml --wrap 'curl -sf $SERVICE_URL/ && cat {}/aifb-runs/*/.token'; cat job.out",
        case.inside
    ));
    assert!(output.stdout.contains("hello"), "{output:?}");
    assert!(
        !output
            .stdout
            .chars()
            .filter(char::is_ascii_hexdigit)
            .collect::<String>()
            .contains(&"0".repeat(64))
    );
    assert!(
        output.stdout.contains("Permission denied") || output.stdout.contains("No such file"),
        "bob reads no token: {output:?}"
    );
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    case.nothing_left(job);
}

#[test]
fn a_user_without_home_or_shell() {
    let case = case!("zed");
    let folder = case.outside.join("zed");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(2_500_000_000), None).unwrap();
    std::fs::write(folder.join("x.yaml"), recipes::service("")).unwrap();
    std::fs::set_permissions(
        folder.join("x.yaml"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let inside = format!("{}/zed", case.inside);
    let ran = case.cluster.run(
        "zed",
        "login",
        &inside,
        &[
            "sbatch",
            "--wait",
            "--mem=200",
            "--output=job.out",
            "--aifb-recipe=x.yaml",
            "--wrap",
            "curl -sf $SERVICE_URL/ && id -G | wc -w",
        ],
    );
    let output = case.read("zed/job.out");
    assert_eq!(ran.code, 0, "{ran:?}\n{output}");
    assert!(output.contains("hello"), "{output}");
    let groups: u32 = output.trim().rsplit('\n').next().unwrap().parse().unwrap();
    assert!(groups >= 64, "{output}");
}
