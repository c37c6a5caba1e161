//! InfiniBand ports, from `/sys/class/infiniband/<device>/ports/<port>/counters/`.
//!
//! `port_rcv_data` and `port_xmit_data` count in units of four bytes (InfiniBand Architecture
//! Specification 1.3, 16.1.3.5, PortXmitData; kernel: Documentation/ABI/stable/sysfs-class-infiniband).

use std::{
    io,
    path::{Path, PathBuf},
};

use aifb_schema::metric;

use super::{Points, names};
use crate::sample::{
    kernel_file::{Buffer, KernelFile},
    parse::{not_understood, numbers},
};

/// Ports with values. The largest nodes have some sixteen.
const PORTS_MAX: usize = 32;

/// Bytes of a unit of the data counters.
const DATA_BYTES: u64 = 4;

/// Faults by the name of their series and of their file.
const ERRORS: [(&str, &str); 3] = [
    ("receive_errors", "port_rcv_errors"),
    ("transmit_discards", "port_xmit_discards"),
    ("link_downed", "link_downed"),
];

#[derive(Debug)]
pub(super) struct InfiniBand {
    root: PathBuf,
    ports: Vec<Port>,
    /// Why there is no port.
    missing: Option<io::ErrorKind>,
}

#[derive(Debug)]
struct Port {
    device: String,
    number: String,
    received: KernelFile,
    sent: KernelFile,
    errors: [(&'static str, KernelFile); 3],
}

impl InfiniBand {
    pub(super) fn new(sys_root: &Path) -> Self {
        let root = sys_root.join("class/infiniband");
        Self { root, ports: Vec::new(), missing: Some(io::ErrorKind::NotFound) }
    }

    /// Looks for ports that are not known yet, and forgets those that are gone.
    pub(super) fn discover(&mut self) {
        let devices = match names(&self.root) {
            Ok(devices) => devices,
            Err(error) => {
                self.ports.clear();
                self.missing = Some(error.kind());
                return;
            }
        };
        let mut found = Vec::new();
        for device in devices {
            let ports = self.root.join(&device).join("ports");
            for number in names(&ports).unwrap_or_default() {
                let counters = ports.join(&number).join("counters");
                if counters.is_dir() && found.len() < PORTS_MAX {
                    found.push((device.clone(), number, counters));
                }
            }
        }
        let known = self.ports.iter().map(|port| (&port.device, &port.number));
        if !known.eq(found.iter().map(|(device, number, _)| (device, number))) {
            self.ports = found.into_iter().map(Port::new).collect();
        }
        self.missing = self.ports.is_empty().then_some(io::ErrorKind::NotFound);
    }

    /// # Errors
    /// There is no port, or its counters cannot be read.
    pub(super) fn read(&mut self, buffer: &mut Buffer, points: &mut Points) -> io::Result<()> {
        if let Some(kind) = self.missing {
            return Err(kind.into());
        }
        let results: Vec<_> = self.ports.iter_mut().map(|port| port.read(buffer, points)).collect();
        // One port that cannot be read says so; the others have their values all the same.
        results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }
}

impl Port {
    fn new((device, number, counters): (String, String, PathBuf)) -> Self {
        let kept = |file: &str| KernelFile::at_once(counters.join(file));
        Self {
            received: kept("port_rcv_data"),
            sent: kept("port_xmit_data"),
            errors: ERRORS.map(|(kind, file)| (kind, kept(file))),
            device,
            number,
        }
    }

    fn read(&mut self, buffer: &mut Buffer, points: &mut Points) -> io::Result<()> {
        let Self { device, number, .. } = self;
        for (direction, kept) in [("receive", &mut self.received), ("transmit", &mut self.sent)] {
            let bytes = number_of(kept, buffer)?.saturating_mul(DATA_BYTES);
            points.put_u64(&metric::IB_BYTES, &[device, number, direction], bytes);
        }
        for (kind, kept) in &mut self.errors {
            // Virtual functions have no such counters.
            if let Ok(count) = number_of(kept, buffer) {
                points.put_u64(&metric::IB_ERRORS, &[device, number, kind], count);
            }
        }
        Ok(())
    }
}

fn number_of(kept: &mut KernelFile, buffer: &mut Buffer) -> io::Result<u64> {
    numbers(kept.read(buffer)?).next().ok_or_else(not_understood)
}
