//! Secrets of services: resolved on the node, never logged, in no argument list.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aifb_schema::{
    recipe::{EnvValue, GENERATE, Receiver, SecretSource, Service, is_secret_name},
    run::{Failure, Owner},
    snapshot::sha256_hex,
};

use anyhow::anyhow;

use super::context::Context;
use crate::{disk, export::remote::SentTo};

/// Digits of a generated secret: 128 bits.
const GENERATED_DIGITS: usize = 32;

/// What secrets are made from. Can be sent to another thread, for files may hang.
#[derive(Clone)]
pub(crate) struct Resolver {
    token: String,
    environment: BTreeMap<String, String>,
    submit_dir: PathBuf,
}

impl fmt::Debug for Resolver {
    /// Neither the token nor the environment, which may hold others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resolver({})", self.submit_dir.display())
    }
}

/// A value of a service's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Plain text, placeholders not yet filled in.
    Plain(String),
    /// A secret; nothing in it is a placeholder.
    Secret(String),
}

impl Resolver {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            token: context.token.clone(),
            environment: context.environment.clone(),
            submit_dir: context.submit_dir().to_owned(),
        }
    }

    /// Outside an agent: with the environment that its services would have.
    pub(crate) fn outside(
        token: String,
        environment: BTreeMap<String, String>,
        submit_dir: PathBuf,
    ) -> Self {
        Self { token, environment, submit_dir }
    }

    /// A receiver with its token; `part` is where the recipe names it.
    ///
    /// # Errors
    /// The token cannot be read.
    pub(crate) fn receiver(&self, part: &str, receiver: &Receiver) -> anyhow::Result<SentTo> {
        let secret = |source: SecretSource| {
            let token = self.secret(part, "token", &source.into());
            token.map_err(|failure| anyhow!(failure.render()))
        };
        let token = receiver.token.clone().map(secret).transpose()?;
        Ok(SentTo { url: receiver.url.clone(), token })
    }

    /// The whole environment of a service.
    ///
    /// # Errors
    /// A secret that cannot be read.
    pub(crate) fn environment(
        &self,
        service: &Service,
    ) -> Result<BTreeMap<String, Value>, Failure> {
        let mut values = BTreeMap::new();
        for (name, value) in &service.env {
            let resolved = match value {
                EnvValue::Text(text) => self.text(service, name, text),
                EnvValue::SecretFile { .. } | EnvValue::SecretEnv { .. } => {
                    Value::Secret(self.secret(service.name.as_str(), name, value)?)
                }
            };
            values.insert(name.clone(), resolved);
        }
        Ok(values)
    }

    /// A secret that a part of the recipe has under `name`; plain text is itself.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn secret(
        &self,
        part: &str,
        name: &str,
        value: &EnvValue,
    ) -> Result<String, Failure> {
        match value {
            EnvValue::Text(text) => Ok(text.clone()),
            EnvValue::SecretFile { secret_file } => self.file(part, name, secret_file),
            EnvValue::SecretEnv { secret_env } => {
                self.environment.get(secret_env).cloned().ok_or_else(|| {
                    let reason = format!("{name}: the job has no variable '{secret_env}'");
                    Failure::new(Owner::Recipe, part, reason)
                        .with_hint("export it before the submission")
                })
            }
        }
    }

    /// The secrets that can be read here, for clients of the service.
    pub(crate) fn readable(&self, service: &Service) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for name in service.env.keys() {
            let mut one = service.clone();
            one.env.retain(|other, _| other == name);
            if let Ok(mut values) = self.environment(&one)
                && let Some(Value::Secret(secret)) = values.remove(name)
            {
                found.insert(name.clone(), secret);
            }
        }
        found
    }

    fn text(&self, service: &Service, name: &str, text: &str) -> Value {
        if text == GENERATE && is_secret_name(name) {
            Value::Secret(self.generated(service, name))
        } else {
            Value::Plain(text.to_owned())
        }
    }

    /// The same on every node of the run, without being sent: made from the run's token.
    fn generated(&self, service: &Service, name: &str) -> String {
        let text = format!("{}\0{}\0{name}", self.token, service.name);
        let mut digits = sha256_hex(text.as_bytes());
        digits.truncate(GENERATED_DIGITS);
        digits
    }

    fn file(&self, part: &str, name: &str, path: &str) -> Result<String, Failure> {
        let full = expand(path, &self.submit_dir, &self.environment);
        let wrong = |cause: String| {
            let reason = format!("{name}: reading secret file '{path}': {cause}");
            Failure::new(Owner::Recipe, part, reason)
                .with_hint("the file must be readable by you on the nodes of the job")
        };
        disk::read_secret(&full).map_err(|error| wrong(error.to_string()))
    }
}

/// A path of the recipe on this node: `~/` is the user's home, a relative one starts from the
/// folder of the submission.
pub(crate) fn expand(
    path: &str,
    submit_dir: &Path,
    environment: &BTreeMap<String, String>,
) -> PathBuf {
    match (path.strip_prefix("~/"), environment.get("HOME")) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => submit_dir.join(path),
    }
}

/// Writes secrets into files of their own, for programs that take a path.
///
/// # Errors
/// The system refuses.
pub(crate) fn write_files(folder: &Path, values: &BTreeMap<String, Value>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for (name, value) in values {
        let Value::Secret(secret) = value else { continue };
        let mut file = disk::own_file().write(true).truncate(true).open(folder.join(name))?;
        file.write_all(secret.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(env: &str) -> Service {
        let text = format!(
            "aifb: 1\nname: t\nservices:\n  - {{name: a, kind: container, program: /x, env: {env}}}\n"
        );
        aifb_schema::recipe::parse(&text, &[]).unwrap().services.remove(0)
    }

    fn resolver(folder: &Path) -> Resolver {
        Resolver {
            token: "t".into(),
            environment: BTreeMap::from([("MY".into(), "from-env".into())]),
            submit_dir: folder.to_owned(),
        }
    }

    #[test]
    fn secrets_come_from_files_variables_and_the_token() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), "from-file\n").unwrap();
        let resolver = resolver(folder.path());
        let service = service(
            "{API_KEY: {secret_file: key}, MY_TOKEN: {secret_env: MY}, DB_PASSWORD: generate, A: \
             generate}",
        );
        let values = resolver.environment(&service).unwrap();
        assert_eq!(values["API_KEY"], Value::Secret("from-file".into()));
        assert_eq!(values["MY_TOKEN"], Value::Secret("from-env".into()));
        assert_eq!(values["A"], Value::Plain("generate".into()));
        let Value::Secret(generated) = &values["DB_PASSWORD"] else { panic!("not secret") };
        assert_eq!(generated.len(), GENERATED_DIGITS);
        assert_eq!(resolver.environment(&service).unwrap(), values);
        assert!(!format!("{resolver:?}").contains("from-env"), "{resolver:?}");
        let names: Vec<String> = resolver.readable(&service).into_keys().collect();
        assert_eq!(names, ["API_KEY", "DB_PASSWORD", "MY_TOKEN"]);
    }

    #[test]
    fn a_missing_secret_is_the_recipes_failure() {
        let folder = tempfile::tempdir().unwrap();
        for env in ["{API_KEY: {secret_file: none}}", "{MY_TOKEN: {secret_env: NONE}}"] {
            let failure = resolver(folder.path()).environment(&service(env)).unwrap_err();
            assert_eq!(failure.owner, Owner::Recipe);
        }
    }
}
