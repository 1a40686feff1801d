//! A replica of the webhook: what keeps its certificate, and the server that shows it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use webhook::args::Args;
use webhook::certificates::manager::Manager;
use webhook::certificates::resolver::CertResolver;
use webhook::certificates::source::Source;
use webhook::server::{Addresses, Server};

use crate::api_server::NAME;
use crate::cluster::MemoryCluster;
use crate::day::{Day, in_no_time};
use crate::http::exchange;

/// A running replica.
pub struct Replica {
    pub addresses: Addresses,
    /// What it has shown.
    pub shown: Mutex<Shown>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    // Dropped, it ends its task.
    _manager: JoinSet<()>,
}

/// What clients have seen of a replica.
#[derive(Debug, Default)]
pub struct Shown {
    /// Serial numbers of its certificates.
    pub certificates: BTreeSet<String>,
    /// Key identifiers of the CAs that signed them.
    pub issuers: BTreeSet<Vec<u8>>,
    pub handshakes: usize,
    pub answers: usize,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificates, issuers, handshakes, answers } = self;
        let (certificates, issuers) = (certificates.len(), issuers.len());
        write!(
            f,
            "{certificates} certificates of {issuers} CAs, {handshakes} handshakes, {answers} answers"
        )
    }
}

impl Replica {
    /// Starts one as `sfunnel-webhook` with these flags would, but with `cluster` and the time of `day`.
    pub async fn start(cluster: &MemoryCluster, day: &Day, watching: bool, flags: &[&str]) -> Self {
        let own = [
            "sfunnel-webhook",
            "--listen=127.0.0.1:0",
            "--health-listen=127.0.0.1:0",
            "--loader-image=registry.example/sfunnel-loader:test",
        ];
        let config = Args::try_parse_from(own.iter().chain(flags)).unwrap().config().unwrap();
        let Source::Managed(managed) = config.tls else { panic!("{:?}", config.tls) };
        let resolver = Arc::new(CertResolver::new(day.clock()));
        let changed = Arc::new(Notify::new());
        if watching {
            cluster.watch(&changed);
        }
        let (clock, names) = (day.clock(), vec![NAME.try_into().unwrap()]);
        let manager =
            Manager::new(cluster.clone(), managed.policy, names, clock, Arc::clone(&resolver));
        let server = Server::bind(config.options).await.unwrap();
        let addresses = server.addresses();
        let (stop, stopped) = oneshot::channel();
        let mut manager_task = JoinSet::new();
        manager_task.spawn(async { match manager.run(changed).await {} });
        let server = tokio::spawn(async move {
            server.run(resolver, config.settings, async { drop(stopped.await) }).await.unwrap();
        });
        let shown = Mutex::default();
        Self { addresses, shown, stop, server, _manager: manager_task }
    }

    /// What the plain port answers.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: webhook\r\nConnection: close\r\n\r\n");
        in_no_time(async {
            let mut stream = TcpStream::connect(self.addresses.health).await.unwrap();
            exchange(&mut stream, request.as_bytes()).await.unwrap()
        })
        .await
    }

    /// Waits until it is ready.
    pub async fn is_ready(&self) {
        let ready = async {
            while self.get("/readyz").await.0 != 200 {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(10), ready).await.expect("ready within ten seconds");
    }

    /// Probes it like a kubelet, though not as often, all day long.
    pub async fn stays_ready(&self, day: &Day) {
        while !day.is_over() {
            for path in ["/readyz", "/healthz"] {
                let answer = self.get(path).await;
                assert_eq!(answer, (200, "ok\n".to_owned()), "{path} at {}", day.now());
            }
            sleep(Duration::from_secs(120)).await;
        }
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> i64 {
        let (_, text) = self.get("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Ends it like SIGTERM does.
    pub async fn end(self) -> Shown {
        self.stop.send(()).unwrap();
        timeout(Duration::from_secs(60), self.server).await.expect("an end").unwrap();
        self.shown.into_inner().unwrap()
    }
}
