//! A server of somebody else: started with its whole process group, ended with it.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::support::until;

/// Longest start: a busy machine loads a model in seconds.
const START: Duration = Duration::from_secs(90);

/// Longest end, before it is killed.
const STOP: Duration = Duration::from_secs(20);

/// Longest time that ports stay taken after the end: Triton holds them for some seconds.
const RELEASE: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Server {
    child: Child,
    ports: Vec<u16>,
    log: PathBuf,
    /// Its folder, gone with it.
    _folder: tempfile::TempDir,
}

/// Ports that are free now, all different.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let open: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    open.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

impl Server {
    /// Starts `command` and waits until `path` on the first port answers 200.
    pub(crate) fn start(command: &mut Command, ports: Vec<u16>, path: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let output = File::create(&log).expect("a log");
        let child = command
            .env("HOME", folder.path())
            .env("PYTRITON_HOME", folder.path())
            .current_dir(folder.path())
            .stdout(output.try_clone().expect("the log"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .expect("start the server");
        let mut server = Self { child, ports, log, _folder: folder };
        let port = server.ports[0];
        let deadline = Instant::now() + START;
        while get(port, path).is_none_or(|(status, _)| status != 200) {
            let ended = server.child.try_wait().expect("wait for the server");
            let late = Instant::now() > deadline;
            assert!(ended.is_none() && !late, "not ready ({ended:?}): {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Everything that it wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id() as i32);
        let _ignored = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + STOP;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        // What is left of the group: Triton is a child of the Python that started it.
        let _ignored = killpg(group, Signal::SIGKILL);
        let _ignored = self.child.wait();
        if !std::thread::panicking() {
            for port in &self.ports {
                until(RELEASE, || TcpListener::bind(("127.0.0.1", *port)).ok().map(drop));
            }
        }
    }
}

/// Status and body of a GET.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    ask(port, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
}

/// Status and body of a POST of JSON.
pub(crate) fn post(port: u16, path: &str, json: &str) -> Option<(u16, String)> {
    ask(
        port,
        &format!(
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{json}",
            json.len()
        ),
    )
}

fn ask(port: u16, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
