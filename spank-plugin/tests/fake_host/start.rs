//! What happens when the job starts.

use std::fs;

use crate::host::{Host, envs};

#[test]
fn other_steps_and_tasks_start_nothing() {
    for step in ["extern", "0", "7"] {
        let seen = Host::batch_task().words(&["--step", step]).launch("").run();
        seen.finished().harmless();
        assert!(seen.launcher("launch").is_none(), "step {step}");
        assert!(seen.has("script starts") && seen.has("task code 0"));
    }
    let seen = Host::batch_task().words(&["--task", "1"]).launch("").run();
    assert!(seen.finished().launcher("launch").is_none());
    assert!(seen.has("script starts"));
    assert!(!seen.lines("jobenv").iter().any(|entry| entry.contains("SPANK")));
}

#[test]
fn a_task_starts_the_launcher_detached_and_clean() {
    for more in [&[][..], &["--no-close-range"], &["--close", "0"], &["--lazy", "--close", "2"]] {
        let seen = Host::batch_task()
            .words(&["--open", "100", "--open", "5", "--open", "40"])
            .words(more)
            .job_env("_SLURM_SPANK_OPTION_aifb_aifb_recipe", "r.yaml")
            .job_env("AIFB_MIN_SAMPLE", "1ms")
            .admin(&["min_sample=250ms"])
            .launch("slow")
            .run();
        seen.finished().harmless();
        assert!(seen.has("task code 0") && seen.has("script starts"), "{:#?}", seen.report);
        let launcher = seen.launcher("launch").unwrap();
        let fds: Vec<_> = launcher.iter().filter(|line| line.starts_with("fd ")).collect();
        let expected = ["fd 0 /dev/null", "fd 1 /dev/null", "fd 2 /dev/null", "fd 3 pipe"];
        assert_eq!(fds, expected, "{more:?}");
        assert!(launcher.contains(&"SigBlk 0000000000000000".to_owned()), "{launcher:#?}");
        // glibc keeps signals 32 and 33 to itself, and posix_spawn ignores them for the host.
        let ignored = launcher.iter().find_map(|line| line.strip_prefix("SigIgn ")).unwrap();
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !(3 << 31), 0, "{ignored}");
        assert!(launcher.contains(&"SigCgt 0000000000000000".to_owned()));
        assert!(launcher.contains(&"session own".to_owned()));
        assert!(launcher.contains(&format!("folder {}", seen.folder.display())));
        let variables = envs(&launcher);
        for expected in [
            "SLURM_JOB_ID=77",
            "SLURM_SPANK_AIFB_SNAPSHOT=snapshot-1",
            "SLURM_SPANK_AIFB_WAIT=healthy",
            "HOME=/home/alice",
            "AIFB_MIN_SAMPLE=250ms",
        ] {
            assert!(variables.contains(&expected), "{expected}: {variables:#?}");
        }
        assert!(!variables.iter().any(|v| v.contains("SPANK_OPTION") || v.ends_with("=1ms")));
        // The task itself is as it was.
        assert_eq!(seen.lines("descriptors before"), seen.lines("descriptors after"));
        assert_eq!(seen.lines("signals before"), seen.lines("signals after"));
        assert!(seen.has("children none"));
    }
}

#[test]
fn a_ready_launcher_gives_its_variables_to_the_script() {
    for step in ["batch", "interactive"] {
        let seen = Host::batch_task().words(&["--step", step]).launch("slow").run();
        assert_eq!(seen.finished().stderr, "");
        let mut expected = vec![
            "SLURM_JOB_ID=77".to_owned(),
            "SLURM_JOB_PARTITION=cpu".to_owned(),
            "HOME=/home/alice".to_owned(),
            "PATH=/ours:/usr/bin".to_owned(),
            "TEST_LAUNCH=slow".to_owned(),
            format!("TEST_SEEN={}", seen.folder.join("seen").display()),
            "AIFB_RUN_ID=c-77".to_owned(),
            "AIFB_RUN_DIR=/runs/c-77".to_owned(),
        ];
        let mut got = seen.lines("jobenv");
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected);
    }
}

