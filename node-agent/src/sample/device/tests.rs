//! Devices and mounts from made files: exact values.

use std::{collections::BTreeMap, time::Duration};

use super::{Points, reader};
use crate::sample::{background::Read as _, fixture::FakeNode};

/// Values by `name{label=value,…}`, and why sources are absent.
fn shown(points: &Points) -> (BTreeMap<String, f64>, Vec<String>) {
    let values = points.all.iter().map(|point| {
        let labels = point.family.labels.iter().zip(&point.labels);
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        (format!("{}{{{}}}", point.family.name, labels.join(",")), point.value)
    });
    let absent = points.sources.iter().filter_map(|(source, result)| {
        Some(format!("{source}: {}", result.as_ref().err()?.kind()))
    });
    (values.collect(), absent.collect())
}

fn assert_values(points: &Points, expected: &[(&str, f64)]) {
    let expected: BTreeMap<String, f64> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    assert_eq!(shown(points).0, expected);
}

fn read(node: &FakeNode) -> impl FnMut(u64) -> Points + use<> {
    reader(&node.path("proc"), &node.path("sys"))
}

#[test]
fn without_devices_each_source_says_so() {
    let points = read(&FakeNode::new())(1);
    let absent = ["infiniband", "lustre", "nfs", "cpu_energy"];
    let (values, told) = shown(&points);
    assert_eq!(told, absent.map(|source| format!("{source}: entity not found")));
    assert!(values.is_empty());
    assert_eq!(points.rests(), Duration::from_secs(10));
}

#[test]
fn infiniband_ports_count_in_words_of_four_bytes() {
    let node = FakeNode::new();
    let ports = "sys/class/infiniband/mlx5_0/ports";
    node.write_all(
        &format!("{ports}/1/counters"),
        &[
            ("port_rcv_data", "1000\n"),
            ("port_xmit_data", "18446744073709551615\n"),
            ("port_rcv_errors", "3\n"),
            ("port_xmit_discards", "0\n"),
            ("link_downed", "1\n"),
        ],
    );
    node.write_all(
        "sys/class/infiniband/mlx5_1/ports/2/counters",
        &[("port_rcv_data", "5\n"), ("port_xmit_data", "6\n")],
    );
    node.write("sys/class/infiniband/mlx5_2/ports/1/state", "4: ACTIVE\n");
    let mut read = read(&node);
    let points = read(1);
    assert_values(
        &points,
        &[
            ("ib_port_bytes_total{device=mlx5_0,port=1,direction=receive}", 4000.0),
            (
                "ib_port_bytes_total{device=mlx5_0,port=1,direction=transmit}",
                18_446_744_073_709_551_615.0,
            ),
            ("ib_port_bytes_total{device=mlx5_1,port=2,direction=receive}", 20.0),
            ("ib_port_bytes_total{device=mlx5_1,port=2,direction=transmit}", 24.0),
            ("ib_port_errors_total{device=mlx5_0,port=1,kind=receive_errors}", 3.0),
            ("ib_port_errors_total{device=mlx5_0,port=1,kind=transmit_discards}", 0.0),
            ("ib_port_errors_total{device=mlx5_0,port=1,kind=link_downed}", 1.0),
        ],
    );
    // A port that breaks is absent and says so; the other goes on.
    node.write(format!("{ports}/1/counters/port_rcv_data"), "N/A\n");
    let points = read(2);
    let (values, absent) = shown(&points);
    assert_eq!(values.len(), 2);
    assert_eq!(points.rests(), Duration::ZERO);
    assert_eq!(absent[0], "infiniband: invalid data");
}

const LLITE: &str = "snapshot_time             1700000000.123456789 secs.nsecs\n\
    read_bytes                12 samples [bytes] 4096 1048576 5000000\n\
    write_bytes               3 samples [bytes] 1 100 150 9999\n\
    open                      5 samples [usec] 1 9 20 100\n";

#[test]
fn lustre_mounts_are_summed_by_file_system_wherever_they_stand() {
    for root in ["proc/fs/lustre", "sys/kernel/debug/lustre", "sys/fs/lustre"] {
        let node = FakeNode::new();
        let stats = |mount: &str| format!("{root}/llite/{mount}/stats");
        node.write(stats("scratch-ffff8881"), LLITE);
        node.write(stats("scratch-ffff8882"), LLITE);
        node.write(stats("home-dir-ffff8883"), "snapshot_time 1.0 secs.nsecs\n");
        assert_values(
            &read(&node)(1),
            &[
                ("lustre_bytes_total{filesystem=home-dir,op=read}", 0.0),
                ("lustre_bytes_total{filesystem=home-dir,op=write}", 0.0),
                ("lustre_bytes_total{filesystem=scratch,op=read}", 10_000_000.0),
                ("lustre_bytes_total{filesystem=scratch,op=write}", 300.0),
            ],
        );
    }
}

