//! The verbs, one module each. Every one returns the exit code.

mod completions;
mod doctor;
mod drivers;
mod env;
mod list;
mod load;
mod logs;
mod man;
mod metrics;
mod recipe;
mod report;
mod run;
mod services;
mod status;
mod stop;
mod up;
mod validate;
mod wait;
mod watch;

use crate::{cli::Command, error::Result};

/// Runs the verb.
pub(crate) fn run(command: Command) -> Result<i32> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Wait(args) => wait::run(&args),
        Command::Load(args) => load::run(&args),
        Command::List(args) => list::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Logs(command) => logs::run(&command),
        Command::Report(args) => report::run(&args),
        Command::Metrics(args) => metrics::run(&args),
        Command::Recipe(command) => recipe::run(&command),
        Command::Drivers(args) => drivers::run(&args),
        Command::Services(args) => services::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Env(args) => env::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
