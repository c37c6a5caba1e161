//! `aifb-loadgen`: puts load on a service and measures it from the intended send times.
//!
//! cli (options) → session (one worker, standalone or led by the coordinator) → plan (pure: when
//! something is sent) → workload (what each request asks) → drive (one loop) → driver (one per
//! protocol, named in `registry`) → wire (HTTP and sockets) → record (one row per request) → merge
//! (the result). `job` is the task of a worker, `fault` why a request failed, `error` why the
//! program ends. `mock` is the server with a known truth.

mod cli;
mod clock;
mod drive;
mod driver;
mod error;
mod fault;
#[doc(hidden)]
pub mod fuzz;
mod job;
mod merge;
mod mock;
mod plan;
mod record;
mod registry;
mod session;
mod sys;
mod wire;
mod workload;

use std::{io::Write, process::ExitCode};

use aifb_schema::names::exit;
use clap::Parser;
use cli::{Cli, Command};
use error::Fatal;
use session::in_run;

/// The whole program: reads the command line, runs it, gives the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = dispatch(&cli).unwrap_or_else(|fatal| {
        // If standard error is closed, the message is lost.
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
        (Some(Command::Run(options)), _) => session::standalone::run(options),
        (Some(Command::Mock(options)), _) => mock::serve(options),
        (Some(Command::Merge), _) => merge::rebuild::run(),
        (None, Some(load)) => {
            let Cli { point, repeat, workers, .. } = *cli;
            let wanted = in_run::Wanted { load, point, repeat, workers, lead: cli.lead.get() };
            in_run::run(&wanted, cli.strict)
        }
        (None, None) => Err(Fatal::usage("neither --load nor a command was given")
            .hint("inside a run: aifb-loadgen --load NAME; without one: aifb-loadgen run --help")),
    }
}
