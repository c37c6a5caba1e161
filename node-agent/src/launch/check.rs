//! The recipe against the allocation, before anything starts.

use aifb_schema::{
    recipe::{Nodes, Recipe, Service, SlurmValue},
    run::{Failure, Owner},
    units::{Size, Span},
};

use super::{environment::Environment, job::Allocation};

/// Refuses what cannot be placed in this allocation.
///
/// # Errors
/// The first service that does not fit.
pub(crate) fn placement(recipe: &Recipe, allocation: &Allocation) -> Result<(), Failure> {
    let mut on_first = Sum::default();
    for service in recipe.services.iter().filter(|service| !service.is_external()) {
        nodes(service, allocation)?;
        on_first.add(service, allocation)?;
    }
    Ok(())
}

fn nodes(service: &Service, allocation: &Allocation) -> Result<(), Failure> {
    let have = allocation.service_nodes().len();
    let asked = match service.nodes {
        Nodes::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        Nodes::All if service.across => 2,
        Nodes::Head | Nodes::All | Nodes::Others => 1,
    };
    if asked <= have {
        return Ok(());
    }
    let nodes = if have == 1 { "1 node".to_owned() } else { format!("{have} nodes") };
    let reason = format!("it needs {asked} nodes; the job has {nodes} for services");
    let hint = format!("submit with --nodes={asked} (slurm: {{nodes: {asked}}}), or request fewer");
    Err(Failure::new(Owner::Recipe, service.name.as_str(), reason).with_hint(hint))
}

/// What all services together take of the first node, where every placement begins.
#[derive(Default)]
struct Sum {
    cpus: u64,
    memory: u64,
    gpus: u64,
}

impl Sum {
    fn add(&mut self, service: &Service, allocation: &Allocation) -> Result<(), Failure> {
        self.cpus += u64::from(service.cpus.unwrap_or(0));
        self.memory = self.memory.saturating_add(service.memory.map_or(0, |size| size.0));
        self.gpus += u64::from(service.gpus.unwrap_or(0));
        let first = |list: &Option<Vec<u64>>| list.as_ref()?.first().copied();
        let too_much = |what: &str, asked: String, have: String, option: &str| {
            let reason =
                format!("with it the services need {asked} {what} per node; the job has {have}");
            let hint = format!("request more with {option}, or give the services less");
            Failure::new(Owner::Recipe, service.name.as_str(), reason).with_hint(hint)
        };
        if let Some(have) = first(&allocation.cpus)
            && service.cpus.is_some()
            && self.cpus > have
        {
            let option = "--cpus-per-task or --exclusive";
            return Err(too_much("CPUs", self.cpus.to_string(), have.to_string(), option));
        }
        if let Some(have) = first(&allocation.memory)
            && service.memory.is_some()
            && self.memory > have
        {
            let (asked, have) = (Size(self.memory).to_string(), Size(have).to_string());
            return Err(too_much("memory", asked, have, "--mem"));
        }
        if let Some(have) = allocation.gpus
            && service.gpus.is_some()
            && self.gpus > have
        {
            return Err(too_much("GPUs", self.gpus.to_string(), have.to_string(), "--gres=gpu:N"));
        }
        Ok(())
    }
}

/// Options of `slurm:` and the variable that tells what the job got.
const COMPARED: [(&str, &str); 9] = [
    ("nodes", "SLURM_JOB_NUM_NODES"),
    ("partition", "SLURM_JOB_PARTITION"),
    ("account", "SLURM_JOB_ACCOUNT"),
    ("qos", "SLURM_JOB_QOS"),
    ("ntasks", "SLURM_NTASKS"),
    ("ntasks-per-node", "SLURM_NTASKS_PER_NODE"),
    ("cpus-per-task", "SLURM_CPUS_PER_TASK"),
    ("reservation", "SLURM_JOB_RESERVATION"),
    ("gpus-per-node", "SLURM_GPUS_PER_NODE"),
];

