//! Metric families: what is recorded in `samples.bin`, shown by `/metrics` and described in
//! docs/reference/metrics.md. One table, so that a name means the same everywhere.
//!
//! Names stand here without the prefix [`PREFIX`]. Every exported series also carries the labels
//! [`COMMON_LABELS`]. A value that could not be read is absent, never zero.

/// Prefix of every exported name.
pub const PREFIX: &str = "aifb_";

/// Labels of every exported series; `job` is left out in a local run.
pub const COMMON_LABELS: &[&str] = &["run_id", "node", "job"];

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; starts at 0 with what it counts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; its labels are the news.
    Info,
    /// Not said; only values of engines, whose own words are kept.
    Unknown,
    /// A part of a histogram: its `_bucket`, `_sum` or `_count`, which stand in this order in the
    /// table. Buckets are cumulative; the label `le` is the upper bound.
    Histogram,
}

impl Kind {
    /// The word that both exposition formats use (text 0.0.4 has no `info`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
            Self::Unknown => "unknown",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric family.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Full name without [`PREFIX`]: counters end in `_total`, information in `_info`.
    pub name: &'static str,
    /// How values behave.
    pub kind: Kind,
    /// Base unit, which is also part of the name; absent for plain numbers.
    pub unit: Option<&'static str>,
    /// Labels besides [`COMMON_LABELS`].
    pub labels: &'static [&'static str],
    /// Meaning, one sentence without a line break.
    pub help: &'static str,
}

/// Begins the name of a family that is not ours but a service's own: it is recorded as
/// `engine/vllm:num_requests_running` and exported as `vllm:num_requests_running`. No metric name
/// has a '/', so that none can be taken for one of ours.
pub const ENGINE: &str = "engine/";

impl Family {
    /// The name that others see.
    #[must_use]
    pub fn exported(&self) -> String {
        self.engine_name().map_or_else(|| format!("{PREFIX}{}", self.name), str::to_owned)
    }

    /// Of a part of a histogram the name of the whole, without [`PREFIX`].
    #[must_use]
    pub fn histogram(&self) -> Option<&'static str> {
        let ends = ["_bucket", "_sum", "_count"];
        let stem = ends.iter().find_map(|end| self.name.strip_suffix(end));
        stem.filter(|_| self.kind == Kind::Histogram)
    }

    /// The service's own name for it, where it is not a family of ours.
    #[must_use]
    pub fn engine_name(&self) -> Option<&'static str> {
        self.name.strip_prefix(ENGINE)
    }
}

