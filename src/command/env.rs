//! `aifb env`: the variables that a run gives to scripts and clients, from its files.

use std::collections::BTreeMap;

use aifb_schema::{names::env, run::Endpoint};

use crate::{
    cli::EnvArgs,
    error::Result,
    output, programs,
    shell::quoted,
    store::{RunFolder, select},
};

pub(super) fn run(args: &EnvArgs) -> Result<i32> {
    let variables = of_run(&select(&args.run)?)?;
    if args.json {
        output::out_json(&variables);
        return Ok(0);
    }
    print(&variables, args.sh);
    if let Some(bin) = variables.get(env::BIN).filter(|_| args.sh) {
        output::out(format!("export PATH={}:\"$PATH\"", quoted(bin)));
    }
    Ok(0)
}

/// Prints variables, as shell commands or as plain `NAME=value` lines.
pub(super) fn print(variables: &BTreeMap<String, String>, sh: bool) {
    for (name, value) in variables {
        if sh {
            output::out(format!("export {name}={}", quoted(value)));
        } else {
            output::out(format!("{name}={value}"));
        }
    }
}

/// The variables of a run: those that the launcher gives to the job script.
///
/// # Errors
/// If the run folder cannot be read.
pub(super) fn of_run(run: &RunFolder) -> Result<BTreeMap<String, String>> {
    let record = run.record()?;
    let job = record.job.id.map_or_else(|| record.run_id.clone(), |id| id.to_string());
    let mut variables = BTreeMap::from([
        (env::RUN_ID.to_owned(), record.run_id),
        (env::RUN_DIR.to_owned(), run.path().to_string_lossy().into_owned()),
        (env::JOB_ID.to_owned(), job),
    ]);
    if let Ok(agent) = programs::find(programs::AGENT)
        && let Some(folder) = agent.parent()
    {
        variables.insert(env::BIN.to_owned(), folder.to_string_lossy().into_owned());
    }
    let order: Vec<String> =
        run.recipe()?.services.iter().map(|service| service.name.to_string()).collect();
    variables.extend(service_variables(&order, &run.files().endpoints()));
    Ok(variables)
}

/// `SERVICE_*` of the endpoints; the first service of the recipe has the short names.
fn service_variables(order: &[String], endpoints: &[Endpoint]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut urls = Vec::new();
    for (index, service) in order.iter().enumerate() {
        let mut replicas = endpoints.iter().filter(|endpoint| endpoint.service == *service);
        let Some(first) = replicas.next() else { continue };
        let part = service.to_ascii_uppercase().replace('-', "_");
        let mut put = |name: &str, value: String| {
            variables.insert(format!("SERVICE_{part}_{name}"), value.clone());
            if index == 0 {
                variables.insert(format!("SERVICE_{name}"), value);
            }
        };
        put("HOSTNAME", first.host.clone());
        put("PORT", first.port.to_string());
        put("URL", first.url.clone());
        for (name, port) in &first.ports {
            put(&format!("PORT_{}", name.to_ascii_uppercase()), port.to_string());
        }
        if index == 0 {
            variables.insert(env::SERVICE_NAME.to_owned(), service.clone());
        }
        urls.push(first.url.clone());
        urls.extend(replicas.map(|endpoint| endpoint.url.clone()));
    }
    if !urls.is_empty() {
        variables.insert(env::SERVICE_URLS.to_owned(), urls.join(","));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(service: &str, replica: u32, node: &str) -> Endpoint {
        Endpoint {
            service: service.into(),
            replica,
            node: node.into(),
            host: node.into(),
            port: 8000,
            url: format!("http://{node}:8000"),
            ports: BTreeMap::new(),
            healthy_epoch_ns: 0,
        }
    }

    #[test]
    fn the_first_service_has_the_short_names() {
        let order = ["my-db".to_owned(), "llm".to_owned()];
        let endpoints =
            [endpoint("llm", 0, "n2"), endpoint("my-db", 0, "n1"), endpoint("my-db", 1, "n3")];
        let variables = service_variables(&order, &endpoints);
        assert_eq!(variables["SERVICE_NAME"], "my-db");
        assert_eq!(variables["SERVICE_HOSTNAME"], "n1");
        assert_eq!(variables["SERVICE_MY_DB_PORT"], "8000");
        assert_eq!(variables["SERVICE_LLM_URL"], "http://n2:8000");
        assert_eq!(variables["SERVICE_URLS"], "http://n1:8000,http://n3:8000,http://n2:8000");
    }
}
