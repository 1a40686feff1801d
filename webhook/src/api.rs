//! A client of the API server of the cluster that this program runs in.
//!
//! kube's own one also knows kubeconfigs, cloud providers and programs that hand out tokens. They would
//! make this program a quarter larger, and a pod needs none of them: it has a token and a CA in files,
//! and the kubelet replaces both. So both are read whenever they are used.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::http::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::Body;
use kube::client::middleware::BaseUriLayer;
use kube::{Client, Config};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::{Layer, Service};

use crate::names::TOKEN_PATH;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// Why there is no API server to talk to.
#[derive(Debug, thiserror::Error)]
#[error(
    "managed certificates need the Kubernetes API: {0}; run in a pod with the token of a service account, or give --tls-cert and --tls-key, or --self-signed"
)]
pub struct NoCluster(kube::config::InClusterError);

/// The client, and the namespace of the service account. The address comes from
/// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, so no DNS is needed. Nothing is sent yet.
///
/// # Errors
///
/// When this is no pod, or one without a service account's token.
pub fn client() -> Result<(Client, String), NoCluster> {
    let Config { cluster_url, default_namespace, .. } = Config::incluster().map_err(NoCluster)?;
    let folder = Path::new(TOKEN_PATH);
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // A watch is silent for minutes; that its peer is gone without a word shows earlier.
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    let connector = Connector { http, ca_file: folder.join("ca.crt") };
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let authorized = Authorized { client, token_file: folder.join("token") };
    let service = BaseUriLayer::new(cluster_url).layer(authorized);
    Ok((Client::new(service, default_namespace.clone()), default_namespace))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Adds the service account's token to requests.
struct Authorized {
    client: legacy::Client<Connector, Body>,
    token_file: PathBuf,
}

impl Service<Request<Body>> for Authorized {
    type Response = Response<hyper::body::Incoming>;
    type Error = Error;
    type Future = Answer<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.client.poll_ready(context).map_err(Error::from)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let token = match authorization(&self.token_file) {
            Ok(token) => token,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        request.headers_mut().insert(AUTHORIZATION, token);
        let answer = self.client.call(request);
        Box::pin(async { answer.await.map_err(Error::from) })
    }
}

fn authorization(path: &Path) -> Result<HeaderValue, Error> {
    let token = read(path)?;
    let token = String::from_utf8(token).map_err(|_| format!("{}: no token", path.display()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| format!("{}: no token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Connects to an API server that shows a certificate of the cluster's CA.
#[derive(Clone)]
struct Connector {
    http: HttpConnector,
    ca_file: PathBuf,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Error;
    type Future = Answer<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.http.poll_ready(context).map_err(Error::from)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match trusting(&self.ca_file) {
            Ok(config) => https(config, self.http.clone()).call(uri),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

fn https(config: ClientConfig, http: HttpConnector) -> HttpsConnector<HttpConnector> {
    HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .wrap_connector(http)
}

fn trusting(ca_file: &Path) -> Result<ClientConfig, Error> {
    let pem = read(ca_file)?;
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let ders = ders.map_err(|error| format!("{}: {error}", ca_file.display()))?;
    // One that this TLS library can't use doesn't make the others useless.
    let mut roots = RootCertStore::empty();
    if let (0, unusable) = roots.add_parsable_certificates(ders) {
        let path = ca_file.display();
        return Err(format!("{path}: no usable certificate, and {unusable} others").into());
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_token_is_the_text_of_its_file() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("token");
        let missing = authorization(&path).unwrap_err().to_string();
        assert!(missing.ends_with("token: No such file or directory (os error 2)"), "{missing}");
        for (text, expect) in [("one\n", "Bearer one"), ("two", "Bearer two")] {
            std::fs::write(&path, text).unwrap();
            let value = authorization(&path).unwrap();
            assert_eq!(value, expect);
            assert!(value.is_sensitive());
        }
        std::fs::write(&path, "a\nb").unwrap();
        assert!(authorization(&path).unwrap_err().to_string().ends_with("token: no token"));
    }

    #[test]
    fn a_ca_that_cant_be_read_is_named() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ca.crt");
        let missing = trusting(&path).unwrap_err().to_string();
        assert!(missing.ends_with("ca.crt: No such file or directory (os error 2)"), "{missing}");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let unusable = trusting(&path).unwrap_err().to_string();
        assert!(unusable.ends_with("ca.crt: no usable certificate, and 1 others"), "{unusable}");
        std::fs::write(&path, "").unwrap();
        let empty = trusting(&path).unwrap_err().to_string();
        assert!(empty.ends_with("ca.crt: no usable certificate, and 0 others"), "{empty}");
    }
}
