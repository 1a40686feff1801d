//! Connections to the webhook, for clients that mean well and for those that don't.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, version,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name by which API servers call.
const NAME: &str = "sfunnel-webhook.sfunnel-system.svc";

/// The ports of the webhook, in the namespace of its own that it runs in.
const TLS_PORT: u16 = 8443;
const PLAIN_PORT: u16 = 8080;

/// Where the webhook is, and how to trust it.
#[derive(Clone)]
pub struct Target {
    pub tls: SocketAddr,
    pub plain: SocketAddr,
    /// The address of the client.
    from: Ipv4Addr,
    trusting: Arc<ClientConfig>,
    /// TLS 1.2 with ChaCha20-Poly1305, whose secrets can be had.
    older: Arc<ClientConfig>,
}

impl Target {
    /// The webhook at `host`, with a certificate of the CA in `ca_file`.
    pub fn new(host: Ipv4Addr, ca_file: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
        let at = |port| SocketAddr::V4(SocketAddrV4::new(host, port));
        let provider = ring::default_provider();
        let older = CryptoProvider {
            cipher_suites: provider
                .cipher_suites
                .iter()
                .copied()
                .filter(|suite| suite.version().version == ProtocolVersion::TLSv1_2)
                .filter(|suite| {
                    suite.suite() == CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                })
                .collect(),
            ..provider.clone()
        };
        let mut older = config(older, roots.clone());
        older.enable_secret_extraction = true;
        let (trusting, older) = (Arc::new(config(provider, roots)), Arc::new(older));
        let (tls, plain) = (at(TLS_PORT), at(PLAIN_PORT));
        Self { tls, plain, from: Ipv4Addr::UNSPECIFIED, trusting, older }
    }

    /// The same webhook at another address.
    pub fn at(&self, host: Ipv4Addr) -> Self {
        let (mut tls, mut plain) = (self.tls, self.plain);
        tls.set_ip(host.into());
        plain.set_ip(host.into());
        Self { tls, plain, ..self.clone() }
    }

    /// The same webhook for a client at this address.
    pub fn from(&self, from: Ipv4Addr) -> Self {
        Self { from, ..self.clone() }
    }

    /// A TCP connection to one of the ports.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.socket()?.connect(address).await
    }

    /// A TCP connection that takes little before it is read.
    pub async fn dial_narrow(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket()?;
        // The kernel makes it its smallest.
        socket.set_recv_buffer_size(1)?;
        socket.connect(address).await
    }

    fn socket(&self) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddrV4::new(self.from, 0).into())?;
        Ok(socket)
    }

    /// A connection over TLS, as API servers have it.
    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        self.handshake(self.dial(self.tls).await?).await
    }

    /// A connection over TLS on the connection `tcp`.
    pub async fn handshake(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(&self.trusting)).connect(name(), tcp).await
    }

    /// A connection over TLS 1.2.
    pub async fn connect_older(&self) -> io::Result<TlsStream<TcpStream>> {
        let tcp = self.dial(self.tls).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(&self.older)).connect(name(), tcp).await
    }

    /// The record with which a connection over TLS begins.
    pub fn hello(&self) -> Vec<u8> {
        hello(&self.trusting)
    }

    /// The same for a client that speaks HTTP/2 alone.
    pub fn hello_http2(&self) -> Vec<u8> {
        let mut config = ClientConfig::clone(&self.trusting);
        config.alpn_protocols = vec![b"h2".to_vec()];
        hello(&Arc::new(config))
    }

    /// The same for TLS 1.2.
    pub fn hello_older(&self) -> Vec<u8> {
        hello(&self.older)
    }
}

/// Like API servers, it resumes nothing and speaks HTTP/1.1 alone (kubernetes#75791).
fn config(provider: CryptoProvider, roots: RootCertStore) -> ClientConfig {
    let is_older =
        |suite: &rustls::SupportedCipherSuite| suite.version().version == ProtocolVersion::TLSv1_2;
    let versions: &[_] = match provider.cipher_suites.iter().all(is_older) {
        true => &[&version::TLS12],
        false => &[&version::TLS13, &version::TLS12],
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

fn name() -> ServerName<'static> {
    NAME.try_into().unwrap()
}

fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut connection = ClientConnection::new(Arc::clone(config), name()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}
