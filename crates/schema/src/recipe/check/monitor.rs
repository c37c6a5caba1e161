//! What is watched, and where it is sent.

use std::time::Duration;

use super::{Checker, shown, step};
use crate::recipe::{EnvValue, Loki, Recipe};

impl Checker<'_> {
    pub(super) fn monitor(&mut self, recipe: &Recipe) {
        let sample = recipe.monitor.sample.get();
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&sample) {
            self.at("/monitor/sample", "monitor.sample is out of range").hint("from 100ms to 1h");
        }
        if let Some(burst) = recipe.monitor.burst
            && !(Duration::from_millis(100)..=sample).contains(&burst.get())
        {
            self.at("/monitor/burst", "monitor.burst is out of range")
                .hint("from 100ms to monitor.sample");
        }
        if let Some(loki) = &recipe.monitor.loki {
            self.loki("/monitor/loki", loki);
        }
    }

    fn loki(&mut self, at: &str, loki: &Loki) {
        self.receiver_url(at, "monitor.loki", &loki.url);
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

    /// A URL that agents send to; it may be short for an object with the key `url`.
    fn receiver_url(&mut self, at: &str, key: &str, url: &str) {
        let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or("");
        if authority.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            self.at(at, format!("{key}: '{}' is not a URL", shown(url)))
                .hint("http://host:port or https://…");
        } else if authority.contains('@') {
            self.at(at, format!("{key}: a user or password in the URL would be stored"))
                .hint("use token: {secret_file: PATH}");
        }
    }
}
