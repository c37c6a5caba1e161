//! Job and steps from cgroup trees as Slurm makes them: exact values.

use super::fixture::{FakeNode, assert_values, only};

const JOB: &[&str] = &["job_", "step_", "agent_source_absent"];

/// Node sources are not in these trees.
const NO_NODE: &str = "
    agent_source_absent_info{source=node_cpu,reason=not_found} 1
    agent_source_absent_info{source=node_disk,reason=not_found} 1
    agent_source_absent_info{source=node_memory,reason=not_found} 1
    agent_source_absent_info{source=node_network,reason=not_found} 1
    agent_source_absent_info{source=node_oom_kills,reason=not_found} 1
    agent_source_absent_info{source=node_pressure,reason=not_found} 1
    agent_source_absent_info{source=node_run_delay,reason=not_found} 1
";

/// 22.05 and 24.11 with `CgroupPlugin=cgroup/v1`, several slurmd on one host, one tree for each
/// controller.
fn v1(node: &FakeNode) {
    let job = "/slurm_n1/uid_1000/job_7";
    let step = format!("{job}/step_0/task_0");
    node.write(
        "proc/self/cgroup",
        &format!(
            "9:name=systemd:/\n8:pids:/\n7:blkio:/\n6:freezer:{job}/step_0\n5:devices:{step}\n\
             4:memory:{step}\n3:cpuset:{job}/step_0\n2:cpu,cpuacct:{step}\n0::/\n"
        ),
    );
    // The mount of the joined controllers has one of the two names only.
    let cpu = |part: &str| format!("cgroup/cpuacct{job}{part}");
    node.write_all(
        &cpu(""),
        &[("cpuacct.usage", "9000000000\n"), ("cpuacct.stat", "user 600\nsystem 300\n")],
    );
    for (part, usage, user, system) in
        [("/step_batch", 1_000_000_000_u64, 30, 10), ("/step_0", 8_000_000_000, 600, 200)]
    {
        let stat = format!("user {user}\nsystem {system}\n");
        node.write_all(
            &cpu(part),
            &[("cpuacct.usage", &usage.to_string()), ("cpuacct.stat", &stat)],
        );
    }
    let memory = |part: &str| format!("cgroup/memory{job}{part}");
    for (part, usage, limit, kills) in [
        ("", 5000, "1073741824", 0),
        ("/step_batch", 1000, "9223372036854771712", 0),
        ("/step_0", 4000, "1048576", 1),
        ("/step_0/task_0", 4000, "9223372036854771712", 2),
    ] {
        let kills = format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        node.write_all(
            &memory(part),
            &[
                ("memory.usage_in_bytes", &usage.to_string()),
                ("memory.max_usage_in_bytes", &(usage * 2).to_string()),
                ("memory.limit_in_bytes", limit),
                ("memory.use_hierarchy", "1\n"),
                ("memory.stat", "cache 1\nrss 2\ntotal_cache 300\ntotal_rss 200\n"),
                ("memory.oom_control", &kills),
            ],
        );
    }
    let freezer = |part: &str| format!("cgroup/freezer{job}{part}/cgroup.procs");
    node.write(freezer("/step_batch"), "50\n");
    node.write(freezer("/step_0"), "100\n0\n101\n");
    for (pid, read) in [(50, 1), (100, 10), (101, 100)] {
        node.process(pid, 1, 5, [0; 4]);
        let io = format!("rchar: 9\nread_bytes: {read}\nwrite_bytes: {}\n", read * 2);
        node.write(format!("proc/{pid}/io"), &io);
    }
}

