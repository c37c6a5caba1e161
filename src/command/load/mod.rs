//! `aifb load`: every load of the recipe, every point, every repeat, one step each.

mod place;
mod progress;
mod summary;
mod tasks;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::PathBuf,
    process,
    time::{Duration, Instant},
};

use aifb_schema::{
    names::exit,
    recipe::{Load, Recipe, Resolved, SweepOrder},
    result::LoadResult,
    run::RunRecord,
};
use aifb_stats::search::{GOES_ON, outcome};

pub(crate) use place::own_component;
use progress::Progress;
use tasks::Tasks;

use super::{env, wait};
use crate::{
    agent_client::AgentClient,
    cli::LoadArgs,
    error::{CommandError, Result},
    observe::view,
    output, programs, shell,
    signals::Interrupts,
    slurm::srun::Step,
    store::{self, RunFolder},
};

/// Longest time for services that are not healthy yet: the most that a recipe's deadline can be
/// prolonged to by default.
const HEALTHY_DEADLINE: Duration = Duration::from_secs(3600);

/// What is to be run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Loads by name; empty for all.
    pub(crate) names: Vec<String>,
    /// Only this point.
    pub(crate) point: Option<u32>,
    /// Only this repeat.
    pub(crate) repeat: Option<u32>,
    /// One JSON document for each repeat instead of text.
    pub(crate) json: bool,
    /// Nothing on standard output.
    pub(crate) quiet: bool,
}

/// One repeat of one load at one point.
#[derive(Debug)]
struct Unit {
    load: Load,
    point: u32,
    repeat: u32,
}

pub(super) fn run(args: &LoadArgs) -> Result<i32> {
    let run = store::of_this_job()?;
    let request = Request {
        names: args.names.clone(),
        point: args.point,
        repeat: args.repeat,
        json: args.json,
        quiet: false,
    };
    if args.dry_run {
        let plan = Plan::new(&run, &request)?;
        for unit in &plan.units {
            for words in plan.tasks(unit)?.shown() {
                output::out(shell::line(&words));
            }
        }
        return Ok(0);
    }
    drive(&run, &request, &Interrupts::note()?)
}

/// Runs the requested loads one after the other.
///
/// # Errors
/// If the run has no healthy services, a load cannot be placed, or an interrupt came.
pub(crate) fn drive(run: &RunFolder, request: &Request, interrupts: &Interrupts) -> Result<i32> {
    wait::wait_until_healthy(run, Instant::now() + HEALTHY_DEADLINE)?;
    let plan = Plan::new(run, request)?;
    let client = AgentClient::of(run).ok();
    let mut worst = exit::OK;
    for unit in &plan.units {
        let code = match unit.load.search {
            Some(_) => plan.search(unit, client.as_ref(), request, interrupts)?,
            None => plan.run(unit, client.as_ref(), request, interrupts)?,
        };
        worst = more_severe(worst, code);
        if !goes_on(code) {
            break;
        }
    }
    Ok(worst)
}

/// Whether the next repeat makes sense: a lost client, a missed SLO or a doubt leaves the service
/// as it was; anything else would fail it too.
fn goes_on(code: i32) -> bool {
    matches!(code, exit::OK | exit::CHECK_FAILED | exit::INCOMPLETE | exit::UNBELIEVABLE)
}

