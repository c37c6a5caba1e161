//! JSON texts, one a line, and the answers of Ollama's API in them.
#![no_main]

use aifb_loadgen::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert_eq!(fuzz::ndjson(data, false), fuzz::ndjson(data, true), "however it is read");
    // Lists of vectors and of scores come whole: whatever is in them, they are taken or refused.
    std::hint::black_box(fuzz::lists(data));
    assert_eq!(fuzz::ollama(data, false), fuzz::ollama(data, true), "however it is read");
});
