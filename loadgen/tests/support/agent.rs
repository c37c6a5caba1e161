//! A stand-in for the agent and the coordinator behind it: speaks `schema::control` to the
//! workers of one load over an abstract Unix socket.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use aifb_schema::{
    control::{Delta, FromWorker, LoadPlan, ToWorker},
    names::PROTOCOL,
    recipe::Load,
    result::LoadResult,
    run::{AgentRecord, Endpoint},
};

use super::{PROGRAM, Running};

/// Longest wait for a message of a worker.
const MOST: Duration = Duration::from_secs(30);

/// A worker's message, or the end of its connection.
pub(crate) type Message = (u32, Option<FromWorker>);

/// The stand-in.
pub(crate) struct FakeAgent {
    listener: UnixListener,
    pub(crate) run_dir: tempfile::TempDir,
    pub(crate) plan: LoadPlan,
    /// The last that each worker told while [`FakeAgent::finish`] waited for its end.
    pub(crate) progress: BTreeMap<u32, Delta>,
    workers: BTreeMap<u32, UnixStream>,
    messages: Receiver<Message>,
    sender: Sender<Message>,
}

impl FakeAgent {
    /// An agent for a load of `size` workers against `url`. `load` is a recipe's load as JSON.
    pub(crate) fn new(load: serde_json::Value, size: u32, url: &str) -> Self {
        let run_dir = tempfile::tempdir().expect("a run folder");
        let socket = format!("aifb-test-{}", run_dir.path().display());
        let address = SocketAddr::from_abstract_name(&socket).expect("a socket name");
        let listener = UnixListener::bind_addr(&address).expect("bind");
        let node = run_dir.path().join("nodes/node1");
        std::fs::create_dir_all(&node).expect("a node's folder");
        let record = AgentRecord {
            protocol: PROTOCOL,
            node: "node1".into(),
            pid: std::process::id(),
            address: "127.0.0.1:1".into(),
            socket,
            coordinator: true,
            started_epoch_ns: 0,
        };
        let text = serde_json::to_vec(&record).expect("a record");
        std::fs::write(node.join("agent.json"), text).expect("agent.json");
        let folder = run_dir.path().join("load/chat/p0/r0");
        std::fs::create_dir_all(&folder).expect("a load's folder");
        let load: Load = serde_json::from_value(load).expect("a load");
        let address = url.strip_prefix("http://").unwrap_or("127.0.0.1:1");
        let (host, port) = address.rsplit_once(':').expect("host and port");
        let endpoint = Endpoint {
            service: "llm".into(),
            replica: 0,
            node: "node1".into(),
            host: host.into(),
            port: port.parse().expect("a port"),
            url: url.into(),
            ports: std::collections::BTreeMap::new(),
            healthy_epoch_ns: 1,
        };
        let plan = LoadPlan {
            run_id: "local-test".into(),
            folder: folder.display().to_string(),
            load,
            point: 0,
            settings: BTreeMap::new(),
            repeat: 0,
            size,
            rank: None,
            endpoints: vec![endpoint],
            model: Some("mock".into()),
            secrets: BTreeMap::new(),
        };
        let (sender, messages) = channel();
        let (progress, workers) = (BTreeMap::new(), BTreeMap::new());
        Self { listener, run_dir, plan, progress, workers, messages, sender }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        PathBuf::from(&self.plan.folder)
    }

    pub(crate) fn result(&self) -> LoadResult {
        let text = std::fs::read(self.folder().join("result.json")).expect("result.json");
        let result: LoadResult = serde_json::from_slice(&text).expect("a result");
        assert!(result.counts.balanced(), "{:?}", result.counts);
        result
    }

