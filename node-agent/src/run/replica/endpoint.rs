//! Where a replica answers.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use aifb_schema::{
    recipe::Port,
    run::{Endpoint, Failure, Owner},
};

use super::{Replica, port::Ports};

/// Its endpoint: by address for the agent, and by name for clients.
pub(super) async fn of(replica: &Replica, ports: Ports) -> Result<(SocketAddr, Endpoint), Failure> {
    let Ports { main, mut further } = ports;
    if replica.external() {
        let said = replica.service.ports.iter().filter_map(|(name, port)| match port {
            Port::Fixed(port) => Some((name.clone(), *port)),
            Port::Auto => None,
        });
        further = said.collect();
    }
    let endpoint = |host: String, port: u16, url: String| Endpoint {
        service: replica.name().to_owned(),
        replica: replica.position.replica,
        node: replica.host.context.node.clone(),
        host,
        port,
        url,
        ports: further.clone(),
        healthy_epoch_ns: 0,
    };
    if let Some(url) = replica.service.url.as_deref().filter(|_| replica.external()) {
        let (host, port) = host_and_port(url).ok_or_else(|| {
            replica.failure(Owner::Recipe, format!("'{url}' has no host and port"))
        })?;
        let target = (host.clone(), port);
        let resolved = tokio::task::spawn_blocking(move || {
            target.to_socket_addrs().map(|mut found| found.next())
        });
        let address = match resolved.await {
            Ok(Ok(Some(address))) => address,
            _ => {
                let reason = format!("'{host}' has no address on this node");
                return Err(replica.failure(Owner::Recipe, reason));
            }
        };
        return Ok((address, endpoint(host, port, url.trim_end_matches('/').to_owned())));
    }
    let address = replica.host.context.address;
    let port = main;
    let host = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let scheme = replica.service.scheme.as_deref().unwrap_or("http");
    let url = format!("{scheme}://{host}:{port}");
    Ok(((address, port).into(), endpoint(address.to_string(), port, url)))
}

/// Host and port of a URL; the scheme's usual port where it names none.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        "postgresql" => 5432,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Some(usual), |text| text.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_host_and_port() {
        for (url, expected) in [
            ("http://a:81/x", Some(("a", 81))),
            ("https://a.b", Some(("a.b", 443))),
            ("postgresql://[::1]:7/db", Some(("::1", 7))),
            ("http://a:x", None),
            ("http://:80", None),
        ] {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
