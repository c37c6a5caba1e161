//! Heads and bodies of HTTP/1.1.
#![no_main]

use aifb_loadgen::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert_eq!(fuzz::http_head(data, false), fuzz::http_head(data, true), "however it is read");
});
