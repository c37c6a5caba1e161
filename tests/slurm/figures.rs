//! What the agent samples, beside what Slurm's own accounting says of the same step.

use std::time::{Duration, Instant};

use aifb_schema::samples;

use crate::{
    cluster::{Case, Ran},
    recipes,
};

const MINUTES: Duration = Duration::from_secs(180);

/// Longest time until both have looked at a step that stands still.
const SOON: Duration = Duration::from_secs(60);

/// Largest share by which the two may differ.
const DIFFERENCE: f64 = 0.02;

/// Holds 200 MiB that are written to, uses 20 s of CPU, then waits for `go`.
const STEP: &str = r#"
import os, time
held = bytearray(b"x") * (200 << 20)
while time.process_time() < 20: pass
open("holds", "w").write(os.environ["SLURM_STEP_ID"])
while not os.path.exists("go"): time.sleep(0.1)
"#;

/// What the agent of node n1 has sampled so far.
fn recording(case: &Case) -> samples::Recording {
    let bytes = std::fs::read(case.only_run().join("nodes/n1/samples.bin")).unwrap();
    samples::read(&bytes).unwrap()
}

/// The last value of a family for a step on node n1, summed over what else tells series apart.
fn last(case: &Case, name: &str, step: &str, kind: Option<&str>) -> f64 {
    let recording = recording(case);
    let wanted = |id: &u32| {
        let series = &recording.series[id];
        let label = |name: &str| series.labels.get(name).map(String::as_str);
        series.name == name
            && label("step") == Some(step)
            && (kind.is_none() || label("kind") == kind)
    };
    let has_it = |sample: &&samples::Sample| sample.values.iter().any(|(id, _)| wanted(id));
    let sample = recording.samples.iter().rev().find(has_it);
    let values = &sample.unwrap_or_else(|| panic!("no {name} of step {step}")).values;
    values.iter().filter(|(id, _)| wanted(id)).map(|(_, value)| value).sum()
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
        if let Some(bytes) = bytes(said.stdout.trim())
            && near(ours, bytes)
        {
            break (ours, bytes);
        }
        assert!(begun.elapsed() < SOON, "memory: ours {ours} bytes, Slurm's {said:?}");
        std::thread::sleep(Duration::from_millis(500));
    };
    // The step stands still: a further sample has all of its CPU time.
    let before = recording(&case).samples.len();
    case.until("a sample of the step at rest", MINUTES, || {
        (recording(&case).samples.len() >= before + 2).then_some(())
    });
    case.write("go", "");
    assert_eq!(case.wait(job, MINUTES).state, "COMPLETED", "{}", case.state_text());
    let total = case.until("the step's accounting", MINUTES, || {
        let text = case.run(&["sacct", "-nP", "-j", &id, "-o", "TotalCPU"]).stdout;
        let total = seconds(text.lines().next()?.trim());
        (total > 1.0).then_some(total)
    });
    let cpu = last(&case, "step_cpu_seconds_total", &step, None);
    println!("memory {memory:?} bytes, CPU {cpu} and {total} s: ours and Slurm's");
    assert!(memory.0 > f64::from(200 << 20), "{memory:?}");
    assert!(cpu >= 19.8 && near(cpu, total), "CPU: ours {cpu} s, Slurm's {total} s");
    case.nothing_left(job);
}
