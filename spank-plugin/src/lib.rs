//! The SPANK plugin of aifb: options at submission and the launch trigger at job start.
//!
//! Slurm loads this library into sbatch, salloc, srun, slurmd and every slurmstepd, the last two
//! as root. So it does nothing unless a job uses `--aifb-recipe`, holds no parser and no thread,
//! catches every panic, and acts only in processes of the user:
//!
//! | hook | process | what it does |
//! |---|---|---|
//! | init | all but slurmd | registers the four options |
//! | option callback | sbatch, salloc, srun | stores the value |
//! | `init_post_opt` | sbatch, salloc, srun | runs `aifb-agent prepare`, sends its snapshot along |
//! | `local_user_init` | srun with its own allocation | runs `aifb-agent launch`, waits |
//! | `task_init` | batch or interactive task | runs `aifb-agent launch`, waits |
#![cfg_attr(
    test,
    allow(dead_code, reason = "unit tests leave out the exported symbols, which call the rest")
)]

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must be caught before it reaches slurmstepd: build with panic=unwind");

mod config;
mod hooks;
mod message;
mod options;
mod start;
mod submit;
mod sys;
