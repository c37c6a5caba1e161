//! Apptainer and Singularity: images, and programs in them.
//!
//! A container is run in the foreground, never as an instance (those leave the job's cgroup).
//! It sees of the node: its data, its secrets, the folder of its model and the recipe's binds. Its
//! home is its data folder, its /tmp a folder that is removed with it; the user's home stays
//! outside. Its environment is what the recipe names.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aifb_schema::{
    names::env,
    recipe::{Runtime, Service},
    run::{Failure, Owner},
    snapshot::sha256_hex,
};

use super::{
    command::Commands,
    program::on_path,
    supervisor::{Launchable, Output, Report, Supervisor},
};
use crate::run::{context::Context, secrets};

/// Longest time to fetch an image: tens of GiB at a slow site.
const PULL_DEADLINE: Duration = Duration::from_secs(3600);

/// How often a lock that another holds is tried.
const LOCK_EVERY: Duration = Duration::from_millis(200);

/// A runtime and an image that is there.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    runtime: PathBuf,
    /// Beginning of the runtime's variables: APPTAINER or SINGULARITY.
    prefix: &'static str,
    image: PathBuf,
}

impl Container {
    /// Finds the runtime and the image of a service; a reference is fetched first. `None` for a
    /// bare program.
    ///
    /// # Errors
    /// No runtime, no image, or a fetch that failed.
    pub(crate) async fn find(
        context: &Context,
        service: &Service,
        output: impl Fn() -> io::Result<Output>,
    ) -> Result<Option<Self>, Failure> {
        let Some(reference) = service.image.clone() else { return Ok(None) };
        let (runtime, prefix) = runtime(context, service)?;
        let image = if reference.contains("://") {
            pull(context, service, &runtime, &reference, output).await?
        } else {
            let path = secrets::expand(&reference, context.submit_dir(), &context.environment);
            if let Err(error) = fs::metadata(&path).and_then(|_| fs::File::open(&path)) {
                let reason = format!("image '{}': {error}", path.display());
                return Err(Failure::new(Owner::Recipe, service.name.as_str(), reason).with_hint(
                    format!(
                        "it must exist on node {}; relative paths start in the folder of the \
                         submission",
                        context.node
                    ),
                ));
            }
            path
        };
        Ok(Some(Self { runtime, prefix, image }))
    }

    /// A program in the container.
    pub(crate) fn launchable(
        &self,
        commands: &Commands<'_>,
        verb: &str,
        words: Vec<String>,
    ) -> Launchable {
        let mut inside = commands.named_environment();
        let data = commands.folders.data.to_string_lossy().into_owned();
        let home = inside.remove("HOME").unwrap_or_else(|| data.clone());
        let scratch = scratch(&commands.context.environment);
        let mut args: Vec<String> =
            ["--quiet", verb, "--cleanenv", "--writable-tmpfs", "--home", &home, "--pwd", &data]
                .map(str::to_owned)
                .to_vec();
        for temporary in ["/tmp", "/var/tmp"] {
            args.extend(["--bind".to_owned(), format!("{}:{temporary}", scratch.display())]);
        }
        if !commands.gpus.is_empty() {
            args.push("--nv".to_owned());
        }
        for bind in binds(commands) {
            args.extend(["--bind".to_owned(), bind]);
        }
        args.push(self.image.to_string_lossy().into_owned());
        args.extend(words);
        let mut outside = runtime_environment(&commands.context.environment);
        outside.insert(format!("{}_NO_EVAL", self.prefix), "1".to_owned());
        for (name, value) in inside {
            outside.insert(format!("{}ENV_{name}", self.prefix), value);
        }
        Launchable {
            program: self.runtime.clone(),
            args,
            env: outside,
            folder: commands.folders.data.clone(),
            scratch: Some(scratch),
            secrets: Some(commands.folders.secrets.clone()),
        }
    }
}

