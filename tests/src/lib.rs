//! What the end-to-end tests and the demonstration share.
//!
//! ```text
//! binary     the programs under test
//! choices    what bytes choose: a fuzzer's, or random ones
//! pods       pods in every shape, of choices
//! injection  what is to be added to a pod, and nothing else
//! verbatim   JSON as it is written
//! model      what a packet must look like, worked out afresh from the wire format
//! naive      which rule a packet must match, by asking one after the other
//! random     packets and rulesets, from a seed
//! test_run   the program on one packet, without a network
//! netns      networks of namespaces that vanish with their guard
//! lab        client, router, server, in both families
//! transfer   bulk data over a connection, hashed at both ends
//! effort     how much of a thing a test does
//! link       frames on an interface, with the checksum finished or pending
//! cluster    a Kubernetes node in namespaces of its own
//! ```
//!
//! `fuzz` is no part of it: `fuzz/mod.rs` says why.

pub mod binary;
pub mod choices;
pub mod cluster;
pub mod effort;
pub mod injection;
pub mod lab;
pub mod link;
pub mod model;
pub mod naive;
pub mod netns;
pub mod pods;
pub mod random;
pub mod test_run;
pub mod transfer;
pub mod verbatim;
