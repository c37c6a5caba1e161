//! `launch`: makes the run folder, starts the agents, tells the caller when the services are
//! healthy, and stays the parent of what it started.
//!
//! Slurm kills the launcher without notice when the job's script ends, so it owns nothing that
//! must be finished.

mod agents;
mod check;
mod coordinator;
mod environment;
mod folder;
mod follow;
mod hostlist;
mod job;
mod limits;
mod local;
mod srun;
mod status;
mod time_limit;
mod unfinished;

use std::{collections::BTreeMap, path::Path};

use aifb_schema::{
    control::{AgentStart, LINE_MAX, ProcessId},
    names::{PROTOCOL, VERSION, env},
    recipe::{self, Recipe, Resolved},
    run::{Failure, Owner, RunRecord, State},
    snapshot::{Snapshot, Wait, hex},
};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use rand::TryRng;

use crate::{clock, presets};
use agents::Agents;
use environment::Environment;
use folder::{Content, RunFolder};
use job::Allocation;
pub(crate) use job::local_run_id;
use status::Status;

/// Arguments of `launch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Job id, if the environment does not have it.
    #[arg(long, value_name = "N")]
    jobid: Option<u32>,
    /// Start one agent on this machine, without Slurm.
    #[arg(long, conflicts_with = "jobid")]
    local: bool,
}

/// A run on its way.
struct Launch {
    status: Status,
    folder: RunFolder,
    record: RunRecord,
    wait: Wait,
    local: bool,
    token: String,
    /// The job's script, where it runs on this node.
    script: Option<ProcessId>,
    /// What may be left to be done for agents that were killed.
    unfinished: unfinished::Unfinished,
}

/// Runs the command; its exit code.
pub(crate) fn main(arguments: &Arguments) -> i32 {
    let mut status = Status::take();
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let signals: SigSet = signals.into_iter().collect();
    let _cannot_fail = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None);
    if !arguments.local {
        // Away from the script's process group, so that its `kill 0` does not reach the launcher;
        // the plugin has done so already.
        let _leader_already = nix::unistd::setsid();
    }
    match prepare(arguments) {
        Err(failure) => {
            status.failed(&failure, None);
            failure.exit_code
        }
        Ok(Prepared {
            folder,
            record,
            resolved,
            allocation,
            snapshot,
            environment,
            token,
            refused,
        }) => {
            let local = arguments.local;
            let wait = wait_mode(&snapshot, &environment);
            let script = if local { None } else { job::script(&environment) };
            let unfinished = unfinished::Unfinished::default();
            let mut launch =
                Launch { status, folder, record, wait, local, token, script, unfinished };
            let started = match refused {
                Some(failure) => Err(failure),
                None => launch.start(&resolved, &allocation, &environment, signals),
            };
            match started {
                Ok(agents) => launch.follow(agents),
                Err(failure) => launch.give_up(failure),
            }
        }
    }
}

/// All that is known before anything is started.
struct Prepared {
    folder: RunFolder,
    record: RunRecord,
    resolved: Resolved,
    allocation: Allocation,
    snapshot: Snapshot,
    environment: Environment,
    token: String,
    /// Why nothing may be started, where that is so: recorded in the run folder.
    refused: Option<Failure>,
}

