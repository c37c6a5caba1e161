//! What must never hurt: jobs without the flag, root processes, panics, wrong words, two copies.

use std::fs;
use std::path::Path;

use crate::common::{have, panicking_plugin, plugin};
use crate::host::{Host, REGISTERED, refused};

#[test]
fn every_context_gets_its_options_and_nothing_else_without_the_flag() {
    for context in ["local", "remote", "allocator"] {
        for how in [&[][..], &["--lazy"]] {
            let seen = Host::new(context).words(how).words(&["--unload"]).run();
            seen.finished().harmless().inert();
            assert!(seen.has("loaded aifb spank 1 3012"), "{:#?}", seen.report);
            assert_eq!(seen.lines("registered"), REGISTERED);
            assert!(seen.lines("error").is_empty() && seen.lines("note").is_empty());
            assert_eq!(seen.stderr, "");
        }
    }
}

#[test]
fn slurmd_and_prolog_contexts_get_nothing_at_all() {
    for context in ["slurmd", "job_script", "error", "of-a-later-release"] {
        let seen = Host::new(context).words(&["--unload"]).run();
        seen.finished().harmless().inert();
        assert!(seen.lines("registered").is_empty() && seen.lines("error").is_empty());
    }
}

#[test]
fn a_batch_task_without_the_flag_keeps_its_environment() {
    let seen = Host::new("remote").words(&["--step", "batch"]).job_env("A", "b").run();
    seen.finished().harmless().inert();
    assert_eq!(seen.lines("jobenv"), ["A=b"]);
    assert_eq!(seen.lines("descriptors before"), seen.lines("descriptors after"));
    assert_eq!(seen.lines("signals before"), seen.lines("signals after"));
}

#[test]
fn wrong_words_of_the_administrator_hurt_nobody_but_users_of_the_flag() {
    for words in [&["luncher=/a"][..], &[], &["launcher=/a", "wait_max=soon"]] {
        for context in ["allocator", "local", "remote"] {
            let seen = Host::new(context).only_admin(words).run();
            seen.finished().harmless().inert();
            assert!(seen.lines("error").is_empty() && seen.stderr.is_empty());
        }
        let slurmd = Host::new("slurmd").only_admin(words).run();
        assert_eq!(slurmd.finished().lines("error").len(), 1, "one line in slurmd's log");
        let (errors, _) = refused(Host::new("allocator").only_admin(words).option("aifb-recipe=r"));
        assert!(errors.starts_with("aifb_spank: reading plugstack.conf: "), "{errors}");
    }
}

#[test]
fn switched_off_means_refused_with_a_reason() {
    let (errors, _) = refused(Host::new("allocator").admin(&["off"]).option("aifb-recipe=r"));
    assert!(errors.contains("switched off"), "{errors}");
    Host::new("allocator").admin(&["off"]).run().finished().harmless().inert();
    let seen = Host::batch_task().admin(&["off"]).launch("").run();
    assert!(seen.stderr.contains("switched off") && !seen.has("script starts"));
    assert!(seen.has("task code 2"));
}

#[test]
fn the_same_plugin_listed_twice_acts_once() {
    for context in ["allocator", "local"] {
        let mut host = Host::new(context).option("aifb-recipe=r").env("SLURM_JOB_PARTITION", "p");
        host.plugins.push(plugin().to_owned());
        let seen = host.run();
        assert_eq!(seen.finished().harmless().lines("registered"), REGISTERED);
        let sent = if context == "allocator" { 2 } else { 0 };
        assert_eq!(seen.lines("control").len(), sent);
        assert!(seen.lines("error").is_empty());
    }
    let mut host = Host::batch_task().launch("");
    host.plugins.push(plugin().to_owned());
    let seen = host.run();
    assert!(seen.finished().has("script starts"));
    assert_eq!(seen.lines("jobenv").iter().filter(|e| e.starts_with("AIFB_RUN_ID=")).count(), 1);
}

#[test]
fn two_copies_of_the_plugin_act_once() {
    let mut host = Host::batch_task().launch("");
    let copy = host.folder.join("copy.so");
    fs::copy(plugin(), &copy).unwrap();
    host.plugins.push(copy);
    let seen = host.run();
    assert!(seen.finished().has("script starts"));
    let launched = seen.lines("jobenv").iter().filter(|e| e.starts_with("AIFB_RUN_ID=")).count();
    assert_eq!(launched, 1);
}

#[test]
fn a_panic_in_any_hook_lets_everything_run() {
    for hook in
        ["init", "init_post_opt", "local_user_init", "task_init", "task_init_used", "option"]
    {
        let panic = format!("panic={hook}");
        for context in ["allocator", "local", "remote", "slurmd"] {
            for used in [false, true] {
                let mut host = if context == "remote" && used {
                    Host::batch_task().launch("")
                } else if used {
                    Host::new(context).option("aifb-recipe=r")
                } else {
                    Host::new(context)
                };
                host.plugins = vec![panicking_plugin().to_owned()];
                let seen = host.env("RUST_BACKTRACE", "full").admin(&[&panic]).run();
                seen.finished();
                for hook in seen.lines("hook") {
                    assert!(hook.ends_with(" 0"), "{hook} {context}: {:#?}", seen.report);
                }
                assert_eq!(seen.stderr, "", "{hook} {context} {used}");
                if context == "remote" {
                    assert!(seen.has("script starts"), "{hook}: {:#?}", seen.report);
                }
            }
        }
    }
}

#[test]
fn a_user_of_the_flag_hears_of_a_panic() {
    let mut host = Host::new("allocator").option("aifb-recipe=r").admin(&["panic=init_post_opt"]);
    host.plugins = vec![panicking_plugin().to_owned()];
    let seen = host.run();
    let expected = "internal error in init_post_opt: the job continues without its services";
    assert_eq!(seen.finished().lines("error"), [format!("aifb_spank: {expected}")]);
}

#[test]
fn the_installed_plugin_knows_no_panic_word() {
    let (errors, _) =
        refused(Host::new("allocator").admin(&["panic=init"]).option("aifb-recipe=r"));
    assert!(errors.contains("argument 'panic=init': not known"), "{errors}");
}

#[test]
fn valgrind_finds_no_wrong_access_and_no_lost_descriptor() {
    if !have("valgrind", "apt-get install valgrind") {
        return;
    }
    for (name, host) in [
        ("allocator", Host::new("allocator").option("aifb-recipe=r").option("aifb-set=a=1")),
        ("local", Host::new("local").option("aifb-recipe=r").launch("slow")),
        ("remote", Host::batch_task().launch("slow")),
        ("slurmd", Host::new("slurmd")),
    ] {
        let log = host.folder.join("valgrind");
        let mut host = host;
        host.wrapper = [
            "valgrind",
            "--quiet",
            "--error-exitcode=66",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("--log-file={}.%p", log.display())])
        .collect();
        let seen = host.run();
        let logs = read_all(&seen.folder, "valgrind.");
        assert_eq!(seen.code, Some(0), "{name}: {logs}\n{}", seen.stderr);
        assert!(!logs.contains("Invalid") && !logs.contains("uninitialised"), "{name}: {logs}");
    }
}

fn read_all(folder: &Path, start: &str) -> String {
    fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default())
        .collect()
}
