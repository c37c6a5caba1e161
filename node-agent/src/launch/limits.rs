//! The job's own resource limits and umask.
//!
//! Slurm starts the launcher before it has given them to the task, so they are still slurmd's.
//! It leaves the user's values in variables until then; a launcher started later finds none and
//! has the right limits already.

use nix::sys::{
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};

use super::environment::Environment;

/// Slurm's names of the limits.
const LIMITS: [(&str, Resource); 10] = [
    ("SLURM_RLIMIT_CPU", Resource::RLIMIT_CPU),
    ("SLURM_RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
    ("SLURM_RLIMIT_DATA", Resource::RLIMIT_DATA),
    ("SLURM_RLIMIT_STACK", Resource::RLIMIT_STACK),
    ("SLURM_RLIMIT_CORE", Resource::RLIMIT_CORE),
    ("SLURM_RLIMIT_RSS", Resource::RLIMIT_RSS),
    ("SLURM_RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    ("SLURM_RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
    ("SLURM_RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("SLURM_RLIMIT_AS", Resource::RLIMIT_AS),
];

/// Sets what the environment names; what cannot be set, as warnings.
pub(crate) fn apply(environment: &Environment) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, resource) in LIMITS {
        let Some(text) = environment.get(name) else { continue };
        // 'U' marks a limit that the user requested to propagate.
        let Ok(wanted) = text.trim_start_matches('U').parse::<u64>() else { continue };
        if let Err(error) = set_soft(resource, wanted) {
            warnings.push(format!("applying {name}={text}: {error}"));
        }
    }
    let mask = environment.get("SLURM_UMASK").and_then(|text| u32::from_str_radix(text, 8).ok());
    if let Some(mask) = mask {
        umask(Mode::from_bits_truncate(mask));
    }
    warnings
}

/// Sets the soft limit, within the hard one, as Slurm does.
fn set_soft(resource: Resource, wanted: u64) -> nix::Result<()> {
    let (soft, hard) = getrlimit(resource)?;
    let wanted = if wanted == u64::MAX { RLIM_INFINITY } else { wanted };
    let value = wanted.min(hard);
    if value == soft { Ok(()) } else { setrlimit(resource, value, hard) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_is_set_and_kept_within_the_hard_one() {
        let (before, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        let lower = Environment::from([("SLURM_RLIMIT_CORE".to_owned(), "0".to_owned())]);
        assert_eq!(apply(&lower), Vec::<String>::new());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, hard));
        let all = Environment::from([("SLURM_RLIMIT_CORE".to_owned(), u64::MAX.to_string())]);
        assert_eq!(apply(&all), Vec::<String>::new());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (hard, hard));
        setrlimit(Resource::RLIMIT_CORE, before, hard).unwrap();
    }
}
