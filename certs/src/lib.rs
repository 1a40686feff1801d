//! Certificates of the webhook: a CA that signs server certificates, and a reader of certificate
//! files.
//!
//! Keys are ECDSA P-256. Ed25519 is never used: some managed control planes refuse it in a webhook's
//! certificate. The crate reads no clock; the time is an argument everywhere.
#![forbid(unsafe_code)]

mod authority;
mod files;
mod pair;
mod validity;

pub use authority::{Authority, AuthorityError};
pub use files::{FileError, Part, Problem, load};
pub use pair::{Doubt, Pair, PairError};
pub use validity::{CLOCK_SKEW, Validity};

/// A name that a server certificate is good for: a DNS name or an IP address.
pub type Name = rustls::pki_types::ServerName<'static>;
