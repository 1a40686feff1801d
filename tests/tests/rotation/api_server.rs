//! API servers: they trust what is published, as far as they have heard of it, at their own time.

use std::sync::Arc;
use std::time::Duration;

use certs::Certificate;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use crate::cluster::{ENTRIES, Entry, MemoryCluster};
use crate::day::{Day, in_no_time};
use crate::http::{exchange, send};
use crate::replica::Replica;

/// The name by which API servers call.
pub const NAME: &str = "sfunnel-webhook.sfunnel-system.svc";

/// An API server.
pub struct ApiServer {
    name: &'static str,
    cluster: MemoryCluster,
    day: Day,
    /// How late it hears of a configuration.
    lag: Duration,
    /// How far its clock is ahead.
    ahead: time::Duration,
}

/// A connection to a replica.
struct Connection<'a> {
    replica: &'a Replica,
    stream: TlsStream<TcpStream>,
    path: &'static str,
    /// Whose it is, for whoever reads that it failed.
    whose: String,
}

impl ApiServer {
    pub fn new(
        name: &'static str,
        cluster: &MemoryCluster,
        day: &Day,
        lag: Duration,
        ahead: time::Duration,
    ) -> Self {
        Self { name, cluster: cluster.clone(), day: day.clone(), lag, ahead }
    }

    /// Waits until it can call all entries. Before, nobody can.
    pub async fn has_heard(&self) {
        while ENTRIES.iter().any(|entry| self.cluster.ca_bundle(*entry, self.lag).is_empty()) {
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Sends reviews over new connections, all day long.
    pub async fn call_anew(&self, replica: &Replica) {
        let mut random = StdRng::seed_from_u64(1);
        while !self.day.is_over() {
            sleep(Duration::from_millis(random.random_range(60_000..420_000))).await;
            let expiry = "sfunnel_webhook_certificate_expiry_timestamp_seconds";
            let before = replica.metric(expiry).await;
            let mut connection = self.connect(replica, &mut random).await;
            // It may have been replaced at this very moment.
            let expiries = [before, replica.metric(expiry).await];
            let shown = connection.certificate(|leaf| leaf.validity().not_after.timestamp());
            assert!(expiries.contains(&shown), "{expiry} is {expiries:?}, and {shown} is shown");
            connection.review().await;
        }
    }

    /// Sends reviews over a connection that is kept for a time, or all day long.
    pub async fn keep_calling(&self, replica: &Replica, life: Option<Duration>) {
        let mut random = StdRng::seed_from_u64(2);
        while !self.day.is_over() {
            let mut connection = self.connect(replica, &mut random).await;
            let begin = self.day.now();
            while !self.day.is_over() && life.is_none_or(|life| self.day.now() - begin < life) {
                connection.review().await;
                // Go's client ends what is idle for 90 s.
                sleep(Duration::from_millis(random.random_range(50_000..90_000))).await;
            }
        }
    }

    /// Sends reviews with pauses in between, so that certificates change in the middle.
    pub async fn call_slowly(&self, replica: &Replica) {
        let mut random = StdRng::seed_from_u64(3);
        while !self.day.is_over() {
            sleep(Duration::from_millis(random.random_range(120_000..600_000))).await;
            let tcp = TcpStream::connect(replica.addresses.admission);
            let tcp = in_no_time(tcp).await.unwrap();
            let mut pause = || sleep(Duration::from_millis(random.random_range(1..3000)));
            let (first, second) = (pause(), pause());
            first.await;
            let mut connection = self.handshake(replica, tcp, ENTRIES[0]).await;
            second.await;
            connection.review_slowly(pause()).await;
        }
    }

    async fn connect<'a>(&self, replica: &'a Replica, random: &mut StdRng) -> Connection<'a> {
        let tcp = TcpStream::connect(replica.addresses.admission);
        let tcp = in_no_time(tcp).await.unwrap();
        self.handshake(replica, tcp, *ENTRIES.choose(random).unwrap()).await
    }

