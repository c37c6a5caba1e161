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
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

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

/// Keys of a test: names of files, and the server's certificate and key as text.
pub(super) struct Keys {
    pub(super) ca: String,
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) server: (String, String),
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
        Self::start_with(None, answer)
    }

    /// The same with TLS; `asks` says whether clients need a certificate.
    pub(super) fn start_tls(
        keys: &Keys,
        asks: bool,
        answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&keys.ca).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (cert, key) = &keys.server;
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        Self::start_with(Some(Arc::new(builder.with_single_cert(chain, key).unwrap())), answer)
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
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
                let (stream, tls) = (stream.unwrap(), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(&stream, &stream, &count, &*answer),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).unwrap();
                        let over = stream.try_clone().unwrap();
                        serve(StreamOwned::new(session, over), &stream, &count, &*answer);
                    }
                });
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

/// Answers the requests of one connection, which bytes go over as `over` says.
fn serve(
    over: impl Read + Write,
    stream: &TcpStream,
    count: &AtomicUsize,
    answer: &dyn Fn(usize, &Request) -> Reply,
) {
    let mut reader = BufReader::new(over);
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
        let writer = reader.get_mut();
        let sent = writer.write_all(format!("{head}{body}\r\n{text}").as_bytes());
        if sent.and_then(|()| writer.flush()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
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
