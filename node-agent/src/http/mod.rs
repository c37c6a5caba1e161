//! HTTP: the blocking client of the threads that send to others, and connections that others open.

pub(crate) mod accept;
pub(crate) mod accepted;
pub(crate) mod tls;

use std::{io::Read as _, time::Duration};

use ureq::{
    Agent, Body,
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

/// The first `most` bytes of an answer, as text. What is behind them is not waited for: an answer may
/// have no end.
pub(crate) fn beginning(body: &mut Body, most: u64) -> String {
    let mut bytes = Vec::new();
    // What came before the connection broke tells as much as there is to tell.
    let _broken = body.as_reader().take(most).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_has_its_beginning() {
        let of = |text: &str, most| beginning(&mut Body::builder().data(text), most);
        assert_eq!(of(" no\n", 100), "no");
        assert_eq!(of(&"entry too old, ".repeat(1000), 13), "entry too old");
        let mut broken = Body::builder().data(b"caf\xe9 \xff".to_vec());
        assert_eq!(beginning(&mut broken, 100), "caf\u{fffd} \u{fffd}");
    }
}
