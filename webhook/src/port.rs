//! A port: it accepts connections, with TLS or without, and answers requests with a router.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::{debug, warn};

use crate::connections::{Connections, Cut, Open, Phase};
use crate::metrics::{HandshakeFailure, Metrics};
use crate::stop::Stop;
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

/// Bytes that are read at once, and of a request's header, at the most: API servers send some 300. Each
/// connection keeps so many, also while it is idle.
const MAX_BUFFER: usize = 8 << 10;

impl Port {
    /// Answers over TLS, until `stop` says otherwise.
    pub async fn serve_tls(self, tls: TlsAcceptor, metrics: Arc<Metrics>, stop: Stop) {
        let serve = |stream, open: Open| {
            let (tls, metrics) = (tls.clone(), Arc::clone(&metrics));
            let (router, stop) = (self.router.clone(), stop.clone());
            async move {
                let _connected = metrics.connected();
                let talk = async {
                    // Boxed, it is not part of what every connection keeps, over and over.
                    let handshake = Box::pin(async { tls.accept(stream).await.map(Box::new) });
                    let stream = match handshake.await {
                        Ok(stream) => stream,
                        Err(error) => {
                            metrics.handshake_failed(failure(&error));
                            return Err(error.into());
                        }
                    };
                    open.connection().enter(Phase::Header);
                    Box::pin(answer(stream, router, &open, stop)).await
                };
                if until_cut(&open, talk).await == Some(Cut::Handshake) {
                    metrics.handshake_failed(HandshakeFailure::Timeout);
                }
            }
        };
        self.accept(Phase::Handshake, serve, stop.clone()).await;
    }

    /// Answers in plain HTTP, until `stop` says otherwise.
    pub async fn serve_plain(self, stop: Stop) {
        let serve = |stream, open: Open| {
            let (router, stop) = (self.router.clone(), stop.clone());
            async move {
                until_cut(&open, answer(stream, router, &open, stop)).await;
            }
        };
        self.accept(Phase::Header, serve, stop.clone()).await;
    }

    /// Accepts connections, and has each of them served by itself.
    async fn accept<S>(&self, phase: Phase, serve: impl Fn(TcpStream, Open) -> S, mut stop: Stop)
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let accept = async {
            loop {
                let stream = tokio::select! {
                    // First those that the kernel has accepted already: closing the listener would reset
                    // them.
                    biased;
                    stream = accept(&self.listener) => stream,
                    () = stop.signal() => return,
                };
                let open = self.connections.open(phase).await;
                tokio::spawn(serve(stream, open));
            }
        };
        tokio::select! {
            () = accept => {}
            never = self.connections.sweep() => match never {},
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

/// Answers requests. HTTP and its buffers are only there while there is something to answer: of a
/// connection that rests, nothing is kept but TLS.
async fn answer<S>(stream: S, router: Router, open: &Open, mut stop: Stop) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = open.connection();
    let mut builder = http1::Builder::new();
    // The limit in time is that of the connection.
    builder.header_read_timeout(None).max_buf_size(MAX_BUFFER);
    let mut stream = Heard::new(stream, Arc::clone(connection));
    loop {
        tokio::select! {
            // A request that has arrived is answered, and so is the first one of a connection, which is on
            // its way: API servers connect when they have something to ask, and don't ask again.
            biased;
            heard = stream.wait() => if !heard? { return Ok(()) },
            () = stop.signal(), if connection.is_served() => return Ok(()),
        }
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
        let mut http = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // First, so that HTTP knows of the request that has begun, and doesn't take the connection for
            // an idle one.
            biased;
            outcome = &mut http => return Ok(outcome?),
            () = stop.signal() => {
                http.as_mut().graceful_shutdown();
                return Ok(http.await?);
            }
            () = connection.rests() => {}
        }
        let parts = Pin::into_inner(http).into_parts();
        stream = parts.io.into_inner();
        stream.put_back(parts.read_buf);
    }
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
