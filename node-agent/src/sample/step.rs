//! The job and its steps, from their cgroups.

use std::collections::BTreeMap;

use aifb_schema::metric;

use super::{
    cgroup::Place,
    context::Context,
    group::{Group, PRESSURES, Values},
    process::{Crowd, Processes},
    table::Tick,
    units::Units,
};

/// Steps at one time. Above that only the job as a whole is recorded.
const STEPS_MAX: usize = 64;

/// Collects the job's cgroups.
#[derive(Debug)]
pub(super) struct Steps {
    place: Place,
    units: Units,
    job: Group,
    steps: BTreeMap<String, Step>,
    /// Processes of the agent's own step, as the last discovery found them.
    own: Option<Vec<u32>>,
}

#[derive(Debug)]
struct Step {
    role: &'static str,
    group: Group,
    /// Stands in for controllers that are not there.
    crowd: Crowd,
    processes: Option<u64>,
}

impl Steps {
    pub(super) fn new(place: Place, units: Units) -> Self {
        let job = Group::of_job(&place);
        Self { place, units, job, steps: BTreeMap::new(), own: None }
    }

    /// Where the job's cgroups are.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn collect(
        &mut self,
        tick: &mut Tick<'_>,
        context: &mut Context,
        processes: &mut Processes,
    ) {
        if context.slow {
            self.discover(context, processes);
        }
        put_job(tick, &self.job.read(&mut context.buffer, context.slow));
        for (name, step) in &mut self.steps {
            step.collect(tick, context, processes, name, self.units);
        }
        let memory = self.steps.values().all(|step| step.group.has_memory());
        match memory {
            true => context.absent.clear("step_memory"),
            false => context.absent.say("step_memory", "no_controller"),
        }
    }

    fn discover(&mut self, context: &mut Context, processes: &mut Processes) {
        let mut names = self.place.steps();
        if names.len() > STEPS_MAX {
            context.absent.say("steps", "too_many");
            names.retain(|name| *name == self.place.own_step || self.steps.contains_key(name));
        } else {
            context.absent.clear("steps");
        }
        self.steps.retain(|name, _| names.contains(name));
        for name in names {
            self.steps.entry(name).or_insert_with_key(|name| Step {
                role: role(name, &self.place.own_step),
                group: Group::of_step(&self.place, name),
                crowd: Crowd::default(),
                processes: None,
            });
        }
        for (name, step) in &mut self.steps {
            let pids = self.place.processes(name, &mut context.buffer);
            step.processes = pids.as_ref().map(|pids| pids.len() as u64);
            if *name == self.place.own_step {
                self.own.clone_from(&pids);
            }
            if step.needs_processes() {
                step.crowd.set(pids.unwrap_or_default(), processes, &mut context.buffer);
            }
        }
    }

    /// Processes of the agent's own step, among which the services are.
    pub(super) fn own_processes(&self, context: &mut Context) -> Option<Vec<u32>> {
        if context.slow && self.own.is_some() {
            return self.own.clone(); // Listed a moment ago.
        }
        self.place.processes(&self.place.own_step, &mut context.buffer)
    }
}

/// What a step is for. The agent and its services share one step; the job script has its own;
/// any other step was started from it.
pub(super) fn role(step: &str, own_step: &str) -> &'static str {
    match step {
        _ if step == own_step => "service",
        "batch" | "interactive" => "script",
        "extern" => "extern",
        _ => "client",
    }
}

fn put_job(tick: &mut Tick<'_>, values: &Values) {
    for (mode, seconds) in
        [("user", values.cpu_user_seconds), ("system", values.cpu_system_seconds)]
    {
        if let Some(seconds) = seconds {
            tick.put(&metric::JOB_CPU, &[("mode", mode)], seconds);
        }
    }
    for (kind, bytes) in memory_kinds(values) {
        tick.put_u64(&metric::JOB_MEMORY, &[("kind", kind)], bytes);
    }
    if let Some(bytes) = values.memory_peak {
        tick.put_u64(&metric::JOB_MEMORY_PEAK, &[], bytes);
    }
}

fn memory_kinds(values: &Values) -> impl Iterator<Item = (&'static str, u64)> {
    let kinds = [
        ("current", values.memory_current),
        ("anonymous", values.memory_anonymous),
        ("file", values.memory_file),
        ("limit", values.memory_limit),
    ];
    kinds.into_iter().filter_map(|(kind, bytes)| Some((kind, bytes?)))
}

impl Step {
    /// Whether its processes stand in for a controller that is not there.
    fn needs_processes(&self) -> bool {
        !(self.group.has_cpu() && self.group.has_io())
    }

    fn collect(
        &mut self,
        tick: &mut Tick<'_>,
        context: &mut Context,
        processes: &mut Processes,
        name: &str,
        units: Units,
    ) {
        let values = self.group.read(&mut context.buffer, context.slow);
        let totals = match self.needs_processes() {
            true => self.crowd.measure(processes, &mut context.buffer, false),
            false => None,
        };
        let step = [("step", name), ("role", self.role)];
        let [step_label, role_label] = step;
        // A controller that is there and has no value for once is not stood in for: the two
        // sources are two series, and a reader would count both.
        let (source, cpu) = match self.group.has_cpu() {
            true => ("cgroup", values.cpu_user_seconds.zip(values.cpu_system_seconds)),
            false => (
                "processes",
                totals.map(|sum| (units.seconds(sum.user_ticks), units.seconds(sum.system_ticks))),
            ),
        };
        if let Some((user, system)) = cpu {
            for (mode, seconds) in [("user", user), ("system", system)] {
                let labels = [step_label, role_label, ("source", source), ("mode", mode)];
                tick.put(&metric::STEP_CPU, &labels, seconds);
            }
        }
        let (source, io) = match self.group.has_io() {
            true => ("cgroup", values.io_read.zip(values.io_written)),
            false => ("processes", totals.and_then(|sum| sum.io)),
        };
        if let Some((read, written)) = io {
            for (op, bytes) in [("read", read), ("write", written)] {
                let labels = [step_label, role_label, ("source", source), ("op", op)];
                tick.put_u64(&metric::STEP_IO, &labels, bytes);
            }
        }
        for (kind, bytes) in memory_kinds(&values) {
            tick.put_u64(&metric::STEP_MEMORY, &[step_label, role_label, ("kind", kind)], bytes);
        }
        for ((resource, kind), seconds) in PRESSURES.into_iter().zip(values.stalled) {
            if let Some(seconds) = seconds {
                let labels = [step_label, role_label, ("resource", resource), ("kind", kind)];
                tick.put(&metric::STEP_PRESSURE, &labels, seconds);
            }
        }
        for (family, value) in [
            (&metric::STEP_MEMORY_PEAK, values.memory_peak),
            (&metric::STEP_OOM_KILLS, values.oom_kills),
            (&metric::STEP_PROCESSES, self.processes),
            (&metric::STEP_THREADS, values.threads),
        ] {
            if let Some(value) = value {
                tick.put_u64(family, &step, value);
            }
        }
    }
}
