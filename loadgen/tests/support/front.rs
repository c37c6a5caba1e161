//! Servers in front of the mock: TLS and Unix sockets that pass bytes on, and servers that answer
//! each connection by a script.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::io::copy_bidirectional;

/// An authority with a certificate for a server and one for a client, as files of a folder.
pub(crate) struct Keys {
    pub(crate) folder: tempfile::TempDir,
}

impl Keys {
    /// For a server of this name.
    pub(crate) fn make(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Self { folder };
        let mut params = CertificateParams::new(vec!["authority".to_owned()]).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        keys.keep("ca.pem", &params.self_signed(&key).expect("a certificate").pem());
        let issuer = Issuer::new(params, key);
        for (file, name) in [("server", name), ("client", "client.test")] {
            let params = CertificateParams::new(vec![name.to_owned()]).expect("names");
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            keys.keep(&format!("{file}.pem"), &certificate.pem());
            keys.keep(&format!("{file}.key"), &key.serialize_pem());
        }
        keys
    }

    fn keep(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).expect("write a key");
    }

    /// A file's path.
    pub(crate) fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    fn certificates(&self, file: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.path(file))
            .expect("certificates")
            .map(|found| found.expect("a certificate"))
            .collect()
    }

    fn server(&self, alpn: &[&str], asks: bool) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(self.certificates("ca.pem"));
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).expect("a key");
        let mut config =
            builder.with_single_cert(self.certificates("server.pem"), key).expect("a certificate");
        config.alpn_protocols = alpn.iter().map(|word| word.as_bytes().to_vec()).collect();
        config
    }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

/// Runs a server's loop on a thread of its own; it ends with the program.
fn behind(run: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    thread::spawn(move || runtime.block_on(run));
}

/// TLS in front of `url`; gives the port. `alpn` is what the server offers; `asks` whether it
/// wants a certificate of the client.
pub(crate) fn tls(url: &str, keys: &Keys, alpn: &[&str], asks: bool) -> u16 {
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(keys.server(alpn, asks)));
    let to = address(url);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    behind(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that gives up is what some tests are about.
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut mock = tokio::net::TcpStream::connect(to).await.expect("the mock");
                let _ignored = copy_bidirectional(&mut tls, &mut mock).await;
            });
        }
    });
    port
}

/// A Unix socket in front of `url`.
pub(crate) fn unix(url: &str, folder: &Path) -> PathBuf {
    let path = folder.join("service.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    listener.set_nonblocking(true).expect("a listener");
    let to = address(url);
    behind(async move {
        let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut mock = tokio::net::TcpStream::connect(to).await.expect("the mock");
                let _ignored = copy_bidirectional(&mut stream, &mut mock).await;
            });
        }
    });
    path
}

/// A server that treats each connection with `serve`, on a thread of its own; gives its URL.
pub(crate) fn scripted(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    url
}

/// Reads one request; `None` at the end of the connection. Bodies need a content-length.
pub(crate) fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).expect("a head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// Answers each request on a connection with `text`.
pub(crate) fn always(text: &'static str) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |mut stream| {
        while request(&mut stream).is_some() {
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }
}
