//! Answers to inferences: JSON, raw tensors behind it, gRPC messages.
#![no_main]

use aifb_loadgen::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert_eq!(fuzz::kserve(data, false), fuzz::kserve(data, true), "however it is read");
});
