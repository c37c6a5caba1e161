//! What sbatch, salloc and srun do before Slurm is asked for anything.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::launcher;
use crate::host::{Host, Seen, envs, refused};

#[test]
fn submission_prepares_and_sends_the_snapshot_along() {
    let seen = Host::new("allocator")
        .option("aifb-recipe=first.yaml")
        .option("aifb-set=a.b=1")
        .option("aifb-recipe=-x y;%s.yaml")
        .option("aifb-set=c=%n%d")
        .option("aifb-runs=/runs")
        .option("aifb-wait=none")
        .env("MINE", "yes")
        .admin(&["min_sample=500ms"])
        .run();
    seen.finished().harmless();
    assert_eq!(seen.lines("control"), ["AIFB_SNAPSHOT=snapshot-1 1", "AIFB_WAIT=none 1"]);
    let launcher = seen.launcher("prepare").unwrap();
    let args: Vec<_> = launcher.iter().filter_map(|line| line.strip_prefix("arg ")).collect();
    assert_eq!(
        args,
        [
            "prepare",
            "--recipe=-x y;%s.yaml",
            "--set=a.b=1",
            "--set=c=%n%d",
            "--runs=/runs",
            "--wait=none"
        ]
    );
    assert!(launcher.contains(&format!("folder {}", seen.folder.display())));
    let variables = envs(&launcher);
    assert!(variables.contains(&"MINE=yes") && variables.contains(&"AIFB_MIN_SAMPLE=500ms"));
    assert!(variables.iter().any(|entry| entry.starts_with("AIFB_PLUGIN=aifb_spank ")));
    assert!(launcher.contains(&"fd 0 /dev/null".to_owned()), "{launcher:#?}");
}

#[test]
fn exit_codes_are_known_even_where_children_are_ignored() {
    let words = ["--ignore-children"];
    let seen = Host::new("allocator").words(&words).option("aifb-recipe=r").run();
    assert_eq!(seen.finished().lines("control").len(), 2);
    let refused = Host::new("allocator")
        .words(&words)
        .option("aifb-recipe=r")
        .env("TEST_PREPARE", "refuse")
        .run();
    assert_eq!(refused.code, Some(2));
}

#[test]
fn a_refused_recipe_ends_the_submission_with_the_launchers_words() {
    let submit = |context| Host::new(context).option("aifb-recipe=r").env("TEST_PREPARE", "refuse");
    for context in ["allocator", "local"] {
        let (errors, stderr) = refused(submit(context));
        assert_eq!(stderr, "launcher: recipe.yaml:3:5: unknown key 'servces'\n");
        assert_eq!(errors, "aifb_spank: the job was not submitted");
    }
}

#[test]
fn a_launcher_that_misbehaves_is_named() {
    for (mode, expected) in [
        ("code", "it ended with code 41"),
        ("signal", "ended by signal 6"),
        ("silent", "it printed no snapshot"),
        ("lines", "its snapshot is not one printable line"),
        // Whatever the launcher does once nobody reads on: the bound is what is named.
        ("endless", "the snapshot is longer than 65536 bytes"),
        ("long", "the snapshot is longer than 65536 bytes"),
    ] {
        let (errors, _) =
            refused(Host::new("allocator").option("aifb-recipe=r").env("TEST_PREPARE", mode));
        let start = format!("aifb_spank: checking the recipe with '{}", launcher().display());
        assert!(errors.starts_with(&start) && errors.ends_with(expected), "{mode}: {errors}");
    }
}

#[test]
fn a_launcher_that_hangs_is_killed_after_its_deadline() {
    let cases = ["hang", "hang-closed"].map(|mode| {
        std::thread::spawn(move || {
            let start = Instant::now();
            let host = Host::new("allocator").option("aifb-recipe=r").env("TEST_PREPARE", mode);
            let (errors, _) = refused(host);
            (mode, errors, start.elapsed())
        })
    });
    for case in cases {
        let (mode, errors, took) = case.join().unwrap();
        let expected = if mode == "hang" { "no response within 30s" } else { "it does not exit" };
        assert!(errors.ends_with(expected), "{errors}");
        assert!((Duration::from_secs(29)..Duration::from_secs(45)).contains(&took), "{took:?}");
    }
}

#[test]
fn a_launcher_that_cannot_run_is_named_with_its_place_in_plugstack_conf() {
    for (path, expected) in
        [("/nowhere/aifb-agent", "No such file"), ("/etc/passwd", "Permission denied")]
    {
        let launcher = format!("launcher={path}");
        let mut host = Host::new("allocator").only_admin(&[&launcher]).option("aifb-recipe=r");
        host.open_for_writing("3 4 5 10 11");
        let seen = host.run();
        assert_eq!(seen.code, Some(2));
        assert_eq!(fs::read(seen.folder.join("host-file")).unwrap(), b"");
        let error = seen.lines("error").join("\n");
        assert!(error.starts_with(&format!("aifb_spank: starting '{path}': exec: {expected}")));
        assert!(seen.lines("note").join("").contains("plugstack.conf"), "{:#?}", seen.report);
    }
}

