//! TLS by rustls with ring: whom to trust, and who we are.

use std::{fs::File, io::Read as _, sync::Arc};

use aifb_schema::recipe::{HttpVersion, Tls};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use crate::error::Fatal;

/// Largest file of certificates: the bundle of a system is about 200 KB.
const PEM_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How a load speaks TLS.
///
/// # Errors
/// If a file cannot be read or has invalid contents, or no authority would be trusted.
pub(super) fn config(tls: &Tls, version: HttpVersion) -> Result<Arc<ClientConfig>, Fatal> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fatal::loadgen(format!("preparing TLS: {error}")))?;
    let builder = if tls.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        let roots = Arc::new(roots(tls.ca.as_deref())?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| Fatal::usage(format!("preparing TLS: {error}")))?;
        builder.with_webpki_verifier(verifier)
    };
    let mut config = match (&tls.cert, &tls.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| {
                Fatal::usage(format!("reading TLS key '{key}': {error}"))
                    .hint("a private key in PEM form, without a password")
            })?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                Fatal::usage(format!("reading TLS certificate '{cert}' and key '{key}': {error}"))
                    .hint("the key must be that of the first certificate")
            })?
        }
        _ => {
            return Err(Fatal::usage("TLS: certificate and key go together")
                .hint("give both: --cert FILE --key FILE"));
        }
    };
    config.alpn_protocols = vec![match version {
        HttpVersion::Http1 => b"http/1.1".to_vec(),
        HttpVersion::Http2 => b"h2".to_vec(),
    }];
    Ok(Arc::new(config))
}

/// Authorities of a file, else of the system.
fn roots(ca: Option<&str>) -> Result<RootCertStore, Fatal> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| {
                    Fatal::usage(format!("reading TLS authorities '{path}': {error}"))
                })?;
            }
        }
        None => {
            // Some of a system's may be of no use to us.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(Fatal::usage("TLS: this node has no trusted certificate authorities").hint(
            "name a file with them: connection: {tls: {ca: FILE}} or --ca FILE (the system's bundle may also be \
             named by SSL_CERT_FILE)",
        ));
    }
    Ok(roots)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Fatal> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Fatal::usage(format!("reading TLS file '{path}': it has no certificate"))
            .hint("certificates in PEM form")),
        Err(error) => Err(Fatal::usage(format!("reading TLS file '{path}': {error}"))
            .hint("certificates in PEM form")),
    }
}

fn read(path: &str) -> Result<Vec<u8>, Fatal> {
    let wrong = |why: String| Fatal::usage(format!("reading TLS file '{path}': {why}"));
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| {
        wrong(error.to_string()).hint("paths are those of the node on which the client runs")
    })?;
    file.take(PEM_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > PEM_BYTES_MAX {
        return Err(wrong("it is larger than 16 MiB".to_owned()));
    }
    Ok(text)
}

/// Takes any certificate; the handshake itself is checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