#[test]
fn v1_trees_of_a_node_with_several_slurmd() {
    let node = FakeNode::new();
    v1(&node);
    let values = node.collectors().tick();
    assert_values(
        &values,
        JOB,
        &format!(
            "{NO_NODE}
            job_cpu_seconds_total{{mode=user}} 6
            job_cpu_seconds_total{{mode=system}} 3
            job_memory_bytes{{kind=anonymous}} 200
            job_memory_bytes{{kind=current}} 5000
            job_memory_bytes{{kind=file}} 300
            job_memory_bytes{{kind=limit}} 1073741824
            job_memory_peak_bytes{{}} 10000
            step_cpu_seconds_total{{step=0,role=service,source=cgroup,mode=system}} 2
            step_cpu_seconds_total{{step=0,role=service,source=cgroup,mode=user}} 6
            step_cpu_seconds_total{{step=batch,role=script,source=cgroup,mode=system}} 0.25
            step_cpu_seconds_total{{step=batch,role=script,source=cgroup,mode=user}} 0.75
            step_io_bytes_total{{step=0,role=service,source=processes,op=read}} 110
            step_io_bytes_total{{step=0,role=service,source=processes,op=write}} 220
            step_io_bytes_total{{step=batch,role=script,source=processes,op=read}} 1
            step_io_bytes_total{{step=batch,role=script,source=processes,op=write}} 2
            step_memory_bytes{{step=0,role=service,kind=anonymous}} 200
            step_memory_bytes{{step=0,role=service,kind=current}} 4000
            step_memory_bytes{{step=0,role=service,kind=file}} 300
            step_memory_bytes{{step=0,role=service,kind=limit}} 1048576
            step_memory_bytes{{step=batch,role=script,kind=anonymous}} 200
            step_memory_bytes{{step=batch,role=script,kind=current}} 1000
            step_memory_bytes{{step=batch,role=script,kind=file}} 300
            step_memory_peak_bytes{{step=0,role=service}} 8000
            step_memory_peak_bytes{{step=batch,role=script}} 2000
            step_oom_kills_total{{step=0,role=service}} 3
            step_oom_kills_total{{step=batch,role=script}} 0
            step_processes{{step=0,role=service}} 2
            step_processes{{step=batch,role=script}} 1"
        ),
    );
}

#[test]
fn limits_are_read_once_a_second_and_kills_at_every_tick() {
    let node = FakeNode::new();
    v1(&node);
    let mut ticks = node.collectors();
    let step = "cgroup/memory/slurm_n1/uid_1000/job_7/step_0";
    let mut seen = |at_ms: u64| {
        let values = ticks.tick_at(at_ms * 1_000_000);
        let of = |name: &str| values[&format!("step_{name}")];
        (
            of("memory_bytes{step=0,role=service,kind=limit}"),
            of("oom_kills_total{step=0,role=service}"),
        )
    };
    assert_eq!(seen(1_000), (1_048_576.0, 3.0));
    node.write(format!("{step}/memory.limit_in_bytes"), "2048\n");
    node.write(format!("{step}/task_0/memory.oom_control"), "oom_kill 5\n");
    assert_eq!(seen(1_100), (1_048_576.0, 6.0));
    assert_eq!(seen(2_000), (2048.0, 6.0));
}

#[test]
fn kills_of_a_task_that_is_gone_stay_counted() {
    let node = FakeNode::new();
    v1(&node);
    let mut ticks = node.collectors();
    ticks.tick();
    node.remove("cgroup/memory/slurm_n1/uid_1000/job_7/step_0/task_0");
    let values = ticks.tick();
    assert_eq!(values["step_oom_kills_total{step=0,role=service}"], 3.0);
}

#[test]
fn a_memory_group_that_does_not_count_its_tasks_is_absent() {
    let node = FakeNode::new();
    v1(&node);
    let step = "cgroup/memory/slurm_n1/uid_1000/job_7/step_0";
    node.write(format!("{step}/memory.use_hierarchy"), "0\n");
    let values = node.collectors().tick();
    assert_eq!(only(&values, &["step_memory_bytes{step=0,"]), []);
    assert_eq!(values["agent_source_absent_info{source=step_memory,reason=no_controller}"], 1.0);
}