macro_rules! families {
    ($($constant:ident = $name:literal, $kind:ident, $unit:expr, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All families, in the order in which they are shown.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    RUN_INFO = "run_info", Info, None, ["name", "version"],
        "What runs: name of the recipe and version of the agent.";
    LOAD_INFO = "load_info", Info, None, ["load", "service"],
        "A load of the recipe, and the service that receives it.";

    NODE_CPU = "node_cpu_seconds_total", Counter, Some("seconds"), ["mode"],
        "CPU time of the whole node by mode; user includes guests.";
    NODE_RUN_DELAY = "node_run_delay_seconds_total", Counter, Some("seconds"), [],
        "Time that runnable tasks of the node waited for a CPU, summed over CPUs.";
    NODE_MEMORY = "node_memory_bytes", Gauge, Some("bytes"), ["kind"],
        "Memory of the node by kind: total, free, available, buffers, cached, anonymous, shared, slab, dirty, writeback, swap_total, swap_free.";
    NODE_PRESSURE = "node_pressure_stall_seconds_total", Counter, Some("seconds"),
        ["resource", "kind"],
        "Time in which some or all (full) tasks of the node were stalled for a resource.";
    NODE_DISK = "node_disk_bytes_total", Counter, Some("bytes"), ["device", "op"],
        "Bytes read from or written to a physical disk of the node.";
    NODE_DISK_BUSY = "node_disk_busy_seconds_total", Counter, Some("seconds"), ["device"],
        "Time in which a physical disk of the node was busy.";
    NODE_NETWORK = "node_network_bytes_total", Counter, Some("bytes"), ["device", "direction"],
        "Bytes received or sent by a network device of the node, without loopback.";
    NODE_NETWORK_DROPS = "node_network_drops_total", Counter, None, ["device", "direction"],
        "Packets that a network device of the node dropped.";

    NODE_OOM_KILLS = "node_oom_kills_total", Counter, None, [],
        "Processes of the whole node that the OOM killer ended.";
    NODE_CLOCK_JUMPS = "node_clock_jumps_total", Counter, None, [],
        "Number of times that the wall clock moved by more than 100 ms relative to the monotonic clock between two samples.";

    IB_BYTES = "ib_port_bytes_total", Counter, Some("bytes"), ["device", "port", "direction"],
        "Bytes received or sent by an InfiniBand port, headers included.";
    IB_ERRORS = "ib_port_errors_total", Counter, None, ["device", "port", "kind"],
        "Errors of an InfiniBand port by kind: receive_errors, transmit_discards, link_downed.";
    LUSTRE_BYTES = "lustre_bytes_total", Counter, Some("bytes"), ["filesystem", "op"],
        "Bytes that this node read from or wrote to a Lustre file system.";
    NFS_BYTES = "nfs_bytes_total", Counter, Some("bytes"), ["mount", "op"],
        "Bytes that this node read from or wrote to the server of an NFS mount.";
    CPU_ENERGY = "cpu_energy_joules_total", Counter, Some("joules"), ["package", "domain"],
        "Energy of a CPU package or a part of it (RAPL).";

    JOB_CPU = "job_cpu_seconds_total", Counter, Some("seconds"), ["mode"],
        "CPU time of the job on this node, ended steps included.";
    JOB_MEMORY = "job_memory_bytes", Gauge, Some("bytes"), ["kind"],
        "Memory charged to the job on this node: current (page cache included), anonymous, file, limit.";
    JOB_MEMORY_PEAK = "job_memory_peak_bytes", Gauge, Some("bytes"), [],
        "Peak of the memory charged to the job on this node.";

    STEP_CPU = "step_cpu_seconds_total", Counter, Some("seconds"),
        ["step", "role", "source", "mode"],
        "CPU time of a step of the job on this node, without slurmstepd's.";
    STEP_MEMORY = "step_memory_bytes", Gauge, Some("bytes"), ["step", "role", "kind"],
        "Memory charged to a step on this node: current (page cache included), anonymous, file, limit.";
    STEP_MEMORY_PEAK = "step_memory_peak_bytes", Gauge, Some("bytes"), ["step", "role"],
        "Peak of the memory charged to a step on this node.";
    STEP_OOM_KILLS = "step_oom_kills_total", Counter, None, ["step", "role"],
        "Processes of a step that the OOM killer ended.";
    STEP_IO = "step_io_bytes_total", Counter, Some("bytes"), ["step", "role", "source", "op"],
        "Bytes that a step read from or wrote to storage on this node.";
    STEP_PROCESSES = "step_processes", Gauge, None, ["step", "role"],
        "Processes of a step on this node.";
    STEP_THREADS = "step_threads", Gauge, None, ["step", "role"],
        "Threads of a step on this node, if the pids controller counts them.";

    STEP_PRESSURE = "step_pressure_stall_seconds_total", Counter, Some("seconds"),
        ["step", "role", "resource", "kind"],
        "Time in which some or all (full) tasks of a step were stalled for a resource.";

    SERVICE_CPU = "service_cpu_seconds_total", Counter, Some("seconds"),
        ["service", "replica", "mode"],
        "CPU time of a service replica: its process tree, reaped children included.";
    SERVICE_MEMORY = "service_memory_bytes", Gauge, Some("bytes"), ["service", "replica", "kind"],
        "Memory of a service replica's process tree: resident (shared pages counted in each process), anonymous, used (anonymous plus the largest shared part of one process).";
    SERVICE_IO = "service_io_bytes_total", Counter, Some("bytes"), ["service", "replica", "op"],
        "Bytes that a service replica's process tree read from or wrote to storage, without processes that the agent may not inspect.";
    SERVICE_PROCESSES = "service_processes", Gauge, None, ["service", "replica"],
        "Processes of a service replica's tree.";
    SERVICE_THREADS = "service_threads", Gauge, None, ["service", "replica"],
        "Threads of a service replica's tree.";
    SERVICE_RUN_DELAY = "service_run_delay_seconds_total", Counter, Some("seconds"),
        ["service", "replica"],
        "Time that threads of a service replica waited for a CPU, read once per second at most; absent above 256 threads.";
    SERVICE_MIGRATIONS = "service_migrations_total", Counter, None, ["service", "replica"],
        "Migrations of a service replica's threads to another CPU, read every 10 s; absent above 256 threads.";
    SERVICE_GPU_MEMORY = "service_gpu_memory_bytes", Gauge, Some("bytes"),
        ["service", "replica", "gpu"],
        "GPU memory of a service replica's process tree.";
    SERVICE_READY = "service_ready_seconds", Gauge, Some("seconds"), ["service", "replica"],
        "Time from the start of a service replica to its first successful health probe.";

    GPU_INFO = "gpu_info", Info, None, ["gpu", "uuid", "name", "driver"],
        "A GPU of the node: its number, name and driver.";
    GPU_ABSENT = "gpu_absent_info", Info, None, ["gpu", "uuid", "reason"],
        "A GPU without values, and the reason; gpu_is_lost: it fell off the bus.";
    GPU_UTILIZATION = "gpu_utilization_ratio", Gauge, Some("ratio"), ["gpu", "uuid"],
        "Share of the driver's last sampling period (up to a second) in which the GPU ran a kernel.";
    GPU_MEMORY_UTILIZATION = "gpu_memory_utilization_ratio", Gauge, Some("ratio"), ["gpu", "uuid"],
        "Share of the driver's last sampling period in which the GPU's memory was read or written.";
    GPU_MEMORY_USED = "gpu_memory_used_bytes", Gauge, Some("bytes"), ["gpu", "uuid"],
        "Memory of the GPU in use.";
    GPU_MEMORY_TOTAL = "gpu_memory_total_bytes", Gauge, Some("bytes"), ["gpu", "uuid"],
        "Total memory of the GPU.";
    GPU_POWER = "gpu_power_watts", Gauge, Some("watts"), ["gpu", "uuid"],
        "Power draw of the GPU, averaged over a second on recent models; to compute energy, use the energy counter.";
    GPU_POWER_LIMIT = "gpu_power_limit_watts", Gauge, Some("watts"), ["gpu", "uuid"],
        "Power limit in effect.";
    GPU_ENERGY = "gpu_energy_joules_total", Counter, Some("joules"), ["gpu", "uuid"],
        "Energy of the GPU since its driver was loaded.";
    GPU_TEMPERATURE = "gpu_temperature_celsius", Gauge, Some("celsius"), ["gpu", "uuid"],
        "Temperature of the GPU.";
    GPU_CLOCK = "gpu_clock_hertz", Gauge, Some("hertz"), ["gpu", "uuid", "domain"],
        "Clock of the GPU by domain: graphics, sm, memory.";
    GPU_THROTTLE = "gpu_throttle_seconds_total", Counter, Some("seconds"),
        ["gpu", "uuid", "reason"],
        "Time in which the GPU's clocks were throttled, by reason: power, thermal, sync_boost, board_limit, reliability.";
    GPU_THROTTLED = "gpu_throttled", Gauge, None, ["gpu", "uuid", "reason"],
        "Whether the GPU's clocks are throttled now (1) or not (0), by reason: power_cap, thermal, hardware, power_brake, sync_boost, application_clocks.";
    GPU_ECC_ERRORS = "gpu_ecc_errors_total", Counter, None, ["gpu", "uuid", "kind"],
        "Memory errors of the GPU since its driver was loaded: corrected, uncorrected.";
    GPU_XIDS = "gpu_xid_errors_total", Counter, None, ["gpu", "uuid"],
        "Critical errors (XID) that the driver reported for this GPU since sampling began.";
    GPU_XID_CODES = "gpu_xid_codes_total", Counter, None, ["gpu", "uuid", "xid"],
        "Critical errors of this GPU since sampling began by number (XID); unknown: the driver did not report the number.";
    GPU_LAST_XID = "gpu_last_xid", Gauge, None, ["gpu", "uuid"],
        "Number of the last critical error (XID); absent before the first.";
    GPU_NVLINK = "gpu_nvlink_bytes_total", Counter, Some("bytes"), ["gpu", "uuid", "direction"],
        "Payload that the GPU received or sent over all its NVLinks.";
    GPU_INSTANCE_MEMORY_USED = "gpu_instance_memory_used_bytes", Gauge, Some("bytes"),
        ["gpu", "instance", "uuid"],
        "Memory of a MIG instance in use; it is part of the GPU's.";
    GPU_INSTANCE_MEMORY_TOTAL = "gpu_instance_memory_total_bytes", Gauge, Some("bytes"),
        ["gpu", "instance", "uuid"],
        "Total memory of a MIG instance.";
    GPU_PROCESS_MEMORY = "gpu_process_memory_bytes", Gauge, Some("bytes"), ["gpu", "role"],
        "GPU memory of processes by role: service, script, client, extern (steps of this job), other (all others).";
    GPU_READING_AGE = "gpu_reading_age_seconds", Gauge, Some("seconds"), [],
        "Age of the GPU values in a sample: time from their reading to the sample.";

    REQUESTS_SENT = "requests_sent_total", Counter, None, ["load"],
        "Requests that a load has sent so far, over all its workers.";
    REQUESTS = "requests_total", Counter, None, ["load", "outcome"],
        "Requests of a load that ended, by outcome: ok, failed.";
    REQUESTS_IN_FLIGHT = "inflight_requests", Gauge, None, ["load"],
        "Requests of a load that are in flight.";
    REQUEST_DURATION_BUCKET = "request_duration_seconds_bucket", Histogram, Some("seconds"),
        ["load", "le"],
        "Time of a load's successful requests from their scheduled instant to the end of the response.";
    REQUEST_DURATION_SUM = "request_duration_seconds_sum", Histogram, Some("seconds"), ["load"],
        "Time of a load's successful requests from their scheduled instant to the end of the response.";
    REQUEST_DURATION_COUNT = "request_duration_seconds_count", Histogram, Some("seconds"), ["load"],
        "Time of a load's successful requests from their scheduled instant to the end of the response.";
    TTFT_BUCKET = "ttft_seconds_bucket", Histogram, Some("seconds"), ["load", "le"],
        "Time of a load's successful requests from their scheduled instant to the first token; absent before the first.";
    TTFT_SUM = "ttft_seconds_sum", Histogram, Some("seconds"), ["load"],
        "Time of a load's successful requests from their scheduled instant to the first token; absent before the first.";
    TTFT_COUNT = "ttft_seconds_count", Histogram, Some("seconds"), ["load"],
        "Time of a load's successful requests from their scheduled instant to the first token; absent before the first.";
    INTER_TOKEN_BUCKET = "inter_token_seconds_bucket", Histogram, Some("seconds"), ["load", "le"],
        "Gaps between the tokens of a load's successful requests, counted when a request ends; absent before the first.";
    INTER_TOKEN_SUM = "inter_token_seconds_sum", Histogram, Some("seconds"), ["load"],
        "Gaps between the tokens of a load's successful requests, counted when a request ends; absent before the first.";
    INTER_TOKEN_COUNT = "inter_token_seconds_count", Histogram, Some("seconds"), ["load"],
        "Gaps between the tokens of a load's successful requests, counted when a request ends; absent before the first.";
    SCHEDULE_LAG_BUCKET = "schedule_lag_seconds_bucket", Histogram, Some("seconds"), ["load", "le"],
        "Send delay of a load's successful requests, from their scheduled instant to the first byte written; absent before the first.";
    SCHEDULE_LAG_SUM = "schedule_lag_seconds_sum", Histogram, Some("seconds"), ["load"],
        "Send delay of a load's successful requests, from their scheduled instant to the first byte written; absent before the first.";
    SCHEDULE_LAG_COUNT = "schedule_lag_seconds_count", Histogram, Some("seconds"), ["load"],
        "Send delay of a load's successful requests, from their scheduled instant to the first byte written; absent before the first.";
    TOKENS = "tokens_total", Counter, None, ["load", "kind"],
        "Tokens of a load's responses so far.";

    LOG_LINES = "log_lines_total", Counter, None, ["result"],
        "Log lines read for shipping, by result: acknowledged, quarantined, filtered.";
    LOG_UNSENT = "log_unsent_bytes", Gauge, Some("bytes"), [],
        "Bytes of this node's logs that are not sent yet; the log files are the buffer.";
    ENGINE_POLLS = "engine_polls_total", Counter, None, ["service", "replica", "outcome"],
        "Scrapes of a service's own metrics, by outcome: ok, failed, skipped (the previous one had not ended).";
    ENGINE_LEFT_OUT = "engine_left_out_series", Gauge, None, ["service", "replica"],
        "Series of a service's own metrics that were dropped at the last scrape because a limit was reached.";

    EXPORT_SAMPLES = "export_samples_total", Counter, None, ["outcome"],
        "Values for remote write, by outcome: sent, refused (by the receiver), late (the clock jumped, or they are too old to be accepted), dropped (the buffer was full).";
    EXPORT_REQUESTS = "export_requests_total", Counter, None, ["outcome"],
        "Requests of remote write, by outcome: ok, refused, failed (and retried).";
    EXPORT_LAG = "export_lag_seconds", Gauge, Some("seconds"), [],
        "Time from a tick to the receiver's response, for the last accepted tick.";
    EXPORT_SPOOL = "export_spool_bytes", Gauge, Some("bytes"), [],
        "Values that wait to be sent by remote write.";

    AGENT_CPU = "agent_cpu_seconds_total", Counter, Some("seconds"), ["mode"],
        "CPU time of the agent itself.";
    AGENT_MEMORY = "agent_memory_bytes", Gauge, Some("bytes"), ["kind"],
        "Memory of the agent itself: resident, peak.";
    AGENT_COLLECT = "agent_collect_duration_seconds", Gauge, Some("seconds"), [],
        "Duration of the last collection.";
    AGENT_SOURCE_DURATION = "agent_source_duration_seconds", Gauge, Some("seconds"), ["source"],
        "Duration of the last collection of a source; gpu and devices are read on threads of their own.";
    AGENT_TICK_LAG = "agent_tick_lag_seconds", Gauge, Some("seconds"), [],
        "Delay of the start of the last tick.";
    AGENT_MISSED_TICKS = "agent_missed_ticks_total", Counter, None, [],
        "Ticks without a sample: the agent was late, or the record could not be written in time.";
    AGENT_SERIES = "agent_series", Gauge, None, [],
        "Series of the last sample.";
    AGENT_DROPPED_SERIES = "agent_dropped_series", Gauge, None, [],
        "Values of the last sample that were dropped because a limit was reached.";
    AGENT_SOURCE_ABSENT = "agent_source_absent_info", Info, None, ["source", "reason"],
        "A source of samples that cannot be read here, and the reason.";
}

/// Finds a family by its full name without [`PREFIX`].
#[must_use]
pub fn find(name: &str) -> Option<&'static Family> {
    ALL.iter().copied().find(|family| family.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut names = BTreeSet::new();
        for family in ALL {
            assert!(names.insert(family.name), "{} is there twice", family.name);
            let stem = match family.kind {
                Kind::Counter => family.name.strip_suffix("_total"),
                Kind::Info => family.name.strip_suffix("_info"),
                Kind::Gauge | Kind::Unknown => Some(family.name),
                Kind::Histogram => family.histogram(),
            };
            let stem = stem.unwrap_or_else(|| panic!("{} lacks its suffix", family.name));
            if let Some(unit) = family.unit {
                assert!(stem.ends_with(unit), "{} does not say {unit}", family.name);
            }
            assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{}", family.name);
            for label in family.labels {
                assert!(!COMMON_LABELS.contains(label), "{}: {label} is common", family.name);
            }
            assert_eq!(find(family.name), Some(*family));
        }
    }
}
