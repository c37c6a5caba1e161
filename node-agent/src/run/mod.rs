//! `run`: the agent of one node.
//!
//! One thread runs everything (children get their death signal when the thread that started them
//! ends), but for the writing into the run folder and the sampler.

mod address;
mod client;
mod clock_offset;
mod context;
mod coordinator;
mod files;
mod input;
mod log;
mod peer;
mod replica;
mod resources;
mod sampling;
mod script;
pub(crate) mod secrets;
mod server;
mod shipping;
mod stop;
mod worker_socket;

use std::{
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use aifb_schema::{
    control::{AgentStart, FromCoordinator, NodeOrder},
    names::{PROTOCOL, exit, file},
    recipe::Resolved,
    run::{AgentRecord, Failure, Owner},
};
use anyhow::{Context as _, anyhow, bail};
use nix::sys::{prctl, signal::Signal};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{LocalSet, spawn_local},
};

use crate::{
    clock,
    logging::SharedLogging,
    problem::{self, complain},
};
use client::Client;
use clock_offset::CoordinatorClock;
use context::{Context, Ending, Outbox};
use coordinator::Coordinator;
use files::{Files, Trouble};
use input::Input;
use peer::{Link, Peer};
use replica::{At, Replicas};
use sampling::Sampling;
use server::Server;
use shipping::Shipping;
use worker_socket::Workers;

/// Arguments of `run`: all it needs arrives on standard input.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Longest time for the launcher's first line.
const FIRST_LINE: Duration = Duration::from_secs(60);

/// Longest time until the coordinator's address is known: its own agent may start a minute later
/// on a node with a slow prolog.
const COORDINATOR_KNOWN: Duration = Duration::from_secs(150);

/// Runs the command; its exit code.
pub(crate) fn main(_: &Arguments) -> i32 {
    let work = || -> anyhow::Result<()> {
        prctl::set_child_subreaper(true).context("becoming a child subreaper")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("making the runtime")?;
        LocalSet::new().block_on(&runtime, agent())
    };
    let code = match work() {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&format!("{}: running the agent: {error:#}", problem::PROGRAM));
            exit::INCOMPLETE
        }
    };
    // Not by returning: threads that hang in a file system must not hold the process.
    std::process::exit(code)
}

/// This very program, also when another version has been installed in its place meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Longest time to tell the coordinator why this agent cannot start.
const LAST_WORD: Duration = Duration::from_secs(2);

/// From the first line to the last.
async fn agent() -> anyhow::Result<()> {
    let mut input = input::read();
    let first = tokio::time::timeout(FIRST_LINE, input.recv()).await;
    let Ok(Some(Input::Start(start))) = first else {
        bail!("the launcher sent no orders (the agent is started by `aifb-agent launch` only)");
    };
    let node = node_name(&start)?;
    let components = &start.run.job.components;
    let head = components.first().and_then(|nodes| nodes.first()) == Some(&node);
    let signals = stop::listen().context("listening for signals")?;
    if head {
        as_coordinator(*start, node, signals).await
    } else {
        as_follower(*start, node, input, signals).await
    }
}

/// The agent of the first node.
async fn as_coordinator(
    start: AgentStart,
    node: String,
    signals: mpsc::Receiver<Signal>,
) -> anyhow::Result<()> {
    let others: Vec<String> =
        start.run.job.components.iter().flatten().filter(|name| **name != node).cloned().collect();
    let address = if start.run.job.id.is_none() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        let launcher = std::env::var("SLURM_LAUNCH_NODE_IPADDR").ok();
        address::of_first_node(&node, &others, launcher.as_deref())
    };
    let (listener, http) = listen(address).await?;
    let script = start.script;
    let context = context(start, node, address)?;
    begin(&context).await?;
    let sampling = Sampling::start(&context);
    let (coordinator, handle) = Coordinator::new(Rc::clone(&context), sampling.clone(), script);
    let running = spawn_local(coordinator.run());
    coordinator::say(&FromCoordinator::At { address: http.to_string() });
    if let Some(script) = script {
        spawn_local(script::watch(script, handle.clone()));
    }
    let clock = CoordinatorClock::new(Rc::clone(&context), None);
    let own = handle.clone();
    let link = Link::Own(handle.clone());
    let agent = Agent::new(context, sampling.clone(), clock, link, http)?;
    spawn_local(Server::new(Rc::clone(&agent.context), sampling, Some(handle)).serve(listener));
    agent.live(signals, Some(own), Some(running)).await;
    Ok(())
}

