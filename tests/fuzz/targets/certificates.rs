//! `tests/src/fuzz/certificates.rs` says what has to hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| sfunnel_fuzz::fuzz::certificates::check(data));
