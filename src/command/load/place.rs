//! Which nodes the tasks of a load run on.

use std::collections::BTreeSet;

use aifb_schema::recipe::{Load, Nodes, Recipe};

use crate::slurm::srun::Segment;

/// Component of a heterogeneous job that a load requested: loads with a `slurm` section have the
/// components after the services' one, in their order.
pub(crate) fn own_component(recipe: &Recipe, load: &Load) -> Option<usize> {
    recipe
        .load
        .iter()
        .filter(|other| !other.slurm.is_empty())
        .position(|other| other.name == load.name)
        .map(|index| index + 1)
}

/// Nodes and tasks for a load, one segment for each component.
///
/// # Errors
/// If the allocation has not the nodes that the recipe asks for.
pub(super) fn place(
    load: &Load,
    own_component: Option<usize>,
    components: &[Vec<String>],
    service_nodes: &BTreeSet<String>,
) -> Result<Vec<Segment>, String> {
    // A job that is not heterogeneous has its clients wherever there is room.
    let own = own_component.filter(|component| *component < components.len());
    let candidates: Vec<(usize, &String)> = components
        .iter()
        .enumerate()
        .filter(|(component, _)| own.is_none_or(|own| own == *component))
        .flat_map(|(component, nodes)| nodes.iter().map(move |node| (component, node)))
        .collect();
    let others: Vec<(usize, &String)> =
        candidates.iter().filter(|(_, node)| !service_nodes.contains(*node)).copied().collect();
    let head = || candidates.first().copied().into_iter().collect::<Vec<_>>();
    let mut chosen = match load.nodes {
        Nodes::Head => head(),
        Nodes::All => candidates,
        Nodes::Others if others.is_empty() => head(),
        Nodes::Others => others,
        Nodes::Count(1) if others.is_empty() => head(),
        Nodes::Count(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if others.len() < count {
                return Err(format!(
                    "it requests {count} nodes in addition to those of the services; the job has \
                     {}",
                    others.len()
                ));
            }
            others.into_iter().take(count).collect()
        }
    };
    chosen.truncate(usize::try_from(load.clients).unwrap_or(usize::MAX));
    if chosen.is_empty() {
        return Err("the job has no nodes".into());
    }
    Ok(segments(&chosen, load.clients, components.len() > 1))
}

/// Tasks dealt out evenly, the first nodes getting one more where it does not come out even.
fn segments(chosen: &[(usize, &String)], tasks: u32, heterogeneous: bool) -> Vec<Segment> {
    let count = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
    let (each, more) = (tasks / count, tasks % count);
    let mut segments: Vec<Segment> = Vec::new();
    for ((component, node), index) in chosen.iter().zip(0..) {
        let group = heterogeneous.then_some(*component);
        let tasks = each + u32::from(index < more);
        match segments.last_mut().filter(|last| last.het_group == group) {
            Some(last) => {
                last.nodes.push((*node).clone());
                last.tasks += tasks;
            }
            None => {
                segments.push(Segment { het_group: group, nodes: vec![(*node).clone()], tasks })
            }
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use aifb_schema::recipe::parse;

    fn recipe(nodes: &str, clients: u32) -> Recipe {
        let text = format!(
            "aifb: 1\nname: x\nservices: [{{name: s, kind: external, url: 'http://h:1'}}]\nload:\n  \
             - {{name: a, driver: http, nodes: {nodes}, clients: {clients}, arrival: {{rate: 1/s}}, \
             phases: {{measure: 1s}}}}\n"
        );
        parse(&text, &[]).unwrap()
    }

    fn nodes(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// Segments as `group:nodes:tasks`.
    fn placed(
        nodes_word: &str,
        clients: u32,
        own: Option<usize>,
        components: &[Vec<String>],
        service_nodes: &[&str],
    ) -> Result<Vec<String>, String> {
        let recipe = recipe(nodes_word, clients);
        let busy = service_nodes.iter().map(|&name| name.to_owned()).collect();
        place(&recipe.load[0], own, components, &busy).map(|segments| {
            segments
                .iter()
                .map(|s| {
                    let group = s.het_group.map_or_else(|| "-".into(), |group| group.to_string());
                    format!("{group}:{}:{}", s.nodes.join("+"), s.tasks)
                })
                .collect()
        })
    }

    #[test]
    fn words_choose_nodes() {
        let three = [nodes(&["n1", "n2", "n3"])];
        for (word, clients, expected) in [
            ("others", 4, "-:n2+n3:4"),
            ("others", 1, "-:n2:1"),
            ("head", 4, "-:n1:4"),
            ("all", 4, "-:n1+n2+n3:4"),
            ("2", 4, "-:n2+n3:4"),
        ] {
            let found = placed(word, clients, None, &three, &["n1"]).unwrap();
            assert_eq!(found, [expected], "{word} {clients}");
        }
        assert!(placed("3", 4, None, &three, &["n1"]).unwrap_err().contains("the job has 2"));
    }

    #[test]
    fn one_node_is_shared() {
        let one = [nodes(&["n1"])];
        for word in ["others", "head", "all", "1"] {
            assert_eq!(placed(word, 3, None, &one, &["n1"]).unwrap(), ["-:n1:3"], "{word}");
        }
    }

    #[test]
    fn components_are_told_apart() {
        let two = [nodes(&["n1"]), nodes(&["n2", "n3"])];
        assert_eq!(placed("others", 3, None, &two, &["n1"]).unwrap(), ["1:n2+n3:3"]);
        assert_eq!(placed("all", 3, Some(1), &two, &["n1"]).unwrap(), ["1:n2+n3:3"]);
        assert_eq!(placed("all", 4, None, &two, &["n1"]).unwrap(), ["0:n1:2", "1:n2+n3:2"]);
        // The job is an ordinary one although the recipe asks for a component.
        assert_eq!(placed("others", 1, Some(1), &[nodes(&["n1"])], &["n1"]).unwrap(), ["-:n1:1"]);
    }

    #[test]
    fn loads_with_a_section_have_the_later_components() {
        let load = |name: &str, slurm: &str| {
            format!(
                "  - {{name: {name}, driver: http, arrival: {{rate: 1/s}}, phases: {{measure: 1s}}, slurm: {slurm}}}\n"
            )
        };
        let text = format!(
            "aifb: 1\nname: x\nservices: [{{name: s, kind: external, url: 'http://h:1'}}]\nload:\n{}{}{}",
            load("a", "{}"),
            load("b", "{nodes: 1}"),
            load("c", "{nodes: 2}")
        );
        let recipe = parse(&text, &[]).unwrap();
        let found: Vec<Option<usize>> =
            recipe.load.iter().map(|load| own_component(&recipe, load)).collect();
        assert_eq!(found, [None, Some(1), Some(2)]);
    }
}
