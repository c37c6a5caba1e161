//! `aifb completions`.

use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArgs},
    error::Result,
    output,
};

pub(super) fn run(args: &CompletionsArgs) -> Result<i32> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "aifb", &mut script);
    output::out_raw(&script);
    Ok(0)
}
