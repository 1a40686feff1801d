//! The HTTP around reviews: which requests are read at all, and with which status the rest is refused.
//!
//! Only `200 OK` carries an answer. The API server treats every other status as a failed call, to
//! which the `failurePolicy` of the webhook configuration applies.

use std::fmt::Display;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

use crate::body::{Bodies, Limits, Unread, Whole};
use crate::connections::{Connection, Connections, Phase};
use crate::deadline::Deadline;
use crate::decision::Decision;
use crate::endpoint::{ENDPOINTS, Endpoint};
use crate::log;
use crate::metrics::{MEDIA_TYPE, Metrics};
use crate::review::{BadReview, Review};
use crate::settings::Settings;

/// What the handler of reviews needs.
#[derive(Clone, Debug)]
pub struct Admission {
    /// What the operator decides.
    pub settings: Settings,
    /// Bytes of a request's body, at the most.
    pub max_body: usize,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// Reviews that are large or have long rulesets, and are decided at the same time, at the most: read as a
    /// pod, a body takes several times its bytes of memory, and rulesets take a core while they are compiled.
    pub max_reviews: usize,
}

/// Bytes of a body whose review is decided at once, at the most. Larger ones take time and memory, and so
/// they take turns.
const SMALL: usize = 16 << 10;

/// Bytes of rulesets in a review that is decided at once, at the most: some ten milliseconds of the
/// compiler's time, whatever they say, and far less than one for what people write. Longer ones take turns.
const FEW_RULES: usize = 512;

/// How long such a review waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// The status in metrics and the log of a request whose client didn't wait for the answer. It is nginx's, and
/// nobody is sent it.
const HUNG_UP: u16 = 499;

/// A request that is not answered with a decision.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("Content-Type is not application/json")]
    MediaType,
    #[error(
        "busy with {0} of {0} reviews that are large or have long rulesets (--max-concurrent-reviews); \
         ask again"
    )]
    Busy(usize),
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    Review(#[from] BadReview),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy(_) | Self::Unread(Unread::NoRoom(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unread(Unread::NoLength) => StatusCode::LENGTH_REQUIRED,
            Self::Unread(Unread::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unread(Unread::Slow(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Unread(Unread::Broken) | Self::Review(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        log::refusal(self.status().as_u16(), &self);
        (self.status(), format!("{self}\n")).into_response()
    }
}

/// The routes of the TLS port. `draining` is set when the server is about to end.
pub fn admission(
    admission: Admission,
    draining: Arc<AtomicBool>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
) -> Router {
    let bodies = Bodies::new(Limits {
        bytes: admission.max_body,
        time: admission.body_timeout,
        small: SMALL,
        bytes_of_all: admission.max_body.saturating_mul(admission.max_reviews),
    });
    let turns = Arc::new(Semaphore::new(admission.max_reviews));
    let decide = Review::decide;
    let reviewer = Reviewer { admission, bodies, turns, decide, connections, metrics };
    routes(reviewer, draining)
}

fn routes(reviewer: Reviewer, draining: Arc<AtomicBool>) -> Router {
    let metrics = Arc::clone(&reviewer.metrics);
    let reviewer = Arc::new(reviewer);
    let router = ENDPOINTS.into_iter().fold(Router::new(), |router, (path, endpoint)| {
        let reviewer = Arc::clone(&reviewer);
        let review = async move |request| review(&reviewer, endpoint, request).await;
        let method = post(review).fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "use POST\n"));
        router.route(path, method)
    });
    guarded(router, Arc::clone(&metrics))
        .layer(from_fn_with_state(metrics, count))
        .layer(from_fn_with_state(draining, say_goodbye))
}

/// The routes of the plain port. `/readyz` says what `ready` says.
pub fn health<E: Display>(
    ready: impl Fn() -> Result<(), E> + Clone + Send + Sync + 'static,
    metrics: Arc<Metrics>,
) -> Router {
    let readyz = async move || match ready() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    let encoded = Arc::clone(&metrics);
    let metrics_text = async move || ([(CONTENT_TYPE, MEDIA_TYPE)], encoded.encode());
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text));
    guarded(router, metrics)
}

