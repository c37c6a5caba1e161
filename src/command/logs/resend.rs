//! `aifb logs resend`: what a run could not send, sent by the agents' own code from its folder.

use std::process::Command;

use aifb_schema::{
    names::exit,
    recipe::{EnvValue, Logging, Loki, LokiEncoding},
};

use crate::{
    cli::LogsResendArgs,
    error::{CommandError, Result},
    observe::{Liveness, liveness},
    programs,
    store::{RunFolder, select},
};

pub(super) fn run(args: &LogsResendArgs) -> Result<i32> {
    let run = select(&args.run)?;
    let mut record = run.record()?;
    let doing = || format!("sending the logs of run '{}'", record.run_id);
    if matches!(liveness(&run, &mut record.clone()), Liveness::Alive(_)) {
        return Err(CommandError::usage(
            doing(),
            "its agents are still running and send the logs themselves",
        )
        .hint("wait for its end: aifb watch"));
    }
    let recipe = run.recipe()?;
    let loki = match (&args.loki, recipe.monitor.loki) {
        (Some(url), None) => Loki::at(url.clone()),
        (Some(url), Some(loki)) => Loki { url: url.clone(), ..loki },
        (None, Some(loki)) => loki,
        (None, None) => {
            return Err(CommandError::usage(doing(), "its recipe has no Loki URL")
                .hint("give the URL: --loki http://host:3100"));
        }
    };
    record.submit_dir.push('/');
    let mut command = Command::new(programs::find(programs::AGENT)?);
    command.arg("ship").arg(run.path()).args(words(&loki, recipe.logging, &record.submit_dir));
    command.arg(format!("--patience={}", args.patience));
    if args.json {
        command.arg("--json");
    }
    let status = command.status().map_err(|error| CommandError::incomplete(doing(), error))?;
    hint(&run, status.code());
    Ok(status.code().unwrap_or(exit::INCOMPLETE))
}

/// The receiver and what is left out, as options of `aifb-agent ship`. A token is named, never
/// shown.
fn words(loki: &Loki, logging: Option<Logging>, submit_dir: &str) -> Vec<String> {
    let mut words = vec![format!("--loki={}", loki.url)];
    // In one word: a value may begin like an option.
    let mut option = |name: &str, value: String| words.push(format!("{name}={value}"));
    if let Some(tenant) = &loki.tenant {
        option("--tenant", tenant.clone());
    }
    match &loki.token {
        Some(EnvValue::SecretFile { secret_file }) => {
            let home = std::env::var("HOME").unwrap_or_default();
            let path = match secret_file.strip_prefix("~/") {
                Some(rest) => format!("{home}/{rest}"),
                None if secret_file.starts_with('/') => secret_file.clone(),
                None => format!("{submit_dir}{secret_file}"),
            };
            option("--token-file", path);
        }
        Some(EnvValue::SecretEnv { secret_env }) => option("--token-env", secret_env.clone()),
        Some(EnvValue::Text(_)) | None => {}
    }
    if loki.encoding == LokiEncoding::Json {
        option("--loki-encoding", "json".into());
    }
    if let Some(Logging { level, until }) = logging {
        option("--level", level.as_str().into());
        if let Some(until) = until {
            option("--until", until.to_string());
        }
    }
    words
}

fn hint(run: &RunFolder, code: Option<i32>) {
    if code == Some(exit::INCOMPLETE) {
        crate::output::note(format!(
            "aifb: some lines are not sent yet\n  hint: aifb logs resend {} continues from here",
            run.path().display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_and_never_shown() {
        let loki = |token| Loki { token, ..Loki::at("http://h".into()) };
        let file = |path: &str| Some(EnvValue::SecretFile { secret_file: path.into() });
        let of = |token| words(&loki(token), None, "/sub/").join(" ");
        assert_eq!(of(file("/t")), "--loki=http://h --token-file=/t");
        assert_eq!(of(file("t")), "--loki=http://h --token-file=/sub/t");
        let tenant = Loki { tenant: Some("-x".into()), ..Loki::at("http://h".into()) };
        assert_eq!(words(&tenant, None, "/").join(" "), "--loki=http://h --tenant=-x");
        let named = Some(EnvValue::SecretEnv { secret_env: "T".into() });
        assert_eq!(of(named), "--loki=http://h --token-env=T");
        let logging =
            Some(Logging { until: "2026-01-01T00:00:00Z".parse().ok(), ..Logging::default() });
        assert_eq!(
            words(&loki(None), logging, "/").join(" "),
            "--loki=http://h --level=debug --until=2026-01-01T00:00:00Z"
        );
    }
}
