//! The bodies of the fuzz targets, and what they need.
//!
//! As modules and not as crates `tests` and `loader`, which would have the BPF program built, by a
//! compiler with the sanitizer's flags.

#[path = "../../src/choices.rs"]
pub mod choices;
#[path = "../../src/fuzz/mod.rs"]
pub mod fuzz;
#[path = "../../src/injection.rs"]
pub mod injection;
#[path = "../../../loader/src/settings.rs"]
pub mod loader_settings;
#[path = "../../src/naive.rs"]
pub mod naive;
#[path = "../../src/pods.rs"]
pub mod pods;
#[path = "../../src/verbatim.rs"]
pub mod verbatim;
