//! Against real servers: llama.cpp's llama-server and NVIDIA's Triton. What they are is told by
//! variables that `tests/run test-more` sets, which also gets them; without one its tests are
//! skipped, loudly, and with CI=true that is a failure.
#![allow(missing_docs, reason = "tests")]

mod llama;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod triton;

/// Value of a variable that `tests/run test-more` sets.
fn given(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok();
    if value.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{variable} is not set");
        eprintln!("SKIPPED, LOUDLY: {variable} is not set; `make test-more` sets it");
    }
    value
}
