//! `aifb run --local`: the whole pipeline on this machine, without Slurm.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::Duration,
};

use aifb_schema::names::{env, exit};
use serde_json::json;

use crate::{
    agent_client::AgentClient,
    cli::RunArgs,
    command::load,
    error::{CommandError, Result},
    launch::{self, Launch},
    output,
    programs::Prepared,
    shell,
    signals::Interrupts,
    slurm::{is_slurm_variable, runner::shell_code},
    store::RunFolder,
};

/// Longest time until the services are healthy: beyond the longest deadline of a recipe, which
/// the agent keeps.
const HEALTHY_DEADLINE: Duration = Duration::from_secs(100 * 24 * 3600);

/// Pause between two looks at a script.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn run(args: &RunArgs, prepared: &Prepared) -> Result<i32> {
    if args.dry_run {
        return dry_run(args, prepared);
    }
    let interrupts = Interrupts::note()?;
    let launch = Launch { snapshot: &prepared.line, local: true, timeout: HEALTHY_DEADLINE };
    let interrupted = || {
        interrupts
            .code()
            .map(|code| CommandError::new(code, "starting the services", "interrupted"))
    };
    let mut launched = launch.start(interrupted)?;
    let folder = launched.environment.get(env::RUN_DIR).map(PathBuf::from).unwrap_or_default();
    let run = RunFolder::open(&folder)?;
    if !args.json {
        output::note(format!("aifb: run folder {}", run.path().display()));
    }
    let driven = if args.script.is_empty() {
        drive(args, prepared, &run, &interrupts)
    } else {
        script(args, &launched.environment, &interrupts)
    };
    finish(&run, &mut launched.child, &interrupts);
    let code = result_code(&run, driven);
    if args.json {
        let record = run.record()?;
        output::out_json(&json!({
            "ok": code == 0,
            "run_id": record.run_id,
            "run_dir": run.path(),
            "state": record.state,
            "failure": record.failure,
            "exit_code": code,
        }));
    } else {
        super::report(run.path());
        output::out(format!("run folder: {}", run.path().display()));
    }
    Ok(code)
}

fn dry_run(args: &RunArgs, prepared: &Prepared) -> Result<i32> {
    let agent = crate::programs::find(crate::programs::AGENT)?;
    let words = [agent.as_os_str(), "launch".as_ref(), "--local".as_ref()];
    if args.json {
        output::out_json(
            &json!({"argv": words.map(|word| word.to_string_lossy()), "snapshot": prepared.line}),
        );
    } else {
        output::out(format!("{}={} {}", env::SNAPSHOT, prepared.line, shell::line(&words)));
    }
    Ok(0)
}

/// Every load of the recipe; without one, only the services are started.
fn drive(
    args: &RunArgs,
    prepared: &Prepared,
    run: &RunFolder,
    interrupts: &Interrupts,
) -> Result<i32> {
    if prepared.resolved.recipe().load.is_empty() {
        output::note("aifb: the recipe has no load: the services were started and are now stopped");
        return Ok(0);
    }
    // Lines of single repeats would stand in the way of one JSON document.
    let request = load::Request { quiet: args.json, ..load::Request::default() };
    load::drive(run, &request, interrupts)
}

/// The user's own script, with the run's variables.
fn script(
    args: &RunArgs,
    environment: &BTreeMap<String, String>,
    interrupts: &Interrupts,
) -> Result<i32> {
    let Some((program, rest)) = args.script.split_first() else { return Ok(0) };
    let shown = Path::new(program).display().to_string();
    let mut command = Command::new(program);
    command.args(rest);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_slurm_variable) {
            command.env_remove(&name);
        }
    }
    command.envs(environment);
    let doing = || format!("running '{shown}'");
    let mut child = command.spawn().map_err(|error| CommandError::usage(doing(), error))?;
    loop {
        let ended = child.try_wait().map_err(|error| CommandError::usage(doing(), error))?;
        if let Some(status) = ended {
            return Ok(shell_code(status));
        }
        if let Some(code) = interrupts.code() {
            end_script(&mut child);
            return Err(CommandError::new(code, doing(), "interrupted"));
        }
        thread::sleep(LOOK);
    }
}

/// A terminal has sent it the interrupt, too; SIGTERM was ours alone.
fn end_script(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
    drop(child.wait());
}

/// Ends the run. SIGTERM to the launcher is what a job's agents get when its script has ended; an
/// interrupt is passed on as one, and SIGTERM to ourselves is a wish to stop.
fn finish(run: &RunFolder, launcher: &mut Child, interrupts: &Interrupts) {
    let code = interrupts.code();
    let asked = code == Some(exit::TERMINATED)
        && AgentClient::of(run).and_then(|client| client.stop()).is_ok();
    if !asked {
        launch::interrupt(launcher, code.unwrap_or(exit::TERMINATED));
    }
    launch::wait(launcher);
}

/// What failed first: the run, then what drove it.
fn result_code(run: &RunFolder, driven: Result<i32>) -> i32 {
    let recorded = run.record().map_or(exit::INCOMPLETE, |record| record.exit_code());
    match driven {
        Ok(exit::OK) => recorded,
        Ok(code) => code,
        Err(error) => {
            output::note(&error);
            error.code
        }
    }
}
