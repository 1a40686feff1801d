//! The routes of the TLS port: from a request to the answer, within limits of size, time and number.
//!
//! Only `200 OK` carries a decision. The API server treats every other status as a failed call, to which the
//! `failurePolicy` of the webhook configuration applies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{info, warn};

use super::connections::canonical;
use super::metrics::Metrics;
use super::slots::{Slot, Slots};
use crate::admission::decision::{Decision, Verdict};
use crate::admission::endpoint::{ENDPOINTS, Endpoint};
use crate::admission::review::{BadReview, Review};
use crate::admission::settings::Settings;
use crate::admission::text::one_line;
use crate::admission::warning::within_limits;
use crate::admission::{decide, response};

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body, at the most.
    pub max_body: usize,
    /// From a request's header to the end of its body.
    pub body_timeout: Duration,
    /// Large reviews that are read and decided at the same time, at the most.
    pub max_reviews: usize,
}

/// Bytes of a body that needs no slot, at the most. Every connection may have one such body in memory.
const SMALL_BODY: usize = 16 << 10;

/// Bytes of rulesets that need no slot, at the most: compiling them takes the CPU for 10 ms, and far less
/// than 1 ms if people wrote them.
const SHORT_RULESETS: usize = 512;

/// How long a large review waits for a slot: half of the time that API servers give to `/validate`.
const SLOT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the rest of a body is read that is refused.
const LINGER: Duration = Duration::from_millis(500);

/// Characters of foreign text in a log line, at the most.
const MAX_LOGGED: usize = 512;

/// Why a request gets no decision.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("Content-Type is not application/json")]
    MediaType,
    #[error(
        "busy with {0} reviews that are large or have long rulesets (--max-concurrent-reviews); ask again"
    )]
    Busy(usize),
    #[error("the body has more than {0} bytes (--max-body-bytes)")]
    TooLarge(usize),
    #[error("the body did not arrive within {0:.1?} (--body-timeout)")]
    Slow(Duration),
    #[error("the body broke off")]
    Incomplete,
    #[error(transparent)]
    Review(#[from] BadReview),
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Incomplete | Self::Review(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        warn!(status = status.as_u16(), error = one_line(&self.to_string(), MAX_LOGGED), "refused");
        (status, format!("{self}\n")).into_response()
    }
}

/// The routes. While `draining`, every answer ends its connection: an idle one that the server closes may
/// have a request on its way already, and API servers don't repeat a POST.
pub fn routes(
    settings: Settings,
    limits: Limits,
    draining: CancellationToken,
    metrics: &Arc<Metrics>,
) -> Router {
    let slots = Slots::new(limits.max_reviews);
    let close = move |mut response: Response| {
        if draining.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(response)
    };
    let reviews = Reviews { settings, limits, slots, metrics: Arc::clone(metrics) };
    guarded(routed(reviews), metrics).layer(map_response(close))
}

fn routed(reviews: Reviews) -> Router {
    let reviews = Arc::new(reviews);
    let router = ENDPOINTS.into_iter().fold(Router::new(), |router, (path, endpoint)| {
        let reviews = Arc::clone(&reviews);
        let review = async move |ConnectInfo(peer), request| {
            Arc::clone(&reviews).answer(endpoint, peer, request).await
        };
        let method = post(review).fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "use POST\n"));
        router.route(path, method)
    });
    router.fallback(async || (StatusCode::NOT_FOUND, "no such path\n"))
}

