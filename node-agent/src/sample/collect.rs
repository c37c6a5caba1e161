//! All collectors of a tick, in their order.

use aifb_schema::metric;

use super::{
    Config, Watched,
    agent::Agent,
    background::Background,
    cgroup::Place,
    clock,
    context::{Absent, Context},
    device::{self, Devices},
    gpu::{self, Gpus},
    grid::Grid,
    kernel_file::Buffer,
    node::Node,
    process::Processes,
    service::Services,
    step::Steps,
    table::Tick,
    units::{Units, seconds_of_ns},
};

/// Discovery of steps and processes, and what is dear, happens at most this often: at each tick
/// of one a second, whatever few milliseconds each is late.
const SLOW_NS: u64 = 900_000_000;

/// The collectors.
#[derive(Debug)]
pub(super) struct Collectors {
    node: Node,
    steps: Option<Steps>,
    services: Services,
    agent: Agent,
    processes: Processes,
    devices: Option<Devices>,
    gpus: Option<Gpus>,
    context: Context,
    next_slow_ns: u64,
}

impl Collectors {
    /// Those that are read within the tick.
    pub(super) fn new(config: &Config, watched: Watched) -> Self {
        let units = Units::of_this_machine();
        let mut context = Context { buffer: Buffer::new(), absent: Absent::default(), slow: true };
        let place = Place::find(&config.proc_root, &config.cgroup_root, &mut context.buffer);
        let place = context.absent.note("steps", place).flatten();
        if place.is_none() {
            context.absent.say("steps", "no_step_cgroup");
        }
        Self {
            node: Node::new(&config.proc_root, &config.sys_root, units),
            steps: place.map(|place| Steps::new(place, units)),
            services: Services::new(watched, units),
            agent: Agent::new(&config.proc_root, units),
            processes: Processes::new(config.proc_root.clone()),
            devices: None,
            gpus: None,
            context,
            next_slow_ns: 0,
        }
    }

    /// Adds those that are read on threads of their own.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(super) fn with_background(mut self, config: &Config, grid: Grid) -> anyhow::Result<Self> {
        let (proc_root, sys_root) = (config.proc_root.clone(), config.sys_root.clone());
        let make = move || device::reader(&proc_root, &sys_root);
        self.devices = Some(Devices::new(Background::start("devices", grid, make)?));
        if let Some(library) = &config.nvml {
            let background = gpu::start(library.clone(), grid)?;
            let place = self.steps.as_ref().map(|steps| steps.place().clone());
            self.gpus = Some(Gpus::new(background, config.proc_root.clone(), place));
        }
        Ok(self)
    }

    /// From now on ticks follow this grid.
    pub(super) fn follow(&mut self, grid: Grid) {
        if let Some(devices) = &mut self.devices {
            devices.follow(grid);
        }
        if let Some(gpus) = &mut self.gpus {
            gpus.follow(grid);
        }
    }

    /// The next tick reads everything, whenever it comes: it is the last one.
    pub(super) fn read_all(&mut self) {
        self.next_slow_ns = 0;
    }

    /// Reads everything once.
    pub(super) fn collect(&mut self, tick: &mut Tick<'_>, mono_ns: u64) {
        self.context.slow = mono_ns >= self.next_slow_ns;
        if self.context.slow {
            self.next_slow_ns = mono_ns + SLOW_NS;
        }
        let mut watch = Watch::start();
        self.node.collect(tick, &mut self.context);
        watch.stop(tick, "node");
        self.processes.begin();
        if let Some(steps) = &mut self.steps {
            steps.collect(tick, &mut self.context, &mut self.processes);
            watch.stop(tick, "steps");
        }
        let steps = &self.steps;
        let candidates = |context: &mut Context, all: &Processes| {
            let own = steps.as_ref().and_then(|steps| steps.own_processes(context));
            own.unwrap_or_else(|| all.all())
        };
        let (context, processes) = (&mut self.context, &mut self.processes);
        self.services.collect(tick, context, processes, mono_ns, candidates);
        watch.stop(tick, "services");
        if let Some(devices) = &self.devices {
            devices.collect(tick, &mut self.context, mono_ns);
        }
        if let Some(gpus) = &mut self.gpus {
            gpus.collect(tick, &mut self.context, &self.services, mono_ns);
        }
        self.agent.collect(tick, &mut self.context);
        for (source, reason) in self.context.absent.all() {
            let labels = [("source", *source), ("reason", *reason)];
            tick.put(&metric::AGENT_SOURCE_ABSENT, &labels, 1.0);
        }
    }
}

/// Tells how long each source took.
struct Watch {
    from_ns: u64,
}

impl Watch {
    fn start() -> Self {
        Self { from_ns: clock::mono_ns() }
    }

    /// The time since the last call is that of `source`.
    fn stop(&mut self, tick: &mut Tick<'_>, source: &str) {
        let now_ns = clock::mono_ns();
        let took = seconds_of_ns(now_ns.saturating_sub(self.from_ns));
        tick.put(&metric::AGENT_SOURCE_DURATION, &[("source", source)], took);
        self.from_ns = now_ns;
    }
}
