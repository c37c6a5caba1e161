//! The agent itself: rusage and its resident memory. Its services are not in it.

use std::path::Path;

use aifb_schema::metric;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

use super::{
    context::Context,
    kernel_file::KernelFile,
    parse::numbers,
    table::Tick,
    units::{Units, seconds_of_us},
};

#[derive(Debug)]
pub(super) struct Agent {
    statm: KernelFile,
    units: Units,
}

impl Agent {
    pub(super) fn new(proc_root: &Path, units: Units) -> Self {
        Self { statm: KernelFile::at_once(proc_root.join("self/statm")), units }
    }

    pub(super) fn collect(&mut self, tick: &mut Tick<'_>, context: &mut Context) {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let put = |tick: &mut Tick<'_>, mode, time: TimeVal| {
                let us = time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs();
                tick.put(&metric::AGENT_CPU, &[("mode", mode)], seconds_of_us(us));
            };
            put(tick, "user", usage.user_time());
            put(tick, "system", usage.system_time());
            let peak = usage.max_rss().unsigned_abs() * 1024;
            tick.put_u64(&metric::AGENT_MEMORY, &[("kind", "peak")], peak);
        }
        let text = self.statm.read(&mut context.buffer);
        let resident = text.ok().and_then(|text| numbers(text).nth(1));
        if let Some(pages) = resident {
            let bytes = pages.saturating_mul(self.units.page_bytes);
            tick.put_u64(&metric::AGENT_MEMORY, &[("kind", "resident")], bytes);
        }
    }
}
