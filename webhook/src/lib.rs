//! The admission webhook of sfunnel: it adds the init container `sfunnel-loader` to annotated pods, and
//! tells the authors of workloads what is wrong with their annotations.
//!
//! Three rooms. Imports go from left to right, never back:
//!
//! ```text
//! main -> args -> server -> admission     pure: from a review to its response
//!                    |
//!                    +----> certificates  where the certificate comes from, and how it is renewed
//! ```
//!
//! A mistake of an author is denied with a message; a review that can't be read is refused with an HTTP
//! status; a pod is never admitted because something went wrong.
#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "these are the modules of a program, not a library's")]

pub mod admission;
pub mod args;
pub mod certificates;
pub mod log;
mod names;
pub mod server;
