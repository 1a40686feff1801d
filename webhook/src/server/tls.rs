//! The protocols of the TLS port.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};

/// TLS 1.2 and 1.3 with HTTP/1.1, which is all that API servers speak to webhooks (kubernetes#75791).
/// Without HTTP/2, a connection has one request at a time.
///
/// # Errors
///
/// When rustls finds no protocol version that its provider supports.
pub fn config(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // API servers keep connections, and never resume a session: `crypto/tls` only does so with a cache,
    // which `k8s.io/apiserver` doesn't give it.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}
