//! Sockets, TLS handshakes, connections, and their end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::connections::{Connections, Patience};
use crate::http::{self, Admission};
use crate::metrics::Metrics;
use crate::port::Port;
use crate::served::Served;
use crate::stop::Stopper;

/// How the server behaves. Every duration but `drain_delay` is a limit.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where reviews are answered, over TLS. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered, in plain HTTP. Port 0 picks a free one.
    pub health_listen: SocketAddr,
    /// Connections to the TLS port, at the most. For one more, the one ends that was waited for longest.
    pub max_connections: usize,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// For a request's header; the first one may begin so late after the handshake.
    pub header_timeout: Duration,
    /// So long no connection has come, from the signal to stop on, when no more are accepted: endpoints take
    /// time to catch up.
    pub drain_delay: Duration,
    /// For connections that still come, and requests in flight, after that.
    pub shutdown_timeout: Duration,
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

/// A server whose ports are open.
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

    /// Serves with the certificate of `served`, which `tls` shows, until `stop` is ready, drains, and
    /// returns when the last request is answered or the time for it is over.
    pub async fn run(
        self,
        tls: Arc<rustls::ServerConfig>,
        served: Arc<Served>,
        admission: Admission,
        stop: impl Future<Output = ()>,
    ) {
        let Self { admission: listener, health, addresses, options } = self;
        let draining = Arc::new(AtomicBool::new(false));
        let ready = {
            let (draining, served) = (Arc::clone(&draining), Arc::clone(&served));
            move || match draining.load(Ordering::Relaxed) {
                true => Err("draining".to_owned()),
                false => served.ready().map_err(|unready| unready.to_string()),
            }
        };
        let metrics = Arc::new(Metrics::new(served));
        let health = {
            let connections =
                options.connections(PLAIN_CONNECTIONS, options.header_timeout, &metrics);
            let router = http::health(ready, Arc::clone(&metrics));
            Port { listener: health, router, connections }
        };
        // Probes are answered to the last.
        let (_until_the_end, never) = Stopper::new();
        let health = tokio::spawn(health.serve_plain(never));
        let port = {
            let connections = options.connections(options.max_connections, IDLE_TIMEOUT, &metrics);
            let router = http::admission(
                admission,
                Arc::clone(&draining),
                Arc::clone(&connections),
                Arc::clone(&metrics),
            );
            Port { listener, router, connections }
        };
        let connections = Arc::clone(&port.connections);
        let (stopper, stopped) = Stopper::new();
        let mut accept = pin!(port.serve_tls(TlsAcceptor::from(tls), metrics, stopped));
        info!(admission = %addresses.admission, health = %addresses.health, "listening");

        let drained = async {
            stop.await;
            draining.store(true, Ordering::Relaxed);
            info!(delay_s = options.drain_delay.as_secs(), "draining");
            let end = Instant::now() + options.drain_delay + options.shutdown_timeout;
            // Whoever goes on connecting leaves half of the time to requests in flight.
            let latest = end - options.shutdown_timeout / 2;
            let quiet = connections.quiet_for(options.drain_delay);
            if timeout_at(latest, quiet).await.is_err() {
                warn!("draining ends, though there are still new connections");
            }
            end
        };
        let end = tokio::select! {
            () = &mut accept => unreachable!("it accepts until the stopper says otherwise"),
            end = drained => end,
        };

        let open = connections.count();
        // Timeouts of connections still apply.
        let stopped = async {
            tokio::select! {
                ((), ()) = async { tokio::join!(accept, stopper.stop()) } => {}
                never = connections.sweep() => match never {},
            }
        };
        match timeout_at(end, stopped).await {
            Ok(()) => info!(connections = open, "stopped"),
            Err(_) => warn!(
                connections = open,
                "stopped before the last request was answered (--shutdown-timeout)"
            ),
        }
        health.abort();
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
    /// How many files may be open at the most: connections to both ports, and some that are no connections of
    /// clients.
    pub const fn open_files(&self) -> usize {
        self.max_connections + PLAIN_CONNECTIONS + 128
    }

    fn connections(
        &self,
        limit: usize,
        idle: Duration,
        metrics: &Arc<Metrics>,
    ) -> Arc<Connections> {
        let patience =
            Patience { handshake: self.handshake_timeout, header: self.header_timeout, idle };
        Connections::new(limit, patience, Arc::clone(metrics))
    }
}

/// Connections to the plain port, at the most.
const PLAIN_CONNECTIONS: usize = 64;

/// From one answer to the next request. Go's client keeps an idle connection for 90 s and doesn't send a
/// POST again that meets the end of one, so the pod would be refused: the limit has to be longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
const _: () = assert!(IDLE_TIMEOUT.as_secs() > 90);