/// What the runtime itself sees: the job's environment, but nothing that would reach inside.
fn runtime_environment(job: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let inside = ["APPTAINERENV_", "SINGULARITYENV_"];
    job.iter()
        .filter(|(name, _)| !inside.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A new name on the node for what the container takes for /tmp: on the node because sockets and
/// speed are wanted there, of its own so that nothing is left when the service has ended.
fn scratch(job: &BTreeMap<String, String>) -> PathBuf {
    let folder = job.get("TMPDIR").filter(|folder| Path::new(folder).is_dir());
    let folder = folder.map_or("/tmp", String::as_str);
    Path::new(folder).join(format!(
        "aifb-{}-{:016x}",
        nix::unistd::geteuid(),
        rand::random::<u64>()
    ))
}

/// Folders of the node that the container sees.
fn binds(commands: &Commands<'_>) -> Vec<String> {
    let mut binds = vec![commands.folders.data.to_string_lossy().into_owned()];
    if commands.folders.secrets.is_dir() {
        let secrets = commands.folders.secrets.to_string_lossy();
        binds.push(format!("{secrets}:{secrets}:ro"));
    }
    // A model is found by its own path and, where that is a link, at the end of the link, too.
    let model = commands.model_path();
    let real = model.as_ref().and_then(|path| path.canonicalize().ok());
    for path in model.iter().chain(real.iter()) {
        let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        let Some(folder) = folder else { continue };
        let bind = format!("{0}:{0}:ro", folder.display());
        if !binds.contains(&bind) {
            binds.push(bind);
        }
    }
    for bind in &commands.service.binds {
        let filled = commands.fill(bind);
        let (source, rest) = match filled.split_once(':') {
            Some((source, rest)) => (source, format!(":{rest}")),
            None => (filled.as_str(), String::new()),
        };
        binds.push(format!("{}{rest}", commands.path(source).display()));
    }
    binds
}

/// The runtime that the recipe names, else the first on PATH.
fn runtime(context: &Context, service: &Service) -> Result<(PathBuf, &'static str), Failure> {
    let known = [("apptainer", "APPTAINER"), ("singularity", "SINGULARITY")];
    let wanted = match context.recipe.runtime {
        Some(Runtime::Apptainer) => &known[..1],
        Some(Runtime::Singularity) => &known[1..],
        None => &known[..],
    };
    for (name, prefix) in wanted {
        if let Some(path) = on_path(&context.environment, name) {
            // Apptainer installs a second name of itself.
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            let is_apptainer = real.file_name().is_some_and(|name| name == "apptainer");
            return Ok((path, if is_apptainer { "APPTAINER" } else { prefix }));
        }
    }
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let reason = format!("no {} on PATH on node {}", names.join(" or "), context.node);
    Err(Failure::new(Owner::Node, service.name.as_str(), reason).with_hint(
        "load its module before the submission (module load Apptainer), or use program: instead \
         of image:",
    ))
}

/// Fetches an image once for all runs of the user, under a lock.
async fn pull(
    context: &Context,
    service: &Service,
    runtime: &Path,
    reference: &str,
    output: impl Fn() -> io::Result<Output>,
) -> Result<PathBuf, Failure> {
    let failed = |cause: String| {
        let reason = format!("fetching image '{reference}': {cause}");
        Failure::new(Owner::Service, service.name.as_str(), reason).with_hint(
            "fetch it on a machine with internet access (apptainer pull x.sif …) and set image: \
             x.sif",
        )
    };
    let folder = cache(context).join("images");
    let path = folder.join(file_name(reference));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&folder).map_err(|e| failed(format!("'{}': {e}", folder.display())))?;
    let deadline = Instant::now() + PULL_DEADLINE;
    let lock = path.with_extension("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .map_err(|error| failed(format!("'{}': {error}", lock.display())))?;
    // Where the file system knows no locks the image may be fetched twice; the rename keeps it
    // whole all the same.
    while let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
        if Instant::now() > deadline {
            return Err(failed("another run holds its lock".to_owned()));
        }
        tokio::time::sleep(LOCK_EVERY).await;
    }
    if path.exists() {
        return Ok(path);
    }
    tracing::info!(reference, "fetching image");
    let partial = path.with_extension(format!("{}.{}", context.node, std::process::id()));
    let what = Launchable {
        program: runtime.to_owned(),
        args: vec!["pull".to_owned(), partial.to_string_lossy().into_owned(), reference.to_owned()],
        env: context.environment.clone(),
        folder: folder.clone(),
        scratch: None,
        secrets: None,
    };
    let fetched = fetch(context, &what, output, deadline).await;
    let fetched =
        fetched.and_then(|()| fs::rename(&partial, &path).map_err(|error| error.to_string()));
    if fetched.is_err() {
        let _never_made = fs::remove_file(&partial);
    }
    fetched.map(|()| path).map_err(failed)
}

async fn fetch(
    context: &Context,
    what: &Launchable,
    output: impl Fn() -> io::Result<Output>,
    deadline: Instant,
) -> Result<(), String> {
    let output = output().map_err(|error| error.to_string())?;
    let grace = Duration::from_secs(2);
    let mut supervisor = Supervisor::start(&context.program, what, output, grace, None)
        .map_err(|error| error.to_string())?;
    loop {
        let said = tokio::time::timeout_at(deadline.into(), supervisor.next())
            .await
            .map_err(|_| format!("not within {} s", PULL_DEADLINE.as_secs()))?;
        match said {
            Report::Started { .. } => {}
            Report::NotStarted { cause } => return Err(cause),
            Report::Ended { code: Some(0), .. } => return Ok(()),
            Report::Ended { code: Some(code), .. } => {
                return Err(format!("it ended with code {code}; see the service's stderr.log"));
            }
            Report::Ended { signal, .. } => {
                return Err(format!("it was ended by signal {}", signal.unwrap_or_default()));
            }
        }
    }
}

/// The folder for what is fetched once.
fn cache(context: &Context) -> PathBuf {
    let variable = |name: &str| {
        context.environment.get(name).filter(|value| value.starts_with('/')).map(PathBuf::from)
    };
    variable(env::CACHE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("aifb")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/aifb")))
        .unwrap_or_else(|| context.run_dir.join("cache"))
}

/// A readable file name for a reference, different for different references.
fn file_name(reference: &str) -> String {
    let readable: String = reference
        .split("://")
        .last()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' })
        .take(100)
        .collect();
    let digest: String = sha256_hex(reference.as_bytes()).chars().take(12).collect();
    format!("{readable}-{digest}.sif")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_references_have_different_files() {
        let names = ["docker://a/b:1", "docker://a_b:1", "oras://a/b:1"].map(file_name);
        assert!(names[0].starts_with("a_b_1-") && names[0].ends_with(".sif"), "{}", names[0]);
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
    }

    #[test]
    fn nothing_reaches_inside_by_the_runtimes_variables() {
        let job = BTreeMap::from([
            ("APPTAINERENV_X".to_owned(), "1".to_owned()),
            ("APPTAINER_CACHEDIR".to_owned(), "/c".to_owned()),
        ]);
        assert_eq!(
            runtime_environment(&job).into_keys().collect::<Vec<_>>(),
            ["APPTAINER_CACHEDIR"]
        );
    }
}
