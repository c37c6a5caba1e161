//! TLS with files that a recipe names: whom to trust, and who asks.

use std::{fs::File, io::Read as _, time::Duration};

use aifb_schema::recipe::Tls;
use anyhow::{Context as _, bail};
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

use super::with;

/// Largest file of certificates: the bundle of a system is about 200 KB.
const PEM_MAX: u64 = 16 << 20;

/// A client whose trusted authorities and client certificate come from files.
///
/// # Errors
/// A file cannot be read, or does not hold what it should.
pub(crate) fn agent(patience: Duration, tls: &Tls) -> anyhow::Result<Agent> {
    let roots = match &tls.ca {
        Some(path) => RootCerts::from(certificates(path)?),
        None => RootCerts::PlatformVerifier,
    };
    let client = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            Some(ClientCert::new_with_certs(&certificates(cert)?, private_key(key)?))
        }
        _ => None,
    };
    let config = TlsConfig::builder().root_certs(roots).client_cert(client);
    Ok(with(patience, config.disable_verification(tls.insecure).build()))
}

fn certificates(path: &str) -> anyhow::Result<Vec<Certificate<'static>>> {
    let items = parse_pem_file(path)?.into_iter();
    let found: Vec<_> = items
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        bail!("reading certificates '{path}': there is none in PEM form");
    }
    Ok(found)
}

fn private_key(path: &str) -> anyhow::Result<PrivateKey<'static>> {
    let key = parse_pem_file(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    key.with_context(|| format!("reading key '{path}': there is none in PEM form"))
}

fn parse_pem_file(path: &str) -> anyhow::Result<Vec<PemItem<'static>>> {
    let reading = || format!("reading '{path}'");
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PEM_MAX).read_to_end(&mut bytes))
        .with_context(reading)?;
    parse_pem(&bytes).collect::<Result<_, _>>().with_context(reading)
}
