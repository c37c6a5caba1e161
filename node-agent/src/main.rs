//! The per-node agent of aifb: checks recipes at submission (`prepare`), starts the agents of a
//! job (`launch`), runs as one (`run`), and samples a node standalone (`sample`).

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod clock;
mod disk;
mod event;
mod export;
mod http;
mod launch;
mod logging;
mod prepare;
mod presets;
mod problem;
mod process;
mod recipe_file;
mod run;
pub mod sample;
mod ship;
mod standalone;
mod supervisor;
mod sys;

#[derive(Parser)]
#[command(name = "aifb-agent", about = "Per-node agent of aifb", disable_version_flag = true)]
struct Arguments {
    /// Print the version line.
    #[arg(long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check a recipe and print its snapshot.
    Prepare(prepare::Arguments),
    /// Start the agents of this job, or one agent on this machine with --local.
    Launch(launch::Arguments),
    /// Run the agent of this node; started by `launch`.
    Run(run::Arguments),
    /// Sample this node to a file, without Slurm or service; --listen also serves /metrics.
    Sample(standalone::Arguments),
    /// List the kinds of services that recipes can name here, as JSON; `aifb services` shows them.
    Presets,
    /// Send the logs of a folder, or of a run, to Loki.
    Ship(ship::Arguments),
    /// Run a program and end all processes that it leaves behind; started by `run`.
    #[command(hide = true)]
    Supervise(supervisor::Arguments),
}

fn main() -> ExitCode {
    sys::reset_signals();
    sys::keep_descriptors();
    let arguments = Arguments::parse();
    if arguments.version {
        problem::print(&aifb_schema::version_line("aifb-agent"));
        return ExitCode::SUCCESS;
    }
    let code = match arguments.command {
        Some(Command::Prepare(arguments)) => prepare::main(&arguments),
        Some(Command::Presets) => presets::main(),
        Some(Command::Launch(arguments)) => launch::main(&arguments),
        Some(Command::Run(arguments)) => run::main(&arguments),
        Some(Command::Sample(arguments)) => standalone::main(&arguments),
        Some(Command::Ship(arguments)) => ship::main(&arguments),
        Some(Command::Supervise(arguments)) => supervisor::main(&arguments),
        None => problem::usage("no command given", "see aifb-agent --help"),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
