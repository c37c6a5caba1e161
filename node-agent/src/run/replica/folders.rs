//! The folders of a replica, and the logs in them.

use std::{fs::File, io, path::PathBuf};

use aifb_schema::{
    names::{file, limit},
    run::{Failure, Owner},
};

use super::{Replica, health, supervisor::Output};
use crate::run::secrets;

/// Bytes of the log that a failure shows.
const TAIL: u64 = limit::LOG_TAIL_BYTES;

/// Folders of a replica.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Its folder in the run folder.
    pub(crate) own: PathBuf,
    /// Its data.
    pub(crate) data: PathBuf,
    /// Files with its secrets; gone at the end.
    pub(crate) secrets: PathBuf,
}

impl Folders {
    /// Names the folders; none is made yet.
    pub(super) fn of(replica: &Replica) -> Self {
        let several = replica.position.addresses.len() > 1;
        let number = replica.position.replica;
        let name = if several {
            format!("{}.{number}", replica.name())
        } else {
            replica.name().to_owned()
        };
        let own = replica.host.context.run_dir.join(file::SERVICES).join(name);
        let data = match &replica.service.data {
            None => own.join("data"),
            Some(text) => {
                let context = &replica.host.context;
                let data = secrets::expand(text, context.submit_dir(), &context.environment);
                if several { data.join(number.to_string()) } else { data }
            }
        };
        let secrets = own.join(".secrets");
        Self { own, data, secrets }
    }

    /// The replica's log files, to append to.
    pub(super) fn output(&self) -> io::Result<Output> {
        let open = |name: &str| File::options().append(true).create(true).open(self.own.join(name));
        Ok(Output { stdout: open(file::STDOUT)?, stderr: open(file::STDERR)? })
    }

    /// The files that the service writes to: standard error, standard output.
    pub(super) fn log_files(&self) -> [PathBuf; 2] {
        [self.own.join(file::STDERR), self.own.join(file::STDOUT)]
    }

    /// How long the logs are: what an attempt adds comes after that.
    pub(super) fn log_lengths(&self) -> [u64; 2] {
        self.log_files().map(|path| path.metadata().map_or(0, |metadata| metadata.len()))
    }

    /// The last lines of what was written since, of the log that was written to last.
    pub(super) fn tail(&self, since: [u64; 2]) -> String {
        let mut logs: Vec<(PathBuf, u64)> = self.log_files().into_iter().zip(since).collect();
        let written =
            |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
        logs.sort_by_key(|(path, _)| std::cmp::Reverse(written(path)));
        let mut tails = logs.iter().map(|(path, start)| health::log_tail(path, *start, TAIL));
        tails.find(|tail| !tail.trim().is_empty()).unwrap_or_default()
    }

    /// Adds the log to a failure of the service itself.
    pub(super) fn with_tail(&self, mut failure: Failure, since: [u64; 2]) -> Failure {
        if failure.owner == Owner::Service && failure.log_tail.is_none() {
            let tail = self.tail(since);
            failure.log_tail = (!tail.is_empty()).then_some(tail);
        }
        failure
    }
}
