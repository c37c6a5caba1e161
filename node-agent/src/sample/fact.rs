//! What one sample shows beside the last that a report should tell: a lost GPU, a process that the
//! kernel killed for want of memory, a jump of the clock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aifb_schema::metric::{self, Family};
use serde::Serialize;
use serde_json::Value;

use super::{gpu, table::SeriesInfo};

/// Facts that wait to be fetched. More at one time say nothing new.
pub(super) const FACTS_MAX: usize = 64;

/// Something that happened on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Wall clock of the sample that shows it.
    pub epoch_ns: u64,
    /// What it is about: `gpu`, `memory` or `clock`.
    pub subject: &'static str,
    /// What happened, for people.
    pub message: String,
    /// The same for programs, where there is more to it than the subject.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
}

/// Families whose growth is a fact, or that are one by being there.
static WATCHED: [&Family; 5] = [
    &metric::GPU_ABSENT,
    &metric::GPU_XID_CODES,
    &metric::STEP_OOM_KILLS,
    &metric::NODE_OOM_KILLS,
    &metric::NODE_CLOCK_JUMPS,
];

type Values = [(Arc<SeriesInfo>, f64)];

/// Compares samples.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Watched values of the last sample by series; absent before the first.
    last: Option<HashMap<u32, f64>>,
    /// Reported critical errors, by GPU and number: a GPU may be absent for a while.
    xids: HashMap<[String; 3], f64>,
}

impl Facts {
    /// What is new in this sample.
    pub(super) fn look(&mut self, values: &Values, epoch_ns: u64) -> Vec<Fact> {
        let watched = |info: &SeriesInfo| WATCHED.iter().any(|one| std::ptr::eq(*one, info.family));
        let now: Vec<_> = values.iter().filter(|(info, _)| watched(info)).collect();
        let last = self.last.replace(now.iter().map(|(info, value)| (info.id, *value)).collect());
        let mut facts = Vec::new();
        for (info, value) in now {
            if std::ptr::eq(info.family, &metric::GPU_XID_CODES) {
                facts.extend(self.xid(info, *value, epoch_ns));
                continue;
            }
            let before = last.as_ref().and_then(|last| last.get(&info.id)).copied();
            let grown = match (before, &last) {
                (Some(before), _) => value - before,
                // A step that is new has all its kills since the last sample; what was counted
                // before the first sample is not reported.
                (None, Some(_)) => *value,
                (None, None) => f64::from(u8::from(info.family.kind == metric::Kind::Info)),
            };
            let still_absent = before.is_some() && info.family.kind == metric::Kind::Info;
            if grown > 0.0 && !still_absent {
                let (subject, message) = tell(info, grown, values);
                facts.push(Fact { epoch_ns, subject, message, fields: BTreeMap::new() });
            }
        }
        facts
    }

    /// Critical errors of one number since the last report. They are counted since sampling began,
    /// so that those of the first sample are news, too.
    fn xid(&mut self, info: &SeriesInfo, count: f64, epoch_ns: u64) -> Option<Fact> {
        let of = ["gpu", "uuid", "xid"].map(|key| label(info, key).to_owned());
        let told = self.xids.entry(of.clone()).or_insert(0.0);
        let grown = count - std::mem::replace(told, count);
        let [gpu, uuid, xid] = of;
        let count = format!("{grown:.0}");
        let times = if grown > 1.0 { format!(", {count} times") } else { String::new() };
        let meaning = gpu::meaning(&xid).map(|text| format!(" ({text})")).unwrap_or_default();
        let message = format!("GPU {gpu} ({uuid}): critical error XID {xid}{meaning}{times}");
        let number = |text: &str| text.parse::<u64>().map_or(Value::Null, Value::from);
        let (count, xid) = (number(&count), number(&xid));
        let fields = [("gpu", gpu.into()), ("uuid", uuid.into()), ("xid", xid), ("count", count)];
        let fields = fields.map(|(key, value)| (key.to_owned(), value)).into();
        (grown > 0.0).then_some(Fact { epoch_ns, subject: "gpu", message, fields })
    }
}

