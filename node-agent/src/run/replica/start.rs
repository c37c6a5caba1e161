//! One attempt at running a replica.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use aifb_schema::{
    control::ReplicaChange,
    names::file,
    recipe::{Port, Probe, Service},
    run::{Endpoint, Failure, Owner},
};

use super::{
    End, Prepared, Replica, TAIL,
    command::{Folders, Recipe},
    container::Container,
    health,
    keeper::{Keeper, Output, Said},
    page::{self, is_https},
    port::{self, Ports},
    probe::Prober,
    shut_down,
};
use crate::{clock, export::engine::Address, run::secrets};

/// Longest time for a command that comes before the service: a database is made in seconds, on a
/// slow file system in a minute.
const BEFORE_DEADLINE: Duration = Duration::from_secs(600);

/// Longest time for a command that comes after the first good probe: it may fetch a model.
const AFTER_DEADLINE: Duration = Duration::from_secs(3600);

/// Longest time to make a few folders.
const FOLDERS_DEADLINE: Duration = Duration::from_secs(60);

/// Marks a data folder whose first commands have all succeeded.
const PREPARED_MARK: &str = ".aifb-prepared";

/// Everything that comes before the first attempt.
pub(super) async fn prepare(replica: &Replica) -> Result<Prepared, Failure> {
    let share =
        replica.resources.take(replica.name(), replica.service.cpus, replica.service.gpus)?;
    let folders = folders(replica);
    let values = make_folders(replica, &folders).await?;
    if let Some(name) = folders.own.file_name().and_then(|name| name.to_str()) {
        replica.context.shipping.watch(&replica.context, name);
    }
    let container = if replica.external() {
        None
    } else {
        let found = Container::find(&replica.context, &replica.service, || output(&folders)).await;
        found.map_err(|failure| with_tail(failure, &folders, [0, 0]))?
    };
    let prepared = Prepared { folders, values, share, container };
    before(replica, &prepared).await?;
    Ok(prepared)
}

fn folders(replica: &Replica) -> Folders {
    let several = replica.position.addresses.len() > 1;
    let number = replica.position.replica;
    let name =
        if several { format!("{}.{number}", replica.name()) } else { replica.name().to_owned() };
    let own = replica.context.run_dir.join(file::SERVICES).join(name);
    let data = match &replica.service.data {
        None => own.join("data"),
        Some(text) => {
            let context = &replica.context;
            let data = secrets::expand(text, context.submit_dir(), &context.environment);
            if several { data.join(number.to_string()) } else { data }
        }
    };
    let secrets = own.join(".secrets");
    Folders { own, data, secrets }
}

/// Makes the folders and reads the secrets, off the main thread.
async fn make_folders(
    replica: &Replica,
    folders: &Folders,
) -> Result<BTreeMap<String, secrets::Value>, Failure> {
    let making = folders.clone();
    let service = replica.service.clone();
    let resolver = secrets::Resolver::new(&replica.context);
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
            format!("making '{}': the file system does not answer", folders.own.display()),
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

/// The replica's log files, to append to.
fn output(folders: &Folders) -> io::Result<Output> {
    let open = |name: &str| File::options().append(true).create(true).open(folders.own.join(name));
    Ok(Output { stdout: open(file::STDOUT)?, stderr: open(file::STDERR)? })
}

fn log_files(folders: &Folders) -> [PathBuf; 2] {
    [folders.own.join(file::STDERR), folders.own.join(file::STDOUT)]
}

/// How long the logs are: what an attempt adds comes after that.
pub(super) fn log_lengths(folders: &Folders) -> [u64; 2] {
    log_files(folders).map(|path| path.metadata().map_or(0, |metadata| metadata.len()))
}

/// The last lines of what was written since, of the log that was written to last.
pub(super) fn tail(folders: &Folders, since: [u64; 2]) -> String {
    let mut logs: Vec<(PathBuf, u64)> = log_files(folders).into_iter().zip(since).collect();
    let written = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
    logs.sort_by_key(|(path, _)| std::cmp::Reverse(written(path)));
    let mut tails = logs.iter().map(|(path, start)| health::log_tail(path, *start, TAIL));
    tails.find(|tail| !tail.trim().is_empty()).unwrap_or_default()
}

/// Adds the log to a failure of the service itself.
pub(super) fn with_tail(mut failure: Failure, folders: &Folders, since: [u64; 2]) -> Failure {
    if failure.owner == Owner::Service && failure.log_tail.is_none() {
        let tail = tail(folders, since);
        failure.log_tail = (!tail.is_empty()).then_some(tail);
    }
    failure
}

/// One attempt.
pub(super) struct Attempt<'a> {
    replica: &'a Replica,
    prepared: &'a Prepared,
    ports: Option<Ports>,
    healthy: bool,
    /// How long the logs were before it.
    logs: [u64; 2],
    begun: Instant,
}

