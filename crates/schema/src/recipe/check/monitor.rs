//! Checks of what is sampled, and of where it is sent.

use std::time::Duration;

use super::{
    super::{EnvValue, Loki, Monitor, Service, Tls, document::step},
    Checker,
};

impl Checker<'_> {
    pub(super) fn monitor(&mut self, monitor: &Monitor) {
        let sample = monitor.sample.get();
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&sample) {
            self.at("/monitor/sample", "monitor.sample is out of range").hint("from 100ms to 1h");
        }
        if let Some(burst) = monitor.burst
            && !(Duration::from_millis(100)..=sample).contains(&burst.get())
        {
            self.at("/monitor/burst", "monitor.burst is out of range")
                .hint("from 100ms to monitor.sample");
        }
        if let Some(loki) = &monitor.loki {
            self.loki("/monitor/loki", loki);
        }
        if let Some(receiver) = &monitor.remote_write {
            let hint = "such as http://host:9090/api/v1/write";
            self.receiver("/monitor/remote_write", "monitor.remote_write", &receiver.url, hint);
        }
        if let Some(url) = &monitor.pushgateway {
            let hint = "such as http://host:9091";
            self.receiver("/monitor/pushgateway", "monitor.pushgateway", url, hint);
        }
        if monitor.targets.as_ref().is_some_and(|folder| folder.is_empty() || has_control(folder)) {
            self.at("/monitor/targets", "monitor.targets is not a folder")
                .hint("a folder that Prometheus reads target files from");
        }
    }

    fn loki(&mut self, at: &str, loki: &Loki) {
        self.receiver(at, "monitor.loki", &loki.url, "such as http://host:3100");
        let header = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if loki.tenant.as_deref().is_some_and(|tenant| !header(tenant)) {
            self.at(&step(at, "tenant"), "monitor.loki: the tenant is not a header's value")
                .hint("letters, digits and signs, without spaces");
        }
        if let Some(EnvValue::Text(_)) = &loki.token {
            self.at(&step(at, "token"), "monitor.loki: the token stands in the recipe").hint(
                "use {secret_file: PATH} or {secret_env: NAME}: the recipe is kept with the run",
            );
        }
    }

    /// An address that something is sent to.
    fn receiver(&mut self, at: &str, key: &str, url: &str, hint: &str) {
        let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or("");
        if authority.is_empty() || url.chars().any(char::is_whitespace) || has_control(url) {
            // The value is not repeated: it may hold a password.
            self.at(at, format!("{key} is not a URL")).hint(hint);
        } else if authority.contains('@') {
            self.at(at, format!("{key}: a user or password in the url would be stored"))
                .hint("remove it; {url: URL, token: {secret_file: PATH}} sends a token");
        }
    }

    /// Where a service shows its own metrics.
    pub(super) fn engine_metrics(&mut self, at: &str, service: &Service) {
        let Some(metrics) = &service.metrics else { return };
        let (name, at) = (&service.name, step(at, "metrics"));
        let path = &metrics.path;
        if !path.starts_with('/') || path.chars().any(char::is_whitespace) || has_control(path) {
            self.at(&at, format!("'{name}': metrics.path is not a path"))
                .hint("it starts with '/', such as /metrics");
        }
        if let Some(port) = &metrics.port
            && !self.has_port(service, port)
        {
            self.at(&at, format!("'{name}': metrics.port is not a port of this service"))
                .hint("add it to ports, or omit it to use the main port");
        }
        if let Some(tls) = &metrics.tls {
            let at = step(&at, "tls");
            self.tls(&at, &format!("'{name}': metrics.tls"), tls);
            if tls.server_name.is_some() {
                self.at(&at, format!("'{name}': metrics.tls takes no server_name"))
                    .hint("name the host that the certificate is for in the service's url");
            }
        }
    }

    /// Files of TLS that go together, or exclude each other; `whose` begins the complaint.
    pub(super) fn tls(&mut self, at: &str, whose: &str, tls: &Tls) {
        if tls.cert.is_some() != tls.key.is_some() {
            self.at(at, format!("{whose}: cert and key go together"))
                .hint("tls: {cert: client.pem, key: client.key}");
        }
        if tls.insecure && tls.ca.is_some() {
            self.at(at, format!("{whose}: insecure accepts any certificate, so ca has no effect"))
                .hint("remove one of the two");
        }
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}
