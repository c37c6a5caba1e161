//! Every way to submit: what the job sees, and what must not be inherited (checklist 34, Shows c).

use std::time::Duration;

use crate::{
    cluster::{Case, json},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// A script that proves that the service answers at its first line.
const ASK: &str = "curl -sf \"$SERVICE_URL/\" && echo \"run $AIFB_RUN_ID port $SERVICE_PORT name $SERVICE_NAME url $SERVICE_WEB_URL\"";

fn asked(case: &Case, job: u32) {
    let end = case.wait(job, MINUTES);
    let output = case.read("job.out");
    assert_eq!((end.state.as_str(), end.exit_code), ("COMPLETED", 0), "{}", case.state_text());
    assert!(output.contains("hello") && output.contains(&format!("run aifb-{job}")), "{output}");
    case.nothing_left(job);
    let record = json(&case.only_run().join("run.json"));
    assert_eq!(record["state"], "completed", "{record:#}");
}

#[test]
fn the_flag_on_the_command_line() {
    let case = case!("flag");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&["--aifb-recipe=x.yaml"], ASK);
    asked(&case, job);
}

#[test]
fn the_flag_in_the_script() {
    let case = case!("directive");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&[], &format!("#SBATCH --aifb-recipe=x.yaml\n{ASK}"));
    asked(&case, job);
}

#[test]
fn slurms_own_variable_and_which_wins() {
    let case = case!("precedence");
    for name in ["script", "variable", "line"] {
        case.write(
            &format!("{name}.yaml"),
            &recipes::service("").replace("name: case", &format!("name: {name}")),
        );
    }
    for (index, (script, variable, line, expected)) in [
        (false, true, false, "variable"),
        (true, true, false, "variable"),
        (true, true, true, "line"),
        (true, false, true, "line"),
    ]
    .into_iter()
    .enumerate()
    {
        let directive = if script { "#SBATCH --aifb-recipe=script.yaml\n" } else { "" };
        case.write(&format!("job{index}.sh"), &format!("#!/bin/bash\n{directive}true\n"));
        let name = "SLURM_SPANK__SLURM_SPANK_OPTION_aifb_aifb_recipe";
        let variable = if variable { format!("{name}=variable.yaml ") } else { String::new() };
        let option = if line { "--aifb-recipe=line.yaml" } else { "" };
        let job: u32 = case
            .sh(&format!(
                "{variable}sbatch --parsable --mem=100 --output=job.out {option} job{index}.sh"
            ))
            .ok()
            .trim()
            .parse()
            .unwrap();
        case.wait(job, MINUTES);
        let record = json(&case.outside.join(format!("aifb-runs/aifb-{job}/run.json")));
        assert_eq!(record["name"], expected, "{record:#}");
    }
}

#[test]
fn overrides_add_up() {
    let case = case!("sets");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(
        &[
            "--aifb-recipe=x.yaml",
            "--aifb-set=services.web.env.ONE=1",
            "--aifb-set=services.web.env.TWO=2",
        ],
        "#SBATCH --aifb-set=name=other\ntrue",
    );
    case.wait(job, MINUTES);
    let record = json(&case.only_run().join("run.json"));
    assert_eq!(record["name"], "other");
    assert_eq!(
        record["sets"],
        serde_json::json!(["name=other", "services.web.env.ONE=1", "services.web.env.TWO=2"])
    );
}

#[test]
fn export_none_keeps_the_recipe() {
    for export in ["NONE", "A=b"] {
        let case = case!("export");
        case.write("x.yaml", &recipes::service(""));
        let job = case.sbatch(
            &["--aifb-recipe=x.yaml", &format!("--export={export}")],
            &ASK.replace("curl", "/usr/bin/curl"),
        );
        asked(&case, job);
    }
}

#[test]
fn a_recipe_deleted_after_submission_changes_nothing() {
    let case = case!("deleted");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(&["--aifb-recipe=x.yaml", "--begin=now+2"], ASK);
    std::fs::remove_file(case.outside.join("x.yaml")).unwrap();
    asked(&case, job);
}

#[test]
fn srun_that_allocates() {
    let case = case!("srun");
    case.write("x.yaml", &recipes::service(""));
    let ran = case.run(&["srun", "--mem=200", "--aifb-recipe=x.yaml", "bash", "-c", ASK]);
    assert!(
        ran.stdout.contains("hello") && ran.stdout.contains("name web"),
        "{ran:?}\n{}",
        case.state_text()
    );
    let run = case.only_run();
    let job =
        run.file_name().unwrap().to_str().unwrap().strip_prefix("aifb-").unwrap().parse().unwrap();
    case.nothing_left(job);
}

