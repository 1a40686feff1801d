//! The webhook as the API server meets it: the real server, over real TLS.
//!
//! Each test starts a server of its own on free ports. Golden files are rewritten by
//! `UPDATE_GOLDEN=1 cargo test -p tests --test admission`; look at every change of them.

#[path = "admission/bad_input.rs"]
mod bad_input;
#[path = "admission/golden.rs"]
mod golden;
#[path = "admission/hostile.rs"]
mod hostile;
#[path = "admission/lifecycle.rs"]
mod lifecycle;
#[path = "admission/limits.rs"]
mod limits;
#[path = "admission/metrics.rs"]
mod metrics;
#[path = "admission/properties.rs"]
mod properties;
#[path = "admission/review.rs"]
mod review;
#[path = "admission/server.rs"]
mod server;
#[path = "admission/validate.rs"]
mod validate;
