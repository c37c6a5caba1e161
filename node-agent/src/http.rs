//! The blocking HTTP client of the threads that send to others.

use std::time::Duration;

use ureq::{
    Agent,
    tls::{RootCerts, TlsConfig},
};

/// Longest time to connect, name look-up included; on a cluster's network it takes less than a
/// millisecond.
const CONNECT: Duration = Duration::from_secs(2);

/// A client whose requests take at most `patience`. It speaks to hosts of the cluster: no proxy,
/// no redirect, which would carry a token elsewhere, and the certificates that this node trusts.
pub(crate) fn agent(patience: Duration) -> Agent {
    with(patience, TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
}

/// The same that speaks TLS so.
pub(crate) fn with(patience: Duration, tls: TlsConfig) -> Agent {
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
