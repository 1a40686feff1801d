//! The server's certificate: where it comes from, how it is renewed, and what is served.
//!
//! ```text
//! source --+--> manager <--> cluster     a CA that replicas share, in a Secret
//!          +--> reload  <--- files       somebody else's certificate
//!          +--> (self-signed)
//!                  |
//!                  v
//!               resolver                 what TLS handshakes and /readyz ask
//! ```

pub mod backoff;
pub mod clock;
pub mod cluster;
pub mod manager;
pub mod reload;
pub mod resolver;
pub mod source;