    /// Starts a worker and takes its `Join`.
    pub(crate) fn worker(&mut self, rank: u32) -> Running {
        let child = worker(self.run_dir.path(), rank, self.plan.size);
        let (stream, _) = self.listener.accept().expect("a worker");
        stream.set_write_timeout(Some(MOST)).expect("a timeout");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("a first line");
        match serde_json::from_str(&first).expect("a message") {
            FromWorker::Join { protocol, worker, size, point, repeat, whole } => {
                assert_eq!(whole, None, "one step");
                assert_eq!((protocol, worker.rank, size), (PROTOCOL, rank, self.plan.size));
                assert_eq!((worker.load.as_str(), point, repeat), ("chat", None, None));
            }
            other => panic!("{other:?} instead of a join"),
        }
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).expect("a message");
                if sender.send((rank, Some(message))).is_err() {
                    return;
                }
            }
            // The test may be over.
            let _ignored = sender.send((rank, None));
        });
        self.workers.insert(rank, stream);
        child
    }

    pub(crate) fn send(&mut self, rank: u32, message: &ToWorker) {
        let mut line = serde_json::to_vec(message).expect("a line");
        line.push(b'\n');
        self.workers.get_mut(&rank).expect("a worker").write_all(&line).expect("send");
    }

    pub(crate) fn send_all(&mut self, message: &ToWorker) {
        for rank in self.workers.keys().copied().collect::<Vec<_>>() {
            self.send(rank, message);
        }
    }

    /// Lets go of the workers, as an agent does that dies.
    pub(crate) fn die(&mut self) {
        for stream in std::mem::take(&mut self.workers).into_values() {
            // A worker that has ended has closed it already.
            let _ignored = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    pub(crate) fn next(&self) -> Message {
        self.messages.recv_timeout(MOST).expect("a message in time")
    }

    /// Sends the plan, waits until all are ready, starts them.
    pub(crate) fn start(&mut self) {
        let plan = Box::new(self.plan.clone());
        self.send_all(&ToWorker::Plan(plan));
        self.ready();
        let at_mono_ns = mono_ns() + 50_000_000;
        self.send_all(&ToWorker::Start { at_mono_ns, clock_error_ns: 0 });
    }

    pub(crate) fn ready(&mut self) {
        let mut ready = 0;
        while ready < self.workers.len() {
            match self.next() {
                (_, Some(FromWorker::Ready { plan_hash, .. })) => {
                    assert_eq!(plan_hash.len(), 64);
                    ready += 1;
                }
                other => panic!("{other:?} instead of ready"),
            }
        }
    }

    /// Waits until every worker is done or lost, has the result written and releases all.
    /// Gives the lost ranks.
    pub(crate) fn finish(&mut self) -> Vec<u32> {
        let (mut done, mut lost) = (Vec::new(), Vec::new());
        while done.len() + lost.len() < self.workers.len() {
            match self.next() {
                (rank, Some(FromWorker::Done { .. })) => done.push(rank),
                (rank, None) => lost.push(rank),
                (rank, Some(FromWorker::Delta(delta))) => {
                    self.progress.insert(rank, delta);
                }
                other => panic!("{other:?} instead of done"),
            }
        }
        for rank in &lost {
            self.workers.remove(rank);
        }
        let leader = *self.workers.keys().next().expect("a survivor");
        self.send(leader, &ToWorker::Merge { lost: lost.clone(), clocks: Vec::new() });
        loop {
            match self.next() {
                (rank, Some(FromWorker::ResultWritten)) => {
                    assert_eq!(rank, leader);
                    break;
                }
                (_, Some(FromWorker::Delta(_))) => {}
                other => panic!("{other:?} instead of a result"),
            }
        }
        self.send_all(&ToWorker::Release);
        lost
    }
}

/// Starts a worker with the environment of a run without Slurm.
pub(crate) fn worker(run_dir: &Path, rank: u32, size: u32) -> Running {
    let child = Command::new(PROGRAM)
        .args(["--load", "chat"])
        .env_clear()
        .env("AIFB_RUN_DIR", run_dir)
        .env("AIFB_JOB_ID", "local-test")
        .env("AIFB_LOCAL_RANK", rank.to_string())
        .env("AIFB_LOCAL_SIZE", size.to_string())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a worker");
    Running(child)
}

pub(crate) fn mono_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
