//! A running webhook and a client that trusts it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webhook::args::Args;
use webhook::certificates::clock::Clock;
use webhook::server::{Addresses, Server};

use crate::review::Verdict;

/// The image that the servers of these tests inject.
pub const IMAGE: &str = "registry.example/sfunnel-loader:test";

/// A server on free ports that ends with the test.
pub struct TestServer {
    pub addresses: Addresses,
    pub roots: Arc<RootCertStore>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: Option<String>,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl TestServer {
    /// Starts a server as `sfunnel-webhook --self-signed` with more flags would.
    pub async fn start(flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let own = [
            "sfunnel-webhook",
            "--self-signed",
            "--listen=127.0.0.1:0",
            "--health-listen=127.0.0.1:0",
            "--loader-image",
            IMAGE,
            "--ca-file",
            ca_file.to_str().unwrap(),
        ];
        let config = Args::try_parse_from(own.iter().chain(flags)).unwrap().config().unwrap();
        let resolver = config.tls.start(Clock::system()).unwrap().resolver();
        let server = Server::bind(config.options).await.unwrap();
        let addresses = server.addresses();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async {
            // A dropped sender stops the server as well.
            let stopped = async { drop(stopped.await) };
            server.run(resolver, config.settings, stopped).await.unwrap();
        });

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&ca_file).unwrap()).unwrap();
        Self { addresses, roots: Arc::new(roots), stop: Some(stop), running }
    }

    /// What SIGTERM does.
    pub fn signal_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server has ended.
    pub async fn ended(self) {
        self.running.await.unwrap();
    }

    /// A TLS connection as API servers open them.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.addresses.admission).await.unwrap();
        let stream = self.handshake(stream, &[b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        stream
    }

    /// A connection from another address: 127.0.0.2.
    pub async fn connect_from_elsewhere(&self, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(to).await.unwrap()
    }

    /// A TLS connection of a client that speaks these protocols.
    pub async fn connect_with(&self, protocols: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.addresses.admission).await?;
        self.handshake(stream, protocols).await
    }

    /// TLS on a connection that is there already.
    pub async fn handshake(
        &self,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Sends one request on a new connection.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        exchange(self.connect().await, request).await
    }

    /// Posts a body as the API server does.
    pub async fn post(&self, body: impl Into<Bytes>) -> Answer {
        self.send(post("application/json", body)).await
    }

    /// Posts a review, and insists on an answer.
    pub async fn review(&self, review: &Value) -> Verdict {
        self.review_at("/mutate", review).await
    }

    /// Posts a review to another path.
    pub async fn review_at(&self, path: &str, review: &Value) -> Verdict {
        let mut request = post("application/json", review.to_string());
        *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
        let answer = self.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.content_type.as_deref(), Some("application/json"));
        Verdict::read(review, &answer.body)
    }

    /// The value of a metric, by its name and labels as they are written; `None` when it isn't there.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.health("/metrics").await.text().to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// Gets a path of the health port.
    pub async fn health(&self, path: &str) -> Answer {
        let stream = TcpStream::connect(self.addresses.health).await.unwrap();
        let request = Request::get(path).header(HOST, "localhost").body(Full::default()).unwrap();
        exchange(stream, request).await
    }
}

/// A POST to `/mutate`.
pub fn post(content_type: &'static str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = request(Method::POST, body);
    let content_type = HeaderValue::from_static(content_type);
    request.headers_mut().insert(CONTENT_TYPE, content_type);
    request
}

/// A request to `/mutate` without a Content-Type.
pub fn request(method: Method, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri("https://localhost/mutate")
        .header(HOST, "localhost")
        .body(Full::new(body.into()))
        .unwrap()
}

/// Sends one request on a connection.
pub async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = client.send_request(request).await.unwrap();
    let status = response.status();
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type = content_type.map(|value| value.to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, content_type, body }
}

/// An address on which nobody answers any more.
pub async fn refuses_connections(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}