/// Counts what is answered without a decision.
async fn count(
    State(metrics): State<Arc<Metrics>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let _in_flight = metrics.in_flight();
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let mut unanswered = Unanswered { metrics: &metrics, connection, is_over: false };
    let response = next.run(request).await;
    unanswered.is_over = true;
    if response.status() != StatusCode::OK {
        metrics.refused(response.status().as_u16());
    }
    response
}

/// A request without an answer yet. It is dropped when its connection ends.
struct Unanswered<'a> {
    metrics: &'a Metrics,
    connection: Option<Arc<Connection>>,
    is_over: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        // What the server ends is counted there.
        let is_cut = self.connection.as_ref().is_some_and(|connection| connection.is_cut());
        if !self.is_over && !is_cut {
            self.metrics.refused(HUNG_UP);
            log::refusal(HUNG_UP, &"the connection ended before the answer");
        }
    }
}

/// Ends connections with an answer while the server drains. One that ends without may have the next
/// request on its way already, and API servers don't send that one again, as it is a POST.
async fn say_goodbye(
    State(draining): State<Arc<AtomicBool>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What all routers share: a text for unknown paths, and 500 for a panic.
fn guarded(router: Router, metrics: Arc<Metrics>) -> Router {
    router.fallback(async || (StatusCode::NOT_FOUND, "no such path\n")).layer(
        CatchPanicLayer::custom(move |_| {
            metrics.panicked();
            // The panic hook has logged what and where; it is nobody's business outside.
            (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response()
        }),
    )
}

/// What all requests share.
struct Reviewer {
    admission: Admission,
    bodies: Bodies,
    turns: Arc<Semaphore>,
    decide: fn(&Review, &Settings) -> Decision,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
}

async fn review(
    reviewer: &Arc<Reviewer>,
    endpoint: Endpoint,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let start = Instant::now();
    let deadline = Deadline::new(request.uri().query());
    if !is_json(request.headers()) {
        return Err(Refusal::MediaType);
    }
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let body = request.into_body();
    let connections = (connection.as_deref(), &*reviewer.connections);
    let body = reviewer.bodies.read(body, connections, deadline).await?;
    if let Some(connection) = connection {
        connection.enter(Phase::Work);
    }
    let answer = reviewer.answer(endpoint, body, start, deadline).await?;
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((json, answer).into_response())
}

impl Reviewer {
    async fn answer(
        self: &Arc<Self>,
        endpoint: Endpoint,
        body: Whole,
        start: Instant,
        deadline: Deadline,
    ) -> Result<Vec<u8>, Refusal> {
        if body.bytes.len() <= SMALL {
            let review = Review::parse(&body.bytes, endpoint)?;
            if review.ruleset_len() <= FEW_RULES {
                return Ok(self.decide(&review, start));
            }
        }
        let turn = self.turn(deadline).await?;
        let reviewer = Arc::clone(self);
        // It takes a while, in which this thread would serve nobody, not even the health port. The turn ends
        // with the work, not with a client that hangs up.
        let work = move || {
            let _turn = turn;
            let review = Review::parse(&body.bytes, endpoint)?;
            Ok(reviewer.decide(&review, start))
        };
        spawn_blocking(work).await.unwrap_or_else(|error| {
            // The work isn't cancelled, so it can only have panicked.
            resume_unwind(error.into_panic())
        })
    }

    fn decide(&self, review: &Review, start: Instant) -> Vec<u8> {
        let decision = (self.decide)(review, &self.admission.settings);
        let answer = review.answer(&decision);
        let duration = start.elapsed();
        self.metrics.decided(review.endpoint.webhook, &decision, duration);
        log::decision(review, &decision, duration);
        answer
    }

    async fn turn(&self, deadline: Deadline) -> Result<OwnedSemaphorePermit, Refusal> {
        let patience = deadline.within(TURN_TIMEOUT);
        match timeout(patience, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("nobody closes the semaphore")),
            Err(_) => Err(Refusal::Busy(self.admission.max_reviews)),
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::sync::Mutex;
    use std::task::Poll;
    use std::thread::{self, ThreadId};

    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::Clock;
    use crate::connections::Patience;
    use crate::served::Served;
    use crate::settings::tests::settings;

    fn metrics() -> Arc<Metrics> {
        Arc::new(Metrics::new(Arc::new(Served::new(Clock::system()))))
    }

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_our_fault() {
        async fn boom() {
            panic!("on purpose")
        }
        let metrics = metrics();
        let router = guarded(Router::new().route("/boom", get(boom)), Arc::clone(&metrics));
        let (status, text) = ask(router, "/boom").await;
        assert_eq!((status.as_u16(), text.as_str()), (500, "internal error\n"));
        let text = metrics.encode();
        assert!(text.contains("\nsfunnel_webhook_panics_total 1\n"), "{text}");
    }

    /// One large review at a time.
    fn reviewer(decide: fn(&Review, &Settings) -> Decision) -> Reviewer {
        let (metrics, second) = (metrics(), Duration::from_secs(1));
        let patience = Patience { handshake: second, header: second, idle: second };
        let max_body = 4 << 20;
        Reviewer {
            admission: Admission {
                settings: settings(&[]).unwrap(),
                max_body,
                body_timeout: Duration::from_secs(10),
                max_reviews: 1,
            },
            bodies: Bodies::new(Limits {
                bytes: max_body,
                time: Duration::from_secs(10),
                small: SMALL,
                bytes_of_all: max_body,
            }),
            turns: Arc::new(Semaphore::new(1)),
            decide,
            connections: Connections::new(1, patience, Arc::clone(&metrics)),
            metrics,
        }
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
        request.body(Body::from(body)).unwrap()
    }

    async fn send(router: &Router, request: Request<Body>) -> (u16, String) {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What takes a while is done elsewhere than where connections are served.
    #[tokio::test(flavor = "current_thread")]
    async fn a_review_in_progress_holds_up_nobody() {
        static DECIDED_ON: Mutex<Option<ThreadId>> = Mutex::new(None);
        let reviewer = reviewer(|review, settings| {
            *DECIDED_ON.lock().unwrap() = Some(thread::current().id());
            review.decide(settings)
        });
        let router = routes(reviewer, Arc::default());
        let few = "tcp actions drop;".repeat(FEW_RULES / 17);
        let many = "tcp actions drop;".repeat(FEW_RULES / 17 + 1);
        for (body, at_once) in [
            (question("1", &few, 0), true),
            (question("1", &many, 0), false),
            (question("1", &few, SMALL), false),
        ] {
            assert_eq!(send(&router, post_to("/mutate", body)).await.0, 200);
            let here = *DECIDED_ON.lock().unwrap() == Some(thread::current().id());
            assert_eq!(here, at_once);
        }
    }

    /// What there is of `work` without waiting.
    async fn poll_once<F: Future>(mut work: Pin<&mut F>) -> Poll<F::Output> {
        poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await
    }

    #[tokio::test]
    async fn a_panic_takes_nothing_from_others() {
        let reviewer = reviewer(|review, settings| {
            assert_ne!(review.uid, "boom", "on purpose");
            review.decide(settings)
        });
        let metrics = Arc::clone(&reviewer.metrics);
        let router = routes(reviewer, Arc::default());
        for size in [0, SMALL, 3 << 20] {
            let boom = post_to("/mutate", question("boom", "tcp actions drop", size));
            assert_eq!(send(&router, boom).await, (500, "internal error\n".to_owned()));
            // With the only turn, and all the room.
            let next = post_to("/mutate", question("next", "tcp actions drop", size));
            assert_eq!(send(&router, next).await.0, 200);
        }
        let text = metrics.encode();
        for line in ["panics_total 3", "refusals_total{status=\"500\"} 3", "reviews_in_flight 0"] {
            assert!(text.contains(&format!("\nsfunnel_webhook_{line}\n")), "{line}: {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_much_is_told_while_the_client_listens() {
        let reviewer = reviewer(Review::decide);
        let metrics = Arc::clone(&reviewer.metrics);
        let turns = Arc::clone(&reviewer.turns);
        let turn = turns.acquire_owned().await.unwrap();
        let room = reviewer.bodies.fill();
        let router = routes(reviewer, Arc::default());
        let refusal = async |path: &str| {
            let start = tokio::time::Instant::now();
            let (status, text) = send(&router, post_to(path, question("1", "", SMALL))).await;
            assert_eq!(status, 503, "{text}");
            (start.elapsed().as_millis() / 10 * 10, text)
        };
        let no_room = "busy with bodies of 4194304 bytes in all (--max-body-bytes times \
                       --max-concurrent-reviews); ask again\n";
        assert_eq!(refusal("/mutate?timeout=5s").await, (2000, no_room.to_owned()));
        assert_eq!(refusal("/validate?timeout=2s").await, (1500, no_room.to_owned()));
        drop(room);
        let no_turn = "busy with 1 of 1 reviews that are large or have long rulesets \
                       (--max-concurrent-reviews); ask again\n";
        assert_eq!(refusal("/mutate?timeout=5s").await, (2000, no_turn.to_owned()));
        assert_eq!(refusal("/validate?timeout=2s").await, (1500, no_turn.to_owned()));
        // Small ones need neither, nor do those whose rules are not looked at.
        let small = post_to("/mutate", question("1", "", 0));
        assert_eq!(send(&router, small).await.0, 200);
        let rules = "tcp actions drop;".repeat(100);
        let opted_out = question("1", &rules, 0)
            .replace("\"annotations\":{", "\"annotations\":{\"sfunnel.io/inject\":\"false\",");
        assert_eq!(send(&router, post_to("/mutate", opted_out)).await.0, 200);
        let unchanged = update_of_a_deployment(&rules);
        assert_eq!(send(&router, post_to("/validate", unchanged)).await.0, 200);
        drop(turn);
        let large = post_to("/mutate", question("1", "", SMALL));
        assert_eq!(send(&router, large).await.0, 200);
        let text = metrics.encode();
        assert!(text.contains("\nsfunnel_webhook_refusals_total{status=\"503\"} 4\n"), "{text}");
    }

    #[tokio::test]
    async fn who_hangs_up_is_counted() {
        let reviewer = reviewer(Review::decide);
        let metrics = Arc::clone(&reviewer.metrics);
        let turns = Arc::clone(&reviewer.turns);
        let router = routes(reviewer, Arc::default());
        let has = |line: &str| {
            let text = metrics.encode();
            assert!(text.contains(&format!("\nsfunnel_webhook_{line}\n")), "{line}: {text}");
        };
        let _turn = turns.acquire_owned().await.unwrap();
        {
            let request = post_to("/mutate", question("1", "", SMALL));
            let mut review = pin!(router.oneshot(request));
            assert!(poll_once(review.as_mut()).await.is_pending());
            has("reviews_in_flight 1");
            has("refusals_total{status=\"499\"} 0");
        }
        has("reviews_in_flight 0");
        has("refusals_total{status=\"499\"} 1");
    }

    #[tokio::test]
    async fn readiness_is_what_is_said_and_health_isnt() {
        let reason = Arc::new(Mutex::new(Ok(())));
        let said = Arc::clone(&reason);
        let router = health(move || *said.lock().unwrap(), metrics());
        assert_eq!(ask(router.clone(), "/readyz").await.0, StatusCode::OK);
        *reason.lock().unwrap() = Err("not yet");
        let answer = (StatusCode::SERVICE_UNAVAILABLE, "not yet\n".to_owned());
        assert_eq!(ask(router.clone(), "/readyz").await, answer);
        assert_eq!(ask(router.clone(), "/healthz").await.0, StatusCode::OK);
        assert_eq!(ask(router, "/").await, (StatusCode::NOT_FOUND, "no such path\n".to_owned()));
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
}
