//! A stand-in for any HTTP server, on a real socket, that answers as a test says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::Linger};

/// What the server does with a request.
pub(super) enum Reply {
    /// Answers so.
    Status(u16, String),
    /// Answers with this status after a while.
    After(Duration, u16),
    /// Breaks the connection.
    Reset,
}

pub(super) struct Request {
    pub(super) line: String,
    headers: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// A server that ends with its test.
pub(super) struct Stand {
    pub(super) address: SocketAddr,
    count: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Stand {
    /// `answer` gets the number of the request from 0, in the order of their arrival.
    pub(super) fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stand = Self {
            address: listener.local_addr().unwrap(),
            count: Arc::default(),
            ended: Arc::default(),
        };
        let (count, ended, answer) =
            (Arc::clone(&stand.count), Arc::clone(&stand.ended), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(SeqCst) {
                    return;
                }
                let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
                thread::spawn(move || serve(&stream.unwrap(), &count, &*answer));
            }
        });
        stand
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> usize {
        self.count.load(SeqCst)
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        let _wakes_the_listener = TcpStream::connect(self.address);
    }
}

/// Answers the requests of one connection.
fn serve(stream: &TcpStream, count: &AtomicUsize, answer: &dyn Fn(usize, &Request) -> Reply) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let (status, text) = match answer(count.fetch_add(1, SeqCst), &request) {
            Reply::Status(status, text) => (status, text),
            Reply::After(pause, status) => {
                thread::sleep(pause);
                (status, String::new())
            }
            Reply::Reset => {
                // Not an ordinary end: what was sent is thrown away.
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(stream, Linger, &linger).unwrap();
                return;
            }
        };
        let length = text.len();
        let head = format!("HTTP/1.1 {status} x\r\nContent-Type: text/plain\r\n");
        let body =
            if status == 204 { String::new() } else { format!("Content-Length: {length}\r\n") };
        let mut stream = stream;
        if stream.write_all(format!("{head}{body}\r\n{text}").as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut request = Request { line: lines.remove(0), headers: lines, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