impl<'a> Attempt<'a> {
    /// An attempt on these ports, or on free or the fixed ones.
    pub(super) fn new(replica: &'a Replica, prepared: &'a Prepared, ports: Option<Ports>) -> Self {
        let logs = log_lengths(&prepared.folders);
        Self { replica, prepared, ports, healthy: false, logs, begun: Instant::now() }
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports.clone().unwrap_or_default()
    }

    /// Runs to its end; whether it was healthy meanwhile.
    pub(super) async fn run(&mut self) -> (End, bool) {
        let end = if self.replica.external() {
            self.run_external().await
        } else {
            match self.start() {
                Ok(keeper) => self.run_keeper(keeper).await,
                Err(failure) => End::Failed(failure),
            }
        };
        (end, self.healthy)
    }

    async fn run_external(&mut self) -> End {
        let replica = self.replica;
        tokio::select! {
            biased;
            grace = replica.stopped() => End::Stop(grace),
            failure = self.answer(None) => End::Failed(failure),
        }
    }

    /// Starts the service's process.
    fn start(&mut self) -> Result<Keeper, Failure> {
        let replica = self.replica;
        let failed = |doing: &str, error: io::Error| {
            replica.failure(Owner::Node, format!("{doing}: {error}"))
        };
        let ports = self.choose_ports(&failed)?;
        let what = self.recipe(&ports).main()?;
        self.ports = Some(ports);
        let output =
            output(&self.prepared.folders).map_err(|error| failed("opening its logs", error))?;
        let keeper = Keeper::start(
            &replica.context.program,
            &what,
            output,
            replica.service.stop.get(),
            self.prepared.share.cpu_set(),
        );
        keeper.map_err(|error| failed("starting its keeper", error))
    }

    /// The fixed ports, those of the attempt before, else free ones.
    fn choose_ports(&self, failed: &impl Fn(&str, io::Error) -> Failure) -> Result<Ports, Failure> {
        let replica = self.replica;
        let address = replica.context.address;
        let further = replica.service.ports.clone();
        let fixed = std::iter::once(replica.service.port).chain(further.values().copied());
        for port in fixed {
            if let Port::Fixed(port) = port
                && port::is_taken(address, port)
            {
                let reason = format!("port {port} is taken on node {}", replica.context.node);
                return Err(replica
                    .failure(Owner::Service, reason)
                    .with_hint("use port: auto, or end what listens there"));
            }
        }
        let mut free = port::free(address, 1 + further.len())
            .map_err(|error| failed("looking for a free port", error))?;
        let mut choose = |wanted: Port, before: Option<u16>| match (wanted, before) {
            (Port::Fixed(port), _) | (Port::Auto, Some(port)) => port,
            (Port::Auto, None) => free.pop().unwrap_or(0),
        };
        let before = self.ports.as_ref();
        let main = choose(replica.service.port, before.map(|ports| ports.main));
        let further = further.into_iter().map(|(name, wanted)| {
            let before = before.and_then(|ports| ports.further.get(&name)).copied();
            let port = choose(wanted, before);
            (name, port)
        });
        Ok(Ports { main, further: further.collect() })
    }

    /// A path of the recipe with its placeholders filled in.
    fn path(&self, text: &str) -> PathBuf {
        let ports = self.ports();
        let recipe = self.recipe(&ports);
        recipe.path(&recipe.fill(text))
    }

    fn recipe<'p>(&'p self, ports: &'p Ports) -> Recipe<'p> {
        Recipe {
            context: &self.replica.context,
            service: &self.replica.service,
            position: &self.replica.position,
            folders: &self.prepared.folders,
            values: &self.prepared.values,
            gpus: &self.prepared.share.visible_gpus,
            ports,
            container: self.prepared.container.as_ref(),
        }
    }

