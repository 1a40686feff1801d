//! Certificates of the webhook: a CA that replicas share and that signs their server certificates, and
//! a reader of certificate files.
//!
//! ```text
//! Secret  ──▶ Stored ─┐
//!                     ├─▶ Replica ─▶ what to write, what to publish, which leaf to show, when to
//! caBundle ─▶ Bundle ─┘              look again
//! ```
//!
//! The crate reads no clock and talks to nobody; the time is an argument everywhere. It knows the form
//! of a Secret's data, and nothing else of Kubernetes. Keys are ECDSA P-256. Ed25519 is never used: some
//! managed control planes refuse it in a webhook's certificate.
#![forbid(unsafe_code)]

mod authorities;
mod authority;
mod bundle;
mod certificate;
mod files;
mod pair;
mod pem;
mod policy;
mod replica;
mod stored;
mod validity;

pub use authorities::{Authorities, Change};
pub use authority::{Authority, AuthorityError};
pub use bundle::{Bundle, Published};
pub use certificate::{Certificate, CertificateError};
pub use files::{Content, FileError, Files, Part, Problem};
pub use pair::{Doubt, Pair, PairError};
pub use pem::PemError;
pub use policy::{Policy, PolicyError};
pub use replica::{Leaf, Plan, Readiness, Replica};
pub use stored::{Data, Stored, StoredError};
pub use validity::{CLOCK_SKEW, Validity};

/// A name that a server certificate is good for: a DNS name or an IP address.
pub type Name = rustls::pki_types::ServerName<'static>;
