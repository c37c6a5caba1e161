#!/usr/bin/env python3
"""node_tree FOLDER: makes proc, cgroup and sys of a compute node as files.

128 CPUs, 4 GPUs (scenario.json for the library that stands in for NVIDIA's), a job of six steps in
version 2 cgroups, pressure, two NVMe disks, two Ethernet devices, four InfiniBand ports, two Lustre
mounts and an NFS mount, energy of two CPU packages. The sampler is in step 0 with a service of six processes (pid
1000, 24 threads each). File sizes and line counts are those of a real node of that kind.
"""

import json
import pathlib
import sys

CPUS = 128
GPUS = 4
SERVICE = 1000
JOB = "system.slice/slurmstepd.scope/job_4711"
STEPS = ["batch", "extern", "0", "1", "2", "3"]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def proc_stat():
    times = "4081236 1022 891234 98712345 12345 0 45123 0 0 0"
    lines = ["cpu  522398208 130816 114077952 12635180160 1580160 0 5775744 0 0 0"]
    lines += [f"cpu{cpu} {times}" for cpu in range(CPUS)]
    # One number for each interrupt that the kernel may have; nearly all are 0.
    lines.append("intr 91827364554 " + " ".join("0" if irq % 9 else str(irq * 7919) for irq in range(2200)))
    lines += ["ctxt 812736455412", "btime 1700000000", "processes 91827364", "procs_running 97", "procs_blocked 0"]
    lines.append("softirq 81273645541 12 9182736 1 827364 0 0 91827364 8273645 0 918273")
    return "\n".join(lines) + "\n"