    async fn run_keeper(&mut self, mut keeper: Keeper) -> End {
        let replica = self.replica;
        let root = keeper.pid();
        match keeper.next().await {
            Said::Started { pid } => {
                replica.sampling.watch(replica.name(), replica.position.replica, root);
                replica.tell(ReplicaChange::Started { pid });
            }
            other => return End::Exited(other),
        }
        let end = tokio::select! {
            biased;
            grace = replica.stopped() => End::Stop(grace),
            said = keeper.next() => End::Exited(said),
            failure = self.answer(Some(root)) => End::Failed(failure),
        };
        match &end {
            End::Stop(grace) => shut_down(keeper, *grace).await,
            End::Failed(_) => shut_down(keeper, replica.service.stop.get()).await,
            End::Exited(_) => {}
        }
        end
    }

    /// Waits until it answers, tells so and watches it; returns when it fails in that.
    async fn answer(&mut self, root: Option<u32>) -> Failure {
        match self.become_healthy(root).await {
            Err(failure) => failure,
            Ok((endpoint, mut prober)) => {
                let replica = self.replica;
                replica.tell(ReplicaChange::Healthy { endpoint: endpoint.clone() });
                let reason = health::watch(&mut prober, |change| {
                    replica.tell(match change {
                        Some(reason) => ReplicaChange::Unhealthy { reason },
                        None => ReplicaChange::Healthy { endpoint: endpoint.clone() },
                    });
                    std::future::ready(())
                })
                .await;
                replica.failure(Owner::Service, reason)
            }
        }
    }

    async fn become_healthy(&mut self, root: Option<u32>) -> Result<(Endpoint, Prober), Failure> {
        let replica = self.replica;
        if replica.is_helper_of_head() {
            // Nobody asks it; only its end matters.
            return std::future::pending().await;
        }
        let (address, mut endpoint) = self.endpoint().await?;
        let mut prober = self.prober(address)?;
        let logs = log_files(&self.prepared.folders);
        health::wait(&replica.service, &mut prober, root, &logs).await.map_err(|reason| {
            replica
                .failure(Owner::Service, reason)
                .with_hint("a longer time is health: {deadline: …}; see its log")
        })?;
        for words in &replica.service.after {
            self.helper(words, AFTER_DEADLINE).await?;
        }
        self.healthy = true;
        replica.sampling.ready(replica.name(), replica.position.replica, self.begun.elapsed());
        if let Some(page) = self.engine_page(address, &endpoint) {
            replica.sampling.engine(replica.name(), replica.position.replica, page);
        }
        endpoint.healthy_epoch_ns = clock::epoch_ns();
        if let Ok(mut json) = serde_json::to_vec_pretty(&endpoint) {
            json.push(b'\n');
            let path = self.prepared.folders.own.join(file::ENDPOINT);
            replica.context.files.replace(&path, 0o644, json);
        }
        Ok((endpoint, prober))
    }

    /// Where it answers: by address for the agent, and as clients are told.
    async fn endpoint(&self) -> Result<(SocketAddr, Endpoint), Failure> {
        let replica = self.replica;
        let Ports { main, mut further } = self.ports();
        if replica.external() {
            let said = replica.service.ports.iter().filter_map(|(name, port)| match port {
                Port::Fixed(port) => Some((name.clone(), *port)),
                Port::Auto => None,
            });
            further = said.collect();
        }
        let endpoint = |host: String, port: u16, url: String| Endpoint {
            service: replica.name().to_owned(),
            replica: replica.position.replica,
            node: replica.context.node.clone(),
            host,
            port,
            url,
            ports: further.clone(),
            healthy_epoch_ns: 0,
        };
        if let Some(url) = replica.service.url.as_deref().filter(|_| replica.external()) {
            let (host, port) = host_and_port(url).ok_or_else(|| {
                replica.failure(Owner::Recipe, format!("'{url}' has no host and port"))
            })?;
            let target = (host.clone(), port);
            let resolved = tokio::task::spawn_blocking(move || {
                target.to_socket_addrs().map(|mut found| found.next())
            });
            let address = match resolved.await {
                Ok(Ok(Some(address))) => address,
                _ => {
                    let reason = format!("'{host}' has no address on this node");
                    return Err(replica.failure(Owner::Recipe, reason));
                }
            };
            return Ok((address, endpoint(host, port, url.trim_end_matches('/').to_owned())));
        }
        let address = replica.context.address;
        let port = main;
        let host = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let scheme = replica.service.scheme.as_deref().unwrap_or("http");
        let url = format!("{scheme}://{host}:{port}");
        Ok(((address, port).into(), endpoint(address.to_string(), port, url)))
    }