/// The agent of any other node.
async fn as_follower(
    start: AgentStart,
    node: String,
    mut input: mpsc::Receiver<Input>,
    signals: mpsc::Receiver<Signal>,
) -> anyhow::Result<()> {
    let at = tokio::time::timeout(COORDINATOR_KNOWN, input.recv()).await;
    let Ok(Some(Input::Coordinator(coordinator))) = at else {
        bail!("the coordinator's address was not received; see launch.log");
    };
    let coordinator: SocketAddr =
        coordinator.parse().context("reading the coordinator's address")?;
    let (name, token) = (node.clone(), start.token.clone());
    let lived = follow(start, node, coordinator, signals).await;
    if let Err(error) = &lived {
        // The coordinator would wait for this agent for a long time.
        let failure = Failure::new(Owner::Node, name, format!("starting its agent: {error:#}"));
        let client = Client::new(coordinator, token, LAST_WORD);
        let told = client.post::<_, serde_json::Value>("/v1/stop", &failure).await;
        if told.is_err() {
            complain("aifb-agent: the coordinator does not respond");
        }
    }
    lived
}

/// The agent of any other node, from the moment when it knows the coordinator.
async fn follow(
    start: AgentStart,
    node: String,
    coordinator: SocketAddr,
    signals: mpsc::Receiver<Signal>,
) -> anyhow::Result<()> {
    let address = address::towards(coordinator)
        .ok_or_else(|| anyhow!("cannot connect to the coordinator at {coordinator}"))?;
    let (listener, http) = listen(address).await?;
    let context = context(start, node, address)?;
    begin(&context).await?;
    let clock = CoordinatorClock::new(Rc::clone(&context), Some(coordinator));
    let link = Link::remote(coordinator, &context.token);
    let sampling = Sampling::start(&context);
    let agent = Agent::new(context, sampling.clone(), clock, link, http)?;
    spawn_local(Server::new(Rc::clone(&agent.context), sampling, None).serve(listener));
    agent.live(signals, None, None).await;
    Ok(())
}

/// The name of this node as Slurm knows it; several nodes of a test may share a host name.
fn node_name(start: &AgentStart) -> anyhow::Result<String> {
    if start.protocol != PROTOCOL {
        bail!("the launcher uses protocol {}, this agent {PROTOCOL}", start.protocol);
    }
    if let Ok(name) = std::env::var("SLURMD_NODENAME") {
        return Ok(name);
    }
    let nodes: Vec<&String> = start.run.job.components.iter().flatten().collect();
    match (start.run.job.id, nodes.as_slice()) {
        (None, [only]) => Ok((*only).clone()),
        _ => bail!("SLURMD_NODENAME is not set: this is not a task of srun"),
    }
}

async fn listen(address: std::net::IpAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener =
        TcpListener::bind((address, 0)).await.with_context(|| format!("listening on {address}"))?;
    let http = listener.local_addr().context("finding the port")?;
    Ok((listener, http))
}

fn context(
    start: AgentStart,
    node: String,
    address: std::net::IpAddr,
) -> anyhow::Result<Rc<Context>> {
    let resolved = Resolved::from_value(start.recipe).context("reading the recipe")?;
    let recipe = resolved.recipe().clone();
    let logging = SharedLogging::new(recipe.logging);
    Ok(Rc::new(Context {
        record: start.run,
        recipe,
        resolved,
        run_dir: PathBuf::from(start.run_dir),
        token: start.token,
        environment: start.environment,
        program: PathBuf::from(OWN_PROGRAM),
        node,
        address,
        files: Files::start(),
        outbox: Outbox::default(),
        logging,
        ending: Ending::default(),
    }))
}

/// Makes the node's folder and starts the log.
async fn begin(context: &Rc<Context>) -> anyhow::Result<()> {
    let folder = context.node_dir();
    let made = folder.clone();
    tokio::task::spawn_blocking(move || std::fs::create_dir_all(made))
        .await?
        .with_context(|| format!("making '{}'", folder.display()))?;
    log::start(&context.files, folder.join(file::AGENT_LOG), context.logging.clone());
    tracing::info!(node = context.node, address = %context.address, "agent up");
    Ok(())
}

/// The parts of a running agent.
struct Agent {
    context: Rc<Context>,
    sampling: Sampling,
    shipping: Shipping,
    replicas: Rc<Replicas>,
    workers: Rc<Workers>,
    peer: Rc<Peer>,
    orders: mpsc::Receiver<NodeOrder>,
    clock: Rc<CoordinatorClock>,
}

