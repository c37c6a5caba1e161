//! Checks of loads and of the sweep over them.

use std::time::Duration;

use super::{
    super::{
        CONTAINS_MAX, Connection, Driver, Engine, HttpRequest, HttpVersion, Load, Measure,
        POINTS_MAX, Postgresql, Recipe, Sweep,
        document::{shown, step},
        is_secret_name, owned_keys, points, takers,
    },
    Checker,
};
use crate::units::Name;

impl Checker<'_> {
    pub(super) fn load(&mut self, at: &str, load: &Load, recipe: &Recipe) {
        let field = |key: &str| step(at, key);
        let name = &load.name;
        match &load.service {
            Some(service) if !recipe.services.iter().any(|other| other.name == *service) => {
                let known: Vec<&str> =
                    recipe.services.iter().map(|service| service.name.as_str()).collect();
                self.at(
                    &field("service"),
                    format!("load '{name}': there is no service '{service}'"),
                )
                .hint(format!("services here: {}", known.join(", ")));
            }
            None if recipe.services.len() > 1 => {
                self.at(at, format!("load '{name}': it is not clear which service it is for"))
                    .hint("add service: NAME");
            }
            _ => {}
        }
        for (key, value, max) in
            [("clients", load.clients, 100_000), ("repeat", load.repeat, 1_000)]
        {
            if !(1..=max).contains(&value) {
                self.at(&field(key), format!("load '{name}': {key} {value} is out of range"))
                    .hint(format!("from 1 to {max}"));
            }
        }
        self.arrival(at, load);
        self.stop(at, load);
        if let Measure::Time(span) = load.phases.measure
            && load.phases.warmup.get() > span.get() * 100
        {
            self.at(
                &field("phases"),
                format!("load '{name}': warmup is over 100 times as long as measure"),
            )
            .hint("check the units");
        }
        if load.timeout.get() < Duration::from_millis(1) {
            self.at(&field("timeout"), format!("load '{name}': timeout is too short"))
                .hint("at least 1ms");
        }
        self.slurm(&field("slurm"), &load.slurm);
        self.search(at, load);
        self.driver(at, load);
    }

    /// Keys that belong to another driver, and those the driver needs.
    pub(super) fn driver(&mut self, at: &str, load: &Load) {
        let name = &load.name;
        for key in foreign_keys(load) {
            self.foreign(at, load, key);
        }
        if load.driver == Driver::Command
            && load.command.as_ref().is_none_or(|command| command.argv.is_empty())
        {
            self.at(at, format!("load '{name}': driver command needs a command"))
                .hint("add command: {argv: [PROGRAM, ARGUMENT, …]}");
        }
        if load.driver.is_kserve() {
            self.kserve(at, load);
        }
        if let Some(dataset) = &load.dataset {
            self.dataset(at, load, dataset);
        }
        if let Some(sql) = &load.postgresql {
            self.sql(at, name, sql);
        }
        if let Some(http) = &load.http {
            self.http(at, name, http);
        }
        self.connection(at, load);
        self.model(at, load);
    }

    /// A key that belongs to another driver.
    fn foreign(&mut self, at: &str, load: &Load, key: &str) {
        let (name, driver) = (&load.name, load.driver.as_str());
        let takers = takers(key);
        let hint = if takers.len() > TAKERS_MAX {
            "remove it; `aifb drivers` shows which drivers take it".to_owned()
        } else {
            format!("remove it, or choose a driver that takes it: {}", takers.join(", "))
        };
        self.key(
            &within(at, key),
            format!("load '{name}': {key} has no meaning for driver {driver}"),
        )
        .hint(hint);
    }

    /// How bytes travel.
    fn connection(&mut self, at: &str, load: &Load) {
        let Some(connection) = &load.connection else { return };
        let Connection { engine, http_version, quick_ack: _, tls, api_key_header } = connection;
        let at = step(at, "connection");
        let name = &load.name;
        if *engine == Engine::Raw && *http_version == Some(HttpVersion::Http2) {
            self.at(
                &step(&at, "engine"),
                format!("load '{name}': engine raw supports HTTP/1.1 only"),
            )
            .hint("engine: hyper, or http_version: \"1.1\"");
        }
        if let Some(tls) = tls {
            self.tls(&step(&at, "tls"), &format!("load '{name}'"), tls);
        }
        if let Some(header) = api_key_header
            && (header.is_empty()
                || !header.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
        {
            self.at(
                &step(&at, "api_key_header"),
                format!("load '{name}': '{}' is not a header name", shown(header)),
            )
            .hint("for example api_key_header: x-api-key");
        }
    }

    fn sql(&mut self, at: &str, name: &Name, sql: &Postgresql) {
        let shares = [sql.mix.select, sql.mix.insert, sql.mix.update, sql.mix.delete];
        let sum: f64 = shares.iter().sum();
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || (sum - 1.0).abs() > 1e-6 {
            self.at(
                &step(&step(at, "postgresql"), "mix"),
                format!("load '{name}': the shares of the mix sum to {sum}, not 1"),
            )
            .hint("for example {select: 0.7, update: 0.3}");
        }
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= 63
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !plain(&sql.table) {
            self.at(
                &step(&step(at, "postgresql"), "table"),
                format!("load '{name}': '{}' is not a table name", shown(&sql.table)),
            )
            .hint("letters, digits and '_'");
        }
    }

    fn http(&mut self, at: &str, name: &Name, http: &HttpRequest) {
        let http_at = step(at, "http");
        if !http.path.starts_with('/')
            || http.path.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            self.at(&step(&http_at, "path"), format!("load '{name}': http.path is not a path"))
                .hint("it starts with '/'");
        }
        if http.method.is_empty() || !http.method.bytes().all(|b| b.is_ascii_uppercase()) {
            self.at(
                &step(&http_at, "method"),
                format!("load '{name}': '{}' is not a method", shown(&http.method)),
            )
            .hint("GET, POST, PUT, …");
        }
        if let Some(expect) = &http.expect {
            if expect.status.is_some_and(|status| !(200..=599).contains(&status)) {
                self.at(
                    &step(&step(&http_at, "expect"), "status"),
                    format!("load '{name}': not a status that ends a request"),
                )
                .hint("from 200 to 599");
            }
            let bytes = expect.contains.as_ref().map(String::len);
            if bytes.is_some_and(|bytes| !(1..=CONTAINS_MAX).contains(&bytes)) {
                self.at(
                    &step(&step(&http_at, "expect"), "contains"),
                    format!("load '{name}': the expected text is empty or too long"),
                )
                .hint(format!("from 1 to {CONTAINS_MAX} bytes"));
            }
        }
        for (key, value) in &http.headers {
            if is_secret_name(key) || key.eq_ignore_ascii_case("authorization") {
                self.at(
                    &step(&step(&http_at, "headers"), key),
                    format!("load '{name}': the secret header {key} stands in the recipe"),
                )
                .hint("the recipe is kept with the run");
            }
            if value.chars().any(char::is_control)
                || key.is_empty()
                || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            {
                self.at(
                    &step(&step(&http_at, "headers"), key),
                    format!("load '{name}': not a header"),
                )
                .hint("one line, 'name: value'");
            }
        }
    }

    pub(super) fn sweep(&mut self, recipe: &Recipe) {
        let Some(sweep) = &recipe.sweep else { return };
        if sweep.matrix.is_empty() {
            self.at("/sweep", "the sweep is empty")
                .hint("sweep: {matrix: {\"load.chat.arrival.rate\": [1/s, 5/s]}}");
        }
        for (path, values) in &sweep.matrix {
            let at = step("/sweep/matrix", path);
            if values.is_empty() {
                self.at(&at, format!("'{}' has no values", shown(path)))
                    .hint("a list of at least one");
            }
            if !path.starts_with("load.") {
                self.key(&at, format!("'{}' cannot be swept", shown(path)))
                    .hint("paths of loads can, such as load.chat.arrival.rate");
            }
        }
        if !self.found.is_empty() {
            return;
        }
        let hint = "each path must lead to a field, each value must fit it and the others";
        if let Some(complaint) = self.points(sweep) {
            self.at("/sweep/matrix", complaint).hint(hint);
        }
    }

    /// What is wrong with the first point that cannot be run.
    fn points(&self, sweep: &Sweep) -> Option<String> {
        let Some(count) = points::count(Some(sweep)) else {
            return Some(format!("sweep: more than {POINTS_MAX} combinations"));
        };
        (0..count).find_map(|index| {
            let point = points::document(&self.document.value, Some(sweep), index);
            let recipe = point.and_then(|(settings, document)| {
                Recipe::of(&document).map_err(|error| points::does_not_fit(&settings, &error))
            });
            match recipe {
                Err(message) => Some(format!("sweep: {message}")),
                Ok(recipe) => {
                    let found = super::check(&recipe, self.document, self.presets);
                    let first = found.into_iter().next()?;
                    Some(format!("sweep, point p{index}: {}", first.message))
                }
            }
        })
    }
}

/// Most drivers that a hint names.
const TAKERS_MAX: usize = 4;

/// Sections of which every driver takes some keys.
const SHARED: [&str; 1] = ["slo"];

/// Keys of the load that its driver does not take; a section of which it takes nothing is named as a
/// whole.
fn foreign_keys(load: &Load) -> Vec<&'static str> {
    // Keys that are not given are not written.
    let Ok(given) = serde_json::to_value(load) else { return Vec::new() };
    let spec = load.driver.spec();
    let mut foreign = Vec::new();
    for key in owned_keys().into_iter().filter(|key| !spec.takes(key)) {
        let section = key.split('.').next().unwrap_or(key);
        let whole = !SHARED.contains(&section) && !spec.takes_some_of(section);
        let key = if whole { section } else { key };
        if given.pointer(&within("", key)).is_some() && !foreign.contains(&key) {
            foreign.push(key);
        }
    }
    foreign
}

/// The pointer of a key such as `llm.stream` below `at`.
fn within(at: &str, key: &str) -> String {
    key.split('.').fold(at.to_owned(), |at, part| step(&at, part))
}
