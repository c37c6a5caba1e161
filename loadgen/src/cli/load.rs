//! The load that the options of `run` describe. Every option is a key of the recipe's load; the whole is
//! read and checked by the recipe's rules.

use std::collections::BTreeMap;

use aifb_schema::{
    recipe::{self, Diagnostic, Driver, Kserve, Level, Load, Measure},
    units::Span,
};
use hyper::Uri;
use serde_json::{Value, json};

use super::{Run, search};
use crate::error::Fatal;

/// Keys of a load, by their paths, with their values.
pub(crate) type Settings = Vec<(&'static str, Value)>;

/// Those that have a value.
pub(crate) fn given<const N: usize>(settings: [(&'static str, Option<Value>); N]) -> Settings {
    settings.into_iter().filter_map(|(path, value)| Some((path, value?))).collect()
}

/// The recipe's word for an option's value.
pub(super) fn word(value: impl clap::ValueEnum) -> Option<String> {
    value.to_possible_value().map(|word| word.get_name().to_owned())
}

impl Run {
    /// The load.
    ///
    /// # Errors
    /// If an option has no value of its kind, or the load breaks a rule of recipes.
    pub(crate) fn load(&self) -> Result<Load, Fatal> {
        let search = search::of(self)?;
        let mut load = json!({"name": "load", "driver": self.driver, "seed": self.seed});
        let mut settings = self.when(search.as_ref().map(|search| search.from));
        settings.extend(given([
            ("timeout", Some(json!(self.timeout))),
            ("model", self.model.as_ref().map(|model| json!(model))),
            ("slo.ttft", self.slo_ttft.map(|span| json!(span))),
            ("slo.itl", self.slo_itl.map(|span| json!(span))),
            ("slo.e2e", self.slo_e2e.map(|span| json!(span))),
            ("search", search.map(|search| json!(search))),
            ("command.argv", (!self.program.is_empty()).then(|| json!(self.program))),
            ("kserve", self.kserve.as_deref().map(kserve).transpose()?.map(|kserve| json!(kserve))),
        ]));
        settings.extend(self.wire.settings());
        settings.extend(self.model_options.settings()?);
        settings.extend(self.workload.settings(self.driver.asks_model()));
        settings.extend(self.http()?);
        settings.extend(self.database());
        for (path, value) in settings {
            recipe::set_path(&mut load, path, value)
                .map_err(|error| Fatal::usage(format!("reading the options: {path}: {error}")))?;
        }
        for option in self.workload.texts().iter().chain(&self.option) {
            recipe::apply_option(&mut load, option)
                .map_err(|complaint| fatal(&format!("reading '{option}': "), complaint))?;
        }
        recipe::load(load).map_err(|complaints| match complaints.into_iter().next() {
            Some(first) => fatal("", first),
            None => Fatal::usage("reading the options"),
        })
    }

    /// Arrival and phases; a search begins with its smallest load.
    fn when(&self, from: Option<Level>) -> Settings {
        let (mut rate, mut concurrency) = (self.rate, self.concurrency);
        match from {
            Some(Level::Rate(from)) => rate = rate.or(Some(from)),
            Some(Level::Concurrency(from)) => concurrency = concurrency.or(Some(from)),
            None => {}
        }
        let arrival = match rate {
            Some(rate) => json!({"process": word(self.process), "rate": rate}),
            None => {
                json!({"concurrency": concurrency, "think": self.think.unwrap_or(Span::secs(0))})
            }
        };
        let measure = match self.requests {
            Some(requests) => Measure::Requests(requests),
            None => Measure::Time(self.time.unwrap_or(Span::secs(1))),
        };
        let phases = json!({"warmup": self.warmup, "measure": measure, "drain": self.drain});
        vec![("arrival", arrival), ("phases", phases)]
    }

    /// The section `http`.
    fn http(&self) -> Result<Settings, Fatal> {
        let mut headers = BTreeMap::new();
        for header in &self.header {
            let Some((name, value)) = header.split_once(':') else {
                return Err(Fatal::usage(format!("reading header '{header}'"))
                    .hint("expected 'name: value'"));
            };
            headers.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        let text = |given: &Option<String>| given.as_ref().map(|text| json!(text));
        let path = self.path.as_deref();
        Ok(given([
            ("http.method", text(&self.method)),
            // On the command line the first slash may be left out.
            ("http.path", path.map(|path| json!(format!("/{}", path.trim_start_matches('/'))))),
            ("http.headers", (!headers.is_empty()).then(|| json!(headers))),
            ("http.body", text(&self.body)),
            ("http.expect.status", self.expect_status.map(Value::from)),
            ("http.expect.contains", text(&self.expect_text)),
        ]))
    }

    /// User and database, which the URL of a database names.
    fn database(&self) -> Settings {
        let uri = self.url.first().and_then(|url| url.parse::<Uri>().ok());
        let Some(uri) = uri.filter(|_| self.driver == Driver::Postgresql) else {
            return Settings::new();
        };
        let user = uri.authority().and_then(|a| a.as_str().split_once('@')).map(|(user, _)| user);
        let user = user.map(|user| user.split(':').next().unwrap_or(user));
        let some = |text: &str| (!text.is_empty()).then(|| json!(text));
        given([
            ("postgresql.user", user.and_then(some)),
            ("postgresql.database", some(uri.path().trim_matches('/'))),
        ])
    }
}

fn kserve(json: &str) -> Result<Kserve, Fatal> {
    serde_json::from_str(json).map_err(|error| {
        Fatal::usage(format!("reading --kserve: {error}")).hint(
            r#"for example --kserve '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16]}]}'"#,
        )
    })
}

fn fatal(doing: &str, complaint: Diagnostic) -> Fatal {
    let fatal = Fatal::usage(format!("{doing}{}", complaint.message));
    match complaint.hint {
        Some(hint) => fatal.hint(hint),
        None => fatal,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn load(options: &[&str]) -> Result<Load, String> {
        let words = ["aifb-loadgen", "run", "--requests", "1", "--url", "http://x"];
        let cli = Cli::try_parse_from(words.iter().chain(options)).map_err(|e| e.to_string())?;
        let Some(Command::Run(run)) = cli.command else { return Err("not run".to_owned()) };
        run.load().map_err(|error| error.to_string())
    }

    /// Each key of a load, and of those that are maps each key, with a value of its own.
    const KEYS: &[(&str, &[(&str, &str)])] = &[
        (
            "openai-chat",
            &[
                ("name", "other"),
                ("service", "llm"),
                ("clients", "2"),
                ("nodes", "all"),
                ("slurm", "{partition: cpu}"),
                ("arrival.concurrency", "7"),
                ("arrival.think", "5s"),
                ("arrival.ramp", "{from: 2, over: 10s}"),
                ("phases.measure", "10s"),
                ("phases.warmup", "1s"),
                ("phases.drain", "2s"),
                ("stop.after", "5"),
                ("stop.errors", "5%"),
                ("stop.steady", "{metric: ttft, for: 5s}"),
                ("repeat", "3"),
                ("dataset.input_tokens", "5"),
                ("dataset.output_tokens", "6"),
                ("dataset.kind", "synthetic"),
                ("dataset.prefix", "{tokens: 3}"),
                ("dataset.turns", "{count: 2}"),
                ("dataset.tokenizer", "t.json"),
                ("dataset.vocabulary", "9"),
                ("slo.ttft", "1s"),
                ("slo.itl", "2s"),
                ("slo.e2e", "3s"),
                ("seed", "4"),
                ("timeout", "9s"),
                ("model", "m"),
                ("connection.engine", "hyper"),
                ("connection.http_version", "\"1.1\""),
                ("connection.quick_ack", "false"),
                ("connection.tls", "{insecure: true}"),
                ("connection.api_key_header", "x-key"),
                ("llm.stream", "true"),
                ("llm.tools", "[{a: 1}]"),
                ("llm.extra", "{top_k: 3}"),
                ("verdicts", "fail"),
            ],
        ),
        ("openai-chat", &[("dataset.kind", "prompt"), ("dataset.prompt", "why?")]),
        (
            "openai-chat",
            &[
                ("dataset.kind", "jsonl"),
                ("dataset.file", "f.jsonl"),
                ("dataset.keep_tokens", "[1, 2]"),
                ("dataset.shuffle", "false"),
            ],
        ),
        ("openai-chat", &[("arrival", "{trace: t.csv, speed: 2.0}")]),
        (
            "openai-embeddings",
            &[
                ("arrival", "{process: gamma, rate: 5/s, burstiness: 2.0}"),
                ("stop.saturation", "{window: 6s}"),
                ("llm.batch", "3"),
                ("llm.dimensions", "8"),
                ("search.from", "1/s"),
                ("search.to", "9/s"),
                ("search.slo", "{e2e_p99: 1s}"),
                ("search.within", "5%"),
                ("search.probe", "3s"),
                ("search.probes", "4"),
            ],
        ),
        ("ollama-chat", &[("llm.ollama", "{pull: true}")]),
        (
            "kserve-http",
            &[
                ("model", "m"),
                ("kserve.version", "\"1\""),
                ("kserve.inputs", "[{name: x}]"),
                ("kserve.outputs", "[y]"),
                ("kserve.parameters", "{a: 1}"),
                ("kserve.binary", "false"),
            ],
        ),
        (
            "postgresql",
            &[
                ("postgresql.database", "d"),
                ("postgresql.user", "u"),
                ("postgresql.table", "t"),
                ("postgresql.rows", "5"),
                ("postgresql.mix", "{select: 1.0}"),
            ],
        ),
        (
            "http",
            &[
                ("http.method", "PUT"),
                ("http.path", "/x"),
                ("http.headers", "{a: b}"),
                ("http.body", "text"),
                ("http.expect", "{status: 201}"),
            ],
        ),
        ("command", &[("command.argv", "[a, b]"), ("driver", "command")]),
    ];

    #[test]
    fn an_option_reaches_every_key() {
        let mut reached = std::collections::BTreeSet::new();
        let mut wrong = Vec::new();
        for (driver, keys) in KEYS {
            let options: Vec<String> =
                keys.iter().map(|(path, value)| format!("{path}={value}")).collect();
            let mut words = vec!["--driver", driver, "--concurrency", "4"];
            words.extend(options.iter().flat_map(|option| ["--option", option.as_str()]));
            let load = json!(load(&words).unwrap());
            for (path, text) in *keys {
                let pointer = format!("/{}", path.replace('.', "/"));
                let found = load.pointer(&pointer).unwrap_or(&Value::Null);
                let mut expected = json!({});
                recipe::apply_option(&mut expected, &format!("x={text}")).unwrap();
                if !holds(found, &expected["x"]) {
                    wrong.push(format!("{path}: {found} instead of {text}"));
                }
                reached.insert((*path).to_owned());
                // A map as a value reaches each of its keys.
                let inner = expected["x"].as_object().into_iter().flatten();
                reached.extend(inner.map(|(key, _)| format!("{path}.{key}")));
            }
        }
        let missing = keys_of_a_load().into_iter().filter(|key| !reached.contains(key));
        wrong.extend(missing.map(|key| format!("no option for {key}")));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Whether `found` has what `expected` has; defaults may be filled in.
    fn holds(found: &Value, expected: &Value) -> bool {
        match (found, expected) {
            (Value::Object(found), Value::Object(expected)) => expected
                .iter()
                .all(|(key, value)| found.get(key).is_some_and(|found| holds(found, value))),
            (Value::Array(found), Value::Array(expected)) => {
                found.len() == expected.len()
                    && found.iter().zip(expected).all(|(a, b)| holds(a, b))
            }
            _ => found == expected,
        }
    }

    /// Every key of a load, those that are maps key by key, by the JSON Schema.
    fn keys_of_a_load() -> Vec<String> {
        let schema = recipe::json_schema();
        let mut keys = Vec::new();
        for (key, value) in schema["$defs"]["Load"]["properties"].as_object().unwrap() {
            let reference = value
                .get("$ref")
                .or_else(|| value["anyOf"].as_array()?.iter().find_map(|one| one.get("$ref")));
            let name = reference.and_then(|name| name.as_str()?.rsplit('/').next());
            let inner = name.and_then(|name| schema["$defs"][name].get("properties"));
            match inner.and_then(Value::as_object) {
                Some(inner) => keys.extend(inner.keys().map(|inner| format!("{key}.{inner}"))),
                None => keys.push(key.clone()),
            }
        }
        keys
    }

    #[test]
    fn wrong_options_are_explained() {
        let base = ["--driver", "openai-chat", "--concurrency", "1"];
        for (options, cause, hint) in [
            (&["--option", "engine=raw"][..], "'engine' has moved", "connection.engine=raw"),
            (&["--option", "extra.top_k=3"], "has moved", "write llm.extra.top_k=3"),
            (&["--option", "llm.steam=false"], "unknown key 'steam'", "did you mean 'stream'?"),
            (&["--option", "llm.batch=3"], "llm.batch has no meaning", "openai-embeddings, rerank"),
            (&["--method", "PUT"], "http has no meaning for driver openai-chat", "takes it: http"),
            (&["--option", "seed"], "expected PATH=VALUE", "llm.extra.top_k=40"),
            (&["--option", "seed=x"], "'seed': wrong type", "a whole number"),
            (&["--", "true"], "command has no meaning", "takes it: command"),
        ] {
            let error = load(&[&base[..], options].concat()).unwrap_err();
            assert!(error.contains(cause) && error.contains(hint), "{options:?}: {error}");
        }
        let unknown = load(&["--driver", "openai", "--concurrency", "1"]).unwrap_err();
        assert!(unknown.contains("openai-chat") && unknown.contains("postgresql"), "{unknown}");
    }

    #[test]
    fn short_flags_are_keys_of_the_load() {
        let options = ["--driver", "openai-chat", "--concurrency", "2", "--engine", "hyper"];
        let more = ["--no-stream", "--extra", "{\"a\": 1}", "--option", "llm.extra.b=2", "--http2"];
        let load = load(&[&options[..], &more].concat()).unwrap();
        assert_eq!(load.connection().engine, aifb_schema::recipe::Engine::Hyper);
        assert_eq!(json!(load.llm), json!({"stream": false, "extra": {"a": 1, "b": 2}}));
        assert_eq!(json!(load.connection), json!({"engine": "hyper", "http_version": "2"}));
        assert!(load.http.is_none() && load.postgresql.is_none() && load.dataset.is_some());
    }
}
