//! Nasty cases that change the cluster for everybody: the plugin's line and files, slurm.conf,
//! daemons. `tests/run` runs them one after the other when all other cases are through; NASTY.md
//! gives each its number.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use crate::{
    change::{ASK, Alone, plugin, put},
    cluster::{Cluster, json},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// Where `plugin_version` lies in the library.
fn version_at(library: &Path) -> usize {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with(" plugin_version")).unwrap();
    // Read-only data lies in the first segment, where address and place in the file are equal.
    usize::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
}

/// The plugin with the version of another release of Slurm.
fn foreign(alone: &Alone) -> Vec<u8> {
    let at = version_at(&plugin(&alone.cluster));
    let mut bytes = alone.plugin.clone();
    let version = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert!((0x15_0000..0x30_0000).contains(&version), "{version:#x} is no version of Slurm");
    bytes[at..at + 4].copy_from_slice(&(version + 0x01_0000).to_le_bytes());
    bytes
}

/// A library that wants a symbol which no Slurm has.
fn unknown_symbol(alone: &Alone) -> Vec<u8> {
    let header = alone.cluster.state().join("rootfs/usr/include");
    alone.case.write(
        "unknown.c",
        "#include <slurm/spank.h>\nint aifb_nobody_has_this(void);\nSPANK_PLUGIN(aifb, 1)\n\
         int slurm_spank_init(spank_t s, int c, char **v) { (void)s; (void)c; (void)v; return aifb_nobody_has_this(); }\n",
    );
    let out = alone.case.outside.join("unknown.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-z,now", "-I"])
        .arg(header)
        .arg("-o")
        .arg(&out)
        .arg(alone.case.outside.join("unknown.c"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::read(out).unwrap()
}

const LINE: &str = "/opt/aifb/lib/slurm/aifb_spank.so launcher=/opt/aifb/bin/aifb-agent";

/// Case 1: as we ship it, and as nobody should install it.
#[test]
fn a_plugin_of_another_release() {
    let Some(alone) = Alone::on("foreign") else { return };
    put(&plugin(&alone.cluster), &foreign(&alone), 0o755);
    for ran in alone.others_run("n1") {
        assert!(ran.stderr.contains("ncompatible"), "{ran:?}");
    }
    alone.plugstack(&format!("required {LINE}\n"));
    let ran = alone.case.run(&["srun", "--mem=50", "true"]);
    assert!(ran.code != 0 && ran.stderr.contains("ncompatible"), "{ran:?}");
    // Back again, no daemon has to be told.
    alone.cluster.plugin_on();
    put(&plugin(&alone.cluster), &alone.plugin, 0o755);
    alone.flag_works(&[]);
}

/// Cases 2 and 43. A library that was cut in its middle kills what loads it by SIGBUS, whatever it
/// contains; that is why installation is by rename.
#[test]
fn a_plugin_broken_in_every_way() {
    let Some(alone) = Alone::on("broken") else { return };
    let file = plugin(&alone.cluster);
    let whole = alone.plugin.clone();
    for (how, bytes, mode) in [
        ("foreign", foreign(&alone), 0o755),
        ("unknown symbol", unknown_symbol(&alone), 0o755),
        ("unreadable", whole.clone(), 0o000),
        ("empty", Vec::new(), 0o755),
        ("truncated", whole[..200].to_vec(), 0o755),
        ("no library", b"#!/bin/sh\nexit 1\n".to_vec(), 0o755),
    ] {
        put(&file, &bytes, mode);
        alone.others_run("n2");
        let ran = alone.case.run(&["sbatch", "--aifb-recipe=x.yaml", "--wrap=true"]);
        assert!(ran.code != 0 && ran.stderr.contains("aifb-recipe"), "{how}: {ran:?}");
    }
    fs::remove_file(&file).unwrap();
    alone.others_run("n2");
    put(&file, &whole, 0o755);
    // A plugin that is whole, in a line that is not: not even a message for the others.
    for line in [
        "optional /opt/aifb/lib/slurm/aifb_spank.so",
        "optional /opt/aifb/lib/slurm/aifb_spank.so launcher=/nowhere/aifb-agent",
        "optional /opt/aifb/lib/slurm/aifb_spank.so launcher=bin wait_max=soon nonsense",
        "optional /opt/aifb/lib/slurm/aifb_spank.so launcher=/opt/aifb/bin/aifb-agent off",
    ] {
        alone.plugstack(&format!("{line}\n"));
        for ran in alone.others_run("n2") {
            assert_eq!(ran.stderr, "", "{line}");
        }
        let ran = alone.case.run(&["sbatch", "--aifb-recipe=x.yaml", "--wrap=true"]);
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
    }
    assert!(alone.case.runs().is_empty());
}

/// Case 3.
#[test]
fn a_plugin_missing_on_some_machines() {
    let Some(alone) = Alone::on("somewhere") else { return };
    let hidden = Hidden::on(&alone.cluster, "n2");
    alone.others_run("n2");
    let script =
        "echo url=$SERVICE_URL; aifb load; echo load $?; aifb wait --timeout 3s; echo wait $?";
    let job = alone.case.sbatch(&["--aifb-recipe=x.yaml", "-w", "n2"], script);
    alone.case.wait(job, MINUTES);
    drop(hidden);
    let output = alone.case.read("job.out");
    // Nothing of us is loaded there, so the script runs without a service; our commands say why.
    assert!(output.contains("url=\n"), "{output}");
    assert!(!output.contains("load 0") && !output.contains("wait 0"), "{output}");
    assert!(output.contains("is the plugin on its first node?"), "{output}");
    alone.case.nothing_left(job);
    alone.flag_works(&["-w", "n2"]);

    let hidden = Hidden::on(&alone.cluster, "login");
    alone.others_run("n1");
    let ran = alone.case.run(&["sbatch", "--aifb-recipe=x.yaml", "--wrap=true"]);
    assert!(ran.code != 0 && ran.stderr.contains("aifb-recipe"), "{ran:?}");
    drop(hidden);
    alone.flag_works(&[]);
}

/// A node on which nothing lies where the plugin is elsewhere.
struct Hidden<'a>(&'a Cluster, &'a str);

impl<'a> Hidden<'a> {
    fn on(cluster: &'a Cluster, node: &'a str) -> Self {
        cluster.root(node, "mount -t tmpfs -o size=64k none /opt/aifb/lib/slurm").ok();
        Self(cluster, node)
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.0.root(self.1, "umount /opt/aifb/lib/slurm");
    }
}

/// Case 4.
#[test]
fn a_plugin_listed_twice() {
    let Some(alone) = Alone::on("twice") else { return };
    let copy = "/opt/aifb/lib/slurm/copy_of_aifb_spank.so";
    let outside = plugin(&alone.cluster).with_file_name("copy_of_aifb_spank.so");
    put(&outside, &alone.plugin, 0o755);
    let copied = LINE.replace("/opt/aifb/lib/slurm/aifb_spank.so", copy);
    for (number, second) in [LINE, &copied].into_iter().enumerate() {
        alone.plugstack(&format!("optional {LINE}\noptional {second}\n"));
        for ran in alone.others_run("n1") {
            // Of two files Slurm itself says that they have the same options.
            assert_eq!(ran.stderr.is_empty(), number == 0, "{ran:?}");
        }
        alone.flag_works(&[]);
        assert_eq!(alone.case.runs().len(), number + 1, "one run for each job");
    }
    fs::remove_file(outside).unwrap();
}

/// Case 5: plugin and programs are replaced below a running job.
#[test]
fn an_upgrade_while_a_job_runs() {
    let Some(alone) = Alone::on("upgrade") else { return };
    let (job, go) = alone.waiting(&["-N2"], &format!("{ASK}; aifb status --json > status.json"));
    put(&plugin(&alone.cluster), &alone.plugin, 0o755);
    let bin = alone.cluster.state().join("installed/opt/aifb/bin");
    for name in ["aifb", "aifb-agent", "aifb-loadgen"] {
        put(&bin.join(name), &fs::read(bin.join(name)).unwrap(), 0o755);
    }
    fs::write(go, "").unwrap();
    alone.well(job);
    assert!(alone.case.read("job.out").contains("hello"), "{}", alone.case.state_text());
    assert!(alone.case.read("status.json").contains("healthy"));
    alone.flag_works(&[]);
}

/// Case 6: what users cannot read is not there for them; jobs without the flag run.
#[test]
fn an_unreadable_folder_of_lines() {
    let Some(alone) = Alone::on("unreadable") else { return };
    let folder = alone.cluster.state().join("slurm/plugstack.conf.d");
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o700);
    let ran = alone.case.run(&["sbatch", "--aifb-recipe=x.yaml", "--wrap=true"]);
    let plain = alone.case.run(&["srun", "--mem=50", "echo", "ran"]);
    mode(0o755);
    assert!(ran.code != 0 && ran.stderr.contains("aifb-recipe"), "{ran:?}");
    assert_eq!((plain.code, plain.stdout.as_str()), (0, "ran\n"), "{plain:?}");
    alone.flag_works(&[]);
}