fn prepare(arguments: &Arguments) -> Result<Prepared, Failure> {
    let environment = environment::own();
    let mut warnings = if arguments.local { Vec::new() } else { limits::apply(&environment) };
    let mut snapshot = decode(&environment)?;
    let mut resolved = resolve(&snapshot, &environment)?;
    let mut allocation = if arguments.local {
        Allocation::local()?
    } else {
        Allocation::of_slurm(&environment, arguments.jobid)?
    };
    if let (Some(id), None) = (allocation.job.id, allocation.job.end_time_epoch_s) {
        allocation.job.end_time_epoch_s = time_limit::ask(id);
    }
    let shortest = environment.get(env::MIN_SAMPLE).map(String::as_str);
    if let Some((sample, warning)) = check::sampling(resolved.recipe(), shortest) {
        let failed =
            |cause: String| Failure::new(Owner::Node, "launcher", format!("min_sample: {cause}"));
        resolved.set("monitor.sample", sample.to_string().into()).map_err(failed)?;
        snapshot.sets.push(format!("monitor.sample={sample}"));
        warnings.push(warning);
    }
    let recipe = resolved.recipe();
    warnings.extend(check::differences(recipe, &environment));
    let refused =
        plugin_matches(&environment).and_then(|()| check::placement(recipe, &allocation)).err();
    let token = token()?;
    let run_id = allocation.run_id();
    let root = allocation.runs_root(&snapshot, &environment);
    let content = Content { recipe: &snapshot.recipe, resolved: &resolved, token: &token };
    let folder = RunFolder::create(&root, &run_id, &content)?;
    let mode = match (arguments.local, environment.contains_key(env::PLUGIN)) {
        (true, _) => "local",
        (false, true) => "plugin",
        (false, false) => "wrapper",
    };
    let record = RunRecord {
        protocol: PROTOCOL,
        version: VERSION.to_owned(),
        run_id,
        name: recipe.name.to_string(),
        mode: mode.to_owned(),
        uid: nix::unistd::geteuid().as_raw(),
        state: State::Launching,
        recipe_path: snapshot.recipe_path.clone(),
        recipe_sha256: snapshot.sha256.clone(),
        sets: snapshot.sets.clone(),
        job: allocation.job.clone(),
        submit_dir: allocation.submit_dir.to_string_lossy().into_owned(),
        started_epoch_ns: clock::epoch_ns(),
        healthy_epoch_ns: None,
        failure: None,
        ended: None,
        warnings,
        slurm: None,
    };
    Ok(Prepared { folder, record, resolved, allocation, snapshot, environment, token, refused })
}

fn wait_mode(snapshot: &Snapshot, environment: &Environment) -> Wait {
    match environment.get(env::WAIT).map(String::as_str) {
        Some("none") => Wait::None,
        Some("healthy") => Wait::Healthy,
        _ => snapshot.wait,
    }
}

/// The snapshot is the user's to forge: nothing in it is believed.
fn decode(environment: &Environment) -> Result<Snapshot, Failure> {
    let wrong = |cause: &str| {
        Failure::new(Owner::Recipe, "launcher", format!("reading {}: {cause}", env::SNAPSHOT))
            .with_hint("submit again, or create it with `aifb-agent prepare`")
    };
    let line = environment.get(env::SNAPSHOT).ok_or_else(|| wrong("it is not set"))?;
    Snapshot::decode(line).map_err(|error| wrong(&error.to_string()))
}

/// The second look at a recipe: what is in the snapshot may never have been checked.
fn resolve(snapshot: &Snapshot, environment: &Environment) -> Result<Resolved, Failure> {
    let folder = environment.get(env::PRESETS).map(Path::new);
    let presets =
        presets::known(folder).map_err(|text| Failure::new(Owner::Recipe, "launcher", text))?;
    recipe::resolve(&snapshot.recipe, &snapshot.sets, &presets).map_err(|diagnostics| {
        let path: String = snapshot.recipe_path.escape_debug().take(4096).collect();
        let lines: Vec<String> =
            diagnostics.iter().map(|diagnostic| diagnostic.render(&path)).collect();
        Failure::new(
            Owner::Recipe,
            "launcher",
            format!("the recipe of this job is invalid:\n{}", lines.join("\n")),
        )
    })
}

/// A plugin of another major version would misunderstand what the launcher says.
fn plugin_matches(environment: &Environment) -> Result<(), Failure> {
    let Some(line) = environment.get(env::PLUGIN) else { return Ok(()) };
    let ours = format!("(protocol {PROTOCOL})");
    if line.contains(&ours) {
        return Ok(());
    }
    let line: String = line.escape_debug().take(200).collect();
    Err(Failure::new(Owner::Slurm, "launcher", format!("the plugin is '{line}', this is {ours}"))
        .with_hint("plugin and programs must have the same version; tell the administrators"))
}

/// 64 hexadecimal digits from the system's generator.
fn token() -> Result<String, Failure> {
    let mut bytes = [0_u8; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
        Failure::new(Owner::Node, "launcher", format!("making the run's token: {error}"))
    })?;
    Ok(hex(&bytes))
}