fn tell(info: &SeriesInfo, grown: f64, values: &Values) -> (&'static str, String) {
    let of = |key: &str| label(info, key);
    if std::ptr::eq(info.family, &metric::GPU_ABSENT) {
        return ("gpu", format!("GPU {} ({}): {}", of("gpu"), of("uuid"), of("reason")));
    }
    if std::ptr::eq(info.family, &metric::STEP_OOM_KILLS) {
        let bytes =
            |kind| find(values, &metric::STEP_MEMORY, &[("step", of("step")), ("kind", kind)]);
        let peak = find(values, &metric::STEP_MEMORY_PEAK, &[("step", of("step"))]);
        let figures = [("in use", bytes("current")), ("peak", peak), ("limit", bytes("limit"))];
        let figures =
            figures.iter().filter_map(|(name, bytes)| Some(format!("{name} {}", (*bytes)?)));
        let figures = figures.collect::<Vec<_>>().join(", ");
        let who = format!("step {} ({})", of("step"), of("role"));
        let message = format!("the OOM killer ended {} of {who}", processes(grown));
        return ("memory", format!("{message}; bytes of the step: {figures}"));
    }
    if std::ptr::eq(info.family, &metric::NODE_OOM_KILLS) {
        let killed = processes(grown);
        let message =
            format!("the OOM killer ended {killed} on this node (perhaps of another job)");
        return ("memory", message);
    }
    let jump =
        "the wall clock was set: it moved by more than 100 ms relative to the monotonic clock";
    ("clock", jump.to_owned())
}

/// How many processes, in words.
fn processes(count: f64) -> String {
    let noun = if count.round() == 1.0 { "process" } else { "processes" };
    format!("{count:.0} {noun}")
}

fn label<'i>(info: &'i SeriesInfo, key: &str) -> &'i str {
    let found = info.labels.iter().find(|(name, _)| *name == key);
    found.map_or("", |(_, value)| value.as_str())
}

