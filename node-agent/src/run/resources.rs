//! CPUs and GPUs of this node's step, divided among replicas.

use std::{cell::RefCell, fs, rc::Rc};

use aifb_schema::run::{Failure, Owner};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

/// What is there and not given out.
#[derive(Debug)]
pub(crate) struct Resources {
    cpus: RefCell<Vec<usize>>,
    gpus: RefCell<Vec<String>>,
    all_gpus: Vec<String>,
}

/// What a replica has; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    from: Rc<Resources>,
    cpus: Vec<usize>,
    gpus: Vec<String>,
    /// For CUDA_VISIBLE_DEVICES: its own GPUs, or all of the step if it requested no number.
    pub(crate) visible_gpus: Vec<String>,
}

impl Resources {
    /// What this process may use.
    pub(crate) fn new(local: bool) -> Rc<Self> {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
        let gpus = gpus(|name| std::env::var(name).ok(), local);
        Rc::new(Self { cpus: RefCell::new(cpus), gpus: RefCell::new(gpus.clone()), all_gpus: gpus })
    }

    /// Takes CPUs and GPUs for a replica; no number of CPUs means all, no number of GPUs all that
    /// the step has, shared.
    ///
    /// # Errors
    /// Less is left than requested.
    pub(crate) fn take(
        self: &Rc<Self>,
        service: &str,
        cpus: Option<u32>,
        gpus: Option<u32>,
    ) -> Result<Share, Failure> {
        let too_few = |what: &str, asked: u32, left: usize, option: &str| {
            let what = if asked == 1 { what.to_owned() } else { format!("{what}s") };
            let reason = format!("requests {asked} {what}; {left} available on this node");
            Failure::new(Owner::Recipe, service, reason)
                .with_hint(format!("request more from Slurm with {option}, or give it less"))
        };
        let own_cpus = split(&self.cpus, cpus)
            .map_err(|left| too_few("CPU", cpus.unwrap_or(0), left, "cpus-per-task"))?;
        let own_gpus = match split(&self.gpus, gpus) {
            Ok(own) => own,
            Err(left) => {
                self.cpus.borrow_mut().extend(own_cpus);
                return Err(too_few("GPU", gpus.unwrap_or(0), left, "gres=gpu:N"));
            }
        };
        let visible_gpus = if gpus.is_some() { own_gpus.clone() } else { self.all_gpus.clone() };
        Ok(Share { from: Rc::clone(self), cpus: own_cpus, gpus: own_gpus, visible_gpus })
    }
}

impl Share {
    /// The only CPUs the replica may use; `None`: all of the step.
    pub(crate) fn cpu_set(&self) -> Option<CpuSet> {
        if self.cpus.is_empty() {
            return None;
        }
        let mut set = CpuSet::new();
        for cpu in &self.cpus {
            set.set(*cpu).ok()?;
        }
        Some(set)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.from.cpus.borrow_mut().append(&mut self.cpus);
        self.from.cpus.borrow_mut().sort_unstable();
        self.from.gpus.borrow_mut().append(&mut self.gpus);
        self.from.gpus.borrow_mut().sort_unstable();
    }
}

/// The first `count` of what is free, or how many there are.
fn split<T>(free: &RefCell<Vec<T>>, count: Option<u32>) -> Result<Vec<T>, usize> {
    let count = usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX);
    let mut free = free.borrow_mut();
    if free.len() < count {
        return Err(free.len());
    }
    Ok(free.drain(..count).collect())
}

/// GPUs of the step by the names that CUDA knows them by.
fn gpus(variable: impl Fn(&str) -> Option<String>, local: bool) -> Vec<String> {
    let listed = ["CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"]
        .into_iter()
        .find_map(|name| variable(name).filter(|list| !list.is_empty()));
    match listed {
        Some(list) => {
            let names = list.split(',').map(str::trim);
            names
                .filter(|name| !name.is_empty() && *name != "NoDevFiles")
                .map(str::to_owned)
                .collect()
        }
        None if local => {
            let names = fs::read_dir("/dev").into_iter().flatten().flatten();
            let mut names: Vec<String> = names
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter_map(|name| Some(name.strip_prefix("nvidia")?.to_owned()))
                .filter(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
                .collect();
            names.sort_unstable();
            names
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Rc<Resources> {
        let gpus = ["0", "1", "2"].map(str::to_owned).to_vec();
        Rc::new(Resources {
            cpus: RefCell::new(vec![4, 5, 6, 7]),
            gpus: RefCell::new(gpus.clone()),
            all_gpus: gpus,
        })
    }

    #[test]
    fn shares_are_disjoint_and_come_back() {
        let all = resources();
        let first = all.take("a", Some(3), Some(2)).unwrap();
        let second = all.take("b", None, Some(1)).unwrap();
        let third = all.take("c", None, None).unwrap();
        assert_eq!(first.visible_gpus, ["0", "1"]);
        assert_eq!(second.visible_gpus, ["2"]);
        assert_eq!(third.visible_gpus, ["0", "1", "2"]);
        assert!(first.cpu_set().unwrap().is_set(4).unwrap() && second.cpu_set().is_none());
        let failure = all.take("d", Some(2), None).unwrap_err();
        assert!(failure.reason.contains("2 CPUs; 1 available"), "{}", failure.reason);
        all.take("e", Some(1), Some(1)).unwrap_err();
        assert_eq!(*all.cpus.borrow(), [7]);
        drop(first);
        assert_eq!(all.take("f", Some(4), Some(2)).unwrap().visible_gpus, ["0", "1"]);
    }

    #[test]
    fn gpus_are_those_that_slurm_names() {
        let with = |list: &str| {
            let list = list.to_owned();
            gpus(move |name| (name == "CUDA_VISIBLE_DEVICES").then(|| list.clone()), false)
        };
        assert_eq!(with("0,3"), ["0", "3"]);
        assert!(with("NoDevFiles").is_empty() && with("").is_empty());
    }
}
