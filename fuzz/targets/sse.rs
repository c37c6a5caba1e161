//! Server-sent events, and the answers of OpenAI's API in them.
#![no_main]

use aifb_loadgen::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert_eq!(fuzz::sse(data, false), fuzz::sse(data, true), "however it is read");
    assert_eq!(fuzz::openai(data, false), fuzz::openai(data, true), "however it is read");
});