impl Launch {
    /// Writes the first records and starts the agents.
    fn start(
        &mut self,
        resolved: &Resolved,
        allocation: &Allocation,
        environment: &Environment,
        signals: SigSet,
    ) -> Result<Agents, Failure> {
        let program = std::env::current_exe().map_err(|error| {
            Failure::new(Owner::Node, "launcher", format!("finding this program: {error}"))
        })?;
        let bin = program.parent().unwrap_or_else(|| Path::new("/")).to_string_lossy().into_owned();
        let recipe = resolved.recipe();
        self.write_first_records(recipe)?;
        self.tell_caller(environment, &bin);
        let agent_start = AgentStart {
            protocol: PROTOCOL,
            token: self.token.clone(),
            recipe: resolved.to_value().map_err(|error| {
                Failure::new(Owner::Recipe, "launcher", format!("packing the recipe: {error}"))
            })?,
            run_dir: self.folder.text().to_owned(),
            run: self.record.clone(),
            environment: environment::for_services(environment, &bin, self.local),
            bin,
            script: self.script,
        };
        let line = line_of(&agent_start)?;
        self.unfinished = unfinished::Unfinished::new(recipe, agent_start);
        let mut agents = Agents::new(signals);
        let cleaned = environment::for_srun(environment);
        let program = program.to_string_lossy();
        if self.local {
            local::start(&mut agents, &cleaned, &self.folder, &program)?;
        } else {
            srun::start(&mut agents, allocation, &cleaned, &self.folder, &program)?;
        }
        agents.send(&line);
        Ok(agents)
    }

    fn write_first_records(&self, recipe: &Recipe) -> Result<(), Failure> {
        let record = &self.record;
        let node = record.job.components.first().and_then(|nodes| nodes.first());
        let node = node.map_or("", String::as_str);
        let state = format!("run {} of recipe {}", record.run_id, recipe.name);
        self.folder
            .write_record(record)
            .and_then(|()| self.folder.event(node, "state", State::Launching.as_str(), &state))
            .and_then(|()| {
                record
                    .warnings
                    .iter()
                    .try_for_each(|warning| self.folder.event(node, "warning", "launcher", warning))
            })
            .map_err(|error| {
                let text = format!("writing into '{}': {error}", self.folder.text());
                Failure::new(Owner::Node, "launcher", text)
            })
    }

    /// The variables that are known before the services are.
    fn tell_caller(&mut self, environment: &Environment, bin: &str) {
        let job =
            self.record.job.id.map_or_else(|| self.record.run_id.clone(), |id| id.to_string());
        let path = environment.get("PATH").map_or("/usr/bin:/bin", String::as_str);
        let path = match path.split(':').next() {
            Some(first) if first == bin => path.to_owned(),
            _ => format!("{bin}:{path}"),
        };
        for (name, value) in [
            (env::RUN_ID, self.record.run_id.as_str()),
            (env::RUN_DIR, self.folder.text()),
            (env::JOB_ID, job.as_str()),
            (env::BIN, bin),
            ("PATH", path.as_str()),
        ] {
            self.status.variable(name, value);
        }
        if self.wait == Wait::None {
            self.status.ready();
        }
    }

    /// Ends a run that has no coordinator.
    fn give_up(&mut self, failure: Failure) -> i32 {
        let code = failure.exit_code;
        self.status.failed(&failure, Some(self.folder.text()));
        self.close(State::Failed, Some(failure), None);
        code
    }

    /// Writes the final state in the coordinator's place.
    fn close(&mut self, state: State, failure: Option<Failure>, signal: Option<&str>) {
        let mut record = self.folder.read_record().unwrap_or_else(|| self.record.clone());
        if record.state.is_final() {
            return;
        }
        let message = failure.as_ref().map_or_else(
            || "ended before the agents were up".to_owned(),
            |failure| failure.render(),
        );
        record.state = state;
        record.failure = record.failure.or(failure);
        record.ended = Some(aifb_schema::run::Ended {
            signal: signal.map(str::to_owned),
            epoch_ns: clock::epoch_ns(),
            seconds_to_limit: None,
        });
        let written = self
            .folder
            .event("", "state", state.as_str(), &message)
            .and_then(|()| self.folder.write_record(&record));
        if let Err(error) = written {
            self.status.say(&format!("writing into '{}': {error}", self.folder.text()));
        }
        self.record = record;
    }

    /// Variables of the services, from the coordinator.
    fn pass_on(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment {
            self.status.variable(name, value);
        }
        self.status.ready();
    }
}

/// A message as a line.
fn line_of(message: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    let failed = |cause: String| {
        Failure::new(Owner::Slurm, "launcher", format!("packing the agents' orders: {cause}"))
    };
    let mut line = serde_json::to_vec(message).map_err(|error| failed(error.to_string()))?;
    line.push(b'\n');
    if line.len() > LINE_MAX {
        return Err(failed(format!("{} bytes, at most {LINE_MAX}", line.len()))
            .with_hint("the job's environment is too large; submit with a smaller one"));
    }
    Ok(line)
}
