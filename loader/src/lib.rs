//! Loads rulesets into the tc program and attaches it.
//!
//! ```text
//! settings   flags and environment -> what to do
//! kernel     what the running kernel is and asks of a process
//! object     compiled ruleset -> maps and a program in the kernel
//! lock       one run at a time in a network namespace
//! netlink    interfaces, the clsact qdisc, filters
//! ours       which filters are ours
//! offload    packets that would be segmented behind the program
//! attach     programs -> interfaces, all or none
//! show       what is attached where, and its counters
//! ```
//!
//! A filter on clsact holds the program, and the program its maps, so nothing has to stay behind
//! when the process ends.

pub mod attach;
mod kernel;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod object;
pub mod offload;
pub mod ours;
mod run;
pub mod settings;
pub mod show;
pub mod sys;

pub use run::{Failure, run};
