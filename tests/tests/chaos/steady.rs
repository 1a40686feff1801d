//! Reviews, as API servers send them, and the probes of a kubelet.

use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tests::netns::Netns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{interval_at, sleep, timeout};

use crate::client::Target;
use crate::precedence::before_all_else;
use crate::sample::Sample;

/// Reviews over connections that stay open: 8 of them with 12.5 a second each.
pub const KEPT: &str = "kept";
/// Reviews over one connection that is used once a second. Who cuts what waits longest must not cut this
/// one while others wait for longer.
pub const SELDOM: &str = "seldom";
/// Reviews over a connection of their own: 5 a second.
pub const NEW: &str = "new";
/// Reviews of 64 KiB, too large to be decided in passing: one a second.
pub const LARGE: &str = "large";
/// What a kubelet asks.
pub const HEALTHZ: &str = "/healthz";
/// What a kubelet asks.
pub const READYZ: &str = "/readyz";

/// The timeoutSeconds of the webhook configuration (deploy/base).
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeoutSeconds of a kubelet's probe, unless the pod says otherwise.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Clients that mean well.
pub struct Steady {
    target: Target,
    stop: AtomicBool,
    samples: Mutex<Vec<Sample>>,
    reopened: AtomicU64,
    number: AtomicU64,
    small: String,
    large: String,
}

impl Steady {
    pub fn new(target: Target) -> Arc<Self> {
        Arc::new(Self {
            target,
            stop: AtomicBool::new(false),
            samples: Mutex::default(),
            reopened: AtomicU64::new(0),
            number: AtomicU64::new(0),
            small: review(UID, 0),
            large: review(UID, 64 << 10),
        })
    }

    /// Sends requests until [`Self::stop`].
    pub fn run(self: &Arc<Self>, netns: &Netns) {
        netns.enter(|| before_all_else(|| self.send()));
    }

    fn send(self: &Arc<Self>) {
        // Two threads: a handshake of one client delays no other one.
        let mut builder = runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for number in 0..8 {
                let period = Duration::from_millis(80);
                tasks.spawn(Arc::clone(self).keep(KEPT, period, number * period / 8));
            }
            let second = Duration::from_secs(1);
            tasks.spawn(Arc::clone(self).keep(SELDOM, second, Duration::ZERO));
            tasks.spawn(Arc::clone(self).keep(LARGE, second, second / 2));
            let steady = Arc::clone(self);
            tasks.spawn(every(second / 5, NEW, steady, |steady| async move {
                let mut client = connect(&steady.target).await?;
                steady.review(&mut client, NEW).await
            }));
            for path in [HEALTHZ, READYZ] {
                tasks.spawn(every(second / 5, path, Arc::clone(self), move |steady| {
                    probe(steady, path)
                }));
            }
            tasks.join_all().await;
        });
    }

    /// No further requests.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What has come of all requests so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap().clone()
    }

    /// How many connections were kept open and ended by the webhook without an answer that says so.
    pub fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, series: &'static str, at: Instant, outcome: Result<u16, String>) {
        let sample = Sample { series, at, took: at.elapsed(), outcome };
        self.samples.lock().unwrap().push(sample);
    }

    /// Sends reviews over one connection.
    async fn keep(self: Arc<Self>, series: &'static str, period: Duration, offset: Duration) {
        let mut ticks = interval_at((Instant::now() + offset).into(), period);
        let mut client = None;
        while !self.stopped() {
            let idle = Instant::now();
            let planned = ticks.tick().await.into_std();
            // Whoever waits for the answer before, waits for this one too. But how late this program is
            // woken is no fault of the webhook.
            let at = if idle > planned { planned } else { Instant::now() };
            let outcome = timeout(REVIEW_TIMEOUT, self.ask(&mut client, series)).await;
            let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            if outcome.is_err() {
                client = None;
            }
            self.note(series, at, outcome);
        }
    }

    async fn ask(&self, client: &mut Option<Client>, series: &str) -> Result<u16, String> {
        // Go's client looks as well whether an idle connection has ended.
        if client.as_ref().is_some_and(|client| client.sender.is_closed()) {
            let ended = client.take();
            if ended.is_some_and(|client| !client.goodbye) {
                self.reopened.fetch_add(1, Ordering::Relaxed);
            }
        }
        let client = match client {
            Some(client) => client,
            None => client.insert(connect(&self.target).await?),
        };
        self.review(client, series).await
    }

    /// One review, whose answer has to be right.
    async fn review(&self, client: &mut Client, series: &str) -> Result<u16, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let uid = format!("steady-{number}");
        let body = if series == LARGE { &self.large } else { &self.small }.replace(UID, &uid);
        let request = Request::post("/mutate")
            .header(HOST, "sfunnel-webhook.sfunnel-system.svc:443")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .unwrap();
        let answer = client.sender.send_request(request).await.map_err(said("sending"))?;
        let status = answer.status().as_u16();
        let goodbye = answer.headers().get("connection").is_some_and(|value| value == "close");
        client.goodbye |= goodbye;
        let body = answer.into_body().collect().await.map_err(said("receiving"))?.to_bytes();
        if status != 200 {
            return Ok(status);
        }
        let answer: Value = serde_json::from_slice(&body).map_err(said("parsing"))?;
        let response = &answer["response"];
        let right = response["uid"] == uid
            && response["allowed"] == true
            && response["patchType"] == "JSONPatch"
            && response["patch"].is_string();
        right.then_some(status).ok_or_else(|| format!("the answer is {answer}"))
    }
}