/// Where the job is not what the recipe's `slurm:` asks for: not an error, but worth knowing.
/// What Slurm does not tell a job is not compared.
pub(crate) fn differences(recipe: &Recipe, environment: &Environment) -> Vec<String> {
    let mut found = Vec::new();
    for (option, variable) in COMPARED {
        let asked = match recipe.slurm.get(option) {
            Some(SlurmValue::Number(number)) => number.to_string(),
            Some(SlurmValue::Text(text)) => text.clone(),
            Some(SlurmValue::Flag(_)) | None => continue,
        };
        // In a heterogeneous job the plain variable may speak of all components.
        let first = environment.get(&format!("{variable}_HET_GROUP_0"));
        let Some(has) = first.or_else(|| environment.get(variable)) else { continue };
        if *has != asked && !asked.split(',').any(|one| one == has) {
            found.push(format!("the recipe requests {option} {asked}; the job has {has}"));
        }
    }
    found
}

/// The administrators' bound where the recipe samples more often, and a warning that says so.
pub(crate) fn sampling(recipe: &Recipe, shortest: Option<&str>) -> Option<(Span, String)> {
    let shortest: Span = shortest?.parse().ok()?;
    let asked = recipe.monitor.sample;
    if asked >= shortest {
        return None;
    }
    let warning =
        format!("sampling every {shortest} instead of {asked}: min_sample of this cluster");
    Some((shortest, warning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aifb_schema::run::Job;

    fn recipe(services: &str, slurm: &str) -> Recipe {
        let text = format!("aifb: 1\nname: t\nslurm: {slurm}\nservices:\n{services}");
        aifb_schema::recipe::parse(&text, &[]).unwrap()
    }

    fn allocation(nodes: &[&str]) -> Allocation {
        let nodes = nodes.iter().map(|&name| name.to_owned()).collect();
        Allocation {
            job: Job { components: vec![nodes], ..Job::default() },
            cpus: Some(vec![4, 4]),
            memory: Some(vec![1 << 30, 1 << 30]),
            gpus: None,
            ..Allocation::default()
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let two = allocation(&["n1", "n2"]);
        for (service, expected) in [
            ("nodes: 2", None),
            ("nodes: 3", Some("it needs 3 nodes; the job has 2 nodes")),
            ("cpus: 4", None),
            ("cpus: 5", Some("need 5 CPUs per node; the job has 4")),
            ("memory: 2GiB", Some("need 2GiB memory per node; the job has 1GiB")),
        ] {
            let text = format!("  - {{name: a, kind: container, program: /x, {service}}}\n");
            let answer = placement(&recipe(&text, "{}"), &two);
            match expected {
                None => assert!(answer.is_ok(), "{service}: {answer:?}"),
                Some(words) => {
                    let failure = answer.unwrap_err();
                    assert!(failure.reason.contains(words), "{}", failure.reason);
                    assert_eq!(failure.owner, Owner::Recipe);
                }
            }
        }
    }

    #[test]
    fn several_services_share_a_node() {
        let text = "  - {name: a, kind: container, program: /x, cpus: 3}\n  - {name: b, kind: \
                    container, program: /x, cpus: 2}\n";
        let failure = placement(&recipe(text, "{}"), &allocation(&["n1"])).unwrap_err();
        assert_eq!(failure.part, "b");
    }

    #[test]
    fn differences_are_told_not_refused() {
        let recipe = recipe(
            "  - {name: a, kind: container, program: /x}\n",
            "{nodes: 2, partition: \"cpu,gpu\"}",
        );
        let job = Environment::from([
            ("SLURM_JOB_NUM_NODES".to_owned(), "1".to_owned()),
            ("SLURM_JOB_PARTITION".to_owned(), "gpu".to_owned()),
        ]);
        assert_eq!(differences(&recipe, &job), ["the recipe requests nodes 2; the job has 1"]);
    }
}