#[test]
fn salloc_and_up() {
    let case = case!("salloc");
    case.write("x.yaml", &recipes::service(""));
    let ran = case.sh(&format!("salloc -Q --mem=200 bash -c 'aifb up x.yaml >&2 && eval \"$(aifb env --sh)\" && {ASK}; echo job $SLURM_JOB_ID; aifb up x.yaml; echo second $?'"));
    assert!(ran.stdout.contains("hello"), "{ran:?}\n{}", case.state_text());
    assert!(!ran.stdout.contains("second 0"), "{ran:?}");
    let job = ran
        .stdout
        .split("job ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    case.wait(job, MINUTES);
    case.nothing_left(job);
}

#[test]
fn an_array_of_fifty() {
    let case = case!("array");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "--array=0-49", "--mem=100", "--output=out-%a"],
        "curl -sf $SERVICE_URL/ && echo run $AIFB_RUN_ID",
    );
    case.until("the end of all tasks", Duration::from_secs(300), || {
        let left = case.run(&["squeue", "-h", "-r", "-j", &job.to_string()]).stdout;
        left.trim().is_empty().then_some(())
    });
    assert_eq!(case.runs().len(), 50);
    for task in 0..50 {
        let output = case.read(&format!("out-{task}"));
        assert!(
            output.contains("hello") && output.contains(&format!("run aifb-{job}_{task}")),
            "{task}: {output}"
        );
    }
}

#[test]
fn a_requeued_job_gets_a_new_folder() {
    let case = case!("requeue");
    case.write("x.yaml", &recipes::service(""));
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml", "--requeue"],
        "curl -sf $SERVICE_URL/ || exit 1\nif [ \"${SLURM_RESTART_COUNT:-0}\" = 0 ]; then scontrol requeue $SLURM_JOB_ID; sleep 60; fi",
    );
    case.until("the second start", Duration::from_secs(300), || {
        // Slurm holds a requeued job back for two minutes; its owner may bring it forward.
        case.run(&["scontrol", "update", &format!("JobId={job}"), "StartTime=now"]);
        case.outside.join(format!("aifb-runs/aifb-{job}.r1/run.json")).exists().then_some(())
    });
    let end = case.wait(job, MINUTES);
    assert_eq!(end.state, "COMPLETED", "{}", case.state_text());
    assert_eq!(case.runs().len(), 2);
    case.nothing_left(job);
}

#[test]
fn nothing_is_inherited() {
    let case = case!("nested");
    case.write("x.yaml", &recipes::service(""));
    case.write(
        "inner.sh",
        "#!/bin/bash\nenv | grep -E 'AIFB|SPANK' | sort\naifb load; echo load $?\n",
    );
    let job = case.sbatch(
        &["--aifb-recipe=x.yaml"],
        "env | grep -i spank\nsrun --overlap env | grep -i spank\nsrun --overlap bash -c 'srun --overlap env' | grep -i spank\nsbatch --wait --mem=100 --output=inner.out inner.sh\necho end",
    );
    let end = case.wait(job, MINUTES * 2);
    assert_eq!(end.state, "COMPLETED", "{}", case.state_text());
    let output = case.read("job.out");
    assert!(!output.to_lowercase().contains("spank"), "{output}");
    // The nested job inherits variables, as every job does, but no run and no agent.
    assert_eq!(case.runs().len(), 1);
    let inner = case.read("inner.out");
    assert!(!inner.contains("SPANK") && !inner.contains("load 0"), "{inner}");
}

#[test]
fn a_heterogeneous_job_keeps_clients_elsewhere() {
    let case = case!("het");
    case.write("x.yaml", &format!("{}    clients: 2\n", recipes::service_and_load("", "2s")));
    case.write("job.sh", "#!/bin/bash\naifb load && echo load done\n");
    let text = case
        .sh("sbatch --parsable --output=job.out --mem=200 -N1 --aifb-recipe=x.yaml : -N2 -n2 --mem=200 job.sh")
        .ok();
    let job: u32 = text.trim().split(['+', ';']).next().unwrap().parse().unwrap();
    let end = case.wait(job, MINUTES * 2);
    assert_eq!(end.state, "COMPLETED", "{}", case.state_text());
    let result = json(&case.only_run().join("load/hits/p0/r0/result.json"));
    assert_eq!(result["counts"]["ok"], 100, "{result:#}\n{}", case.state_text());
    case.nothing_left(job);
}

#[test]
fn a_bad_recipe_queues_nothing() {
    let case = case!("bad");
    case.write("x.yaml", &recipes::service("").replace("kind:", "knd:"));
    case.write("job.sh", "#!/bin/bash\ntrue\n");
    for words in [
        vec!["sbatch", "--job-name=badone", "--aifb-recipe=x.yaml", "job.sh"],
        vec!["srun", "--job-name=badone", "--aifb-recipe=x.yaml", "true"],
        vec!["salloc", "--job-name=badone", "--aifb-recipe=x.yaml", "true"],
        vec!["aifb", "validate", "x.yaml"],
    ] {
        let ran = case.run(&words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("x.yaml:5:5: unknown key 'knd'"), "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("did you mean 'kind'"), "{words:?}: {ran:?}");
    }
    assert!(!case.run(&["squeue", "-h", "-n", "badone"]).ok().contains("badone"));
    assert!(case.runs().is_empty());
}
