//! Any bytes as a ruleset. `tests/src/fuzz.rs` says what has to hold for them.
#![no_main]

use libfuzzer_sys::fuzz_target;

// As modules and not as crate `tests`, which would have the BPF program and the loader built too.
#[path = "../../src/fuzz.rs"]
mod fuzz;
#[path = "../../src/naive.rs"]
mod naive;

fuzz_target!(|data: &[u8]| fuzz::ruleset(data));
