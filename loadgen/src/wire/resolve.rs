//! Names to addresses, before the start.
//!
//! The program is linked statically, where getaddrinfo cannot be used: it would load parts of
//! another C library. So /etc/hosts and the name servers of /etc/resolv.conf are queried by a
//! resolver of our own.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::TokioResolver;

use crate::error::Fatal;

/// Longest wait for the name servers.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// Address of `host` (a name, or an address with or without brackets). IPv4 is preferred: it is
/// what the services of a run listen on.
///
/// # Errors
/// If the name has no address.
pub(crate) async fn address(host: &str, port: u16) -> Result<SocketAddr, Fatal> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    if let Some(ip) = in_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), bare) {
        return Ok(SocketAddr::new(ip, port));
    }
    let fail = |cause: String| {
        Fatal::service(format!("resolving host '{host}': {cause}"))
            .hint("check that the name is in /etc/hosts or DNS")
    };
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| fail(error.to_string()))?;
    let found = tokio::time::timeout(LOOKUP_MAX, resolver.lookup_ip(bare))
        .await
        .map_err(|_| fail(format!("no response within {LOOKUP_MAX:?}")))?
        .map_err(|error| fail(error.to_string()))?;
    let ip = found.iter().find(IpAddr::is_ipv4).or_else(|| found.iter().next());
    ip.map(|ip| SocketAddr::new(ip, port)).ok_or_else(|| fail("no address".to_owned()))
}

/// Address of a name in the text of /etc/hosts: the first IPv4 one, else the first.
fn in_hosts(text: &str, name: &str) -> Option<IpAddr> {
    let found: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let ip = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
        })
        .collect();
    found.iter().find(|ip| ip.is_ipv4()).or_else(|| found.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "127.0.0.1 localhost # node7\n::1 localhost ip6-localhost\n\
        fe80::1 node1\n10.0.0.1\tnode1.cluster node1\n10.0.0.2 node2\nbroken node3\n";

    #[test]
    fn hosts_are_read() {
        for (name, ip) in
            [("localhost", "127.0.0.1"), ("NODE1", "10.0.0.1"), ("ip6-localhost", "::1")]
        {
            assert_eq!(in_hosts(HOSTS, name), Some(ip.parse().unwrap()), "{name}");
        }
        for name in ["node3", "node7", "node", ""] {
            assert_eq!(in_hosts(HOSTS, name), None, "{name}");
        }
    }

    #[test]
    fn addresses_need_no_lookup() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(address("[::1]", 5)).unwrap();
        assert_eq!(found, "[::1]:5".parse().unwrap());
        let local = runtime.block_on(address("localhost", 5)).unwrap();
        assert!(local.ip().is_loopback());
    }
}
