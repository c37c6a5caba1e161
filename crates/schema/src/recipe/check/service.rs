//! Checks of services.

use std::{collections::HashMap, time::Duration};

use super::{
    super::{
        EnvValue, GENERATE, Nodes, Port, Preset, Recipe, Service,
        document::{shown, step},
        explain::{example, suggest},
        is_secret_name,
    },
    Checker,
};

/// Placeholders of commands, arguments, environment and paths.
const PLACEHOLDERS: [&str; 7] = ["port", "host", "data", "model", "node_rank", "nodes", "head"];

impl Checker<'_> {
    pub(super) fn service(&mut self, at: &str, service: &Service) {
        if !self.presets.knows(&service.kind) {
            self.unknown_kind(at, service);
            return;
        }
        self.engine_metrics(at, service);
        if service.is_external() {
            self.external(at, service);
            return;
        }
        self.source(at, service);
        self.further_ports(at, service);
        self.placement(at, service);
        self.health(at, service);
        self.texts(at, service);
        self.set_up(at, service);
        self.environment(at, service);
    }

    fn preset(&self, service: &Service) -> Option<&Preset> {
        self.presets.get(service.kind.as_str()).map(|known| &known.preset)
    }

    /// Whether the service has a further port of this name, its own or its preset's.
    pub(super) fn has_port(&self, service: &Service, name: &str) -> bool {
        let of_preset = self.preset(service).and_then(|preset| preset.service.get("ports"));
        service.ports.contains_key(name) || of_preset.is_some_and(|ports| ports.get(name).is_some())
    }

    fn unknown_kind(&mut self, at: &str, service: &Service) {
        let path = at.trim_start_matches('/').replace('/', "[");
        let kind = shown(service.kind.as_str());
        let hint = suggest(service.kind.as_str(), &self.presets.kinds());
        self.at(&step(at, "kind"), format!("'{path}].kind': unknown value '{kind}'")).hint(hint);
    }

    /// Image, program, model, command: what is run.
    fn source(&mut self, at: &str, service: &Service) {
        let Service { name, image, program, model, command, url, .. } = service;
        let field = |key: &str| step(at, key);
        if url.is_some() {
            self.key(&field("url"), format!("'{name}': url belongs to kind external only"))
                .hint("remove it: the endpoint of a started service is found by itself");
        }
        match (image, program) {
            (Some(_), Some(_)) => self
                .key(&field("program"), format!("'{name}': both image and program are given"))
                .hint("choose one: image runs a container, program a bare binary"),
            (None, None) if !self.brings_program(service) => self
                .at(at, format!("'{name}': neither image nor program is given"))
                .hint("add image: path/to/file.sif (or docker://…), or program: /path/to/binary"),
            _ => {}
        }
        for (key, value) in [("image", image), ("program", program), ("model", model)] {
            if value
                .as_ref()
                .is_some_and(|text| text.is_empty() || text.chars().any(char::is_control))
            {
                self.at(&field(key), format!("'{name}': {key} is empty or has control characters"))
                    .hint("a path or a reference");
            }
        }
        if let Some(image) = image
            && image.contains("://")
            && !["docker://", "oras://", "library://", "shub://"]
                .iter()
                .any(|scheme| image.starts_with(scheme))
        {
            self.at(
                &field("image"),
                format!("'{name}': unknown image scheme in '{}'", shown(image)),
            )
            .hint("a path of a .sif file, docker://… or oras://…");
        }
        self.needs(at, service);
        if program.is_some() && !command.is_empty() {
            self.key(
                &field("command"),
                format!("'{name}': command belongs to image, not to program"),
            )
            .hint("put the arguments into args");
        }
    }

    /// Whether the preset says what is run.
    fn brings_program(&self, service: &Service) -> bool {
        let given =
            |key: &str| self.preset(service).is_some_and(|one| one.service.contains_key(key));
        given("image") || given("program")
    }

    /// Keys without which the preset's command has no meaning.
    fn needs(&mut self, at: &str, service: &Service) {
        let needs = self.preset(service).map(|preset| preset.needs.clone()).unwrap_or_default();
        if needs.is_empty() || !service.command.is_empty() {
            return;
        }
        let given = serde_json::to_value(service).unwrap_or_default();
        for key in needs.iter().filter(|key| given.get(key.as_str()).is_none()) {
            self.at(at, format!("'{}': this kind needs a {key}", service.name))
                .hint(format!("add {}", example(key)));
        }
    }

    /// Nodes, CPUs, GPUs and the time to stop.
    fn placement(&mut self, at: &str, service: &Service) {
        let name = &service.name;
        let field = |key: &str| step(at, key);
        if service.nodes == Nodes::Others {
            self.at(&field("nodes"), format!("'{name}': others is a placement of loads"))
                .hint("head, all or a number");
        }
        if service.across && service.nodes == Nodes::Head {
            self.key(&field("across"), format!("'{name}': across needs more than one node"))
                .hint("add nodes: all or a number");
        }
        for (key, value) in [("cpus", service.cpus), ("gpus", service.gpus)] {
            if value.is_some_and(|value| value > 4096 || (key == "cpus" && value == 0)) {
                self.at(&field(key), format!("'{name}': {key} is out of range"))
                    .hint("from 1 to 4096");
            }
        }
        if service.stop.get() > Duration::from_secs(600) {
            self.at(&field("stop"), format!("'{name}': stop is longer than 10m"))
                .hint("Slurm kills everything KillWait seconds after the end of the job");
        }
    }

    fn external(&mut self, at: &str, service: &Service) {
        let name = &service.name;
        self.further_ports(at, service);
        match &service.url {
            None => self
                .at(at, format!("'{name}': kind external needs a url"))
                .hint("add url: http://host:port"),
            Some(url) => {
                let known = ["http://", "https://", "postgresql://"]
                    .iter()
                    .find_map(|scheme| url.strip_prefix(scheme));
                if known.is_none_or(|rest| rest.is_empty() || rest.starts_with('/'))
                    || url.chars().any(char::is_whitespace)
                {
                    self.at(&step(at, "url"), format!("'{name}': '{}' is not a URL", shown(url)))
                        .hint("http://host:port, https://… or postgresql://…");
                } else if known.is_some_and(|rest| {
                    rest.split('/').next().is_some_and(|authority| authority.contains('@'))
                }) {
                    self.at(
                        &step(at, "url"),
                        format!("'{name}': a user or password in the url would be stored"),
                    )
                    .hint("put it under env with {secret_file: PATH}");
                }
            }
        }
        for (key, given) in [
            ("image", service.image.is_some()),
            ("program", service.program.is_some()),
            ("command", !service.command.is_empty()),
            ("args", !service.args.is_empty()),
            ("binds", !service.binds.is_empty()),
            ("port", service.port != Port::Auto),
            ("gpus", service.gpus.is_some()),
            ("scheme", service.scheme.is_some()),
            ("before", !service.before.is_empty()),
            ("before_unless", service.before_unless.is_some()),
            ("after", !service.after.is_empty()),
        ] {
            if given {
                self.key(
                    &step(at, key),
                    format!("'{name}': {key} has no meaning for kind external"),
                )
                .hint("nothing is started; keep url, health and env");
            }
        }
    }

    fn health(&mut self, at: &str, service: &Service) {
        let (name, health) = (&service.name, &service.health);
        let at = step(at, "health");
        let probes = [
            health.http.is_some(),
            health.tcp.is_some(),
            health.exec.is_some(),
            health.log.is_some(),
        ];
        if probes.iter().filter(|given| **given).count() > 1 {
            self.key(&at, format!("'{name}': more than one kind of health probe"))
                .hint("keep one of http, tcp, exec, log");
        }
        if health
            .http
            .as_ref()
            .is_some_and(|path| !path.starts_with('/') || path.contains(char::is_whitespace))
        {
            self.at(&step(&at, "http"), format!("'{name}': health.http is not a path"))
                .hint("it starts with '/', such as /health");
        }
        if health.exec.as_ref().is_some_and(Vec::is_empty) {
            self.at(&step(&at, "exec"), format!("'{name}': health.exec is empty"))
                .hint("a program and its arguments");
        }
        if health.log.as_ref().is_some_and(String::is_empty) {
            self.at(&step(&at, "log"), format!("'{name}': health.log is empty"))
                .hint("a text to wait for");
        }
        if health.every.is_some_and(|every| {
            !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&every.get())
        }) {
            self.at(&step(&at, "every"), format!("'{name}': health.every is out of range"))
                .hint("from 10ms to 60s");
        }
        if health.deadline.is_some_and(|deadline| deadline.get() < Duration::from_millis(100)) {
            self.at(&step(&at, "deadline"), format!("'{name}': health.deadline is too short"))
                .hint("at least 100ms");
        }
        if let (Some(max), Some(deadline)) = (health.max, health.deadline)
            && max < deadline
        {
            self.at(&step(&at, "max"), format!("'{name}': health.max is below health.deadline"))
                .hint("max bounds how far progress can prolong the deadline");
        }
    }

    /// Placeholders and control characters in everything that becomes an argument.
    fn texts(&mut self, at: &str, service: &Service) {
        for (key, words) in
            [("args", &service.args), ("command", &service.command), ("binds", &service.binds)]
        {
            for (index, word) in words.iter().enumerate() {
                let at = format!("{}/{index}", step(at, key));
                if word.contains('\0') {
                    self.at(&at, format!("'{}': {key} holds a NUL character", service.name))
                        .hint("remove it");
                }
                self.placeholders(&at, service, word);
            }
        }
        for (index, bind) in service.binds.iter().enumerate() {
            let parts: Vec<&str> = bind.split(':').collect();
            let options = parts.get(2).is_none_or(|option| matches!(*option, "ro" | "rw"));
            if parts.len() > 3
                || !options
                || parts.iter().any(|part| part.is_empty())
                || bind.contains(',')
            {
                self.at(
                    &format!("{}/{index}", step(at, "binds")),
                    format!("'{}': '{}' is not a bind", service.name, shown(bind)),
                )
                .hint("source[:target[:ro]]");
            }
        }
    }

    /// Commands before and after the start, and the scheme of the URL.
    fn set_up(&mut self, at: &str, service: &Service) {
        let name = &service.name;
        for (key, commands) in [("before", &service.before), ("after", &service.after)] {
            for (index, words) in commands.iter().enumerate() {
                let at = format!("{}/{index}", step(at, key));
                if words.first().is_none_or(String::is_empty)
                    || words.iter().any(|word| word.contains('\0'))
                {
                    self.at(&at, format!("'{name}': {key} holds a command without a program"))
                        .hint("a list of commands, each a program and its arguments");
                }
                for (index, word) in words.iter().enumerate() {
                    self.placeholders(&step(&at, &index.to_string()), service, word);
                }
            }
        }
        if let Some(path) = &service.before_unless {
            self.placeholders(&step(at, "before_unless"), service, path);
        }
        let plain = |scheme: &String| {
            scheme.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
                && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if service.scheme.as_ref().is_some_and(|scheme| !plain(scheme)) {
            self.at(&step(at, "scheme"), format!("'{name}': not the scheme of a URL"))
                .hint("such as http, https or postgresql");
        }
    }

    /// Names of further ports.
    fn further_ports(&mut self, at: &str, service: &Service) {
        for (name, port) in &service.ports {
            let at = step(&step(at, "ports"), name);
            let plain = !name.is_empty()
                && name.len() <= 32
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !plain {
                self.key(
                    &at,
                    format!("'{}': '{}' is not a port's name", service.name, shown(name)),
                )
                .hint("lower-case letters, digits and '_', such as grpc");
            }
            if service.is_external() && *port == Port::Auto {
                self.at(&at, format!("'{}': the port '{name}' is not said", service.name))
                    .hint("a number: nothing is started, so none can be chosen");
            }
        }
    }

    fn placeholders(&mut self, at: &str, service: &Service, text: &str) {
        let name = &service.name;
        for piece in text.split('{').skip(1) {
            let Some((word, _)) = piece.split_once('}') else { continue };
            if let Some(port) = word.strip_prefix("port:") {
                if !self.has_port(service, port) {
                    self.at(at, format!("'{name}': there is no port '{}'", shown(port)))
                        .hint(format!("ports: {{{}: auto}}", shown(port)));
                }
                continue;
            }
            let looks =
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if looks && !PLACEHOLDERS.contains(&word) {
                self.at(at, format!("'{name}': unknown placeholder '{{{word}}}'"))
                    .hint(format!("known: {{{}}}", PLACEHOLDERS.join("} {")));
            }
        }
    }

    fn environment(&mut self, at: &str, service: &Service) {
        for (key, value) in &service.env {
            let at = step(&step(at, "env"), key);
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && key.bytes().next().is_some_and(|b| !b.is_ascii_digit());
            if !plain {
                self.key(
                    &at,
                    format!("'{}': '{}' is not a variable name", service.name, shown(key)),
                )
                .hint("letters, digits and '_'");
            }
            if let EnvValue::Text(text) = value {
                if text.contains('\0') {
                    self.at(&at, format!("'{}': {key} holds a NUL character", service.name))
                        .hint("remove it");
                }
                if is_secret_name(key) && text != GENERATE && !text.is_empty() {
                    self.at(&at, format!("'{}': the secret {key} stands in the recipe", service.name))
                        .hint("use {secret_file: PATH}, {secret_env: NAME} or generate: the recipe is kept with the run");
                }
            }
        }
    }

    pub(super) fn ports(&mut self, recipe: &Recipe) {
        let mut seen: HashMap<u16, &Service> = HashMap::new();
        for (index, service) in recipe.services.iter().enumerate() {
            if service.is_external() {
                continue;
            }
            let at = format!("/services/{index}");
            let further =
                service.ports.iter().map(|(name, port)| (step(&step(&at, "ports"), name), *port));
            let all = std::iter::once((step(&at, "port"), service.port)).chain(further);
            for (at, port) in all {
                let Port::Fixed(port) = port else { continue };
                if let Some(first) = seen.insert(port, service) {
                    self.at(&at, format!("port {port} is also that of '{}'", first.name)).hint(
                        "two services may meet on one node: use port: auto, or another number",
                    );
                }
            }
        }
    }
}
