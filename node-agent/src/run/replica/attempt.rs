//! One attempt at running a replica.

use std::{
    io,
    net::SocketAddr,
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
    End, Prepared, Replica,
    command::Commands,
    endpoint, health,
    page::{self, is_https},
    port::{self, Ports},
    probe::Prober,
    shut_down,
    supervisor::{Launchable, Report, Supervisor},
};
use crate::{clock, export::engine::Address, run::secrets};

/// Longest time for a command that comes after the first good probe: it may fetch a model.
const AFTER_DEADLINE: Duration = Duration::from_secs(3600);

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
        let logs = prepared.folders.log_lengths();
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
                Ok(supervisor) => self.run_supervised(supervisor).await,
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
    fn start(&mut self) -> Result<Supervisor, Failure> {
        let replica = self.replica;
        let failed = |doing: &str, error: io::Error| {
            replica.failure(Owner::Node, format!("{doing}: {error}"))
        };
        let ports = self.choose_ports(&failed)?;
        let what = self.service_program(&ports)?;
        self.ports = Some(ports);
        let output =
            self.prepared.folders.output().map_err(|error| failed("opening its logs", error))?;
        let supervisor = Supervisor::start(
            &replica.host.context.program,
            &what,
            output,
            replica.service.stop.get(),
            self.prepared.share.cpu_set(),
        );
        supervisor.map_err(|error| failed("starting its supervisor", error))
    }

    /// The fixed ports, those of the attempt before, else free ones.
    fn choose_ports(&self, failed: &impl Fn(&str, io::Error) -> Failure) -> Result<Ports, Failure> {
        let replica = self.replica;
        let address = replica.host.context.address;
        let further = replica.service.ports.clone();
        let fixed = std::iter::once(replica.service.port).chain(further.values().copied());
        for port in fixed {
            if let Port::Fixed(port) = port
                && port::is_taken(address, port)
            {
                let reason = format!("port {port} is in use on node {}", replica.host.context.node);
                return Err(replica
                    .failure(Owner::Service, reason)
                    .with_hint("use port: auto, or stop the program that listens there"));
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

    fn commands<'p>(&'p self, ports: &'p Ports) -> Commands<'p> {
        Commands {
            context: &self.replica.host.context,
            service: &self.replica.service,
            position: &self.replica.position,
            folders: &self.prepared.folders,
            values: &self.prepared.values,
            gpus: &self.prepared.share.visible_gpus,
            ports,
        }
    }

    /// The service itself.
    fn service_program(&self, ports: &Ports) -> Result<Launchable, Failure> {
        let (commands, service) = (self.commands(ports), &self.replica.service);
        let words = commands.fill_all(&service.command_line());
        match &self.prepared.container {
            Some(container) => {
                // Without a command the image's own entry point runs.
                let verb = if service.command.is_empty() { "run" } else { "exec" };
                Ok(container.launchable(&commands, verb, words))
            }
            None => commands.bare(words),
        }
    }

    /// A helper command, run as the service is run.
    fn helper_program(&self, words: &[String]) -> Result<Launchable, Failure> {
        let ports = self.ports();
        let commands = self.commands(&ports);
        let words = commands.fill_all(words);
        match &self.prepared.container {
            Some(container) => Ok(container.launchable(&commands, "exec", words)),
            None => commands.bare(words),
        }
    }

    async fn run_supervised(&mut self, mut supervisor: Supervisor) -> End {
        let replica = self.replica;
        let root = supervisor.pid();
        match supervisor.next().await {
            Report::Started { pid } => {
                replica.host.sampling.watch(replica.name(), replica.position.replica, root);
                replica.tell(ReplicaChange::Started { pid });
            }
            other => return End::Exited(other),
        }
        let end = tokio::select! {
            biased;
            grace = replica.stopped() => End::Stop(grace),
            said = supervisor.next() => End::Exited(said),
            failure = self.answer(Some(root)) => End::Failed(failure),
        };
        match &end {
            End::Stop(grace) => shut_down(supervisor, *grace).await,
            End::Failed(_) => shut_down(supervisor, replica.service.stop.get()).await,
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
        let (address, mut endpoint) = endpoint::of(replica, self.ports()).await?;
        let mut prober = self.prober(address)?;
        let logs = self.prepared.folders.log_files();
        health::wait(&replica.service, &mut prober, root, &logs).await.map_err(|reason| {
            replica
                .failure(Owner::Service, reason)
                .with_hint("see its log; health: {deadline: …} sets a longer limit")
        })?;
        for words in &replica.service.after {
            self.helper(words, AFTER_DEADLINE).await?;
        }
        self.healthy = true;
        replica.host.sampling.ready(replica.name(), replica.position.replica, self.begun.elapsed());
        if let Some(page) = self.engine_page(address, &endpoint) {
            replica.host.sampling.engine(replica.name(), replica.position.replica, page);
        }
        endpoint.healthy_epoch_ns = clock::epoch_ns();
        if let Ok(mut json) = serde_json::to_vec_pretty(&endpoint) {
            json.push(b'\n');
            let path = self.prepared.folders.own.join(file::ENDPOINT);
            replica.host.context.files.replace(&path, 0o644, json);
        }
        Ok((endpoint, prober))
    }

    /// The page of its own metrics, where it has one.
    fn engine_page(&self, address: SocketAddr, endpoint: &Endpoint) -> Option<Address> {
        let context = &self.replica.host.context;
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
                agent: self.replica.host.context.program.clone(),
                what: Box::new(self.helper_program(&words)?),
            },
            Probe::Log(text) => {
                let files = self.prepared.folders.log_files().into_iter().zip(self.logs);
                Prober::Log { files: files.collect(), text, seen: false }
            }
        })
    }

    fn speaks_https(&self) -> bool {
        let Service { url, scheme, .. } = &self.replica.service;
        url.as_deref().is_some_and(is_https) || scheme.as_deref() == Some("https")
    }

    /// A path of the recipe with its placeholders filled in.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        let ports = self.ports();
        let commands = self.commands(&ports);
        commands.path(&commands.fill(text))
    }

    /// Runs a helper command to its end.
    pub(super) async fn helper(&self, words: &[String], deadline: Duration) -> Result<(), Failure> {
        let replica = self.replica;
        let what = self.helper_program(words)?;
        let title = words.first().cloned().unwrap_or_default();
        let since = self.prepared.folders.log_lengths();
        let failed = |owner: Owner, cause: String| {
            let failure = replica.failure(owner, format!("'{title}' {cause}"));
            self.prepared.folders.with_tail(failure, since)
        };
        let output = self
            .prepared
            .folders
            .output()
            .map_err(|error| failed(Owner::Node, format!("logs: {error}")))?;
        let grace = Duration::from_secs(1);
        let mut supervisor =
            Supervisor::start(&replica.host.context.program, &what, output, grace, None)
                .map_err(|error| failed(Owner::Node, format!("not started: {error}")))?;
        let ended = async {
            loop {
                match supervisor.next().await {
                    Report::Started { .. } => {}
                    Report::NotStarted { cause } => {
                        return Err(failed(
                            Owner::Recipe,
                            format!("could not be started: {cause}"),
                        ));
                    }
                    Report::Ended { code: Some(0), .. } => return Ok(()),
                    Report::Ended { code: Some(code), .. } => {
                        return Err(failed(Owner::Service, format!("exited with code {code}")));
                    }
                    Report::Ended { signal, .. } => {
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