/// The value of the first series of a family with these labels.
fn find(values: &Values, family: &'static Family, labels: &[(&str, &str)]) -> Option<f64> {
    let mut of_family = values.iter().filter(|(info, _)| std::ptr::eq(info.family, family));
    let fits = |info: &SeriesInfo| labels.iter().all(|(key, value)| label(info, key) == *value);
    of_family.find(|(info, _)| fits(info)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::table::{Table, Tick};

    fn look(facts: &mut Facts, table: &mut Table, put: impl FnOnce(&mut Tick<'_>)) -> Vec<String> {
        let mut tick = table.begin();
        put(&mut tick);
        let values = tick.finish();
        let found = facts.look(&values, 7);
        assert!(found.iter().all(|fact| fact.epoch_ns == 7));
        found.into_iter().map(|fact| format!("{}: {}", fact.subject, fact.message)).collect()
    }

    #[test]
    fn kills_are_told_once_with_the_figures_of_their_step() {
        let (mut facts, mut table) = (Facts::default(), Table::default());
        let step = |name, kills| {
            move |tick: &mut Tick<'_>| {
                let labels = [("step", name), ("role", "client")];
                let [step, role] = labels;
                tick.put(&metric::STEP_MEMORY, &[step, role, ("kind", "current")], 90.0);
                tick.put(&metric::STEP_MEMORY, &[step, role, ("kind", "limit")], 100.0);
                tick.put(&metric::STEP_MEMORY_PEAK, &labels, 99.0);
                tick.put(&metric::STEP_OOM_KILLS, &labels, kills);
            }
        };
        assert!(look(&mut facts, &mut table, step("1", 3.0)).is_empty());
        assert!(look(&mut facts, &mut table, step("1", 3.0)).is_empty());
        let told = |step, count| {
            format!(
                "memory: the OOM killer ended {count} of step {step} (client); bytes of the step: \
                 in use 90, peak 99, limit 100"
            )
        };
        assert_eq!(look(&mut facts, &mut table, step("1", 5.0)), [told("1", "2 processes")]);
        assert_eq!(look(&mut facts, &mut table, step("2", 1.0)), [told("2", "1 process")]);
        assert!(look(&mut facts, &mut table, step("2", 1.0)).is_empty());
    }

    #[test]
    fn a_lost_gpu_is_told_once() {
        let (mut facts, mut table) = (Facts::default(), Table::default());
        let gpu = |lost: bool| {
            move |tick: &mut Tick<'_>| {
                if lost {
                    let labels = [("gpu", "0"), ("uuid", "GPU-a"), ("reason", "gpu_is_lost")];
                    tick.put(&metric::GPU_ABSENT, &labels, 1.0);
                }
            }
        };
        let lost = "gpu: GPU 0 (GPU-a): gpu_is_lost";
        assert!(look(&mut facts, &mut table, gpu(false)).is_empty());
        assert_eq!(look(&mut facts, &mut table, gpu(true)), [lost]);
        assert!(look(&mut facts, &mut table, gpu(true)).is_empty());
        assert!(look(&mut facts, &mut table, gpu(false)).is_empty());
        assert_eq!(look(&mut facts, &mut table, gpu(true)), [lost]);
        assert_eq!(look(&mut Facts::default(), &mut table, gpu(true)), [lost]);
    }

    #[test]
    fn each_critical_error_is_told_once_with_its_number_from_the_first_sample_on() {
        let (mut facts, mut table) = (Facts::default(), Table::default());
        let told = |counts: &'static [(&'static str, f64)]| {
            move |tick: &mut Tick<'_>| {
                for (xid, count) in counts {
                    let labels = [("gpu", "0"), ("uuid", "GPU-a"), ("xid", *xid)];
                    tick.put(&metric::GPU_XID_CODES, &labels, *count);
                }
            }
        };
        let lost = "gpu: GPU 0 (GPU-a): critical error XID 79 (the GPU has fallen off the bus)";
        assert_eq!(look(&mut facts, &mut table, told(&[("79", 1.0)])), [lost]);
        assert!(look(&mut facts, &mut table, told(&[("79", 1.0)])).is_empty());
        // The library stops answering for so long that the series is forgotten.
        for _ in 0..300 {
            assert!(look(&mut facts, &mut table, told(&[])).is_empty());
        }
        let more = told(&[("79", 1.0), ("7", 2.0), ("unknown", 1.0)]);
        let other = "gpu: GPU 0 (GPU-a): critical error XID ";
        let expected = ["7, 2 times", "unknown"].map(|rest| format!("{other}{rest}"));
        assert_eq!(look(&mut facts, &mut table, more), expected);
        let mut tick = table.begin();
        told(&[("7", 5.0)])(&mut tick);
        let found = facts.look(&tick.finish(), 9);
        let fields = serde_json::json!({"gpu": "0", "uuid": "GPU-a", "xid": 7, "count": 3});
        assert_eq!(serde_json::to_value(&found[0].fields).unwrap(), fields);
        assert_eq!((found.len(), found[0].epoch_ns), (1, 9));
    }

    #[test]
    fn jumps_of_the_clock_and_kills_elsewhere_are_told() {
        let (mut facts, mut table) = (Facts::default(), Table::default());
        let node = |kills, jumps| {
            move |tick: &mut Tick<'_>| {
                tick.put(&metric::NODE_OOM_KILLS, &[], kills);
                tick.put(&metric::NODE_CLOCK_JUMPS, &[], jumps);
            }
        };
        assert!(look(&mut facts, &mut table, node(4.0, 0.0)).is_empty());
        let told = look(&mut facts, &mut table, node(5.0, 1.0));
        assert_eq!(told.len(), 2);
        assert!(
            told[0].starts_with("memory: the OOM killer ended 1 process on this node"),
            "{told:?}"
        );
        assert!(told[1].starts_with("clock: the wall clock was set"), "{told:?}");
    }
}
