//! `aifb man`.

use clap::CommandFactory;

use crate::{
    cli::{Cli, ManArgs},
    error::{CommandError, Result},
};

/// Writes `aifb.1`, and `aifb-VERB.1` for each verb.
pub(super) fn run(args: &ManArgs) -> Result<i32> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| {
            CommandError::usage(format!("writing manual pages to '{}'", folder.display()), error)
        })?;
    Ok(0)
}
