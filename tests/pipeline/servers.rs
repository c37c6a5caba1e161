//! The real Prometheus and Pushgateway of Debian's packages, each on a port of its own.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Longest time for a server to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with Debian's Prometheus of that release; `None`, loudly, where it cannot be had.
pub(crate) fn unpacked(release: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/prometheus");
    let output = Command::new(script).arg(release).stderr(Stdio::inherit()).output().unwrap();
    if output.status.code() == Some(77) && std::env::var_os("CI").is_none() {
        eprintln!("SKIPPED, LOUDLY: no Prometheus of {release} can be had here");
        return None;
    }
    assert!(output.status.success(), "tests/support/prometheus {release}");
    Some(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
}

/// An address where nobody listens.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that ends with its test.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
    _folder: TempDir,
}

impl Server {
    /// Prometheus with this configuration; samples can be written to it.
    pub(crate) fn prometheus(unpacked: &Path, configuration: &str) -> Self {
        Self::prometheus_at(unpacked, configuration, free())
    }

    /// The same at a certain address.
    pub(crate) fn prometheus_at(unpacked: &Path, configuration: &str, address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prometheus.yml"), configuration).unwrap();
        let data = folder.path().join("data");
        let words = [
            format!("--config.file={}", folder.path().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", data.display()),
            "--web.enable-remote-write-receiver".to_owned(),
            "--log.level=error".to_owned(),
        ];
        Self::start(&unpacked.join("bin/prometheus"), &words, folder, address)
    }

    /// A Pushgateway that keeps nothing beyond its life: by default Debian's restores old groups.
    pub(crate) fn pushgateway(unpacked: &Path) -> Self {
        let words = ["--persistence.file=".to_owned(), "--log.level=warn".to_owned()];
        let folder = tempfile::tempdir().unwrap();
        Self::start(&unpacked.join("bin/prometheus-pushgateway"), &words, folder, free())
    }

    fn start(program: &Path, words: &[String], folder: TempDir, address: SocketAddr) -> Self {
        let child = Command::new(program)
            .arg(format!("--web.listen-address={address}"))
            .args(words)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { address: address.to_string(), child, _folder: folder };
        let begun = Instant::now();
        while get(&server.url("/-/ready"), &[]).is_none() {
            assert!(begun.elapsed() < PATIENCE, "{} is not ready", program.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The result of an instant query.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let answer = ureq::get(self.url("/api/v1/query")).query("query", expression).call();
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The body of a good answer.
pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> Option<String> {
    let request = headers.iter().fold(ureq::get(url), |request, (k, v)| request.header(*k, *v));
    request.call().ok()?.body_mut().read_to_string().ok()
}
