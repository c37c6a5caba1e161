//! Stands in for NVIDIA's management library (NVML) in tests: the symbols that aifb uses, led by a
//! scenario in a JSON file that the environment variable `FAKE_NVML_SCENARIO` names.
//!
//! Every number of a scenario is a number, the name of an error (`"NOT_SUPPORTED"`,
//! `"GPU_IS_LOST"`, …), or a list of these, of which each call takes the next and the last stays.
//! A number that is not given is NOT_SUPPORTED. See `scenario` for the keys.
//!
//! A symbol that is missing altogether cannot be asked for here: a test renames it in a copy of
//! the library.

mod ffi;
pub mod scenario;