/// The code that says more: a failure of a part before a doubt, a doubt before nothing.
fn more_severe(a: i32, b: i32) -> i32 {
    let rank = |code: i32| match code {
        exit::OK => 0,
        exit::CHECK_FAILED => 1,
        exit::UNBELIEVABLE => 2,
        exit::INCOMPLETE => 3,
        _ => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// Everything that repeats share.
struct Plan<'a> {
    run: &'a RunFolder,
    record: RunRecord,
    recipe: Recipe,
    loadgen: PathBuf,
    service_nodes: BTreeSet<String>,
    variables: std::collections::BTreeMap<String, String>,
    units: Vec<Unit>,
}

impl<'a> Plan<'a> {
    fn new(run: &'a RunFolder, request: &Request) -> Result<Self> {
        let resolved = run.resolved()?;
        let units = units(run, &resolved, request)?;
        let recipe = resolved.into_recipe();
        let own = |name: &str| {
            recipe.services.iter().any(|s| s.name.as_str() == name && !s.is_external())
        };
        let service_nodes = run
            .files()
            .endpoints()
            .into_iter()
            .filter(|endpoint| own(&endpoint.service))
            .map(|endpoint| endpoint.node)
            .collect();
        Ok(Self {
            run,
            record: run.record()?,
            loadgen: programs::find(programs::LOADGEN)?,
            service_nodes,
            variables: env::of_run(run)?,
            recipe,
            units,
        })
    }

    fn tasks(&self, unit: &Unit) -> Result<Tasks> {
        let Unit { load, point, repeat } = unit;
        let mut command: Vec<OsString> = vec![self.loadgen.clone().into()];
        for (option, value) in [
            ("--load", load.name.to_string()),
            ("--point", point.to_string()),
            ("--repeat", repeat.to_string()),
        ] {
            command.extend([option.into(), value.into()]);
        }
        let Some(job) = self.record.job.id else {
            let step = format!("{}.{point}.{repeat}", process::id());
            return Ok(Tasks::Local { clients: load.clients, step, command });
        };
        let component = own_component(&self.recipe, load);
        let components = &self.record.job.components;
        let segments = place::place(load, component, components, &self.service_nodes)
            .map_err(|cause| CommandError::usage(format!("placing load '{}'", load.name), cause))?;
        if segments.len() > 1 {
            // The tasks of a component know only how many there are in it.
            command.extend(["--workers".into(), load.clients.to_string().into()]);
        }
        Ok(Tasks::Step(Step { job, name: format!("aifb-{}", load.name), segments, command }))
    }

    fn run(
        &self,
        unit: &Unit,
        client: Option<&AgentClient>,
        request: &Request,
        interrupts: &Interrupts,
    ) -> Result<i32> {
        let Unit { load, point, repeat } = unit;
        let tasks = self.tasks(unit)?;
        let mut progress = Progress::new(client, load, *point, *repeat);
        let ended = tasks.run(&self.variables, interrupts, || progress.tick());
        progress.clear();
        let code = ended?;
        let name = view::load_name(load.name.as_str(), *point, *repeat);
        let Ok(result) = self.run.files().repeat(load.name.as_str(), *point, *repeat).result()
        else {
            let code = without_result(code, self.record.job.id.is_some());
            self.explain(&name, code);
            return Ok(code);
        };
        if request.json {
            output::out_json_line(&result);
        } else if !request.quiet {
            for line in summary::lines(&result) {
                output::out(line);
            }
        }
        // A task that died of a signal is in the result as lost.
        Ok(if code > 128 || (code == exit::OK && !result.complete) {
            exit::INCOMPLETE
        } else {
            code
        })
    }

    /// Runs the probes of a search, each as the step that the results before it ask for.
    fn search(
        &self,
        unit: &Unit,
        client: Option<&AgentClient>,
        request: &Request,
        interrupts: &Interrupts,
    ) -> Result<i32> {
        let Unit { load, point, .. } = unit;
        let found = |next: u32| {
            let probes: Vec<LoadResult> = (0..next)
                .filter_map(|repeat| {
                    self.run.files().repeat(load.name.as_str(), *point, repeat).result().ok()
                })
                .collect();
            outcome(load, *point, &probes.iter().collect::<Vec<_>>())
        };
        let mut worst = exit::OK;
        let mut repeat = unit.repeat;
        let mut started = 0;
        loop {
            let so_far = found(repeat);
            let over = so_far.as_ref().is_none_or(|found| found.reason != GOES_ON);
            if over || started >= load.search.as_ref().map_or(0, |search| search.probes) {
                let Some(found) = so_far else { return Ok(worst) };
                if request.json {
                    output::out_json_line(&found);
                } else if !request.quiet {
                    summary::search_lines(&found).into_iter().for_each(output::out);
                }
                let none = if found.capacity.is_none() { exit::CHECK_FAILED } else { exit::OK };
                return Ok(more_severe(worst, none));
            }
            let probe = Unit { load: load.clone(), point: *point, repeat };
            let code = self.run(&probe, client, request, interrupts)?;
            worst = more_severe(worst, code);
            if !goes_on(code) {
                return Ok(worst);
            }
            started += 1;
            repeat = repeat.saturating_add(1);
        }
    }

    /// Why there is no result: what the run says, else that there is none.
    fn explain(&self, name: &str, code: i32) {
        let failure = self.run.record().ok().and_then(|record| record.failure);
        let error = match failure {
            Some(failure) => CommandError::of_run(&self.record.run_id, &failure),
            None => CommandError::new(
                code,
                format!("running load '{name}'"),
                "its clients ended without a result",
            )
            .hint("aifb logs show --agent, and the messages above"),
        };
        output::note(error);
    }
}

/// The code of clients that wrote no result: srun's own failure is 1.
fn without_result(code: i32, slurm: bool) -> i32 {
    match code {
        exit::CHECK_FAILED if slurm => exit::SLURM,
        exit::OK | exit::CHECK_FAILED => exit::INCOMPLETE,
        code if code > 128 => exit::INCOMPLETE,
        code => code,
    }
}

/// What the request means: points outside, then loads, then repeats.
fn units(run: &RunFolder, resolved: &Resolved, request: &Request) -> Result<Vec<Unit>> {
    let recipe = resolved.recipe();
    if recipe.load.is_empty() {
        return Err(CommandError::usage("running the loads", "the recipe has none")
            .hint("add a load section, or drive the service yourself: SERVICE_URL is set"));
    }
    for name in &request.names {
        if !recipe.load.iter().any(|load| load.name.as_str() == name) {
            let known: Vec<&str> = recipe.load.iter().map(|load| load.name.as_str()).collect();
            return Err(CommandError::usage(
                format!("running load '{name}'"),
                "the recipe has none of that name",
            )
            .hint(format!("loads: {}", known.join(", "))));
        }
    }
    let points = resolved.points_count();
    if let Some(point) = request.point
        && usize::try_from(point).map_or(true, |point| point >= points)
    {
        return Err(CommandError::usage(
            format!("running point '{point}'"),
            format!("the sweep has {points} points, counted from 0"),
        ));
    }
    let mut units = Vec::new();
    for (number, index) in (0..).zip(0..points) {
        if request.point.is_some_and(|wanted| wanted != number) {
            continue;
        }
        let point = resolved
            .point(index)
            .map_err(|cause| CommandError::usage("reading the sweep", cause))?;
        for load in point.recipe.load {
            let name = load.name.to_string();
            if !request.names.is_empty() && !request.names.contains(&name) {
                continue;
            }
            let first = run.files().next_repeat(&name, number);
            let repeats = match request.repeat {
                Some(repeat) => repeat..repeat.saturating_add(1),
                // Its probes are decided one after the other.
                None if load.search.is_some() => first..first.saturating_add(1),
                None => first..first.saturating_add(load.repeat),
            };
            units.extend(repeats.map(|repeat| Unit { load: load.clone(), point: number, repeat }));
        }
    }
    let order = recipe.sweep.as_ref().map(|sweep| sweep.order).unwrap_or_default();
    put_in_order(&mut units, order);
    Ok(units)
}

/// Brings the repeats, given point after point, into the order that the sweep asks for.
fn put_in_order(units: &mut [Unit], order: SweepOrder) {
    match order {
        SweepOrder::Listed => {}
        // The sort is stable: within a round the points keep their order.
        SweepOrder::Alternating => units.sort_by_key(|unit| unit.repeat),
        SweepOrder::Shuffled => units.sort_by_cached_key(|unit| {
            let numbers = [unit.load.seed, u64::from(unit.point), u64::from(unit.repeat)];
            numbers.into_iter().fold(0, |sum, number| scattered(sum ^ number))
        }),
    }
}

/// One step of SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014): numbers next to each other end far apart.
fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_run_in_the_order_that_is_asked_for() {
        let text = "aifb: 1\nname: x\nservices: [{name: s, kind: external, url: 'http://h:1'}]\nload:\n  \
             - {name: a, driver: http, seed: 7, arrival: {rate: 1/s}, phases: {measure: 1s}}\n";
        let load = aifb_schema::recipe::parse(text, &[]).unwrap().load.remove(0);
        let ordered = |order: SweepOrder| {
            let mut units: Vec<Unit> = (0..4)
                .flat_map(|point| (0..3).map(move |repeat| (point, repeat)))
                .map(|(point, repeat)| Unit { load: load.clone(), point, repeat })
                .collect();
            put_in_order(&mut units, order);
            units.iter().map(|unit| (unit.point, unit.repeat)).collect::<Vec<_>>()
        };
        let listed = ordered(SweepOrder::Listed);
        assert_eq!(listed[..4], [(0, 0), (0, 1), (0, 2), (1, 0)]);
        assert_eq!(ordered(SweepOrder::Alternating)[..5], [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]);
        let mut shuffled = ordered(SweepOrder::Shuffled);
        assert_eq!(shuffled, ordered(SweepOrder::Shuffled), "the seed decides");
        assert!(shuffled != listed && shuffled != ordered(SweepOrder::Alternating));
        shuffled.sort_unstable();
        assert_eq!(shuffled, listed, "nothing is lost");
    }

    #[test]
    fn codes_of_clients_say_who_failed() {
        for (code, slurm, expected) in
            [(1, true, 3), (1, false, 5), (0, true, 5), (4, true, 4), (137, true, 5), (2, false, 2)]
        {
            assert_eq!(without_result(code, slurm), expected, "{code} {slurm}");
        }
        assert_eq!(more_severe(1, 6), 6);
        assert_eq!(more_severe(6, 5), 5);
        assert_eq!(more_severe(4, 5), 4);
    }
}
