//! The server: hyper and tower's layers, put together.
//!
//! ```text
//! connections   accepts, TLS handshake, time limits of a connection, graceful shutdown
//!   slots       so many connections and large bodies in all, half of them for one address
//! reviews       routes of the TLS port: limits of a request, from its bytes to the answer
//! health        routes of the plain port
//! metrics       what both ports count
//! ```

mod connections;
mod health;
pub mod metrics;
mod reviews;
mod slots;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::connections::{ConnectionServer, Port, Timeouts};
use self::metrics::Metrics;
pub use self::reviews::Limits;
use crate::admission::settings::Settings;
use crate::certificates::resolver::CertResolver;

/// Addresses and limits of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where reviews are answered, over TLS. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered, in plain HTTP. Port 0 picks a free one.
    pub health_listen: SocketAddr,
    /// Connections to the TLS port, at the most.
    pub max_connections: usize,
    /// Time limit of a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time limit of the first request's header, from the handshake on.
    pub header_timeout: Duration,
    /// After the signal to stop, connections are accepted until none has come for this time: endpoints take
    /// a while to be updated.
    pub drain_delay: Duration,
    /// Time limit, after `drain_delay`, of connections that still come and of requests in flight.
    pub shutdown_timeout: Duration,
    /// Limits of a request.
    pub limits: Limits,
}

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: {error}")]
pub struct BindError {
    /// The flag of the address.
    pub flag: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub error: io::Error,
}

/// A server with open ports.
#[derive(Debug)]
pub struct Server {
    admission: TcpListener,
    health: TcpListener,
    addresses: Addresses,
    options: Options,
}

/// Where a server listens; ports are never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Reviews, over TLS.
    pub admission: SocketAddr,
    /// `/healthz`, `/readyz` and `/metrics`.
    pub health: SocketAddr,
}

impl Server {
    /// Opens both ports.
    ///
    /// # Errors
    ///
    /// The flag whose address can't be bound.
    pub async fn bind(options: Options) -> Result<Self, BindError> {
        let (admission, admission_address) = listen("--listen", options.listen).await?;
        let (health, health_address) = listen("--health-listen", options.health_listen).await?;
        let addresses = Addresses { admission: admission_address, health: health_address };
        Ok(Self { admission, health, addresses, options })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Answers reviews over TLS until `stop` is ready. Then drains: `/readyz` fails, connections are
    /// still accepted for a while, and the last requests are answered.
    ///
    /// # Errors
    ///
    /// When rustls refuses its own defaults.
    pub async fn run(
        self,
        resolver: Arc<CertResolver>,
        settings: Settings,
        stop: impl Future<Output = ()>,
    ) -> Result<(), rustls::Error> {
        let Self { admission, health, addresses, options } = self;
        let tls = TlsAcceptor::from(tls::config(Arc::clone(&resolver) as _)?);
        let metrics = Arc::new(Metrics::new(Arc::clone(&resolver)));
        let draining = CancellationToken::new();
        let ready = {
            let draining = draining.clone();
            move || match draining.is_cancelled() {
                true => Err("draining".to_owned()),
                false => resolver.ready().map_err(|unready| unready.to_string()),
            }
        };
        let timeouts =
            Timeouts { handshake: options.handshake_timeout, header: options.header_timeout };
        let server =
            |tls, router| ConnectionServer { tls, router, timeouts, metrics: Arc::clone(&metrics) };
        let routes = health::routes(ready, Arc::clone(&metrics));
        let health = Port::new(health, PLAIN_CONNECTIONS, server(None, routes));
        let routes = reviews::routes(settings, options.limits, draining.clone(), &metrics);
        let port = Port::new(admission, options.max_connections, server(Some(tls), routes));
        info!(admission = %addresses.admission, health = %addresses.health, "listening");

        let serve = async {
            tokio::select! {
                () = port.accept_all() => {}
                () = stop => {}
            }
            draining.cancel();
            info!(delay = ?options.drain_delay, "draining");
            let end = Instant::now() + options.drain_delay + options.shutdown_timeout;
            // New connections leave at least half of the time to requests in flight.
            let latest = end - options.shutdown_timeout / 2;
            let quiet = || Instant::now() + options.drain_delay;
            let mut until = quiet();
            while Instant::now() < latest
                && timeout_at(until.min(latest), port.accept()).await.is_ok()
            {
                until = quiet();
            }
            if until > latest {
                warn!("draining ends, though there are still new connections");
            }
            let open = port.open();
            match timeout_at(end, port.shut_down()).await {
                Ok(()) => info!(connections = open, "stopped"),
                Err(_) => warn!(
                    connections = open,
                    "stopped before the last request was answered (--shutdown-timeout)"
                ),
            }
        };
        // Probes are answered to the last.
        tokio::select! {
            () = health.accept_all() => {}
            () = serve => {}
        }
        Ok(())
    }
}

async fn listen(
    flag: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let error = |error| BindError { flag, address, error };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

impl Options {
    /// Files that may be open at the same time: connections to both ports, and some others.
    pub const fn open_files(&self) -> usize {
        self.max_connections + PLAIN_CONNECTIONS + 128
    }
}

/// Connections to the plain port, at the most.
const PLAIN_CONNECTIONS: usize = 64;
