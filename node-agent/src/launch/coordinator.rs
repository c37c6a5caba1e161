//! Watches from the launcher whether the coordinator still lives.
//!
//! Other agents may go on without it, so the end of srun does not tell.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc::SyncSender,
    thread,
    time::{Duration, Instant},
};

use aifb_schema::{control::LOST_AFTER_MS, run::Failure};

use super::agents::Happened;

/// Time between questions.
const EVERY: Duration = Duration::from_secs(1);

/// Longest time for one answer; the coordinator answers at once unless its node is gone.
const ANSWER: Duration = Duration::from_secs(2);

/// Consecutive requests without a response that count as silence: a single one may be due to a
/// pause of this process (a suspended job).
const FAILED_MIN: u32 = 2;

/// Asks on a thread of its own until the coordinator is silent or the launcher ends.
pub(crate) fn watch(address: SocketAddr, token: String, queue: SyncSender<Happened>) {
    thread::spawn(move || {
        let mut connection = None;
        let mut good = Instant::now();
        let mut failed = 0;
        let silence = Duration::from_millis(LOST_AFTER_MS);
        loop {
            match ask(&mut connection, address, &token) {
                Ok(()) => (good, failed) = (Instant::now(), 0),
                Err(error) => {
                    connection = None;
                    failed += 1;
                    // Only the kernel closes a port.
                    let dead = error.kind() == io::ErrorKind::ConnectionRefused;
                    if failed >= FAILED_MIN && (dead || good.elapsed() >= silence) {
                        let _over = queue.send(Happened::Silent(error.to_string()));
                        return;
                    }
                }
            }
            thread::sleep(EVERY);
        }
    });
}

/// Asks the coordinator to end the run, because of `failure` if there is one; it may be gone
/// already.
pub(crate) fn stop(address: SocketAddr, token: &str, failure: Option<&Failure>) {
    let body = failure.and_then(|failure| serde_json::to_vec(failure).ok()).unwrap_or_default();
    let _gone = exchange(&mut None, address, "POST /v1/stop", token, &body);
}

/// Whether the coordinator answers.
pub(crate) fn answers(address: SocketAddr, token: &str) -> bool {
    ask(&mut None, address, token).is_ok()
}

/// One question on the open connection, or on a new one.
fn ask(
    connection: &mut Option<BufReader<TcpStream>>,
    address: SocketAddr,
    token: &str,
) -> io::Result<()> {
    exchange(connection, address, "GET /v1/clock", token, &[])
}

fn exchange(
    connection: &mut Option<BufReader<TcpStream>>,
    address: SocketAddr,
    what: &str,
    token: &str,
    content: &[u8],
) -> io::Result<()> {
    let mut reader = match connection.take() {
        Some(reader) => reader,
        None => {
            let stream = TcpStream::connect_timeout(&address, ANSWER)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            BufReader::new(stream)
        }
    };
    let request = format!(
        "{what} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\n\r\n",
        content.len()
    );
    reader.get_mut().write_all(&[request.as_bytes(), content].concat())?;
    let length = body_length(&mut reader)?;
    // The answers have some 60 bytes.
    let mut body = vec![0; length.min(4096)];
    io::Read::read_exact(&mut reader, &mut body)?;
    *connection = Some(reader);
    Ok(())
}

/// Reads the head of an answer.
fn body_length(reader: &mut BufReader<TcpStream>) -> io::Result<usize> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim().is_empty() {
            return Ok(length);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}
