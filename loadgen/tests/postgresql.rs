//! The driver `postgresql` against a real PostgreSQL, as an ordinary user, on a free port.
//!
//! Without PostgreSQL's programs the tests say so and pass; with CI=true that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic as tests do, and a skip has to be seen"
)]

mod support;

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use aifb_schema::result::LoadResult;
use nix::sys::signal::Signal;
use serde_json::json;
use support::{PROGRAM, Running, agent::FakeAgent, result, until};

const MOST: Duration = Duration::from_secs(60);

const PASSWORD: &str = "only for this test";

/// A server of its own for a test.
struct Server {
    server: Running,
    port: u16,
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // In order, so that it gives its shared memory back; `Running` sees to the rest.
        if let Ok(None) = self.server.0.try_wait() {
            self.server.signal(Signal::SIGINT);
            let _ended = self.server.end(MOST);
        }
    }
}

/// Folder of initdb and postgres: on PATH, or where Debian puts it.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(debian.map(|entry| entry.path().join("bin")))
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// PostgreSQL refuses to run as root: then as nobody.
fn as_user(command: &mut Command) -> &mut Command {
    if nix::unistd::geteuid().is_root() { command.uid(65_534).gid(65_534) } else { command }
}

impl Server {
    /// Starts one; `None`, loudly, where there is no PostgreSQL.
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "PostgreSQL is not installed");
            println!("SKIPPED: initdb and postgres are not here: apt install postgresql");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("aifb-pg").tempdir_in("/tmp").unwrap();
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        if nix::unistd::geteuid().is_root() {
            for path in [folder.path(), &password] {
                chown(path, Some(65_534), Some(65_534)).unwrap();
            }
        }
        let made = as_user(&mut Command::new(programs.join("initdb")))
            .args([
                "-U",
                "postgres",
                "--auth=scram-sha-256",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (server, port) = listen(&programs, folder.path(), &data);
        let server = Self { server, port, programs, folder };
        until(MOST, || (server.sql("SELECT 1")? == "1").then_some(()));
        Some(server)
    }

    /// Runs a statement by psql; `None` if that fails.
    fn sql(&self, text: &str) -> Option<String> {
        let output = Command::new(self.psql())
            .args(["-h", "127.0.0.1", "-U", "postgres", "-A", "-t", "-q", "-c", text])
            .args(["-p", &self.port.to_string()])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    fn psql(&self) -> PathBuf {
        let beside = self.programs.join("psql");
        if beside.exists() { beside } else { "psql".into() }
    }

    fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn measure(&self, options: &[&str], password: &str) -> Output {
        Command::new(PROGRAM)
            .args(["run", "--json", "--driver", "postgresql", "--url", &self.url()])
            .args(options)
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
    }
}

/// Starts the server on a port that is free; another one if somebody else took it meanwhile.
fn listen(programs: &Path, folder: &Path, data: &Path) -> (Running, u16) {
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = as_user(&mut Command::new(programs.join("postgres")))
            .arg("-D")
            .arg(data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-F", "-k", ""])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Running(child);
        let listens = until(MOST, || match server.0.try_wait().unwrap() {
            Some(_) => Some(false),
            None => std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true),
        });
        if listens {
            return (server, port);
        }
    }
}

/// Counts and operations of a good result.
fn check(result: &LoadResult, requests: u64) {
    assert_eq!(
        (result.counts.sent, result.counts.ok),
        (requests, requests),
        "{:?}",
        result.error_examples
    );
    let operations = &result.operations;
    let names: Vec<&str> = operations.keys().map(String::as_str).collect();
    assert_eq!(names, ["delete", "insert", "select", "update"]);
    assert_eq!(
        operations.values().map(|operation| operation.counts.unwrap().ok).sum::<u64>(),
        requests
    );
    assert!(operations["select"].items > operations["delete"].items);
    assert!(result.metrics.ttft_seconds.is_none());
    assert!(result.metrics.service_seconds.unwrap().min > 0.0);
}

#[test]
fn a_mix_of_statements_is_measured() {
    let Some(server) = Server::start() else { return };
    let output = server.measure(&["--concurrency", "4", "--requests", "1000"], PASSWORD);
    let found = result(&output);
    check(&found, 1000);
    let rows: u64 = server.sql("SELECT count(*) FROM aifb_load").unwrap().parse().unwrap();
    let items = |name: &str| found.operations[name].items.unwrap();
    assert_eq!(rows, 10_000 + items("insert") - items("delete"));
    // Again, open: the table is ours, so it is made anew.
    let output =
        server.measure(&["--rate", "300/s", "--process", "constant", "--for", "1s"], PASSWORD);
    check(&result(&output), 300);
    wrong_things_are_named(&server);
    several_workers_share_it(&server);
    a_server_that_dies_is_seen(server);
}

fn wrong_things_are_named(server: &Server) {
    let output = server.measure(&["--concurrency", "1", "--requests", "1"], "wrong");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("password authentication failed") && text.contains("hint: "), "{text}");
    // Somebody else's table is not touched.
    server.sql("ALTER TABLE aifb_load RENAME TO kept; COMMENT ON TABLE kept IS NULL").unwrap();
    server.sql("ALTER TABLE kept RENAME TO aifb_load").unwrap();
    let output = server.measure(&["--concurrency", "1", "--requests", "1"], PASSWORD);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("was not made by aifb"), "{text}");
    assert_ne!(server.sql("SELECT count(*) FROM aifb_load").unwrap(), "0");
}

fn several_workers_share_it(server: &Server) {
    let load = json!({
        "name": "chat", "driver": "postgresql", "arrival": {"concurrency": 6},
        "phases": {"warmup": "100ms", "measure": {"requests": 600}},
        "postgresql": {"table": "public.shared", "rows": 500},
    });
    let mut agent = FakeAgent::new(load, 3, &format!("http://127.0.0.1:{}", server.port));
    agent.plan.secrets.insert("POSTGRES_PASSWORD".into(), PASSWORD.into());
    let mut workers: Vec<Running> = (0..3).map(|rank| agent.worker(rank)).collect();
    agent.start();
    assert!(agent.finish().is_empty());
    for worker in &mut workers {
        assert_eq!(worker.end(MOST), 0);
    }
    check(&agent.result(), 600);
    assert_ne!(server.sql("SELECT count(*) FROM public.shared").unwrap(), "0");
}

/// In the middle of a load: what is in flight and what follows fails, and all of it is counted.
fn a_server_that_dies_is_seen(mut server: Server) {
    server.sql("DROP TABLE aifb_load").unwrap();
    let child = Command::new(PROGRAM)
        .args(["run", "--json", "--driver", "postgresql", "--url", &server.url()])
        .args(["--rate", "200/s", "--process", "constant", "--for", "3s"])
        .env("PGPASSWORD", PASSWORD)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until(MOST, || {
        let busy = "SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'aifb_load' AND n_tup_upd > 10";
        (server.sql(busy)? == "1").then_some(())
    });
    server.server.signal(Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    server.server.end(MOST);
    let found = result(&output);
    assert!(found.counts.ok > 0 && found.counts.failed > 0, "{:?}", found.counts);
    assert_eq!(found.counts.sent, 600);
    assert!(found.errors.contains_key("connect_refused"), "{:?}", found.errors);
    assert!(server.folder.path().exists());
}