/// Answers a panic with 500, and counts.
fn guarded(router: Router, metrics: &Arc<Metrics>) -> Router {
    let panicked = Arc::clone(metrics);
    let panic = CatchPanicLayer::custom(move |_| {
        panicked.panicked();
        // The panic hook has logged it. It is nobody's business outside.
        (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response()
    });
    router.layer(panic).layer(from_fn_with_state(Arc::clone(metrics), count))
}

/// Counts requests in flight, and those that get no decision.
async fn count(
    State(metrics): State<Arc<Metrics>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let _in_flight = metrics.in_flight();
    let response = next.run(request).await;
    if response.status() != StatusCode::OK {
        metrics.refused(response.status().as_u16());
    }
    response
}

/// What all requests share.
struct Reviews {
    settings: Settings,
    limits: Limits,
    slots: Arc<Slots>,
    metrics: Arc<Metrics>,
}

impl Reviews {
    async fn answer(
        self: Arc<Self>,
        endpoint: Endpoint,
        peer: SocketAddr,
        request: Request<Body>,
    ) -> Result<Response, Refusal> {
        let start = Instant::now();
        if !is_json(request.headers()) {
            return Err(Refusal::MediaType);
        }
        let mut body = request.into_body();
        let read = self.read(peer, &mut body).await;
        if let Err(Refusal::TooLarge(_) | Refusal::Busy(_)) = read {
            // An answer amid a body may get lost: the client goes on sending, and is reset.
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = timeout(LINGER, rest).await;
        }
        let (body, slot) = read?;
        let (review, decision) = self.decide(endpoint, peer, body, slot).await?;
        let duration = start.elapsed();
        self.metrics.decided(endpoint.webhook, &decision, duration);
        log(&review, &decision, duration);
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok((json, response::serialize(&review.uid, &decision)).into_response())
    }

    /// Memory for a large body, and time on a CPU for a large review.
    async fn slot(&self, peer: SocketAddr) -> Result<Slot, Refusal> {
        let slot = timeout(SLOT_TIMEOUT, self.slots.take(canonical(peer))).await;
        slot.map_err(|_| Refusal::Busy(self.limits.max_reviews))
    }

    /// Reads a body within the limits. tower-http's layers for these answer without the names of flags.
    async fn read(
        &self,
        peer: SocketAddr,
        body: &mut Body,
    ) -> Result<(Vec<u8>, Option<Slot>), Refusal> {
        let Limits { max_body, body_timeout, .. } = self.limits;
        let size = body.size_hint();
        if size.lower() > max_body as u64 {
            return Err(Refusal::TooLarge(max_body));
        }
        let read = async {
            let is_small = size.upper().is_some_and(|size| size <= SMALL_BODY as u64);
            let slot = if is_small { None } else { Some(self.slot(peer).await?) };
            let (mut limited, mut bytes) = (Limited::new(body, max_body), Vec::new());
            // Copied, as hyper's frames keep a buffer of 8 KiB each.
            while let Some(frame) = limited.frame().await {
                let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                    true => Refusal::TooLarge(max_body),
                    false => Refusal::Incomplete,
                })?;
                bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            }
            Ok((bytes, slot))
        };
        timeout(body_timeout, read).await.unwrap_or(Err(Refusal::Slow(body_timeout)))
    }

    async fn decide(
        self: &Arc<Self>,
        endpoint: Endpoint,
        peer: SocketAddr,
        body: Vec<u8>,
        mut slot: Option<Slot>,
    ) -> Result<(Review, Decision), Refusal> {
        if slot.is_none() {
            let review = Review::parse(&body, endpoint)?;
            if review.ruleset_len() <= SHORT_RULESETS {
                let decision = decide(&review, &self.settings);
                return Ok((review, decision));
            }
            slot = Some(self.slot(peer).await?);
        }
        // A long computation on an async thread would hold up other connections and the probes.
        let reviews = Arc::clone(self);
        let work = spawn_blocking(move || {
            let _slot = slot;
            let review = Review::parse(&body, endpoint)?;
            let decision = decide(&review, &reviews.settings);
            Ok((review, decision))
        });
        // The task is never cancelled, so it can only have panicked.
        work.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// Whether the body claims to be JSON. Parameters such as `charset=utf-8` say nothing new.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else {
        return false;
    };
    let media_type = value.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// Writes a log line for each decision.
