//! The node's own counters and the services' process trees: exact values.

use super::fixture::{FakeNode, assert_values};

const SCHEDSTAT: &str = "version 15\ntimestamp 4295\n\
    cpu0 0 0 0 0 0 0 7000000000 1500000000 10\n\
    domain0 03 1 2 3\n\
    cpu1 0 0 0 0 0 0 7000000000 500000000 10\n";

const DISKSTATS: &str = "   7       0 loop0 5 0 8 0 0 0 0 0 0 0 0\n\
     8       0 sda 10 0 16 4 20 0 32 5 0 1500 9 0 0 0 0\n\
     8       1 sda1 10 0 16 4 20 0 32 5 0 1500 9 0 0 0 0\n\
     8      16 sdb 0 0 0 0 0 0 0 0 0 0 0\n\
   253       0 dm-0 10 0 16 4 20 0 32 5 0 1500 9\n\
   259       0 nvme0n1 1 0 2 0 1 0 4 0 0 20 0\n";

const NETDEV: &str = "Inter-|   Receive                    |  Transmit\n\
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n\
    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n\
  eth0:18446744073709551615 5 0 3 0 0 0 0 200 6 0 4 0 0 0 0\n\
  idle: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

fn node() -> FakeNode {
    let node = FakeNode::new();
    node.write_all(
        "proc",
        &[
            ("stat", "cpu  100 20 50 1000 30 1 2 3 40 5\ncpu0 1 1 1\nintr 1\n"),
            ("schedstat", SCHEDSTAT),
            ("meminfo", "MemTotal:  2000 kB\nMemFree:  500 kB\nMemAvailable:  900 kB\nHugePages_Total: 3\n"),
            ("vmstat", "nr_free_pages 1\noom_kill 7\npgfault 3\n"),
            ("pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"),
            ("pressure/io", "some avg10=1.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n"),
            ("diskstats", DISKSTATS),
            ("self/net/dev", NETDEV),
            ("self/cgroup", "0::/\n"),
        ],
    );
    for device in ["loop0", "sda", "sdb", "dm-0", "nvme0n1"] {
        node.write(format!("sys/block/{device}/size"), "1\n");
    }
    node.write("sys/block/dm-0/slaves/sda/size", "1\n");
    node
}

#[test]
fn the_nodes_counters() {
    let node = node();
    let values = node.collectors().tick();
    assert_values(
        &values,
        &["node_", "agent_source_absent"],
        "node_cpu_seconds_total{mode=user} 1
         node_cpu_seconds_total{mode=nice} 0.2
         node_cpu_seconds_total{mode=system} 0.5
         node_cpu_seconds_total{mode=idle} 10
         node_cpu_seconds_total{mode=iowait} 0.3
         node_cpu_seconds_total{mode=irq} 0.01
         node_cpu_seconds_total{mode=softirq} 0.02
         node_cpu_seconds_total{mode=steal} 0.03
         node_run_delay_seconds_total{} 2
         node_memory_bytes{kind=total} 2048000
         node_memory_bytes{kind=free} 512000
         node_memory_bytes{kind=available} 921600
         node_oom_kills_total{} 7
         node_pressure_stall_seconds_total{resource=cpu,kind=some} 2.5
         node_pressure_stall_seconds_total{resource=io,kind=some} 1
         node_pressure_stall_seconds_total{resource=io,kind=full} 0.5
         node_disk_bytes_total{device=sda,op=read} 8192
         node_disk_bytes_total{device=sda,op=write} 16384
         node_disk_bytes_total{device=nvme0n1,op=read} 1024
         node_disk_bytes_total{device=nvme0n1,op=write} 2048
         node_disk_busy_seconds_total{device=sda} 1.5
         node_disk_busy_seconds_total{device=nvme0n1} 0.02
         node_network_bytes_total{device=eth0,direction=receive} 18446744073709551615
         node_network_bytes_total{device=eth0,direction=transmit} 200
         node_network_drops_total{device=eth0,direction=receive} 3
         node_network_drops_total{device=eth0,direction=transmit} 4
         agent_source_absent_info{source=steps,reason=no_step_cgroup} 1",
    );
}