def schedstat():
    lines = ["version 15", "timestamp 4311234567"]
    domain = " ".join(["123456 123000 456 7890 12"] * 9)
    mask = ",".join(["ffffffff"] * (CPUS // 32))
    for cpu in range(CPUS):
        lines.append(f"cpu{cpu} 0 0 0 0 0 0 98127364554123 {1000000000 + cpu} 91827364")
        lines += [f"domain{level} {mask} {domain}" for level in range(3)]
    return "\n".join(lines) + "\n"


MEMINFO = """MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon)
Active(file) Inactive(file) Unevictable Mlocked SwapTotal SwapFree Zswap Zswapped Dirty Writeback AnonPages Mapped Shmem
KReclaimable Slab SReclaimable SUnreclaim KernelStack PageTables SecPageTables NFS_Unstable Bounce WritebackTmp
CommitLimit Committed_AS VmallocTotal VmallocUsed VmallocChunk Percpu HardwareCorrupted AnonHugePages ShmemHugePages
ShmemPmdMapped FileHugePages FilePmdMapped Hugetlb DirectMap4k DirectMap2M DirectMap1G""".split()


def meminfo():
    return "".join(f"{name + ':':<16}{1000000 + 7 * at:>8} kB\n" for at, name in enumerate(MEMINFO))


def vmstat():
    names = [f"nr_counter_{number}" for number in range(140)] + ["oom_kill"]
    names += [f"event_{number}" for number in range(60)]
    return "".join(f"{name} {number * 8191}\n" for number, name in enumerate(names))


def pressure(full=True):
    line = "avg10=1.25 avg60=0.80 avg300=0.31 total=9182736455\n"
    return f"some {line}" + (f"full {line}" if full else "")


def diskstats():
    disks = ["nvme0n1", "nvme0n1p1", "nvme0n1p2", "nvme0n1p3", "nvme1n1", "nvme1n1p1"]
    numbers = "918273 1234 81273645 91827 827364 5678 91827364 82736 0 812736 918273 0 0 0 0 1234 5678"
    return "".join(f" 259 {at:>7} {name} {numbers}\n" for at, name in enumerate(disks))


def netdev():
    head = "Inter-|   Receive                                                |  Transmit\n"
    head += " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
    numbers = "918273645541 91827364 0 3 0 0 0 12345 812736455412 81273645 0 4 0 0 0 0"
    return head + "".join(f"{name:>6}: {numbers}\n" for name in ["lo", "eno1", "eno2", "ib0", "ib1", "ib2", "ib3"])


def process(proc, pid, parent, threads):
    stat = f"{pid} (python3) S {parent} {SERVICE} {SERVICE} 0 -1 4194560 918273 12 345 6 91827 8273 0 0 20 0 {threads} 0 8123 91827364554 812736 18446744073709551615 1 1 0 0 0 0 0 16781312 134235850 0 0 0 17 3 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    write(proc / f"{pid}/stat", stat)
    write(proc / f"{pid}/statm", "22418792 198422 18273 1234 0 918273 0\n")
    io = "rchar: 918273645\nwchar: 81273645\nsyscr: 91827\nsyscw: 81273\nread_bytes: 91827364\nwrite_bytes: 8127364\ncancelled_write_bytes: 0\n"
    write(proc / f"{pid}/io", io)
    sched = f"python3 ({pid}, #threads: {threads})\n" + "-" * 67 + "\n"
    sched += "".join(f"{'se.value' + str(at):<45}:{at * 918273:>21}\n" for at in range(24))
    sched += f"{'se.nr_migrations':<45}:{812:>21}\n" + "".join(f"{'policy' + str(at):<45}:{at:>21}\n" for at in range(24))
    for tid in range(threads):
        write(proc / f"{pid}/task/{pid * 100 + tid}/schedstat", f"91827364554 {812736455 + tid} 918273\n")
        write(proc / f"{pid}/task/{pid * 100 + tid}/sched", sched)
    write(proc / f"{pid}/cgroup", f"0::/{JOB}/step_0/user/task_0\n")


def make_proc(proc):
    write(proc / "self/cgroup", f"0::/{JOB}/step_0/user/task_0\n")
    write(proc / "self/statm", "41827 1800 1200 900 0 1234 0\n")
    write(proc / "stat", proc_stat())
    write(proc / "schedstat", schedstat())
    write(proc / "meminfo", meminfo())
    write(proc / "vmstat", vmstat())
    for resource in ["cpu", "memory", "io"]:
        write(proc / "pressure" / resource, pressure())
    write(proc / "diskstats", diskstats())
    write(proc / "self/net/dev", netdev())
    write(proc / "net/dev", netdev())
    write(proc / "loadavg", "96.12 95.80 94.77 97/2812 918273\n")
    for child in range(6):
        process(proc, SERVICE + child, 900 if child == 0 else SERVICE, 24)
    stats = "snapshot_time             1700000000.123456789 secs.nsecs\n"
    stats += "".join(
        f"{name:<25} 918273 samples [bytes] 4096 4194304 9182736455412 812736455\n" for name in ["read_bytes", "write_bytes"]
    )
    stats += "".join(f"{name:<25} 91827 samples [usec] 1 91827 8127364 91827364\n" for name in "open close mmap fsync getattr setattr create link unlink mkdir rename statfs getxattr inode_permission".split())
    for mount in ["scratch-ffff8a1b2c3d4000", "home-ffff8a1b2c3d5000"]:
        write(proc / f"fs/lustre/llite/{mount}/stats", stats)
    mountstats = "device rootfs mounted on / with fstype rootfs\n" * 30
    mountstats += "device nfs1:/apps mounted on /apps with fstype nfs4 statvers=1.1\n\topts:\trw,vers=4.2,rsize=1048576\n\tage:\t918273\n\tbytes:\t91827364 81273 0 0 91827364 81273 22418 19\n\tper-op statistics\n"
    mountstats += "".join(f"\t{f'OP{op}':>12}: 918 918 0 91827 81273 12 345 400 0\n" for op in range(60))
    write(proc / "self/mountstats", mountstats)


def make_cgroup(cgroup):
    memory = "".join(f"{name} {918273 * at}\n" for at, name in enumerate("anon file kernel kernel_stack pagetables percpu sock vmalloc shmem file_mapped file_dirty file_writeback swapcached anon_thp file_thp shmem_thp inactive_anon active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable slab workingset_refault_anon pgfault pgmajfault pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree thp_fault_alloc thp_collapse_alloc".split()))
    cpu = "usage_usec 918273645\nuser_usec 812736455\nsystem_usec 105537190\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"
    io = "".join(f"259:{minor} rbytes=91827364 wbytes=8127364 rios=9182 wios=812 dbytes=0 dios=0\n" for minor in [0, 4])
    for place in ["", *(f"/step_{step}" for step in STEPS)]:
        folder = cgroup / f"{JOB}{place}"
        for name, text in [
            ("cpu.stat", cpu), ("memory.stat", memory), ("io.stat", io), ("pids.current", "147\n"),
            ("memory.current", "91827364554\n"), ("memory.peak", "99827364554\n"), ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
            ("cpu.pressure", pressure()), ("memory.pressure", pressure()), ("io.pressure", pressure()),
            ("cgroup.procs", ""),
        ]:
            write(folder / name, text)
        if place:
            pids = range(SERVICE, SERVICE + 6) if place.endswith("_0") else range(2000, 2003)
            write(folder / "user/cpu.stat", cpu)
            write(folder / "user/task_0/cgroup.procs", "".join(f"{pid}\n" for pid in pids))


def make_sys(sys_root):
    for disk in ["nvme0n1", "nvme1n1"]:
        write(sys_root / f"block/{disk}/size", "7501476528\n")
    for device in range(4):
        counters = sys_root / f"class/infiniband/mlx5_{device}/ports/1/counters"
        for name in ["port_rcv_data", "port_xmit_data", "port_rcv_errors", "port_xmit_discards", "link_downed"]:
            write(counters / name, "918273645541\n" if name.endswith("data") else "0\n")
    for package in range(2):
        for folder, name in [(f"intel-rapl:{package}", f"package-{package}"), (f"intel-rapl:{package}:0", "dram")]:
            zone = sys_root / "class/powercap" / folder
            write(zone / "name", f"{name}\n")
            write(zone / "energy_uj", "91827364554\n")
            write(zone / "max_energy_range_uj", "262143328850\n")


def scenario():
    device = {
        "name": "NVIDIA A100-SXM4-40GB", "utilization": 93, "memory_utilization": 41, "memory_total": 42949672960,
        "memory_used": 38654705664, "power": 312345, "power_limit": 400000, "energy": 91827364554, "temperature": 58,
        "clock_graphics": 1410, "clock_sm": 1410, "clock_memory": 1215, "throttle_reasons": 4,
        **{f"violation_{policy}": 9182736 for policy in ["power", "thermal", "sync_boost", "board_limit", "reliability"]},
        "ecc_corrected": 0, "ecc_uncorrected": 0, "nvlink_receive": 918273, "nvlink_transmit": 812736,
    }
    processes = [{"pid": SERVICE, "memory": 38000000000}]
    return {"driver": "550.54.15", "devices": [{**device, "uuid": f"GPU-{gpu}", "processes": processes} for gpu in range(GPUS)]}


def make(folder):
    folder = pathlib.Path(folder)
    make_proc(folder / "proc")
    make_cgroup(folder / "cgroup")
    make_sys(folder / "sys")
    write(folder / "scenario.json", json.dumps(scenario()))
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("node_tree: expected one folder\nhint: node_tree.py /tmp/node")
    make(sys.argv[1])
