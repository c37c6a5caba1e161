//! Without the plugin, and what its presence does to jobs that do not ask for it (Shows e, h).
//!
//! `AIFB_TEST_CLUSTER_BARE` names a second cluster whose plugstack.conf lacks our line.

use std::time::Duration;

use crate::{
    cluster::{Case, Cluster, bare},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

fn cases(name: &str) -> Option<(Case, Case)> {
    let with = crate::cluster::cluster()?;
    let without: Cluster = bare()?;
    Some((Case::new(with, name), Case::new(without, name)))
}

/// Environment, output and process list of a job, with everything that differs from job to job
/// (ids, ports, times, names of folders) replaced.
fn seen(case: &Case, command: &[&str]) -> String {
    case.write(
        "look.sh",
        r#"#!/bin/bash
env | sort
# No pipe beside the loop: what it starts would be in the list or not, by chance.
for f in $(grep -l -E "/job_$SLURM_JOB_ID(/|$)" /proc/[0-9]*/cgroup 2>/dev/null); do
  tr '\0' ' ' 2>/dev/null < "${f%/cgroup}/cmdline"; echo
done > processes
sort processes
ulimit -a
umask
id
grep -E 'Sig|Cap|NoNew' /proc/self/status
ls /proc/self/fd | wc -l
"#,
    );
    let ran = case.run(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    let output = case.read("look.out");
    let text = if output.is_empty() { ran.stdout } else { output };
    assert!(text.contains("SLURM_JOB_ID"), "{text}");
    let folder = case.inside.rsplit('/').next().unwrap().to_owned();
    let mut plain = String::new();
    for c in text.replace(&folder, "CASE").chars() {
        match c.is_ascii_digit() {
            true if plain.ends_with('#') => {}
            true => plain.push('#'),
            false => plain.push(c),
        }
    }
    // slurmstepd pads its own title by chance.
    plain.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_job_without_the_flag_sees_no_difference() {
    let Some((with, without)) = cases("untouched") else { return };
    for command in [
        &["sbatch", "--wait", "--mem=100", "--output=look.out", "-J", "look", "look.sh"][..],
        &["srun", "-Q", "--mem=100", "-J", "look", "bash", "look.sh"][..],
    ] {
        let (one, two) = (seen(&with, command), seen(&without, command));
        assert_eq!(one, two, "{command:?}");
        for case in [&with, &without] {
            let _absent = std::fs::remove_file(case.outside.join("look.out"));
        }
    }
}

#[test]
fn what_commands_print_is_the_same() {
    let Some((with, without)) = cases("prints") else { return };
    for case in [&with, &without] {
        case.write("job.sh", "#!/bin/bash\ntrue\n");
    }
    for script in [
        "sbatch --test-only --mem=100 job.sh 2>&1 | sed 's/[0-9]//g'",
        "sbatch --parsable --mem=100 --wrap true | sed 's/[0-9]//g'",
        "srun -Q --mem=100 echo hello 2>&1",
        // Quiet: how long it waited, and for what, is a matter of chance.
        "salloc -Q --mem=100 echo hello 2>&1",
    ] {
        assert_eq!(with.sh(script).stdout, without.sh(script).stdout, "{script}");
    }
}

#[test]
fn without_the_plugin_aifb_run_does_the_same() {
    let Some((_, case)) = cases("no-plugin") else { return };
    let slurm = "slurm: {nodes: 3, mem: 200, time: \"00:05:00\"}\n";
    case.write(
        "x.yaml",
        &format!(
            "{}    clients: 2\n",
            recipes::service_and_load("", "2s").replace("services:", &format!("{slurm}services:"))
        ),
    );
    let ran = case.run(&["aifb", "run", "x.yaml"]);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", case.state_text());
    assert!(ran.stdout.contains("e2e"), "{ran:?}");
    let record = case.record();
    assert_eq!(
        (&record["state"], &record["mode"]),
        (&"completed".into(), &"wrapper".into()),
        "{record:#}"
    );
    let job = u32::try_from(record["job"]["id"].as_u64().unwrap()).unwrap();
    case.nothing_left(job);
    // The plugin's own option is unknown here, and Slurm says so.
    let ran = case.run(&["sbatch", "--aifb-recipe=x.yaml", "--wrap", "true"]);
    assert!(ran.code != 0 && ran.stderr.contains("aifb-recipe"), "{ran:?}");
}

#[test]
fn without_the_plugin_up_works_in_batch_and_salloc() {
    let Some((_, case)) = cases("no-plugin-up") else { return };
    case.write("x.yaml", &recipes::service(""));
    let job = case
        .sbatch(&[], "aifb up x.yaml >&2 && eval \"$(aifb env --sh)\" && curl -sf $SERVICE_URL/");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    assert!(case.read("job.out").contains("hello"));
    case.nothing_left(job);
}

/// Limits, umask, groups, signals and environment of a service by launch mode.
#[test]
fn a_service_is_the_same_in_every_launch_mode() {
    let Some((with, without)) = cases("modes") else { return };
    let recipe = |case: &Case| {
        recipes::service(&format!(", --environment, {}/seen", case.inside))
            .replace("    health:", "    env: {OWN: value}\n    health:")
    };
    let look = |case: &Case| {
        let text = case.read("seen");
        assert!(text.contains("env OWN=value"), "{text}");
        // What differs by nature: the job's number and folders, what Slurm itself tells MPI
        // programs, and hard limits, which Slurm does not propagate.
        let own = [
            "SLURM", "PWD", "HOSTNAME", "SHLVL", "TMPDIR", "OLDPWD", "HYDRA", "I_MPI", "OMPI",
            "PRTE",
        ];
        text.lines()
            // Slurm sets this one with --mem.
            .filter(|line| !line.contains("RLIMIT_RSS"))
            // Signals 32 and 33 belong to the C library; what it inherits it cannot change.
            .filter(|line| !line.starts_with("SigIgn"))
            .filter(|line| {
                !own.iter().any(|word| {
                    line.strip_prefix("env ").is_some_and(|rest| rest.starts_with(word))
                })
            })
            .map(|line| match line.starts_with("limit") {
                true => line.split(',').next().unwrap(),
                false => line,
            })
            .map(|line| line.replace(case.inside.rsplit('/').next().unwrap(), "CASE"))
            .collect::<Vec<_>>()
    };
    let limits = "ulimit -n 777; ulimit -c 0; umask 027; ";
    with.write("x.yaml", &recipe(&with));
    with.sh(&format!(
        "{limits} sbatch --wait --mem=200 --output=job.out --aifb-recipe=x.yaml --wrap true"
    ))
    .ok();
    without.write("x.yaml", &recipe(&without));
    without
        .sh(&format!("{limits} sbatch --wait --mem=200 --output=job.out --wrap 'aifb up x.yaml'"))
        .ok();
    let (plugin, wrapper) = (look(&with), look(&without));
    assert!(plugin.iter().any(|line| line.contains("RLIMIT_NOFILE (777")), "{plugin:#?}");
    assert!(plugin.iter().any(|line| line == "umask 0027"), "{plugin:#?}");
    assert!(plugin.iter().any(|line| line == "oom_score_adj 0"), "{plugin:#?}");
    assert_eq!(plugin, wrapper);
    std::fs::remove_file(with.outside.join("seen")).unwrap();
    with.sh(&format!("{limits} srun --mem=200 --aifb-recipe=x.yaml true")).ok();
    assert_eq!(plugin, look(&with), "srun");
    std::fs::remove_file(with.outside.join("seen")).unwrap();
    with.sh(&format!("{limits} aifb run --local x.yaml -- true")).ok();
    assert_eq!(plugin, look(&with), "local");
}