#[test]
fn hostile_option_values_are_refused_at_submission_only() {
    let long = format!("aifb-recipe={}", "a".repeat(4097));
    for (option, expected) in [
        (long.as_str(), "longer than 4096 bytes"),
        ("aifb-recipe=", "it is empty"),
        ("aifb-recipe=a\nb", "it contains a line break"),
        ("aifb-recipe", "it is empty"), // no value at all: NULL
    ] {
        let (errors, _) = refused(Host::new("allocator").option(option));
        assert_eq!(errors, format!("aifb_spank: reading option --aifb-recipe: {expected}"));
        // In slurmstepd, as root, nothing is even looked at.
        Host::new("remote").option(option).run().finished().harmless().inert();
    }
    let (errors, _) = refused(Host::new("allocator").option("aifb-set=a=1"));
    assert_eq!(errors, "aifb_spank: using an --aifb option: there is no --aifb-recipe");
}

#[test]
fn a_command_inside_a_job_inherits_nothing() {
    let inherited = [
        ("SLURM_JOB_ID", "5"),
        ("SLURM_SPANK__SLURM_SPANK_OPTION_aifb_aifb_recipe", "old.yaml"),
        ("_SLURM_SPANK_OPTION_aifb_aifb_set", "a=1"),
        ("SLURM_SPANK__SLURM_SPANK_OPTION_other_thing", "kept"),
        ("SLURM_SPANK_AIFB_SNAPSHOT", "old"),
        ("SLURM_SPANK_AIFB_WAIT", "none"),
    ];
    let with = |mut host: Host| {
        for (name, value) in inherited {
            host = host.env(name, value);
        }
        host
    };
    let left = |seen: &Seen| -> Vec<String> {
        let entries = seen.lines("environ");
        entries.iter().filter(|e| e.contains("SPANK")).map(|e| (*e).to_owned()).collect()
    };
    let other = "SLURM_SPANK__SLURM_SPANK_OPTION_other_thing=kept".to_owned();
    for context in ["allocator", "local"] {
        let seen = with(Host::new(context)).run();
        seen.finished().inert();
        assert_eq!(left(&seen), std::slice::from_ref(&other), "{context}");
    }
    // The shell of salloc is started by srun, and is the job's first program.
    let seen = with(Host::new("local")).words(&["--interactive"]).run();
    assert_eq!(left(seen.finished()).len(), 3, "{:#?}", left(&seen));
    // On the command line it counts.
    let seen = with(Host::new("allocator")).option("aifb-recipe=new.yaml").run();
    assert_eq!(seen.finished().lines("control").len(), 2);
    let (errors, _) = refused(with(Host::new("local")).option("aifb-recipe=new.yaml"));
    assert!(errors.contains("srun inside a job"), "{errors}");
}

#[test]
fn outside_a_job_a_user_may_set_the_options_as_variables() {
    let name = "SLURM_SPANK__SLURM_SPANK_OPTION_aifb_aifb_recipe";
    let seen = Host::new("allocator").env(name, "mine.yaml").run();
    assert!(seen.finished().has(&format!("environ {name}=mine.yaml")));
}

#[test]
fn a_heterogeneous_job_acts_once_and_wants_its_options_first() {
    let seen = Host::new("allocator")
        .option("aifb-recipe=r")
        .option("aifb-set=a=1")
        .words(&["--component"])
        .option("aifb-recipe=r") // Slurm's variable, read again
        .words(&["--component"])
        .run();
    assert_eq!(seen.finished().lines("control").len(), 2, "{:#?}", seen.report);
    for late in ["aifb-recipe=other", "aifb-set=a=2", "aifb-wait=none"] {
        let first = Host::new("allocator").option("aifb-recipe=r").option("aifb-set=a=1");
        let seen = first.words(&["--component"]).option(late).run();
        assert_eq!(seen.code, Some(2), "{late}");
        assert!(seen.lines("error")[0].contains("behind the first ':'"), "{:#?}", seen.report);
    }
    let none = Host::new("local").words(&["--component"]).option("aifb-recipe=r");
    assert!(refused(none).0.contains("behind the first ':'"));
}

#[test]
fn an_srun_that_enters_a_job_is_refused() {
    for words in [&["--jobid=5"][..], &["--jobid", "5"], &["-n", "2", "--jobid=5"]] {
        let host = Host::new("local").words(words).option("aifb-recipe=r").words(&[]);
        let host = host.words(&["--aifb-recipe=r"]);
        let (errors, _) = refused(host);
        assert!(errors.contains("srun --jobid"), "{words:?}: {errors}");
    }
}
