//! One question to a service: does it answer?

use std::{io::SeekFrom, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    net::TcpStream,
    time::timeout,
};

use super::supervisor::{Launchable, Output, Report, Supervisor};
use crate::run::client;

/// Longest time for one answer: a service under full load may be slow, and that is no illness.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest time for a probe that is a command: a container takes a moment to start.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a log that are looked at in one probe; the rest is for the next one.
const LOG_PIECE: u64 = 1 << 20;

/// How a service is probed.
#[derive(Debug)]
pub(crate) enum Prober {
    /// `GET` of a path.
    Http {
        /// Where.
        address: SocketAddr,
        /// `host:port` as the service calls itself.
        host: String,
        /// The path.
        path: String,
    },
    /// A connection.
    Tcp(SocketAddr),
    /// A command run as the service is run.
    Exec {
        /// This program, which is the supervisor, too.
        agent: PathBuf,
        /// The command.
        what: Box<Launchable>,
    },
    /// A text in the service's output, once seen for good.
    Log {
        /// The files and how far each was read.
        files: Vec<(PathBuf, u64)>,
        /// The text.
        text: String,
        /// Whether it was seen.
        seen: bool,
    },
}

impl Prober {
    /// Asks once; why not, if not.
    pub(crate) async fn ask(&mut self) -> Result<(), String> {
        match self {
            Self::Http { address, host, path } => {
                let asked = format!("GET {path} of {address}");
                match client::probe(*address, host, path, PATIENCE).await {
                    Ok(status) if (200..400).contains(&status.as_u16()) => Ok(()),
                    Ok(status) => Err(format!("{asked}: status {}", status.as_u16())),
                    Err(error) => Err(format!("{asked}: {error}")),
                }
            }
            Self::Tcp(address) => match timeout(PATIENCE, TcpStream::connect(*address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("connecting to {address}: {error}")),
                Err(_) => Err(format!("connecting to {address}: no response")),
            },
            Self::Exec { agent, what } => {
                let asked = format!("health.exec '{}'", what.program.display());
                match timeout(COMMAND_PATIENCE, run(agent, what)).await {
                    Ok(answer) => answer.map_err(|cause| format!("{asked}: {cause}")),
                    Err(_) => Err(format!("{asked}: not finished within {COMMAND_PATIENCE:?}")),
                }
            }
            Self::Log { files, text, seen } => {
                for (path, read) in files.iter_mut() {
                    *seen = *seen || contains(path, read, text).await;
                }
                seen.then_some(()).ok_or_else(|| format!("no output contains '{text}'"))
            }
        }
    }

    /// Whether asking costs enough to disturb a measurement.
    pub(crate) fn is_costly(&self) -> bool {
        matches!(self, Self::Exec { .. })
    }
}

async fn run(agent: &std::path::Path, what: &Launchable) -> Result<(), String> {
    let null = || std::fs::File::options().write(true).open("/dev/null");
    let output = null().and_then(|stdout| Ok(Output { stdout, stderr: null()? }));
    let output = output.map_err(|error| error.to_string())?;
    let mut supervisor = Supervisor::start(agent, what, output, Duration::ZERO, None)
        .map_err(|error| error.to_string())?;
    loop {
        match supervisor.next().await {
            Report::Started { .. } => {}
            Report::NotStarted { cause } => return Err(cause),
            Report::Ended { code: Some(0), .. } => return Ok(()),
            Report::Ended { code: Some(code), .. } => return Err(format!("exit code {code}")),
            Report::Ended { signal, .. } => {
                return Err(format!("ended by signal {}", signal.unwrap_or_default()));
            }
        }
    }
}

/// Whether the text stands in what the file has got since `read`. A part of the text at the end
/// is read again with the next piece.
async fn contains(path: &PathBuf, read: &mut u64, text: &str) -> bool {
    let mut piece = Vec::new();
    let work = async {
        let mut file = File::open(path).await?;
        file.seek(SeekFrom::Start(*read)).await?;
        file.take(LOG_PIECE).read_to_end(&mut piece).await
    };
    if !matches!(timeout(PATIENCE, work).await, Ok(Ok(_))) {
        return false;
    }
    let wanted = text.as_bytes();
    let found = piece.windows(wanted.len().max(1)).any(|window| window == wanted);
    let again = piece.len().min(wanted.len().saturating_sub(1));
    *read += u64::try_from(piece.len() - again).unwrap_or(0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_is_found_across_two_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout.log");
        std::fs::write(&path, "starting\nserver re").unwrap();
        let files = vec![(path.clone(), 0)];
        let mut prober = Prober::Log { files, text: "server ready".into(), seen: false };
        assert!(prober.ask().await.unwrap_err().contains("server ready"));
        std::fs::write(&path, "starting\nserver ready\n").unwrap();
        prober.ask().await.unwrap();
        std::fs::write(&path, "").unwrap();
        prober.ask().await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_and_a_bad_status_are_told() {
        let local = tokio::task::LocalSet::new();
        let answer = local.run_until(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::task::spawn_local(async move {
                use tokio::io::AsyncWriteExt;
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            });
            let host = address.to_string();
            let first = Prober::Http { address, host, path: "/health".into() }.ask().await;
            (first, Prober::Tcp(address).ask().await)
        });
        let (first, second) = answer.await;
        assert!(first.unwrap_err().ends_with("status 503"));
        assert!(second.unwrap_err().contains("refused"));
    }
}
