//! The installation on a real Kubernetes, in both modes of kube-proxy.
//!
//! Each mode has a cluster of its own (see `tests::cluster`), on which tests take turns; it ends with
//! this process. They need root, the images of `make images`, and what `tests/setup.sh cluster`
//! installs.

#[path = "cluster/availability.rs"]
mod availability;
#[path = "cluster/called.rs"]
mod called;
#[path = "cluster/harness.rs"]
mod harness;
#[path = "cluster/healing.rs"]
mod healing;
#[path = "cluster/inside.rs"]
mod inside;
#[path = "cluster/lab.rs"]
mod lab;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/nfacctd.rs"]
mod nfacctd;
#[path = "cluster/outside.rs"]
mod outside;
#[path = "cluster/overlays.rs"]
mod overlays;
#[path = "cluster/privileges.rs"]
mod privileges;
#[path = "cluster/validate.rs"]
mod validate;
#[path = "cluster/workloads.rs"]
mod workloads;