impl Agent {
    /// Starts the workers' socket and the conversation with the coordinator, and says
    /// where this agent is.
    fn new(
        context: Rc<Context>,
        sampling: Sampling,
        clock: CoordinatorClock,
        link: Link,
        http: SocketAddr,
    ) -> anyhow::Result<Self> {
        let clock = Rc::new(clock);
        let workers = Workers::new(Rc::clone(&context), Rc::clone(&clock));
        let (socket, listener) =
            worker_socket::bind(&context.record.run_id).context("making the workers' socket")?;
        let record = AgentRecord {
            protocol: PROTOCOL,
            node: context.node.clone(),
            pid: std::process::id(),
            address: http.to_string(),
            socket,
            coordinator: matches!(link, Link::Own(_)),
            started_epoch_ns: clock::epoch_ns(),
        };
        let mut json = serde_json::to_vec_pretty(&record)?;
        json.push(b'\n');
        context.files.replace(&context.node_dir().join(file::AGENT), 0o600, json);
        spawn_local(Rc::clone(&workers).serve(listener));
        let (peer, orders) = Peer::new(Rc::clone(&context), link, http);
        spawn_local(Rc::clone(&peer).talk());
        let shipping = Shipping::start(&context);
        let replicas = Replicas::new(&context, &sampling, &shipping);
        Ok(Self { sampling, shipping, replicas, workers, peer, orders, clock, context })
    }

    /// Carries out orders until the end.
    async fn live(
        mut self,
        mut signals: mpsc::Receiver<Signal>,
        own_coordinator: Option<coordinator::Handle>,
        coordinator: Option<tokio::task::JoinHandle<()>>,
    ) {
        let (clock, workers) = (Rc::clone(&self.clock), Rc::clone(&self.workers));
        spawn_local(async move { clock.keep_measuring(|| workers.busy()).await });
        let mut sweep = tokio::time::interval(stop::STRAYS_EVERY);
        let mut strays = stop::Strays::default();
        let mut lost = false;
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(NodeOrder::Finish) | None => break,
                    Some(order) => self.carry_out(order).await,
                },
                Some(signal) = signals.recv() => {
                    tracing::info!(%signal, "signal received");
                    self.context.ending.note(signal);
                    if let Some(coordinator) = &own_coordinator {
                        coordinator.signal(signal);
                    }
                }
                () = self.peer.wait_lost(), if !lost => {
                    lost = true;
                    self.workers.coordinator_lost();
                }
                () = stop::alone(&self.context, &self.peer) => {
                    self.end_alone().await;
                    break;
                }
                _ = sweep.tick() => {
                    strays.sweep();
                    if let Some(ledger) = self.shipping.ledger() {
                        self.sampling.logs(&ledger);
                    }
                    let troubles = self.sampling.troubles();
                    troubles.into_iter().for_each(|one| self.context.outbox.trouble(one));
                    self.tell_trouble();
                }
            }
        }
        self.end(coordinator).await;
    }

    /// Tells of records that the file system did not take: a full disk, most likely.
    fn tell_trouble(&self) {
        if let Some(Trouble { lost, reason }) = self.context.files.take_trouble() {
            let reason = reason.unwrap_or_default();
            self.context.outbox.warn(format!("{lost} records were not written: {reason}"));
        }
    }

    async fn carry_out(&self, order: NodeOrder) {
        match order {
            NodeOrder::StartReplica { service, replica, addresses, .. } => {
                let at = At { replica, addresses };
                self.replicas.start(&service, at);
            }
            NodeOrder::StopReplica { service, replica, grace_ms } => {
                self.replicas.stop(&service, replica, Duration::from_millis(grace_ms));
            }
            NodeOrder::ToWorker { worker, message } => {
                self.workers.deliver(&worker, message).await;
            }
            NodeOrder::Measuring { now } => self.sampling.measuring(now),
            NodeOrder::Finish => {}
        }
    }

    /// The end of an agent without a coordinator: what the coordinator would have ordered.
    async fn end_alone(&self) {
        tracing::warn!("ending without the coordinator's orders");
        self.workers.stop_all("the job ends");
        self.replicas.stop_all(stop::GRACE_ALONE);
        let _killed_below =
            tokio::time::timeout(stop::GRACE_ALONE * 2, self.replicas.wait_empty()).await;
    }

    /// The last things.
    async fn end(self, coordinator: Option<tokio::task::JoinHandle<()>>) {
        let begun = Instant::now();
        self.replicas.stop_all(Duration::ZERO);
        let _killed_below =
            tokio::time::timeout(stop::LAST_REPLICAS, self.replicas.wait_empty()).await;
        self.peer.leave().await;
        // Side by side: neither may take the other's time.
        tokio::join!(self.sampling.stop(), self.shipping.stop());
        if let Some(coordinator) = coordinator {
            let _panicked = coordinator.await;
        }
        stop::kill_all();
        tracing::info!(took_ms = begun.elapsed().as_millis(), "agent ends");
        self.context.files.remove(&self.context.node_dir().join(file::AGENT));
        let _hanging_files =
            tokio::time::timeout(stop::LAST_WRITES, self.context.files.flush()).await;
    }
}