#[test]
fn kernel_files_of_another_form_are_absent_with_a_reason() {
    let node = FakeNode::new();
    for name in
        ["stat", "schedstat", "meminfo", "vmstat", "pressure/cpu", "diskstats", "self/net/dev"]
    {
        node.write(format!("proc/{name}"), "1 2\n3 4\n5 6\n");
    }
    node.write("sys/block/sda/size", "1\n");
    let values = node.collectors().tick();
    assert_values(
        &values,
        &["node_", "agent_source_absent_info{source=node"],
        "agent_source_absent_info{source=node_cpu,reason=not_understood} 1
         agent_source_absent_info{source=node_disk,reason=not_understood} 1
         agent_source_absent_info{source=node_memory,reason=not_understood} 1
         agent_source_absent_info{source=node_network,reason=not_understood} 1
         agent_source_absent_info{source=node_oom_kills,reason=not_understood} 1
         agent_source_absent_info{source=node_pressure,reason=not_found} 1
         agent_source_absent_info{source=node_run_delay,reason=not_understood} 1",
    );
}

#[test]
fn kills_of_the_node_are_read_once_a_second_and_shown_at_every_tick() {
    let node = node();
    let mut ticks = node.collectors();
    let mut seen = |at_ms: u64| ticks.tick_at(at_ms * 1_000_000)["node_oom_kills_total{}"];
    assert_eq!(seen(1_000), 7.0);
    node.write("proc/vmstat", "oom_kill 8\n");
    assert_eq!([seen(1_100), seen(2_000), seen(2_100)], [7.0, 8.0, 8.0]);
    node.write("proc/vmstat", "nr_free_pages 1\n");
    assert!(!ticks.tick_at(3_000_000_000).contains_key("node_oom_kills_total{}"));
}

#[test]
fn a_service_is_its_process_tree_with_reaped_children() {
    let node = node();
    node.process(1, 0, 0, [9999; 4]);
    node.process(10, 1, 10, [7000; 4]);
    // Root, child, grandchild with a smaller pid, and a stranger.
    node.process(100, 10, 20, [100, 50, 30, 20]);
    node.process(101, 100, 30, [10, 0, 0, 0]);
    node.process(90, 101, 40, [0, 5, 0, 0]);
    node.process(102, 10, 50, [5000; 4]);
    node.write("proc/100/io", "read_bytes: 4096\nwrite_bytes: 10\n");
    node.write("proc/90/statm", "900 1000 400 10 0 300 0\n");
    node.watched.set("llm", 0, 100);
    let mut ticks = node.collectors();
    let expected = |user: &str| {
        format!(
            "service_cpu_seconds_total{{service=llm,replica=0,mode=user}} {user}
             service_cpu_seconds_total{{service=llm,replica=0,mode=system}} 0.75
             service_memory_bytes{{service=llm,replica=0,kind=resident}} 6144000
             service_memory_bytes{{service=llm,replica=0,kind=anonymous}} 4096000
             service_memory_bytes{{service=llm,replica=0,kind=used}} 5734400
             service_io_bytes_total{{service=llm,replica=0,op=read}} 4096
             service_io_bytes_total{{service=llm,replica=0,op=write}} 10
             service_processes{{service=llm,replica=0}} 3
             service_threads{{service=llm,replica=0}} 9"
        )
    };
    assert_values(&ticks.tick(), &["service_"], &expected("1.4"));

    // The child ends, its parent waited for it: nothing is lost, and its orphan stays ours.
    node.remove("proc/101");
    node.process(100, 10, 20, [100, 50, 45, 20]);
    node.process(90, 10, 40, [0, 5, 0, 0]);
    node.write("proc/90/statm", "900 1000 400 10 0 300 0\n");
    let values = ticks.tick();
    assert_eq!(values["service_cpu_seconds_total{service=llm,replica=0,mode=user}"], 1.45);
    assert_eq!(values["service_processes{service=llm,replica=0}"], 2.0);

    // The orphan ends and is waited for by the agent: its time stays in the sum.
    node.remove("proc/90");
    for user in [100, 110] {
        node.process(100, 10, 20, [user, 50, 45, 20]);
        let values = ticks.tick();
        let system = values["service_cpu_seconds_total{service=llm,replica=0,mode=system}"];
        assert!((system - 0.75).abs() < 1e-9, "{system}");
    }
    node.process(100, 10, 20, [110, 60, 45, 20]);
    let values = ticks.tick();
    assert_eq!(values["service_cpu_seconds_total{service=llm,replica=0,mode=system}"], 0.85);

    // The pid is used again by somebody else: no value, instead of theirs.
    node.process(100, 1, 99, [8000; 4]);
    assert_values(&ticks.tick(), &["service_"], "");
}