/// Version 2, with the job named as given and below the scope given.
fn v2(node: &FakeNode, mount: &str, job: &str) {
    node.write("proc/self/cgroup", &format!("0::/system.slice/{job}/step_2/user/task_0\n"));
    let at = |part: &str| format!("{mount}/system.slice/{job}{part}");
    for (part, usec) in [("", 9_000_000), ("/step_2", 4_000_000), ("/step_10", 3_000_000)] {
        let stat =
            format!("usage_usec {usec}\nuser_usec {}\nsystem_usec 1000000\n", usec - 1_000_000);
        node.write_all(
            &at(part),
            &[
                ("cpu.stat", &stat),
                ("memory.current", "4096\n"),
                ("memory.peak", "8192\n"),
                ("memory.max", "max\n"),
                ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n"),
                ("memory.stat", "anon 1000\nfile 3000\nkernel 1\n"),
                (
                    "io.stat",
                    "8:0 rbytes=100 wbytes=7 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5\n",
                ),
                ("pids.current", "12\n"),
                ("cpu.pressure", "some avg10=0.00 total=1500000\nfull avg10=0.00 total=0\n"),
                ("memory.pressure", "some avg10=0.00 total=200000\nfull avg10=0.00 total=100000\n"),
                ("cgroup.procs", ""),
            ],
        );
    }
    // Of a step's CPU time its tasks' is shown, of its memory and I/O all.
    for (step, usec) in [("/step_2", 3_500_000), ("/step_10", 2_750_000)] {
        let stat = format!("usage_usec {usec}\nuser_usec {}\nsystem_usec 750000\n", usec - 750_000);
        node.write(at(&format!("{step}/user/cpu.stat")), &stat);
    }
    node.write(at("/step_2/slurm/cgroup.procs"), "40\n");
    node.write(at("/step_2/user/task_0/cgroup.procs"), "100\n101\n");
    node.write(at("/step_10/user/task_0/cgroup.procs"), "200\n");
}

const V2_VALUES: &str = "
    job_cpu_seconds_total{mode=system} 1
    job_cpu_seconds_total{mode=user} 8
    job_memory_bytes{kind=anonymous} 1000
    job_memory_bytes{kind=current} 4096
    job_memory_bytes{kind=file} 3000
    job_memory_peak_bytes{} 8192
    step_cpu_seconds_total{step=10,role=client,source=cgroup,mode=system} 0.75
    step_cpu_seconds_total{step=10,role=client,source=cgroup,mode=user} 2
    step_cpu_seconds_total{step=2,role=service,source=cgroup,mode=system} 0.75
    step_cpu_seconds_total{step=2,role=service,source=cgroup,mode=user} 2.75
    step_io_bytes_total{step=10,role=client,source=cgroup,op=read} 105
    step_io_bytes_total{step=10,role=client,source=cgroup,op=write} 7
    step_io_bytes_total{step=2,role=service,source=cgroup,op=read} 105
    step_io_bytes_total{step=2,role=service,source=cgroup,op=write} 7
    step_memory_bytes{step=10,role=client,kind=anonymous} 1000
    step_memory_bytes{step=10,role=client,kind=current} 4096
    step_memory_bytes{step=10,role=client,kind=file} 3000
    step_memory_bytes{step=2,role=service,kind=anonymous} 1000
    step_memory_bytes{step=2,role=service,kind=current} 4096
    step_memory_bytes{step=2,role=service,kind=file} 3000
    step_memory_peak_bytes{step=10,role=client} 8192
    step_memory_peak_bytes{step=2,role=service} 8192
    step_oom_kills_total{step=10,role=client} 2
    step_oom_kills_total{step=2,role=service} 2
    step_pressure_stall_seconds_total{step=10,role=client,resource=cpu,kind=some} 1.5
    step_pressure_stall_seconds_total{step=10,role=client,resource=memory,kind=full} 0.1
    step_pressure_stall_seconds_total{step=10,role=client,resource=memory,kind=some} 0.2
    step_pressure_stall_seconds_total{step=2,role=service,resource=cpu,kind=some} 1.5
    step_pressure_stall_seconds_total{step=2,role=service,resource=memory,kind=full} 0.1
    step_pressure_stall_seconds_total{step=2,role=service,resource=memory,kind=some} 0.2
    step_processes{step=10,role=client} 1
    step_processes{step=2,role=service} 2
    step_threads{step=10,role=client} 12
    step_threads{step=2,role=service} 12
";

