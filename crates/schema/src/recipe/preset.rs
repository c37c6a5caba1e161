//! What each kind of service brings along; every field can be overridden by the recipe.

use std::{collections::BTreeMap, time::Duration};

use super::{EngineMetrics, Health, Port, Service, ServiceKind};
use crate::units::Span;

/// How health is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET` of this path answers 200 to 399.
    Http(String),
    /// The port accepts a connection.
    Tcp,
    /// This command, run as the service is run, exits 0.
    Exec(Vec<String>),
    /// A line of output contains this text.
    Log(String),
}

/// A kind's defaults. Command and arguments may hold placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// Container image, when neither `image` nor `program` is given.
    pub image: Option<&'static str>,
    /// Program inside the image (for `program:` its arguments only).
    pub command: &'static [&'static str],
    /// Arguments before the recipe's own.
    pub args: &'static [&'static str],
    /// Environment, `NAME` and value with placeholders.
    pub env: &'static [(&'static str, &'static str)],
    /// Commands run once, as the service is run, before it starts.
    pub before: &'static [&'static [&'static str]],
    /// Commands run once, as the service is run, after the first good probe and before the
    /// service counts as healthy.
    pub after: &'static [&'static [&'static str]],
    /// Usual port, for documentation; the default is a free one.
    pub port: u16,
    /// Names of further ports, for `{port:NAME}`.
    pub ports: &'static [&'static str],
    /// Scheme of the URL.
    pub scheme: &'static str,
    /// The engine's own Prometheus metrics: path, and name of the port where it is not the main one.
    pub metrics: Option<(&'static str, Option<&'static str>)>,
    probe: ProbeDefault,
    deadline: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbeDefault {
    Http(&'static str),
    Tcp,
    Exec(&'static [&'static str]),
}

const MINUTE: u64 = 60;

const BASE: Preset = Preset {
    image: None,
    command: &[],
    args: &[],
    env: &[],
    before: &[],
    after: &[],
    port: 8000,
    ports: &[],
    scheme: "http",
    metrics: None,
    probe: ProbeDefault::Tcp,
    deadline: Duration::from_secs(10 * MINUTE),
};

/// Triton listens on all addresses unless told. Its metrics have a port of their own.
const TRITON: Preset = Preset {
    image: Some("docker://nvcr.io/nvidia/tritonserver:25.08-py3"),
    command: &["tritonserver"],
    args: &[
        "--model-repository={model}",
        "--http-address={host}",
        "--http-port={port}",
        "--grpc-address={host}",
        "--grpc-port={port:grpc}",
        "--metrics-address={host}",
        "--metrics-port={port:metrics}",
    ],
    ports: &["grpc", "metrics"],
    metrics: Some(("/metrics", Some("metrics"))),
    probe: ProbeDefault::Http("/v2/health/ready"),
    deadline: Duration::from_secs(15 * MINUTE),
    ..BASE
};

/// The preset of a kind. Images are the publishers' own names (checklist 25b).
#[must_use]
pub fn preset(kind: ServiceKind) -> Preset {
    match kind {
        ServiceKind::LlamaServer => Preset {
            command: &["llama-server"],
            args: &["--host", "{host}", "--port", "{port}", "--model", "{model}", "--metrics"],
            port: 8080,
            metrics: Some(("/metrics", None)),
            probe: ProbeDefault::Http("/health"),
            ..BASE
        },
        ServiceKind::Ollama => Preset {
            image: Some("docker://ollama/ollama:latest"),
            command: &["ollama", "serve"],
            env: &[
                ("OLLAMA_HOST", "{host}:{port}"),
                ("OLLAMA_MODELS", "{data}"),
                ("HOME", "{data}"),
            ],
            after: &[&["ollama", "pull", "{model}"]],
            port: 11434,
            probe: ProbeDefault::Http("/api/version"),
            ..BASE
        },
        ServiceKind::Vllm => Preset {
            image: Some("docker://vllm/vllm-openai:latest"),
            command: &["vllm", "serve", "{model}"],
            args: &["--host", "{host}", "--port", "{port}"],
            metrics: Some(("/metrics", None)),
            probe: ProbeDefault::Http("/health"),
            deadline: Duration::from_secs(15 * MINUTE),
            ..BASE
        },
        ServiceKind::Triton => TRITON,
        ServiceKind::Postgresql => Preset {
            image: Some("docker://postgres:16"),
            command: &["postgres"],
            args: &["-D", "{data}/pg", "-p", "{port}", "-h", "{host}", "-k", ""],
            env: &[("POSTGRES_PASSWORD", super::GENERATE)],
            before: &[
                &[
                    "initdb",
                    "-D",
                    "{data}/pg",
                    "-U",
                    "postgres",
                    "-E",
                    "UTF8",
                    "--locale=C",
                    "-A",
                    "scram-sha-256",
                    "--pwfile={secret:POSTGRES_PASSWORD}",
                ],
                // initdb lets in this host alone; clients are on other nodes.
                &[
                    "sh",
                    "-c",
                    "echo host all all all scram-sha-256 >>\"$0\"",
                    "{data}/pg/pg_hba.conf",
                ],
            ],
            port: 5432,
            scheme: "postgresql",
            probe: ProbeDefault::Exec(&["pg_isready", "-q", "-h", "{host}", "-p", "{port}"]),
            ..BASE
        },
        ServiceKind::Container | ServiceKind::External => BASE,
    }
}

impl Service {
    /// Probe of this service: the recipe's, else the preset's.
    #[must_use]
    pub fn probe(&self) -> Probe {
        let Health { http, tcp, exec, log, .. } = &self.health;
        if let Some(path) = http {
            return Probe::Http(path.clone());
        }
        if let Some(command) = exec {
            return Probe::Exec(command.clone());
        }
        if let Some(text) = log {
            return Probe::Log(text.clone());
        }
        if *tcp == Some(true) {
            return Probe::Tcp;
        }
        match preset(self.kind).probe {
            ProbeDefault::Http(path) => Probe::Http(path.to_owned()),
            ProbeDefault::Tcp => Probe::Tcp,
            ProbeDefault::Exec(words) => {
                Probe::Exec(words.iter().map(|&word| word.to_owned()).collect())
            }
        }
    }

    /// Time between probes; 100 ms unless the recipe says otherwise.
    #[must_use]
    pub fn probe_every(&self) -> Duration {
        self.health.every.map_or(Duration::from_millis(100), Span::get)
    }

    /// Deadline of health without progress.
    #[must_use]
    pub fn health_deadline(&self) -> Duration {
        self.health.deadline.map_or_else(|| preset(self.kind).deadline, Span::get)
    }

    /// Deadline of health however much progress there is; 60 minutes unless the recipe says
    /// otherwise, and never below the ordinary deadline.
    #[must_use]
    pub fn health_max(&self) -> Duration {
        self.health
            .max
            .map_or(Duration::from_secs(60 * MINUTE), Span::get)
            .max(self.health_deadline())
    }

    /// The image to run, absent for a bare program.
    #[must_use]
    pub fn image_ref(&self) -> Option<String> {
        if self.program.is_some() || self.kind == ServiceKind::External {
            return None;
        }
        self.image.clone().or_else(|| preset(self.kind).image.map(str::to_owned))
    }

    /// Program and arguments with their placeholders, before any is filled in. With an image
    /// that has neither preset nor `command` it starts with the arguments: the image's own
    /// entry point runs.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let preset = preset(self.kind);
        let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut words = match (&self.program, self.command.is_empty()) {
            (Some(program), _) => vec![program.clone()],
            (None, false) => self.command.clone(),
            (None, true) => own(preset.command),
        };
        if self.command.is_empty() {
            words.extend(own(preset.args));
        }
        words.extend(self.args.iter().cloned());
        words
    }

    /// Further ports by name: those of the preset and those of the recipe.
    #[must_use]
    pub fn further_ports(&self) -> BTreeMap<String, Port> {
        let own = preset(self.kind).ports.iter().map(|name| ((*name).to_owned(), Port::Auto));
        let mut ports: BTreeMap<String, Port> = own.collect();
        ports.extend(self.ports.iter().map(|(name, port)| (name.clone(), *port)));
        ports
    }

    /// Where it shows its own Prometheus metrics: the recipe's word, else the preset's.
    #[must_use]
    pub fn engine_metrics(&self) -> Option<EngineMetrics> {
        let of_preset = || {
            let (path, port) = preset(self.kind).metrics?;
            let port = port.map(str::to_owned);
            Some(EngineMetrics { path: path.to_owned(), port, tls: None })
        };
        self.metrics.clone().or_else(of_preset)
    }

    /// The port, if the recipe fixes one.
    #[must_use]
    pub fn fixed_port(&self) -> Option<u16> {
        match self.port {
            Port::Auto => None,
            Port::Fixed(port) => Some(port),
        }
    }
}
