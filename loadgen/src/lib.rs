//! `aifb-loadgen`: puts load on a service and measures it from the intended send times.
//!
//! plan (pure) → drive (one loop) → driver (one per protocol) → record (one row per request) →
//! merge (the result). Inside a run the tasks of one srun step are one load, led by the
//! coordinator through the agent of each node (`session`); alone it is `run` (`standalone`);
//! `mock` is the server with a known truth.

mod again;
mod cli;
mod cli_model;
mod cli_workload;
mod clock;
mod drive;
mod driver;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod join;
mod limits;
mod merge;
mod mock;
mod pacer;
mod plan;
mod progress;
mod record;
mod resolve;
mod search;
mod session;
mod standalone;
mod summary;
mod sys;
mod watch;
mod wire;
mod worker;
mod workload;

use std::{io::Write, process::ExitCode};

use aifb_schema::names::exit;
use clap::Parser;
use cli::{Cli, Command};
use error::Fatal;

/// The whole program: reads the command line, runs it, gives the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = dispatch(&cli).unwrap_or_else(|fatal| {
        // Nothing is left to be told to when standard error is closed.
        let _ignored = writeln!(std::io::stderr(), "{fatal}");
        fatal.0.exit_code
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn dispatch(cli: &Cli) -> Result<i32, Fatal> {
    if cli.version {
        let line = aifb_schema::version_line("aifb-loadgen");
        return match writeln!(std::io::stdout(), "{line}") {
            Ok(()) => Ok(exit::OK),
            Err(error) => Err(Fatal::usage(format!("writing to standard output: {error}"))),
        };
    }
    match (&cli.command, &cli.load) {
        (Some(Command::Run(options)), _) => standalone::run(options),
        (Some(Command::Mock(options)), _) => mock::serve(options),
        (Some(Command::Merge), _) => again::run(),
        (None, Some(load)) => {
            let Cli { point, repeat, workers, .. } = *cli;
            let wanted = session::Wanted { load, point, repeat, workers, lead: cli.lead.get() };
            session::run(&wanted, cli.strict)
        }
        (None, None) => Err(Fatal::usage("neither --load nor a command was given")
            .hint("inside a run: aifb-loadgen --load NAME; without one: aifb-loadgen run --help")),
    }
}
