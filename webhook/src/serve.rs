//! Sockets, TLS handshakes, connections, and their end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::http::{self, Admission};
use crate::served::Served;

/// How the server behaves. Every duration but `drain_delay` is a limit.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where reviews are answered, over TLS. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/readyz` are answered, in plain HTTP. Port 0 picks a free one.
    pub health_listen: SocketAddr,
    /// Connections to the TLS port, at the most; more wait to be accepted.
    pub max_connections: usize,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// For the first byte after the handshake. On the health port, for a request's header.
    pub header_timeout: Duration,
    /// From the signal to stop until nothing new is accepted: endpoints take time to catch up.
    pub drain_delay: Duration,
    /// For requests in flight after that.
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
    /// `/healthz` and `/readyz`.
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
            let draining = Arc::clone(&draining);
            move || match draining.load(Ordering::Relaxed) {
                true => Err("draining".to_owned()),
                false => served.ready().map_err(|unready| unready.to_string()),
            }
        };
        let health = tokio::spawn(serve_health(health, http::health(ready), options.clone()));
        let connections = GracefulShutdown::new();
        let router = http::admission(admission, Arc::clone(&draining));
        let accept = serve_admission(listener, tls, router, &options, &connections);
        info!(admission = %addresses.admission, health = %addresses.health, "listening");

        let drained = async {
            stop.await;
            draining.store(true, Ordering::Relaxed);
            info!(delay_s = options.drain_delay.as_secs(), "draining");
            sleep(options.drain_delay).await;
        };
        tokio::select! {
            never = accept => match never {},
            () = drained => {}
        }

        // The listener is closed by now: select dropped it together with the loop.
        let open = connections.count();
        match timeout(options.shutdown_timeout, connections.shutdown()).await {
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

/// The next connection. Errors pass, so it is waited for however long it takes.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small and awaited.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                // The peer is gone, or file descriptors are out: the latter takes a while.
                warn!(%error, "accepting a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_health(listener: TcpListener, router: Router, options: Options) -> Infallible {
    let slots = Arc::new(Semaphore::new(HEALTH_CONNECTIONS));
    loop {
        let slot = acquire(&slots).await;
        let stream = accept(&listener).await;
        let builder = http_builder(Protocol::Http1, options.header_timeout);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                debug!(error, "health connection");
            }
            drop(slot);
        });
    }
}

/// Connections to the health port, at the most.
const HEALTH_CONNECTIONS: usize = 64;

async fn serve_admission(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    options: &Options,
    connections: &GracefulShutdown,
) -> Infallible {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(options.max_connections));
    loop {
        let slot = acquire(&slots).await;
        let stream = accept(&listener).await;
        let connection = Connection {
            acceptor: acceptor.clone(),
            router: router.clone(),
            options: options.clone(),
            watcher: connections.watcher(),
        };
        // A slow handshake holds up nobody else.
        tokio::spawn(async move {
            if let Err(error) = connection.serve(stream).await {
                debug!(error, "connection");
            }
            drop(slot);
        });
    }
}

async fn acquire(slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let slot = Arc::clone(slots).acquire_owned().await;
    slot.expect("nobody closes the semaphore")
}

/// What one connection needs.
struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    options: Options,
    watcher: Watcher,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    async fn serve(self, stream: TcpStream) -> Result<(), Failure> {
        let handshake = self.acceptor.accept(stream);
        let mut stream = timeout(self.options.handshake_timeout, handshake).await??;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        // hyper has no limit for the time before HTTP/2's preface.
        timeout(self.options.header_timeout, stream.fill_buf()).await??;
        self.serve_http(stream, protocol).await
    }

    async fn serve_http<S>(self, stream: S, protocol: Protocol) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let builder = http_builder(protocol, IDLE_TIMEOUT);
        let service = TowerToHyperService::new(self.router);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        self.watcher.watch(connection.into_owned()).await
    }
}

/// The version of HTTP that a connection speaks.
enum Protocol {
    Http1,
    Http2,
}

/// From one answer to the end of the next request's header (HTTP/1.1).
///
/// hyper counts idle time as time for the next header. Go's client keeps an idle connection for 90 s and
/// doesn't send a POST again that meets the end of one, so the pod would be refused: the limit has to be
/// longer. The price is that a slow header may take as long; what it holds is one connection of
/// [`Options::max_connections`].
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

fn http_builder(protocol: Protocol, header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        // An API server asks about one pod in each stream, and opens more connections at need.
        .max_concurrent_streams(32)
        // A peer that is gone without a word frees its slot.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    }
}