fn log(review: &Review, decision: &Decision, duration: Duration) {
    let reason = match &decision.verdict {
        Verdict::Inject(_) | Verdict::Valid => None,
        Verdict::Skip(reason) => Some(reason.to_string()),
        Verdict::Deny(reason) => Some(one_line(&reason.summary(), MAX_LOGGED)),
    };
    // All warnings: for the pods of a controller, nobody else is told.
    let detail: Vec<_> = reason.into_iter().chain(within_limits(&decision.warnings)).collect();
    info!(
        decision = decision.verdict.code(),
        reason = decision.verdict.reason(),
        webhook = review.endpoint.webhook.code(),
        namespace = one_line(&review.namespace, MAX_LOGGED),
        kind = review.kind,
        name = one_line(&review.name, MAX_LOGGED),
        owner = review.owner.as_deref().map(|owner| one_line(owner, MAX_LOGGED)),
        uid = one_line(&review.uid, MAX_LOGGED),
        dry_run = review.dry_run,
        duration_us = duration.as_micros() as u64,
        detail = detail.join("; "),
        "reviewed"
    );
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::pin::pin;

    use axum::body::Bytes;
    use axum::routing::get;
    use json_patch::patch;
    use serde_json::{Value, json};
    use tower::ServiceExt;
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::admission::settings::tests::settings;
    use crate::certificates::clock::Clock;
    use crate::certificates::resolver::CertResolver;
    use crate::log::tests::Lines;
    use crate::log::{Format, subscriber};

    const LIMITS: Limits =
        Limits { max_body: 4 << 20, body_timeout: Duration::from_secs(10), max_reviews: 2 };

    fn metrics() -> Arc<Metrics> {
        Arc::new(Metrics::new(Arc::new(CertResolver::new(Clock::system()))))
    }

    fn router(metrics: &Arc<Metrics>) -> Router {
        routes(settings(&[]).unwrap(), LIMITS, CancellationToken::new(), metrics)
    }

    /// A review of a pod with such a ruleset, and as many bytes that mean nothing.
    fn question(uid: &str, ruleset: &str, more: usize) -> String {
        let review = serde_json::json!({
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": uid,
                "kind": { "group": "", "version": "v1", "kind": "Pod" },
                "resource": { "group": "", "version": "v1", "resource": "pods" },
                "operation": "CREATE",
                "object": {
                    "metadata": { "annotations": { "sfunnel.io/ruleset": ruleset } },
                    "spec": { "containers": [] },
                },
            },
        });
        format!("{review}{}", " ".repeat(more))
    }

    /// A review of a Deployment whose template stays as it is.
    fn update_of_a_deployment(ruleset: &str) -> String {
        let deployment = serde_json::json!({
            "metadata": { "name": "web" },
            "spec": { "template": { "metadata": {
                "annotations": { "sfunnel.io/ruleset": ruleset },
            } } },
        });
        let review = serde_json::json!({
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "1",
                "kind": { "group": "apps", "version": "v1", "kind": "Deployment" },
                "resource": { "group": "apps", "version": "v1", "resource": "deployments" },
                "operation": "UPDATE",
                "object": deployment,
                "oldObject": deployment,
            },
        });
        review.to_string()
    }

    fn post_to(path: &str, body: String) -> Request<Body> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
        request
    }

    async fn send(router: &Router, request: Request<Body>) -> (u16, String) {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_our_fault() {
        async fn boom() {
            panic!("on purpose")
        }
        let metrics = metrics();
        let router = guarded(Router::new().route("/boom", get(boom)), &metrics);
        let request = Request::get("/boom").body(Body::empty()).unwrap();
        assert_eq!(send(&router, request).await, (500, "internal error\n".to_owned()));
        let text = metrics.encode();
        for line in ["panics_total 1", "refusals_total{status=\"500\"} 1", "reviews_in_flight 0"] {
            assert!(text.contains(&format!("\nsfunnel_webhook_{line}\n")), "{line}: {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_much_is_told_while_the_client_listens() {
        let metrics = metrics();
        let slots = Slots::new(LIMITS.max_reviews);
        let reviews = Reviews {
            settings: settings(&[]).unwrap(),
            limits: LIMITS,
            slots: Arc::clone(&slots),
            metrics: Arc::clone(&metrics),
        };
        let router = guarded(routed(reviews), &metrics);
        let slot = slots.take(Ipv4Addr::LOCALHOST.into()).await;
        let busy = "busy with 2 reviews that are large or have long rulesets \
                    (--max-concurrent-reviews); ask again\n";
        let long = "tcp actions drop;".repeat(SHORT_RULESETS / 17 + 1);
        for body in [question("1", "", SMALL_BODY), question("1", &long, 0)] {
            let start = tokio::time::Instant::now();
            let answer = send(&router, post_to("/mutate", body)).await;
            assert_eq!(answer, (503, busy.to_owned()));
            assert!(start.elapsed() < SLOT_TIMEOUT + 2 * LINGER);
        }
        // Small ones need no slot, nor do those whose rules are not looked at.
        let small = post_to("/mutate", question("1", "", 0));
        assert_eq!(send(&router, small).await.0, 200);
        let opted_out = question("1", &long, 0)
            .replace("\"annotations\":{", "\"annotations\":{\"sfunnel.io/inject\":\"false\",");
        assert_eq!(send(&router, post_to("/mutate", opted_out)).await.0, 200);
        let unchanged = update_of_a_deployment(&long);
        assert_eq!(send(&router, post_to("/validate", unchanged)).await.0, 200);
        drop(slot);
        let large = post_to("/mutate", question("1", "", SMALL_BODY));
        assert_eq!(send(&router, large).await.0, 200);
        let text = metrics.encode();
        assert!(text.contains("\nsfunnel_webhook_refusals_total{status=\"503\"} 2\n"), "{text}");
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_leaves_nothing_behind() {
        let metrics = metrics();
        let router = router(&metrics);
        let request = Request::post("/mutate").header(CONTENT_TYPE, "application/json");
        let never =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut request = request.body(never).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
        {
            let mut review = pin!(router.oneshot(request));
            assert!(futures_util::poll!(review.as_mut()).is_pending());
            assert!(metrics.encode().contains("\nsfunnel_webhook_reviews_in_flight 1\n"));
        }
        assert!(metrics.encode().contains("\nsfunnel_webhook_reviews_in_flight 0\n"));
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        let check = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            is_json(&HeaderMap::from_iter([(CONTENT_TYPE, value)]))
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON ; charset=utf-8"));
        assert!(!check("text/json"));
        assert!(!check("application/json-patch+json"));
        assert!(!check(""));
        assert!(!is_json(&HeaderMap::new()));
    }

    /// Reviews `object` at `path`, with what else the request has. Returns the decision, and the log line in
    /// both forms.
    fn reviewed(path: &str, object: &Value, more: Value) -> (Decision, Value, String) {
        let (_, endpoint) = ENDPOINTS.into_iter().find(|(of, _)| *of == path).unwrap();
        let (group, plural) = match object["kind"].as_str() {
            Some("Deployment") => ("apps", "deployments"),
            _ => ("", "pods"),
        };
        let mut request = json!({
            "uid": "705ab4f5",
            "kind": { "group": group, "version": "v1", "kind": object["kind"] },
            "resource": { "group": group, "version": "v1", "resource": plural },
            "namespace": "shop",
            "operation": "CREATE",
            "object": object,
        });
        json_patch::merge(&mut request, &more);
        let review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request,
        });
        let review = Review::parse(review.to_string().as_bytes(), endpoint).unwrap();
        let made = decide(&review, &settings(&[]).unwrap());
        let line = |format| {
            let lines = Lines::default();
            let subscriber = subscriber(format, LevelFilter::INFO, lines.clone());
            tracing::subscriber::with_default(subscriber, || {
                log(&review, &made, Duration::from_micros(77));
            });
            lines.take()
        };
        let fields = serde_json::from_str(&line(Format::Json)).unwrap();
        let text = line(Format::Text);
        (made, fields, text)
    }

    fn pod(annotations: Value) -> Value {
        json!({
            "kind": "Pod",
            "metadata": {
                "generateName": "web-",
                "ownerReferences": [
                    { "kind": "ReplicaSet", "name": "web", "controller": true, "apiVersion": "apps/v1", "uid": "1" },
                ],
                "annotations": annotations,
            },
            "spec": { "containers": [{ "name": "app" }] },
        })
    }

    const RULES: &str = "ip tcp dport 80 sport 540 actions unfunnel tcp";

    #[test]
    fn every_decision_has_its_line() {
        let plain = json!({ "sfunnel.io/ruleset": RULES });
        let mut injected = pod(plain.clone());
        let Verdict::Inject(changes) = reviewed("/mutate", &injected, json!({})).0.verdict else {
            panic!("not injected")
        };
        patch(&mut injected, &changes).unwrap();
        let opted_out = json!({ "sfunnel.io/ruleset": RULES, "sfunnel.io/inject": "false" });
        let deployment = json!({
            "kind": "Deployment",
            "metadata": { "name": "web" },
            "spec": { "template": pod(plain.clone()) },
        });
        let check = |path, object: &Value, decision, reason, detail: &str| {
            let (_, mut line, _) = reviewed(path, object, json!({ "dryRun": true }));
            let is_pod = object["kind"] == "Pod";
            let fields = line.as_object_mut().unwrap();
            fields.remove("timestamp");
            let expect = json!({
                "level": "INFO",
                "target": "webhook::server::reviews",
                "message": "reviewed",
                "decision": decision,
                "reason": reason,
                "webhook": path.trim_start_matches('/').split('/').next(),
                "namespace": "shop",
                "kind": object["kind"],
                "name": if is_pod { "web-*" } else { "web" },
                "owner": if is_pod { json!("ReplicaSet/web") } else { json!(null) },
                "uid": "705ab4f5",
                "dry_run": true,
                "duration_us": 77,
                "detail": detail,
            });
            let expect: serde_json::Map<_, _> = expect
                .as_object()
                .unwrap()
                .clone()
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
            assert_eq!(*fields, expect);
        };
        check("/mutate", &pod(plain), "injected", "annotated", "");
        check(
            "/mutate",
            &injected,
            "skipped",
            "already-injected",
            "sfunnel-loader is there already",
        );
        let detail = "annotation sfunnel.io/inject is \"false\"";
        check("/mutate", &pod(opted_out), "skipped", "opted-out", detail);
        let detail = "neither sfunnel.io/ruleset nor sfunnel.io/egress-ruleset is there";
        check("/mutate", &pod(json!({})), "skipped", "no-ruleset", detail);
        let detail = "annotation sfunnel.io/ruleset: line 1, column 1: unknown match `x`";
        check(
            "/mutate",
            &pod(json!({ "sfunnel.io/ruleset": "x" })),
            "denied",
            "bad-ruleset",
            detail,
        );
        check("/validate", &deployment, "valid", "annotated", "");
        let detail = "the namespace lacks the label sfunnel.io/inject=enabled; pods get no rules here: the \
                      namespace lacks the label sfunnel.io/inject=enabled";
        check("/validate/unlabelled", &deployment, "skipped", "not-enabled", detail);
    }

    /// Nobody is told of a controller's pods but the reader of the log.
    #[test]
    fn no_warning_is_cut_off() {
        let rules: Vec<_> = (1..=12)
            .map(|port| format!("tcp dport {port} sport 540 actions unfunnel tcp"))
            .collect();
        let mut pod = pod(json!({ "sfunnel.io/ruleset": rules.join("\n") }));
        pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8080 }]);
        let (decision, line, _) = reviewed("/mutate", &pod, json!({}));
        assert_eq!(decision.warnings.len(), 12);
        let detail = line["detail"].as_str().unwrap();
        for warning in within_limits(&decision.warnings) {
            assert!(detail.contains(&warning), "{warning} is not in {detail}");
        }
    }

    /// What the documentation looks for is what is written.
    #[test]
    fn a_pod_is_found_by_what_the_documentation_says() {
        let text = include_str!("../../../docs/operating.md");
        let (_, text) = text.split_once("\"Why has my pod no loader?\"").unwrap();
        let (_, text) = text.split_once("grep '").unwrap();
        let (pattern, _) = text.split_once('\'').unwrap();
        let (_, _, line) = reviewed("/mutate", &pod(json!({})), json!({}));
        assert!(line.contains(pattern), "{pattern} is not in {line}");
    }
}
