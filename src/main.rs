//! `aifb`, the user's command: submit, follow, drive and read benchmarks.

mod agent_client;
mod cli;
mod command;
mod error;
mod launch;
mod observe;
mod output;
mod programs;
mod report;
mod shell;
mod signals;
mod slurm;
mod store;
mod sys;

use std::process::exit;

use clap::Parser;

fn main() {
    let cli = cli::Cli::parse();
    match command::run(cli.command) {
        Ok(code) => exit(code),
        Err(error) => {
            output::note(&error);
            exit(error.code)
        }
    }
}