/// A connection over which reviews go.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    /// The webhook has said that it ends the connection.
    goodbye: bool,
}

async fn connect(target: &Target) -> Result<Client, String> {
    let stream = target.connect().await.map_err(said("connecting"))?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(said("beginning"))?;
    tokio::spawn(connection);
    Ok(Client { sender, goodbye: false })
}

/// Sends a request every `period`, however long the ones before take.
async fn every<F>(
    period: Duration,
    series: &'static str,
    steady: Arc<Steady>,
    request: impl Fn(Arc<Steady>) -> F,
) where
    F: Future<Output = Result<u16, String>> + Send + 'static,
{
    let mut requests = JoinSet::new();
    while !steady.stopped() {
        let (noting, request) = (Arc::clone(&steady), request(Arc::clone(&steady)));
        requests.spawn(async move {
            let at = Instant::now();
            let outcome = timeout(REVIEW_TIMEOUT, request).await;
            let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            noting.note(series, at, outcome);
        });
        while requests.try_join_next().is_some() {}
        sleep(period).await;
    }
    requests.join_all().await;
}

/// A probe, over a connection of its own as kubelets have it.
async fn probe(steady: Arc<Steady>, path: &'static str) -> Result<u16, String> {
    let answer = get(&steady.target, path).await?;
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.ok_or_else(|| format!("the answer is {answer:?}"))
}

/// The answer to a question to the plain port, header and all.
pub async fn get(target: &Target, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(target.plain).await.map_err(said("connecting"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: webhook\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(said("sending"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(said("receiving"))?;
    Ok(answer)
}

fn said<E: Display>(doing: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{doing}: {error}")
}

/// What [`Steady`] replaces: every review has a uid of its own.
const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// The review of a pod with two rulesets and what else pods have, some 3 KiB, and `padding` bytes more.
pub fn review(uid: &str, padding: usize) -> String {
    let variable = |n: usize| json!({ "name": format!("SETTING_{n}"), "value": "x".repeat(40) });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-",
            "labels": { "app": "web", "pod-template-hash": "6b7f6c8d9" },
            "annotations": {
                "sfunnel.io/ruleset": "ip tcp dport 80 sport 540 actions unfunnel tcp",
                "sfunnel.io/egress-ruleset": "ip daddr 198.51.100.0/24 tcp sport 8080 actions funnel tcp sport 80 dport 540",
                "example.com/notes": "n".repeat(padding),
            },
        },
        "spec": {
            "containers": [{
                "name": "web",
                "image": "registry.example/web:1",
                "ports": [{ "containerPort": 80 }, { "containerPort": 8080 }],
                "env": (0..20).map(variable).collect::<Vec<_>>(),
                "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
            }],
            "serviceAccountName": "default",
            "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists" }],
        },
    });
    let pods = |name: &str| json!({ "group": "", "version": "v1", name: "pods" });
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid,
            "kind": kind,
            "resource": pods("resource"),
            "requestKind": kind,
            "requestResource": pods("resource"),
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    })
    .to_string()
}
