//! What comes before a replica's first attempt: folders, secrets, the image, first commands.

use std::{collections::BTreeMap, fs, io, os::unix::fs::DirBuilderExt, time::Duration};

use aifb_schema::{
    recipe::Service,
    run::{Failure, Owner},
};

use super::{
    Prepared, Replica, attempt::Attempt, container::Container, folders::Folders, port::Ports,
};
use crate::run::secrets;

/// Longest time for a command that comes before the service: a database is made in seconds, on a
/// slow file system in a minute.
const BEFORE_DEADLINE: Duration = Duration::from_secs(600);

/// Longest time to make a few folders.
const FOLDERS_DEADLINE: Duration = Duration::from_secs(60);

/// Marks a data folder whose first commands have all succeeded.
const PREPARED_MARK: &str = ".aifb-prepared";

/// Everything that comes before the first attempt.
pub(super) async fn prepare(replica: &Replica) -> Result<Prepared, Failure> {
    let share =
        replica.host.resources.take(replica.name(), replica.service.cpus, replica.service.gpus)?;
    let folders = Folders::of(replica);
    let values = make_folders(replica, &folders).await?;
    if let Some(name) = folders.own.file_name().and_then(|name| name.to_str()) {
        replica.host.shipping.watch(name);
    }
    let container = if replica.external() {
        None
    } else {
        let found =
            Container::find(&replica.host.context, &replica.service, || folders.output()).await;
        found.map_err(|failure| folders.with_tail(failure, [0, 0]))?
    };
    let prepared = Prepared { folders, values, share, container };
    before(replica, &prepared).await?;
    Ok(prepared)
}

/// Makes the folders and reads the secrets, off the main thread.
async fn make_folders(
    replica: &Replica,
    folders: &Folders,
) -> Result<BTreeMap<String, secrets::Value>, Failure> {
    let making = folders.clone();
    let service = replica.service.clone();
    let resolver = secrets::Resolver::new(&replica.host.context);
    let external = replica.external();
    let work = tokio::task::spawn_blocking(move || {
        let failed = |error: io::Error| {
            let reason = format!("making '{}': {error}", making.own.display());
            Failure::new(Owner::Node, service.name.as_str(), reason)
        };
        fs::create_dir_all(&making.own).map_err(failed)?;
        if external {
            return Ok(BTreeMap::new());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&making.data).map_err(
            |error| {
                let reason = format!("making data folder '{}': {error}", making.data.display());
                Failure::new(Owner::Recipe, service.name.as_str(), reason)
            },
        )?;
        let values = resolver.environment(&service)?;
        if values.values().any(|value| matches!(value, secrets::Value::Secret(_))) {
            secrets::write_files(&making.secrets, &values).map_err(failed)?;
        }
        Ok(values)
    });
    match tokio::time::timeout(FOLDERS_DEADLINE, work).await {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => Err(replica.failure(Owner::Node, format!("making folders: {error}"))),
        Err(_) => Err(replica.failure(
            Owner::Node,
            format!("making '{}': the file system does not respond", folders.own.display()),
        )),
    }
}

/// The commands that come first, once for each data folder.
async fn before(replica: &Replica, prepared: &Prepared) -> Result<(), Failure> {
    let Service { before, before_unless, .. } = &replica.service;
    let mark = prepared.folders.data.join(PREPARED_MARK);
    if before.is_empty() || mark.exists() {
        return Ok(());
    }
    let attempt = Attempt::new(replica, prepared, Some(Ports::default()));
    if before_unless.as_ref().is_some_and(|path| attempt.path(path).exists()) {
        return Ok(());
    }
    for words in before {
        attempt.helper(words, BEFORE_DEADLINE).await?;
    }
    fs::write(&mark, "").map_err(|error| {
        replica.failure(Owner::Node, format!("writing '{}': {error}", mark.display()))
    })
}
