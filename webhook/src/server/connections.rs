//! A port: accepts connections, and has hyper serve each of them within time limits.

use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;
use tracing::{Instrument, debug, info_span, warn};

use super::metrics::Metrics;
use super::slots::{Slot, Slots};

/// Time limits of a connection, apart from those of a request's body and answer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the first request's header, from the handshake on.
    pub header: Duration,
}

/// From an answer to the end of the next request's header. Go's client keeps an idle connection for 90 s and
/// doesn't repeat a POST that meets the end of one, so the limit has to be longer. hyper has one limit for
/// both the pause and the header.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
const _: () = assert!(KEEP_ALIVE.as_secs() > 90);

/// How long the peer's kernel may take no data, or acknowledge none.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's header, at the most: API servers send some 300. hyper reads as many at once, and
/// keeps the buffer while a connection is idle.
const MAX_HEADER: usize = 8 << 10;

/// An open port.
pub struct Port {
    listener: TcpListener,
    slots: Arc<Slots>,
    server: Arc<ConnectionServer>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// What serves the connections of a port.
pub struct ConnectionServer {
    /// None for plain HTTP.
    pub tls: Option<TlsAcceptor>,
    pub router: Router,
    pub timeouts: Timeouts,
    pub metrics: Arc<Metrics>,
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("TLS handshake: {0}")]
    Handshake(std::io::Error),
    #[error("no TLS handshake within {0:?} (--handshake-timeout)")]
    HandshakeTimeout(Duration),
    #[error("no request within {0:?} (--header-timeout)")]
    HeaderTimeout(Duration),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Port {
    /// A port with room for so many connections.
    pub fn new(listener: TcpListener, connections: usize, server: ConnectionServer) -> Self {
        Self {
            listener,
            slots: Slots::new(connections),
            server: Arc::new(server),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// Accepts connections until it is dropped.
    pub async fn accept_all(&self) {
        loop {
            self.accept().await;
        }
    }

    /// Waits for a connection, and serves it in a task.
    pub async fn accept(&self) {
        let (stream, peer) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The peer is gone, or file descriptors are out, which takes a while to pass.
                warn!(%error, "accepting a connection");
                return sleep(Duration::from_millis(100)).await;
            }
        };
        let Some(slot) = self.slots.try_take(canonical(peer)) else {
            self.server.metrics.closed("room");
            return debug!(%peer, "no room for another connection (--max-connections)");
        };
        let server = Arc::clone(&self.server);
        let shutdown = self.shutdown.clone();
        let serve = async move { server.serve(stream, peer, slot, shutdown).await };
        self.tasks.spawn(serve.instrument(info_span!("connection", %peer)));
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Accepts no more, closes idle connections, and waits until all requests are answered.
    pub async fn shut_down(self) {
        drop(self.listener);
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The address that a client counts as: of IPv6 the network of 64 bits, all of which one host may have.
pub fn canonical(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

impl ConnectionServer {
    async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        _slot: Slot,
        shutdown: CancellationToken,
    ) {
        // Answers are small and awaited.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_TIMEOUT));
        let outcome = match &self.tls {
            None => self.http(stream, peer, shutdown).await,
            Some(tls) => {
                let _connected = self.metrics.connected();
                match self.handshake(tls, stream).await {
                    Ok(stream) => self.http(stream, peer, shutdown).await,
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = outcome {
            self.count(&error);
            debug!("{error}");
        }
    }

    async fn handshake(
        &self,
        tls: &TlsAcceptor,
        stream: TcpStream,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ConnectionError> {
        let limit = self.timeouts.handshake;
        match timeout(limit, tls.accept(stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(ConnectionError::Handshake(error)),
            Err(_) => Err(ConnectionError::HandshakeTimeout(limit)),
        }
    }

    async fn http<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        shutdown: CancellationToken,
    ) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let requested = CancellationToken::new();
        let service = service_fn(|request: Request<Incoming>| {
            requested.cancel();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            self.router.clone().call(request)
        });
        let mut http = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(KEEP_ALIVE)
                .max_buf_size(MAX_HEADER)
                .serve_connection(TokioIo::new(stream), service)
        );
        // hyper would close a connection that has not seen a request. One is on its way: API servers connect
        // when they have a question, and don't repeat it.
        let shutdown = async {
            requested.cancelled().await;
            shutdown.cancelled().await;
        };
        let serve = async {
            tokio::select! {
                // First, so that hyper sees a request that has arrived, and answers it.
                biased;
                result = http.as_mut() => result,
                () = shutdown => {
                    http.as_mut().graceful_shutdown();
                    http.await
                }
            }
        };
        let limit = self.timeouts.header;
        let no_request = async {
            if timeout(limit, requested.cancelled()).await.is_ok() {
                std::future::pending().await
            }
        };
        tokio::select! {
            // First, so that a request that comes in the last moment is answered.
            biased;
            result = serve => Ok(result?),
            () = no_request => Err(ConnectionError::HeaderTimeout(limit)),
        }
    }

    fn count(&self, error: &ConnectionError) {
        let metrics = &self.metrics;
        match error {
            ConnectionError::Handshake(error) => metrics.handshake_failed(match error.kind() {
                // A client that leaves without a word may only have looked whether the port is open.
                UnexpectedEof | ConnectionReset | BrokenPipe => "closed",
                _ => "failed",
            }),
            ConnectionError::HandshakeTimeout(_) => {
                metrics.handshake_failed("timeout");
                metrics.closed("handshake");
            }
            ConnectionError::HeaderTimeout(_) => metrics.closed("header"),
            ConnectionError::Http(error) if error.is_timeout() => metrics.closed("idle"),
            ConnectionError::Http(_) => {}
        }
    }
}
