//! Nasty cases that change the whole cluster and hardly ever occur: daemons that end, nodes that do
//! not answer, shapes of jobs and settings that few have. They take minutes, so `make test-more`
//! runs them, one after the other; NASTY.md gives each its number.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    change::{ASK, Alone, put},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// Case 8.
#[test]
fn daemons_restarted_during_a_job() {
    let Some(alone) = Alone::on("restart") else { return };
    let (job, go) = alone.waiting(&["-N2", "-w", "n1,n2"], ASK);
    alone.cluster.root("ctl", "scontrol reconfigure").ok();
    for node in ["n1", "n2"] {
        let script = "old=$(cat /run/slurmd.pid); kill $old; while kill -0 $old 2>/dev/null; do sleep 0.05; done; slurmd";
        alone.cluster.root(node, script).ok();
    }
    fs::write(go, "").unwrap();
    alone.well(job);
    assert!(alone.case.read("job.out").contains("hello"), "{}", alone.case.state_text());
    assert_eq!(alone.case.record()["state"], "completed", "{}", alone.case.state_text());
    alone.all_idle();
}

/// Case 39: a node that is down, a slurmd that does not answer for a while, and a long prolog.
#[test]
fn slow_and_missing_nodes() {
    let Some(mut alone) = Alone::on("slow") else { return };
    let prolog = alone.cluster.state().join("slurm/prolog");
    put(&prolog, b"#!/bin/bash\n[[ $(hostname) != n3 ]] || sleep 4\n", 0o755);
    alone.configure(|text| text.replace("PrologFlags=Contain", "Prolog=/etc/slurm/prolog"));
    let end = "old=$(cat /run/slurmd.pid); kill $old; while kill -0 $old 2>/dev/null; do sleep 0.05; done";
    alone.cluster.root("n2", end).ok();
    alone.cluster.root("ctl", "scontrol update NodeName=n2 State=DOWN Reason=test").ok();
    let begun = Instant::now();
    alone.completed(&["-N2"], ASK);
    assert!(begun.elapsed() > Duration::from_secs(4), "n3's prolog has not run");
    assert!(alone.case.read("job.out").contains("hello"));
    alone.cluster.root("n2", "slurmd").ok();
    alone.all_idle();

    let slurmd = |signal: &str| {
        alone.cluster.root("n2", &format!("kill -{signal} $(cat /run/slurmd.pid)")).ok()
    };
    slurmd("STOP");
    let job = alone.case.sbatch(&["--aifb-recipe=x.yaml", "-N2", "-w", "n1,n2"], ASK);
    std::thread::sleep(Duration::from_secs(4));
    slurmd("CONT");
    alone.well(job);
    assert!(alone.case.read("job.out").contains("hello"), "{}", alone.case.state_text());
}

/// Case 40: the controller hangs when the agents' step is made, and is gone when a load ends.
#[test]
fn without_a_controller_for_a_while() {
    let Some(mut alone) = Alone::on("controller") else { return };
    let home = alone.case.outside.clone();
    let prolog = alone.cluster.state().join("slurm/prolog");
    let text = format!(
        "#!/bin/bash\ntouch {0}/prolog; for i in {{1..200}}; do [[ ! -e {0}/now ]] || exit 0; sleep 0.05; done\n",
        alone.case.inside
    );
    put(&prolog, text.as_bytes(), 0o755);
    alone.configure(|text| text.replace("PrologFlags=Contain", "Prolog=/etc/slurm/prolog"));
    alone.case.write("x.yaml", &recipes::service_and_load("", "2s"));
    let control = |script: &str| alone.cluster.root("ctl", script).ok();
    let script = "touch started; until [ -e go ]; do sleep 0.1; done; aifb load; echo load $?";
    let job = alone.case.sbatch(&["--aifb-recipe=x.yaml", "-w", "n1"], script);
    let exists = |name: &str| home.join(name).exists().then_some(());
    alone.case.until("the prolog", MINUTES, || exists("prolog"));
    // It hangs only: a srun that meets a controller which ends and comes back waits for minutes.
    control("kill -STOP $(pidof slurmctld)");
    alone.case.write("now", "");
    std::thread::sleep(Duration::from_secs(4));
    assert!(exists("started").is_none(), "the agents' step needs a controller");
    control("kill -CONT $(pidof slurmctld)");
    alone.case.until("the script", MINUTES, || exists("started"));
    alone.case.write("go", "");
    alone.case.until("the measured part", MINUTES, || {
        (alone.case.record()["state"] == "measuring").then_some(())
    });
    control(
        "old=$(pidof slurmctld); kill $old; while kill -0 $old 2>/dev/null; do sleep 0.05; done",
    );
    std::thread::sleep(Duration::from_secs(4));
    control("setpriv --reuid slurm --regid slurm --clear-groups slurmctld");
    alone.well(job);
    assert!(alone.case.read("job.out").contains("load 0"), "{}", alone.case.state_text());
}

/// Case 41: whole nodes, GPUs per task, and a limit on steps that the agents use up.
#[test]
fn jobs_of_rare_shapes() {
    let Some(mut alone) = Alone::on("rare") else { return };
    let gres = alone.cluster.state().join("slurm/gres.conf");
    // Two devices that every machine has; nobody opens them.
    put(&gres, b"AutoDetect=off\nName=gpu File=/dev/zero\nName=gpu File=/dev/full\n", 0o644);
    alone.configure(|text| {
        text.replace("RealMemory=16000", "RealMemory=16000 Gres=gpu:2") + "\nGresTypes=gpu\n"
    });
    for options in [
        &["--exclusive", "-N2"][..],
        &["-n2", "--gpus-per-task=1", "--cpus-per-task=2"],
        &["-N2", "--gpus-per-node=2", "--ntasks-per-node=2"],
        &["--mem=0", "--exclusive"],
    ] {
        alone.flag_works(options);
    }
    alone.configure(|text| format!("{text}\nMaxStepCount=1\n"));
    alone.completed(&[], &format!("{ASK}; srun true 2> refused; echo srun $?"));
    let output = alone.case.read("job.out");
    assert!(output.contains("hello") && output.contains("srun 1"), "{output}");
    assert!(alone.case.read("refused").contains("tep limit"), "{}", alone.case.read("refused"));
}

/// Cases 44 and 45: private folders for each job, plugins inside them, prolog in the job.
#[test]
fn containers_and_prolog_flags() {
    let Some(mut alone) = Alone::on("flags") else { return };
    for flags in ["", "Alloc", "Contain,X11", "Contain,RunInJob"] {
        let line = if flags.is_empty() { String::new() } else { format!("PrologFlags={flags}") };
        alone.configure(|text| text.replace("PrologFlags=Contain", &line));
        alone.flag_works(&["-N2"]);
    }
    let file = alone.cluster.state().join("slurm/job_container.conf");
    put(&file, b"AutoBasePath=true\nBasePath=/run/jobs\nDirs=/tmp,/dev/shm\n", 0o644);
    alone.configure(|text| {
        text.replace("config_overrides", "config_overrides,contain_spank")
            + "\nJobContainerType=job_container/tmpfs\n"
    });
    // /tmp is the job's own, so the file is seen by this job only, by the service as by the script.
    alone.completed(&["-w", "n1"], &format!("{ASK} && touch /tmp/own && ls /tmp"));
    let output = alone.case.read("job.out");
    assert_eq!(output, "hello\nown\n", "{}", alone.logs());
    assert_ne!(alone.cluster.root("n1", "ls /tmp/own").code, 0);
}
