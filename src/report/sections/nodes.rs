//! What the run cost on each node.

use std::collections::BTreeSet;

use aifb_schema::{
    figure::{Better, Unit},
    result::{NodeResources, Report},
};

use crate::{
    observe::view,
    report::model::{Cell, Column, Section, Table},
};

/// CPU and memory by owner, then what went over networks and disks; nothing without samples.
pub(super) fn section(report: &Report) -> Option<Section> {
    if report.nodes.is_empty() {
        return None;
    }
    let span = match &report.window {
        Some(window) => {
            let length = window.end_epoch_ns.saturating_sub(window.start_epoch_ns);
            format!("from the start of the measured part to its end ({})", view::length(length))
        }
        None => "over the whole run".to_owned(),
    };
    let tables = vec![owners(&report.nodes), devices(&report.nodes)];
    Some(Section { title: format!("resources {span}"), tables })
}

fn owners(nodes: &[NodeResources]) -> Table {
    let columns = vec![
        Column::text("node"),
        Column::text("of"),
        Column::new("CPU time", Unit::Seconds, Better::Lower),
        Column::new("cores", Unit::Number, Better::Lower),
        Column::new("memory max", Unit::Bytes, Better::Lower),
    ];
    let mut table = Table::grid("", columns);
    nodes.iter().for_each(|node| put_node(&mut table.rows, node));
    table
}

fn put_node(rows: &mut Vec<Vec<Cell>>, node: &NodeResources) {
    let mut row = |of: String, cpu: Option<f64>, memory: Option<u64>| {
        let cores = cpu.filter(|_| node.seconds > 0.0).map(|cpu| cpu / node.seconds);
        rows.push(vec![
            Cell::text(&node.node),
            Cell::Text(of),
            Cell::of(cpu, Cell::Seconds),
            Cell::of(cores, Cell::Rate),
            Cell::of(memory, Cell::Bytes),
        ]);
    };
    row("node".into(), node.node_cpu_seconds, node.node_memory_max_bytes);
    if node.job_cpu_seconds.is_some() || node.job_memory_max_bytes.is_some() {
        row("job".into(), node.job_cpu_seconds, node.job_memory_max_bytes);
    }
    let names = node.service_cpu_seconds.keys().chain(node.service_memory_max_bytes.keys());
    for name in names.collect::<BTreeSet<_>>() {
        let cpu = node.service_cpu_seconds.get(name).copied();
        let memory = node.service_memory_max_bytes.get(name).copied();
        row(format!("service {name}"), cpu, memory);
    }
    row("agent".into(), node.agent_cpu_seconds, node.agent_memory_max_bytes);
}

fn devices(nodes: &[NodeResources]) -> Table {
    let bytes = |name: &'static str| Column::new(name, Unit::Bytes, Better::Neither);
    let columns = vec![
        Column::text("node"),
        bytes("received"),
        bytes("sent"),
        bytes("disk read"),
        bytes("disk written"),
        Column::count("samples"),
        Column::new("missing", Unit::Count, Better::Lower),
    ];
    let mut table = Table::grid("", columns);
    table.rows.extend(nodes.iter().map(|node| {
        vec![
            Cell::text(&node.node),
            Cell::of(node.network_received_bytes, Cell::Bytes),
            Cell::of(node.network_sent_bytes, Cell::Bytes),
            Cell::of(node.disk_read_bytes, Cell::Bytes),
            Cell::of(node.disk_written_bytes, Cell::Bytes),
            Cell::Count(node.samples),
            Cell::Count(node.gaps),
        ]
    }));
    table
}
