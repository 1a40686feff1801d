//! What holds for every input, however it came about: a body for each fuzz target, and for its replay
//! on stable Rust.
//!
//! ```text
//! ruleset       texts of rules
//! annotations   annotations of a pod                        -> decision
//! review        AdmissionReviews, broken and whole          -> answer
//! certificates  files, the Secret and the caBundle          -> pairs, CAs, what to do about them
//! admission     the webhook's own functions, called in one place
//! ```
//!
//! This is no module of the library `tests`, which would have to be built with the webhook then:
//! `tests/tests/fuzz.rs` has it, and the fuzz targets' crate, `tests/fuzz`.

pub mod admission;
pub mod annotations;
pub mod certificates;
pub mod review;
pub mod ruleset;