/// Case 15.
#[test]
fn preempted_and_requeued() {
    let Some(mut alone) = Alone::on("preempted") else { return };
    alone.add(
        "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n\
         PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=10 State=UP",
    );
    let script = format!("{ASK} && echo run $AIFB_RUN_DIR; [ -e go ] || sleep 100");
    let options = ["--aifb-recipe=x.yaml", "-w", "n1", "-c16", "--requeue", "--open-mode=append"];
    let job = alone.case.sbatch(&options, &script);
    let first = alone.case.outside.join(format!("aifb-runs/aifb-{job}/run.json"));
    alone.case.until("the first start", MINUTES, || {
        alone.case.read("job.out").contains("run ").then_some(())
    });
    alone.case.write("go", "");
    let words = ["srun", "-p", "urgent", "-w", "n1", "-c16", "--mem=50", "sleep", "1"];
    alone.case.run(&words).ok();
    // Slurm holds a requeued job back for two minutes.
    alone.case.until("the requeue", MINUTES, || {
        let now = format!("scontrol update JobId={job} StartTime=now");
        alone.cluster.root("ctl", &now);
        let second = alone.case.outside.join(format!("aifb-runs/aifb-{job}.r1/run.json"));
        second.exists().then_some(())
    });
    alone.well(job);
    let output = alone.case.read("job.out");
    assert_eq!(output.matches("hello").count(), 2, "{output}");
    assert!(output.contains(&format!("aifb-{job}.r1\n")), "{output}");
    assert_eq!(json(&first)["state"], "cancelled", "{}", alone.case.state_text());
}

