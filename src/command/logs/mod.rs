//! `aifb logs`: what services and agents write.

mod export;
mod resend;
mod set;
mod show;
mod tail;

use crate::{cli::LogsCommand, error::Result};

pub(super) fn run(command: &LogsCommand) -> Result<i32> {
    match command {
        LogsCommand::Show(args) => show::run(args, false),
        LogsCommand::Follow(args) => show::run(args, true),
        LogsCommand::Set(args) => set::run(args),
        LogsCommand::Resend(args) => resend::run(args),
        LogsCommand::Export(args) => export::run(args),
    }
}
