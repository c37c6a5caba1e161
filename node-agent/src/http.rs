//! The blocking HTTP client of the threads that send to others.

use std::{fs::File, io::Read as _, time::Duration};

use aifb_schema::recipe::EngineTls;
use anyhow::{Context as _, bail};
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

/// Longest time to connect, name look-up included; on a cluster's network it takes less than a
/// millisecond.
const CONNECT: Duration = Duration::from_secs(2);

/// Largest file of certificates: the bundle of a system is about 200 KB.
const PEM_MAX: u64 = 16 << 20;

/// A client whose requests take at most `patience`. It speaks to hosts of the cluster: no proxy,
/// no redirect, which would carry a token elsewhere, and the certificates that this node trusts.
pub(crate) fn agent(patience: Duration) -> Agent {
    with(patience, TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
}

/// The same for a server that is trusted, and told who asks, by files of its own.
///
/// # Errors
/// A file cannot be read, or does not hold what it should.
pub(crate) fn agent_with(patience: Duration, tls: &EngineTls) -> anyhow::Result<Agent> {
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

fn with(patience: Duration, tls: TlsConfig) -> Agent {
    Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .tls_config(tls)
        .user_agent(aifb_schema::version_line("aifb-agent"))
        .build()
        .into()
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
