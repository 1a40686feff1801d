//! The manifests in `deploy/`, as `kubectl` renders them and without a cluster.
//!
//! `kubectl` is that of `KUBECTL`, or the one that `tests/cluster/programs.sh` builds.

#[path = "manifests/entries.rs"]
mod entries;
#[path = "manifests/examples.rs"]
mod examples;
#[path = "manifests/exported.rs"]
mod exported;
#[path = "manifests/installation.rs"]
mod installation;
#[path = "manifests/kernels.rs"]
mod kernels;
#[path = "manifests/monitoring.rs"]
mod monitoring;
#[path = "manifests/overlays.rs"]
mod overlays;
#[path = "manifests/rendered.rs"]
mod rendered;
#[path = "manifests/rights.rs"]
mod rights;
#[path = "manifests/use_cases.rs"]
mod use_cases;
