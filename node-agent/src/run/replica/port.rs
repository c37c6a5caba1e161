//! Ports of services.

use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpListener},
};

/// Words by which servers say that their port is taken.
const TAKEN: [&str; 6] = [
    "address already in use",
    "address in use",
    "eaddrinuse",
    "port is already",
    "already in use",
    "could not bind",
];

/// Ports of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The one that clients use.
    pub(crate) main: u16,
    /// Further ones by name.
    pub(crate) further: BTreeMap<String, u16>,
}

/// Ports that are free at this moment, all different; the service may still lose one to somebody
/// else, which is why a failed start is looked at with [`says_taken`].
pub(crate) fn free(address: IpAddr, count: usize) -> std::io::Result<Vec<u16>> {
    let open: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((address, 0))).collect::<Result<_, _>>()?;
    open.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

/// Whether somebody listens on this port of the node.
pub(crate) fn is_taken(address: IpAddr, port: u16) -> bool {
    matches!(TcpListener::bind((address, port)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Whether the last words of a service say that its port was taken.
pub(crate) fn says_taken(log: &str) -> bool {
    let log = log.to_ascii_lowercase();
    TAKEN.iter().any(|words| log.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_noticed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_taken(address.ip(), address.port()));
        let ports = free(address.ip(), 3).unwrap();
        let mut all = std::collections::BTreeSet::from([address.port()]);
        all.extend(ports);
        assert_eq!(all.len(), 4, "all different");
        drop(listener);
        assert!(!is_taken(address.ip(), address.port()));
    }

    #[test]
    fn servers_say_it_in_their_own_words() {
        for log in ["OSError: [Errno 98] Address already in use", "listen EADDRINUSE: :::80"] {
            assert!(says_taken(log), "{log}");
        }
        assert!(!says_taken("model not found"));
    }
}