    async fn handshake<'a>(
        &self,
        replica: &'a Replica,
        tcp: TcpStream,
        entry: Entry,
    ) -> Connection<'a> {
        let path = entry.2;
        let whose = format!("API server {:?}, {path}, {}", self.name, self.day.now());
        let connector = TlsConnector::from(self.trusting(entry));
        let handshake = connector.connect(NAME.try_into().unwrap(), tcp);
        let stream = in_no_time(handshake).await.unwrap_or_else(|error| panic!("{whose}: {error}"));
        let connection = Connection { replica, stream, path, whose };
        let serial = connection.certificate(|leaf| leaf.raw_serial_as_string());
        let issuer = connection.certificate(issuer);
        let mut shown = replica.shown.lock().unwrap();
        shown.handshakes += 1;
        shown.certificates.insert(serial);
        shown.issuers.insert(issuer);
        drop(shown);
        connection
    }

    /// It trusts what it has heard of, and of that, unlike webpki, only what is in its time.
    fn trusting(&self, entry: Entry) -> Arc<ClientConfig> {
        let now = self.day.now() + self.ahead;
        let bundle = self.cluster.ca_bundle(entry, self.lag);
        let mut roots = RootCertStore::empty();
        for ca in Certificate::all_from_pem(&bundle).unwrap() {
            if ca.validity().contains(now) {
                roots.add(ca.der().clone()).unwrap();
            }
        }
        let provider = Arc::new(default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(At(now)))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Else certificates would be shown to few.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// The time at which a certificate is looked at.
#[derive(Debug)]
struct At(OffsetDateTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.unix_timestamp().try_into().ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl Connection<'_> {
    /// Looks at the certificate that is shown.
    fn certificate<T>(&self, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let (_, session) = self.stream.get_ref();
        let certificates = session.peer_certificates().unwrap();
        look(&X509Certificate::from_der(&certificates[0]).unwrap().1)
    }

    async fn review(&mut self) {
        let (header, body) = self.request();
        let request = [header, body].concat();
        let answer = in_no_time(exchange(&mut self.stream, request.as_bytes())).await;
        self.check(answer);
    }

    /// Sends half of the body, and the rest after `pause`.
    async fn review_slowly(&mut self, pause: impl Future<Output = ()>) {
        let (header, body) = self.request();
        let (half, rest) = body.split_at(body.len() / 2);
        let begun = send(&mut self.stream, [&header, half].concat().as_bytes()).await;
        begun.unwrap_or_else(|error| panic!("{}: {error}", self.whose));
        pause.await;
        let answer = in_no_time(exchange(&mut self.stream, rest.as_bytes())).await;
        self.check(answer);
    }

    fn request(&self) -> (String, String) {
        let body = review().to_string();
        let header = format!(
            "POST {} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.path,
            body.len()
        );
        (header, body)
    }

    /// The answer has to be right.
    #[track_caller]
    fn check(&self, answer: std::io::Result<(u16, String)>) {
        let (status, body) = answer.unwrap_or_else(|error| panic!("{}: {error}", self.whose));
        assert_eq!(status, 200, "{}: {body}", self.whose);
        let answer: Value = serde_json::from_str(&body).unwrap();
        let response = &answer["response"];
        assert_eq!(response["uid"], UID, "{}", self.whose);
        assert_eq!(response["allowed"], true, "{}: {body}", self.whose);
        let patched = response["patch"].is_string();
        assert_eq!(patched, self.path.starts_with("/mutate"), "{}: {body}", self.whose);
        self.replica.shown.lock().unwrap().answers += 1;
    }
}

/// The key identifier of the CA that signed it.
fn issuer(leaf: &X509Certificate<'_>) -> Vec<u8> {
    let key = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref(),
        _ => None,
    });
    key.expect("an authority key identifier").0.to_vec()
}

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// The review of a pod.
fn review() -> Value {
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": UID,
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": {
                "metadata": {
                    "generateName": "web-",
                    "annotations": { "sfunnel.io/ruleset": "ip tcp dport 80 sport 540 actions unfunnel tcp" },
                },
                "spec": { "containers": [{ "name": "app", "image": "registry.example/app:1" }] },
            },
            "oldObject": null,
            "dryRun": false,
        },
    })
}