#[test]
fn a_process_that_left_its_parent_is_found_by_its_session() {
    let node = node();
    node.relative(100, [10, 100, 100], 20, [100, 0, 0, 0]);
    node.relative(130, [1, 130, 100], 30, [11, 0, 0, 0]);
    node.relative(140, [1, 140, 140], 30, [5000, 0, 0, 0]);
    node.watched.set("db", 1, 100);
    let values = node.collectors().tick();
    assert_eq!(values["service_cpu_seconds_total{service=db,replica=1,mode=user}"], 1.11);
    assert_eq!(values["service_processes{service=db,replica=1}"], 2.0);
}

#[test]
fn services_come_and_go_between_discoveries() {
    let node = node();
    node.process(100, 10, 20, [100, 0, 0, 0]);
    let mut ticks = node.collectors();
    assert_values(&ticks.tick_at(1_000_000_000), &["service_"], "");
    node.watched.set("llm", 0, 100);
    let name = "service_cpu_seconds_total{service=llm,replica=0,mode=user}";
    assert_eq!(ticks.tick_at(1_100_000_000)[name], 1.0);
    node.process(100, 10, 20, [110, 0, 0, 0]);
    assert_eq!(ticks.tick_at(1_200_000_000)[name], 1.1);
    node.watched.remove("llm", 0);
    assert_values(&ticks.tick_at(1_300_000_000), &["service_"], "");
}

#[test]
fn threads_of_a_service_tell_their_waits_and_moves() {
    let node = node();
    node.process(100, 10, 20, [100, 0, 0, 0]);
    let thread = |tid: u32, waited_ns: u64, moves: u32| {
        let sched = format!(
            "x (1, #threads: 2)\n---\nse.load.weight : 9\nse.nr_migrations     :   {moves}\n"
        );
        let stat = format!("7000 {waited_ns} 12\n");
        node.write_all(&format!("proc/100/task/{tid}"), &[("schedstat", &stat), ("sched", &sched)]);
    };
    thread(100, 1_500_000_000, 3);
    thread(101, 500_000_000, 4);
    node.watched.set("llm", 0, 100);
    let mut ticks = node.collectors();
    let names = ["service_run_delay", "service_migrations"];
    let expected = |seconds: &str, moves: u32| {
        format!(
            "service_run_delay_seconds_total{{service=llm,replica=0}} {seconds}
             service_migrations_total{{service=llm,replica=0}} {moves}"
        )
    };
    assert_values(&ticks.tick(), &names, &expected("2", 7));
    thread(101, 750_000_000, 9);
    assert_values(&ticks.tick(), &names, &expected("2.25", 7));
    let later = ticks.tick_at(12_000_000_000);
    assert_values(&later, &names, &expected("2.25", 12));
    // What an ended thread has waited for stays counted.
    node.remove("proc/100/task/101");
    for at in 13..15 {
        let values = ticks.tick_at(at * 1_000_000_000);
        assert_values(&values, &names, &expected("2.25", 12));
    }
    thread(100, 1_600_000_000, 3);
    assert_values(&ticks.tick_at(15_000_000_000), &names, &expected("2.35", 12));
    for tid in 200..500 {
        thread(tid, 1, 1);
    }
    assert_values(&ticks.tick_at(16_000_000_000), &names, "");
}