    /// The page of its own metrics, where it has one.
    fn engine_page(&self, address: SocketAddr, endpoint: &Endpoint) -> Option<Address> {
        let context = &self.replica.context;
        let expand = |path: &str| {
            let whole = secrets::expand(path, context.submit_dir(), &context.environment);
            whole.to_string_lossy().into_owned()
        };
        page::of(self.replica.service.metrics.clone()?, address.ip(), endpoint, expand)
    }

    fn prober(&self, address: SocketAddr) -> Result<Prober, Failure> {
        Ok(match self.replica.service.probe() {
            // Without TLS an https service can only be connected to.
            Probe::Http(_) if self.speaks_https() => Prober::Tcp(address),
            Probe::Http(path) => Prober::Http { address, host: address.to_string(), path },
            Probe::Tcp => Prober::Tcp(address),
            Probe::Exec(words) => Prober::Exec {
                agent: self.replica.context.program.clone(),
                what: Box::new(self.recipe(&self.ports()).helper(&words)?),
            },
            Probe::Log(text) => {
                let files = log_files(&self.prepared.folders).into_iter().zip(self.logs);
                Prober::Log { files: files.collect(), text, seen: false }
            }
        })
    }

    fn speaks_https(&self) -> bool {
        let Service { url, scheme, .. } = &self.replica.service;
        url.as_deref().is_some_and(is_https) || scheme.as_deref() == Some("https")
    }

    /// Runs a helper command to its end.
    async fn helper(&self, words: &[String], deadline: Duration) -> Result<(), Failure> {
        let replica = self.replica;
        let what = self.recipe(&self.ports()).helper(words)?;
        let title = words.first().cloned().unwrap_or_default();
        let since = log_lengths(&self.prepared.folders);
        let failed = |owner: Owner, cause: String| {
            let failure = replica.failure(owner, format!("'{title}' {cause}"));
            with_tail(failure, &self.prepared.folders, since)
        };
        let output = output(&self.prepared.folders)
            .map_err(|error| failed(Owner::Node, format!("logs: {error}")))?;
        let grace = Duration::from_secs(1);
        let mut keeper = Keeper::start(&replica.context.program, &what, output, grace, None)
            .map_err(|error| failed(Owner::Node, format!("not started: {error}")))?;
        let ended = async {
            loop {
                match keeper.next().await {
                    Said::Started { .. } => {}
                    Said::NotStarted { cause } => {
                        return Err(failed(
                            Owner::Recipe,
                            format!("could not be started: {cause}"),
                        ));
                    }
                    Said::Ended { code: Some(0), .. } => return Ok(()),
                    Said::Ended { code: Some(code), .. } => {
                        return Err(failed(Owner::Service, format!("exited with code {code}")));
                    }
                    Said::Ended { signal, .. } => {
                        let number = signal.unwrap_or_default();
                        return Err(failed(Owner::Service, format!("ended by signal {number}")));
                    }
                }
            }
        };
        match tokio::time::timeout(deadline, ended).await {
            Ok(result) => result,
            Err(_) => {
                Err(failed(Owner::Service, format!("did not end within {} s", deadline.as_secs())))
            }
        }
    }
}

/// Host and port of a URL; the scheme's usual port where it names none.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        "postgresql" => 5432,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Some(usual), |text| text.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_host_and_port() {
        for (url, expected) in [
            ("http://a:81/x", Some(("a", 81))),
            ("https://a.b", Some(("a.b", 443))),
            ("postgresql://[::1]:7/db", Some(("::1", 7))),
            ("http://a:x", None),
            ("http://:80", None),
        ] {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
