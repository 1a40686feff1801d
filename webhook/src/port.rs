//! A port: it accepts connections, with TLS or without, and answers requests with a router.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::{debug, warn};

use crate::connections::{Connections, Cut, Open, Phase};
use crate::metrics::{HandshakeFailure, Metrics};
use crate::stream::Heard;

/// A port that is open.
#[derive(Debug)]
pub struct Port {
    /// The socket.
    pub listener: TcpListener,
    /// What answers.
    pub router: Router,
    /// Who is connected.
    pub connections: Arc<Connections>,
}

/// Bytes of a request's header, at the most. API servers send some 300.
const MAX_HEADER: usize = 16 << 10;
/// Bytes that are read at once, at the most.
const MAX_BUFFER: usize = 64 << 10;

impl Port {
    /// Answers over TLS, on connections that `graceful` can end.
    pub async fn serve_tls(
        self,
        tls: TlsAcceptor,
        metrics: Arc<Metrics>,
        graceful: &GracefulShutdown,
    ) -> Infallible {
        let serve = |stream, open: Open| {
            let (tls, metrics) = (tls.clone(), Arc::clone(&metrics));
            let (router, watcher) = (self.router.clone(), graceful.watcher());
            async move {
                let _connected = metrics.connected();
                let talk = async {
                    let stream = match tls.accept(stream).await {
                        Ok(stream) => stream,
                        Err(error) => {
                            metrics.handshake_failed(failure(&error));
                            return Err(error.into());
                        }
                    };
                    open.connection().enter(Phase::Header);
                    answer(stream, router, &open, watcher).await
                };
                if until_cut(&open, talk).await == Some(Cut::Handshake) {
                    metrics.handshake_failed(HandshakeFailure::Timeout);
                }
            }
        };
        self.accept(Phase::Handshake, serve).await
    }

    /// Answers in plain HTTP.
    pub async fn serve_plain(self) -> Infallible {
        let graceful = GracefulShutdown::new();
        let serve = |stream, open: Open| {
            let (router, watcher) = (self.router.clone(), graceful.watcher());
            async move {
                until_cut(&open, answer(stream, router, &open, watcher)).await;
            }
        };
        self.accept(Phase::Header, serve).await
    }

    /// Accepts connections, and has each of them served by itself.
    async fn accept<S>(&self, phase: Phase, serve: impl Fn(TcpStream, Open) -> S) -> Infallible
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let accept = async {
            loop {
                let stream = accept(&self.listener).await;
                let open = self.connections.open(phase).await;
                tokio::spawn(serve(stream, open));
            }
        };
        tokio::select! {
            never = accept => never,
            never = self.connections.sweep() => never,
        }
    }
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

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection until it ends, or is ended; then why.
async fn until_cut(open: &Open, talk: impl Future<Output = Result<(), Failure>>) -> Option<Cut> {
    tokio::select! {
        outcome = talk => {
            if let Err(error) = outcome {
                debug!(error, "connection");
            }
            None
        }
        cut = open.connection().ended() => {
            debug!(reason = cut.code(), "connection ended by the server");
            Some(cut)
        }
    }
}

async fn answer<S>(stream: S, router: Router, open: &Open, watcher: Watcher) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = open.connection();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        connection.enter(Phase::Body);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(connection));
        let response = router.clone().call(request);
        async {
            let response = response.await;
            connection.enter(Phase::Idle);
            response
        }
    });
    let stream = TokioIo::new(Heard::new(stream, Arc::clone(connection)));
    let mut builder = http1::Builder::new();
    // The limit in time is that of the connection.
    builder.header_read_timeout(None).max_header_size(MAX_HEADER).max_buf_size(MAX_BUFFER);
    Ok(watcher.watch(builder.serve_connection(stream, service)).await?)
}

/// A client that leaves without a word may only have looked whether the port is open.
fn failure(error: &io::Error) -> HandshakeFailure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => HandshakeFailure::Closed,
        _ => HandshakeFailure::Failed,
    }
}
