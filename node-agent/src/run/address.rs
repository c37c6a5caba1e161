//! Which address of this node others can reach.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};

/// The address from which this node talks to `other`. Nothing is sent.
pub(crate) fn towards(other: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if other.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(other).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// The address of the first node, which has no coordinator to connect to: what its name resolves
/// to; the address from which it reaches `others`; the one that srun was called from, if it is this
/// node's; the first of its interfaces; loopback. A name that means loopback (Debian's 127.0.1.1)
/// counts for a single node only.
pub(crate) fn of_first_node(name: &str, others: &[String], launcher: Option<&str>) -> IpAddr {
    let resolved = resolve(name);
    let outside = resolved.iter().copied().find(|address| !address.is_loopback() && ours(*address));
    let towards_others = || {
        let targets = others.iter().flat_map(|other| resolve(other));
        let found = targets.filter(|address| !address.is_loopback());
        found.filter_map(|address| towards((address, 9).into())).find(|own| !own.is_loopback())
    };
    let of_launcher = || launcher?.parse().ok().filter(|address| ours(*address));
    let single = || resolved.iter().copied().find(|address| others.is_empty() && ours(*address));
    outside
        .or_else(towards_others)
        .or_else(of_launcher)
        .or_else(interface)
        .or_else(single)
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// IPv4 first: the family that services bind to when they are given a name.
fn resolve(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs().map(|found| found.map(|a| a.ip()).collect());
    let mut found: Vec<IpAddr> = found.unwrap_or_default();
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup();
    found
}

fn ours(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

/// The first address of an interface that is up and not loopback.
fn interface() -> Option<IpAddr> {
    nix::ifaddrs::getifaddrs()
        .ok()?
        .filter_map(|interface| {
            let address = interface.address?;
            address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()))
        })
        .find(|address| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_finds_an_address_of_its_own() {
        let address = of_first_node("no-such-name.invalid", &[], Some("127.0.0.1"));
        assert!(ours(address), "{address}");
        let loopback = towards((Ipv4Addr::LOCALHOST, 9).into());
        assert_eq!(loopback, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn a_foreign_launcher_address_is_not_taken() {
        let address = of_first_node("no-such-name.invalid", &[], Some("203.0.113.9"));
        assert_ne!(address.to_string(), "203.0.113.9");
    }
}