#[test]
fn nfs_mounts_count_what_went_to_the_server() {
    let node = FakeNode::new();
    node.write(
        "proc/self/mountstats",
        "device rootfs mounted on / with fstype rootfs\n\
         device srv:/home mounted on /home with fstype nfs4 statvers=1.1\n\
         \topts:\trw,vers=4.2\n\
         \tbytes:\t1 2 3 4 500 600 7 8\n\
         device proc mounted on /proc with fstype proc\n\
         \tbytes:\t1 2 3 4 5 6 7 8\n\
         device srv:/a b mounted on /a\\040b with fstype nfs statvers=1.1\n\
         \tbytes:\t0 0 0 0 0 9 0 0\n",
    );
    let mut read = read(&node);
    assert_values(
        &read(1),
        &[
            ("nfs_bytes_total{mount=/a\\040b,op=read}", 0.0),
            ("nfs_bytes_total{mount=/a\\040b,op=write}", 9.0),
            ("nfs_bytes_total{mount=/home,op=read}", 500.0),
            ("nfs_bytes_total{mount=/home,op=write}", 600.0),
        ],
    );
    node.write(
        "proc/self/mountstats",
        "device s:/h mounted on /h with fstype nfs\n\tbytes:\t1 2\n",
    );
    let (values, absent) = shown(&read(2));
    assert!(values.is_empty() && absent.contains(&"nfs: invalid data".to_owned()), "{absent:?}");
}

#[test]
fn nfs_mounts_that_come_later_are_found_with_everything_else() {
    let node = FakeNode::new();
    node.write("proc/self/mountstats", "device rootfs mounted on / with fstype rootfs\n");
    let mut read = read(&node);
    assert_eq!(shown(&read(1)).1[2], "nfs: entity not found");
    node.write(
        "proc/self/mountstats",
        "device s:/h mounted on /h with fstype nfs\n\tbytes:\t1 2 3 4 5 6 7 8\n",
    );
    assert!(read(10_000_000_000).all.is_empty(), "no other reading asks for all mounts");
    assert_values(
        &read(10_000_000_001),
        &[("nfs_bytes_total{mount=/h,op=read}", 5.0), ("nfs_bytes_total{mount=/h,op=write}", 6.0)],
    );
}

fn zone(node: &FakeNode, folder: &str, name: &str, energy: &str) {
    node.write_all(
        &format!("sys/class/powercap/{folder}"),
        &[("name", name), ("energy_uj", energy), ("max_energy_range_uj", "262143328850\n")],
    );
}

#[test]
fn energy_counts_on_when_the_counter_starts_again() {
    let node = FakeNode::new();
    zone(&node, "intel-rapl:0", "package-0\n", "262143000000\n");
    zone(&node, "intel-rapl:0:0", "dram\n", "1000000\n");
    zone(&node, "intel-rapl:1", "package-1\n", "5500000\n");
    zone(&node, "intel-rapl-mmio:0", "package-0\n", "77\n");
    node.write("sys/class/powercap/intel-rapl/enabled", "1\n");
    let mut read = read(&node);
    let package = "cpu_energy_joules_total{package=0,domain=package}";
    assert_values(
        &read(1),
        &[
            (package, 262_143.0),
            ("cpu_energy_joules_total{package=0,domain=dram}", 1.0),
            ("cpu_energy_joules_total{package=1,domain=package}", 5.5),
        ],
    );
    zone(&node, "intel-rapl:0", "package-0\n", "671150\n");
    assert_eq!(shown(&read(2)).0[package], 262_144.0);
    zone(&node, "intel-rapl:0", "package-0\n", "671149\n");
    assert_eq!(shown(&read(3)).0[package], 524_287.328_849);
}

#[test]
fn energy_that_may_not_be_read_is_absent_with_the_reason() {
    let node = FakeNode::new();
    zone(&node, "intel-rapl:0", "package-0\n", "1\n");
    // Root may read what nobody may; a folder in its place is refused to root, too.
    let file = node.path("sys/class/powercap/intel-rapl:0/energy_uj");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let (values, absent) = shown(&read(&node)(1));
    assert!(values.is_empty(), "{values:?}");
    assert_eq!(absent[3], "cpu_energy: is a directory");
}
