//! The admission webhook of sfunnel: it adds the init container `sfunnel-loader` to annotated pods, and
//! tells the authors of workloads what is wrong with their annotations.
//!
//! ```text
//! bytes -> review -> Pod or Workload -> decision -> patch -> answer -> bytes
//! ```
//!
//! [`decision::decide`] is pure: it reads a pod and settings, and neither a clock, nor a socket, nor
//! the cluster; so is [`validation`] for workloads. [`review`] stands around them with JSON, [`http`] with
//! HTTP, [`port`] with TLS. The certificate comes from [`managed`], which talks to the [`cluster`], or from
//! files ([`reload`]). A mistake of an author is denied with a message; a review that can't be read is
//! refused with an HTTP status; a pod is never admitted because something went wrong.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod api;
pub mod args;
pub mod backoff;
pub mod body;
pub mod clock;
pub mod cluster;
pub mod connections;
pub mod container;
pub mod deadline;
pub mod decision;
pub mod endpoint;
pub mod http;
pub mod json;
pub mod log;
pub mod managed;
pub mod metrics;
pub mod names;
pub mod patch;
pub mod placement;
pub mod pod;
pub mod port;
pub mod ports;
pub mod quantity;
pub mod reason;
pub mod reload;
pub mod review;
pub mod serve;
pub mod served;
pub mod settings;
pub mod stop;
pub mod stream;
pub mod text;
pub mod tls;
pub mod validation;
pub mod warning;
pub mod workload;
