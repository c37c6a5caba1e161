//! Where a replica shows its own metrics.

use std::net::{IpAddr, SocketAddr};

use aifb_schema::{
    recipe::{EngineMetrics, Tls},
    run::Endpoint,
};

use crate::export::engine::Address;

/// The page of a replica that answers at `address`; none where it has no port of that name. `expand`
/// makes whole paths of the recipe's.
pub(super) fn of(
    metrics: EngineMetrics,
    address: IpAddr,
    endpoint: &Endpoint,
    expand: impl Fn(&str) -> String,
) -> Option<Address> {
    let port = match &metrics.port {
        None => endpoint.port,
        Some(name) => *endpoint.ports.get(name)?,
    };
    let by_url = metrics.port.is_none() && is_https(&endpoint.url);
    let Some(tls) = metrics.tls.or_else(|| by_url.then(Tls::default)) else {
        let address = SocketAddr::new(address, port);
        return Some(Address { url: format!("http://{address}{}", metrics.path), tls: None });
    };
    let whole = |path: Option<String>| path.map(|path| expand(&path));
    let tls = Tls { ca: whole(tls.ca), cert: whole(tls.cert), key: whole(tls.key), ..tls };
    // By the name that its certificate is for.
    let host = match endpoint.host.parse() {
        Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
        _ => endpoint.host.clone(),
    };
    let url = format!("https://{host}:{port}{}", metrics.path);
    Some(Address { url, tls: Some(tls) })
}

pub(super) fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page's URL, and its authority's file if it speaks TLS.
    fn asked(url: &str, host: &str, metrics: &str) -> Option<(String, Option<Option<String>>)> {
        let endpoint = Endpoint {
            service: "s".into(),
            replica: 0,
            node: "n1".into(),
            host: host.into(),
            port: 8443,
            url: url.into(),
            ports: [("admin".to_owned(), 9000)].into(),
            healthy_epoch_ns: 0,
        };
        let metrics = serde_json::from_str(metrics).unwrap();
        let page = of(metrics, [10, 0, 0, 7].into(), &endpoint, |path| format!("/sub/{path}"))?;
        Some((page.url, page.tls.map(|tls| tls.ca)))
    }

    #[test]
    fn tls_is_spoken_where_the_recipe_or_the_services_url_says_so() {
        let plain = |url: &str| Some((url.to_owned(), None));
        let (http, https) = ("http://llm:8443", "https://llm:8443");
        assert_eq!(asked(http, "llm", "{}"), plain("http://10.0.0.7:8443/metrics"));
        assert_eq!(
            asked(https, "llm", r#"{"port": "admin"}"#),
            plain("http://10.0.0.7:9000/metrics")
        );
        assert_eq!(asked(https, "llm", r#"{"port": "other"}"#), None);
        let tls = |url: &str, ca: Option<&str>| Some((url.to_owned(), Some(ca.map(str::to_owned))));
        assert_eq!(asked(https, "llm", "{}"), tls("https://llm:8443/metrics", None));
        let own = r#"{"path": "/m", "port": "admin", "tls": {"ca": "ca.pem"}}"#;
        assert_eq!(asked(http, "llm", own), tls("https://llm:9000/m", Some("/sub/ca.pem")));
        assert_eq!(asked(http, "::1", r#"{"tls": {}}"#), tls("https://[::1]:8443/metrics", None));
    }
}