#[test]
fn a_failed_launch_keeps_the_script_from_starting() {
    for (mode, code, expected) in [
        ("failed", 4, "service 'llm' failed: exit 1\n  its last words\nhint: look\n"),
        ("die", 5, "the launcher died without a message (cause: node)"),
        ("nonsense", 5, "the launcher sent an unknown record 'what?'"),
        ("hang", 4, "not within 400ms (cause: service;"),
    ] {
        let seen = Host::batch_task().admin(&["wait_max=400ms"]).launch(mode).run();
        seen.finished();
        assert!(seen.has(&format!("task code {code}")), "{mode}: {:#?}", seen.report);
        assert!(!seen.has("script starts"), "{mode}");
        assert!(seen.stderr.contains(expected), "{mode}: {}", seen.stderr);
        if mode != "failed" {
            assert!(seen.stderr.contains("hint: see the logs in /runs/c-77"), "{}", seen.stderr);
        }
    }
}

#[test]
fn a_waiting_job_says_so_every_half_minute() {
    let seen = Host::batch_task().admin(&["wait_max=31s"]).launch("hang").run();
    let mut lines = seen.finished().stderr.lines();
    let waiting = "aifb_spank: waiting for healthy services: 30s so far, at most 31s";
    assert_eq!(lines.next(), Some(waiting));
    assert!(lines.next().unwrap().contains("not within 31s"), "{}", seen.stderr);
}

#[test]
fn a_launcher_missing_on_the_node_is_named_in_the_jobs_output() {
    let mut host = Host::batch_task().only_admin(&["launcher=/nowhere/aifb-agent"]);
    host.open_for_writing("3 4 5 10 11");
    let seen = host.run();
    assert!(seen.finished().has("task code 3"), "{:#?}", seen.report);
    assert!(seen.stderr.contains("aifb_spank: starting '/nowhere/aifb-agent': exec: No such"));
    let written = fs::read(seen.folder.join("host-file")).unwrap();
    assert_eq!(written, b"", "the host's files are not for our reports");
}

#[test]
fn partitions_that_are_not_listed_are_refused_at_job_start() {
    let seen = Host::batch_task().admin(&["partitions=gpu,big"]).launch("").run();
    assert!(seen.finished().has("task code 2"));
    assert!(seen.launcher("launch").is_none());
    assert!(seen.stderr.contains("in partition 'cpu': not allowed there"), "{}", seen.stderr);
    assert!(seen.stderr.contains("allowed in: gpu, big"));
    let seen = Host::batch_task().admin(&["partitions=gpu,cpu"]).launch("").run();
    assert!(seen.finished().has("script starts"));
}

#[test]
fn an_srun_that_allocates_gets_its_services_and_variables() {
    let seen =
        Host::new("local").option("aifb-recipe=r").option("aifb-wait=none").launch("slow").run();
    seen.finished().harmless();
    assert!(seen.lines("control").is_empty(), "nothing for the tasks to inherit");
    let launcher = seen.launcher("launch").unwrap();
    let args: Vec<_> = launcher.iter().filter_map(|line| line.strip_prefix("arg ")).collect();
    assert_eq!(args, ["launch", "--jobid", "77"]);
    let variables = envs(&launcher);
    assert!(variables.contains(&"SLURM_SPANK_AIFB_SNAPSHOT=snapshot-1"), "{variables:#?}");
    assert!(variables.contains(&"SLURM_SPANK_AIFB_WAIT=none"));
    assert!(seen.has("environ AIFB_RUN_ID=c-77") && seen.has("environ PATH=/ours:/usr/bin"));
    assert!(!seen.lines("environ").iter().any(|entry| entry.contains("SNAPSHOT")));
    assert!(seen.has("children none"));
}

#[test]
fn an_srun_whose_services_fail_ends_with_their_code() {
    let seen = Host::new("local").option("aifb-recipe=r").launch("failed").run();
    assert_eq!(seen.code, Some(4), "{:#?}", seen.report);
    assert!(seen.stderr.contains("its last words"));
}
