//! What the agent samples, beside what Slurm's own accounting says of the same step.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aifb_schema::samples;

use crate::{
    cluster::{Case, Ran},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// Longest time until the step has had its CPU time, beside forty others on each core.
const STARVED: Duration = Duration::from_secs(1200);

/// Longest time until both have looked at a step that stands still.
const SOON: Duration = Duration::from_secs(60);

/// Largest share by which the two may differ.
const DIFFERENCE: f64 = 0.02;

/// Holds 200 MiB that are written to until `free` is there, has then used 20 s of CPU and stands still
/// until `go`. Its end costs next to nothing: no memory has to be given back and Python does not tidy up.
const STEP: &str = r#"
import os, time
held = bytearray(b"x") * (200 << 20)
open("holds", "w").write(os.environ["SLURM_STEP_ID"])
while not os.path.exists("free"): time.sleep(0.1)
del held
while time.process_time() < 20: pass
open("rests", "w").close()
while not os.path.exists("go"): time.sleep(0.1)
os._exit(0)
"#;

/// What the agent of node n1 has sampled so far.
fn recording(case: &Case) -> samples::Recording {
    let bytes = std::fs::read(case.only_run().join("nodes/n1/samples.bin")).unwrap();
    samples::read(&bytes).unwrap()
}

/// The last value of a family for a step on node n1, summed over what else tells series apart; absent
/// before the agent has seen the step.
fn last(case: &Case, name: &str, step: &str, kind: Option<&str>) -> Option<f64> {
    let recording = recording(case);
    let wanted = |id: &u32| {
        let series = &recording.series[id];
        let label = |name: &str| series.labels.get(name).map(String::as_str);
        series.name == name
            && label("step") == Some(step)
            && (kind.is_none() || label("kind") == kind)
    };
    let has_it = |sample: &&samples::Sample| sample.values.iter().any(|(id, _)| wanted(id));
    let values = &recording.samples.iter().rev().find(has_it)?.values;
    Some(values.iter().filter(|(id, _)| wanted(id)).map(|(_, value)| value).sum())
}

/// `[days-][hours:]minutes:seconds`, in seconds.
fn seconds(text: &str) -> f64 {
    let (days, time) = text.split_once('-').unwrap_or(("0", text));
    let parts = time.split(':').map(|part| part.parse::<f64>().unwrap());
    days.parse::<f64>().unwrap() * 86_400.0 + parts.fold(0.0, |sum, part| sum * 60.0 + part)
}

/// A number of bytes, as Slurm writes it with `--noconvert`; some releases do convert.
fn bytes(text: &str) -> Option<f64> {
    let kib = text.strip_suffix('K');
    let number: f64 = kib.unwrap_or(text).parse().ok()?;
    Some(if kib.is_some() { number * 1024.0 } else { number })
}

/// CPU seconds of the step's tasks on node n1, from the kernel. What slurmstepd itself has used is no part
/// of it, neither in Slurm's accounting nor in the agent's: with cgroup v2 it has a group of its own beside
/// theirs, with v1 it is not in this tree.
fn tasks(case: &Case, job: u32) -> f64 {
    let look = r"for pid in $(pgrep -f '^[^ ]*python3 step.py$'); do
            tr '\0' '\n' </proc/$pid/environ | grep -qx SLURM_JOB_ID=@ || continue
            for file in $(grep -lx $pid $(find /sys/fs/cgroup -path '*/step_*/cgroup.procs')); do
                folder=${file%/cgroup.procs}
                case $folder in */task_*) folder=${folder%/*} ;; esac
                cat $folder/cpuacct.usage 2>/dev/null ||
                    sed -n 's/^usage_usec \(.*\)/\1000/p' $folder/cpu.stat 2>/dev/null
            done
        done";
    let found = case.cluster.root("n1", &look.replace('@', &job.to_string())).stdout;
    found.trim().parse::<f64>().unwrap_or_else(|error| panic!("{error}: '{found}'")) / 1e9
}

fn near(ours: f64, slurms: f64) -> bool {
    (ours - slurms).abs() <= DIFFERENCE * slurms
}

#[test]
fn memory_and_cpu_of_a_step_agree_with_slurm() {
    let case = case!("figures");
    case.write("x.yaml", &recipes::service(""));
    case.write("step.py", STEP);
    let options = ["--aifb-recipe=x.yaml", "-w", "n1", "--mem=600", "--cpus-per-task=1"];
    let job = case.sbatch(&options, "srun -n1 --mem=400 python3 step.py");
    case.until("the step that holds memory", MINUTES, || {
        (!case.read("holds").is_empty()).then_some(())
    });
    let step = case.read("holds").trim().to_owned();
    let id = format!("{job}.{step}");
    let sstat = || -> Ran {
        case.cluster.run(
            "alice",
            "n1",
            &case.inside,
            &["sstat", "-nP", "--noconvert", "-j", &id, "-o", "MaxRSS"],
        )
    };
    // Slurm looks every 2 s, the agent every second; the step stands still meanwhile.
    let begun = Instant::now();
    let memory = loop {
        let said = sstat();
        let ours = last(&case, "step_memory_bytes", &step, Some("anonymous"));
        if let (Some(ours), Some(bytes)) = (ours, bytes(said.stdout.trim()))
            && near(ours, bytes)
        {
            break (ours, bytes);
        }
        assert!(begun.elapsed() < SOON, "memory: ours {ours:?} bytes, Slurm's {said:?}");
        std::thread::sleep(Duration::from_millis(500));
    };
    case.write("free", "");
    case.until("the step at rest", STARVED, || case.outside.join("rests").exists().then_some(()));
    // The sample lies between the two looks at the kernel's own figure.
    let least = tasks(&case, job);
    let looked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    case.until("a sample of the step at rest", MINUTES, || {
        let newest = recording(&case).samples.last()?.epoch_ns;
        (u128::from(newest) > looked).then_some(())
    });
    let cpu = last(&case, "step_cpu_seconds_total", &step, None).unwrap();
    let most = tasks(&case, job);
    case.write("go", "");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let total = case.until("the step's accounting", MINUTES, || {
        let text = case.run(&["sacct", "-nP", "-j", &id, "-o", "TotalCPU"]).stdout;
        let total = seconds(text.lines().next()?.trim());
        (total > 1.0).then_some(total)
    });
    println!("memory {memory:?} bytes, CPU {cpu} and {total} s: ours and Slurm's");
    assert!(memory.0 > f64::from(200 << 20), "{memory:?}");
    let rounded = 1e-5;
    assert!(
        (least - rounded..=most + rounded).contains(&cpu),
        "CPU: ours {cpu} s, the kernel's {least} to {most} s"
    );
    assert!(cpu >= 19.9 && near(cpu, total), "CPU: ours {cpu} s, Slurm's {total} s");
    case.nothing_left(job);
}