#[test]
fn v2_trees_whatever_the_job_and_its_scope_are_called() {
    for (mount, job) in [
        ("cgroup", "slurmstepd.scope/job_7"),
        ("cgroup", "n1_slurmstepd.scope/job_7"),
        ("cgroup", "n1_slurmstepd.scope/s3KZ9QW0000001"),
        ("cgroup/unified", "slurmstepd.scope/job_7"),
    ] {
        let node = FakeNode::new();
        v2(&node, mount, job);
        let values = node.collectors().tick();
        assert_values(&values, &["job_", "step_"], V2_VALUES);
    }
}

#[test]
fn a_step_that_vanishes_is_absent_and_the_job_stays() {
    let node = FakeNode::new();
    let job = "slurmstepd.scope/job_7";
    v2(&node, "cgroup", job);
    let mut ticks = node.collectors();
    ticks.tick();
    node.remove(&format!("cgroup/system.slice/{job}/step_10"));
    let values = ticks.tick();
    assert_eq!(only(&values, &["step_"]).len(), 14);
    assert!(values.keys().all(|name| !name.contains("step=10")), "{values:?}");
    assert_eq!(values["job_cpu_seconds_total{mode=user}"], 8.0);
}

#[test]
fn where_a_controller_is_missing_processes_stand_in() {
    let node = FakeNode::new();
    let job = "slurmstepd.scope/job_7";
    v2(&node, "cgroup", job);
    for (step, files) in [
        (
            "step_2",
            &["memory.current", "memory.peak", "memory.events", "memory.stat", "io.stat"][..],
        ),
        ("step_10", &["io.stat", "pids.current"][..]),
    ] {
        for file in files {
            let path = node.path(&format!("cgroup/system.slice/{job}/{step}/{file}"));
            std::fs::remove_file(path).unwrap();
        }
    }
    for pid in [100, 101] {
        node.process(pid, 1, 5, [0; 4]);
        node.write(format!("proc/{pid}/io"), "read_bytes: 40\nwrite_bytes: 2\n");
    }
    let values = node.collectors().tick();
    // Nobody may look at process 200: its step's I/O is absent.
    assert_values(
        &values,
        &[
            "step_io",
            "step_memory_bytes{step=2",
            "step_oom",
            "step_threads",
            "agent_source_absent_info{source=step",
        ],
        "agent_source_absent_info{source=step_memory,reason=no_controller} 1
         step_io_bytes_total{step=2,role=service,source=processes,op=read} 80
         step_io_bytes_total{step=2,role=service,source=processes,op=write} 4
         step_oom_kills_total{step=10,role=client} 2
         step_threads{step=2,role=service} 12",
    );
}

#[test]
fn hybrid_with_version_1_controllers_reads_those() {
    let node = FakeNode::new();
    v1(&node);
    // The version 2 tree beside it has no controllers and knows no job.
    node.write("cgroup/unified/cgroup.controllers", "");
    let values = node.collectors().tick();
    assert_eq!(values["job_memory_bytes{kind=current}"], 5000.0);
    assert_eq!(values["step_cpu_seconds_total{step=0,role=service,source=cgroup,mode=user}"], 6.0);
}

#[test]
fn without_a_step_there_is_no_job_and_the_reason_is_told() {
    for text in
        ["0::/user.slice/session-1.scope\n", "0::/../../step_0\n", "4:memory:/step_0\n", "x\n", ""]
    {
        let node = FakeNode::new();
        node.write("proc/self/cgroup", text);
        let values = node.collectors().tick();
        assert_values(
            &values,
            JOB,
            &format!("{NO_NODE} agent_source_absent_info{{source=steps,reason=no_step_cgroup}} 1"),
        );
    }
}

#[test]
fn too_many_steps_leave_the_own_one_and_the_job() {
    let node = FakeNode::new();
    let job = "slurmstepd.scope/job_7";
    v2(&node, "cgroup", job);
    for step in 100..200 {
        node.write(format!("cgroup/system.slice/{job}/step_{step}/cpu.stat"), "user_usec 1\n");
    }
    let values = node.collectors().tick();
    assert_eq!(values["agent_source_absent_info{source=steps,reason=too_many}"], 1.0);
    assert!(values.keys().all(|name| !name.starts_with("step_") || name.contains("step=2,")));
    assert_eq!(values["job_cpu_seconds_total{mode=user}"], 8.0);
}