/// Case 16: the shell that salloc starts on the node is the job's first program.
#[test]
fn salloc_with_an_interactive_step() {
    let Some(mut alone) = Alone::on("interactive") else { return };
    alone.add("LaunchParameters=use_interactive_step");
    alone.case.write(
        "typed",
        "curl -sf $SERVICE_URL/; echo node $SLURMD_NODENAME; env | grep -c SPANK; exit\n",
    );
    let ran = alone.case.sh(
        "timeout 60 script --quiet --command 'salloc --mem=200 --aifb-recipe=x.yaml < typed' /dev/null",
    );
    let text = ran.stdout.replace('\r', "");
    assert!(
        text.contains("\nhello\n") || text.contains("hello\nnode n"),
        "{text}\n{}",
        alone.logs()
    );
    assert!(text.contains("node n") && text.contains("\n0\n"), "{text}");
    let run = alone.case.only_run();
    let job = run.file_name().unwrap().to_str().unwrap().trim_start_matches("aifb-").parse();
    alone.case.nothing_left(job.unwrap());
}

/// Case 17.
#[test]
fn scrontab_is_refused() {
    let Some(mut alone) = Alone::on("scrontab") else { return };
    alone.add("ScronParameters=enable");
    alone.case.write("with", "#SCRON --aifb-recipe=x.yaml\n0 0 1 1 * true\n");
    let ran = alone.case.run(&["scrontab", "with"]);
    assert!(ran.code != 0, "{ran:?}");
    assert!(ran.stderr.contains("scrontab does not pass on the options"), "{ran:?}");
    alone.case.write("without", "#SCRON --mem=50\n0 0 1 1 * true\n");
    let ran = alone.case.run(&["scrontab", "without"]);
    let removed = alone.case.run(&["scrontab", "-r"]);
    assert_eq!((ran.code, ran.stderr.as_str(), removed.code), (0, "", 0), "{ran:?}");
}

/// Case 47: two nodes of other names on one machine.
#[test]
fn node_names_that_are_no_host_names() {
    let Some(mut alone) = Alone::on("names") else { return };
    alone.tell(|text| {
        text.replace("/var/spool/slurmd", "/var/spool/slurmd-%n")
            .replace("/run/slurmd.pid", "/run/slurmd-%n.pid")
            .replace("slurm/slurmd.log", "slurm/slurmd-%n.log")
            + "\nNodeName=twin[1-2] NodeHostname=n1 NodeAddr=n1 Port=[17001-17002] CPUs=8 RealMemory=4000 State=UNKNOWN\n\
               PartitionName=twins Nodes=twin1,twin2 State=UP\n"
    });
    let end = End(&alone.cluster);
    alone
        .cluster
        .root("n1", "mkdir -p /var/spool/slurmd-twin{1,2}; slurmd -N twin1; slurmd -N twin2")
        .ok();
    alone.all_idle();
    let recipe =
        recipes::service_and_load("", "2s").replace("    health:", "    nodes: all\n    health:");
    alone.case.write("x.yaml", &recipe);
    let job = alone.completed(
        &["-p", "twins", "-N2"],
        "for url in ${SERVICE_URLS//,/ }; do curl -sf $url/; done; aifb load && aifb report --json > report.json",
    );
    let output = alone.case.read("job.out");
    assert_eq!(output.matches("hello").count(), 2, "{output}");
    let run = alone.case.only_run();
    assert_eq!(run.file_name().unwrap().to_str().unwrap(), format!("aifb-{job}"));
    let report = json(&alone.case.outside.join("report.json"));
    let names: Vec<_> =
        report["nodes"].as_array().unwrap().iter().map(|node| &node["node"]).collect();
    assert_eq!(names, ["twin1", "twin2"], "{report:#}");
    assert_eq!(report["counts"]["ok"], 100, "{report:#}");
    drop(end);
}

/// Ends the two additional slurmd.
struct End<'a>(&'a Cluster);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.root("n1", "kill $(cat /run/slurmd-twin1.pid /run/slurmd-twin2.pid)");
    }
}
