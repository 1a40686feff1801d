//! What is logged, and in which form.

use std::fmt::Display;
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Config;
use crate::decision::{Decision, Verdict};
use crate::review::Review;
use crate::settings::SecretName;
use crate::text::one_line;
use crate::warning::within_limits;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object in each line.
    Json,
}

impl Format {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Characters of a stranger's text in a log line, at the most.
const MAX: usize = 512;

/// Sends log lines, panics among them, to standard error.
pub fn init(format: Format, level: LevelFilter) {
    subscriber(format, level, std::io::stderr).init();
    std::panic::set_hook(Box::new(panicked));
}

/// Writes log lines.
pub fn subscriber<W>(
    format: Format,
    level: LevelFilter,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // kube's client logs answers that it can't read as a whole, and a Secret may be among them. Its errors
    // come back to us and have lines of ours.
    let targets = Targets::new().with_default(level).with_target("kube_client", LevelFilter::OFF);
    let subscriber = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    match format {
        Format::Text => Box::new(subscriber.with(lines)),
        Format::Json => Box::new(subscriber.with(lines.json().flatten_event(true))),
    }
}

/// The panic hook: one line for each panic, in the form of all others.
pub fn panicked(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("without a message");
    let location = info.location().map(tracing::field::display);
    error!(location, panic = one_line(message, MAX), "panicked");
}

/// One line with what was configured.
pub fn starting(config: &Config, format: Format, level: LevelFilter) {
    let Config { tls, admission, options } = config;
    let settings = &admission.settings;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        loader_image = settings.loader_image.as_str(),
        loader_pull_policy = settings.loader_pull_policy.as_str(),
        loader_pull_secret = settings.loader_pull_secret.as_ref().map(SecretName::as_str),
        loader_cpu_request = %settings.loader_cpu_request,
        loader_cpu_limit = %settings.loader_cpu_limit,
        loader_memory_request = %settings.loader_memory_request,
        loader_memory_limit = %settings.loader_memory_limit,
        loader_privileged = settings.loader_privileged,
        deny_runtime_class = settings.deny_runtime_class.join(","),
        tls = %tls,
        listen = %options.listen,
        health_listen = %options.health_listen,
        max_body_bytes = admission.max_body,
        max_concurrent_reviews = admission.max_reviews,
        max_connections = options.max_connections,
        handshake_timeout_s = options.handshake_timeout.as_secs(),
        header_timeout_s = options.header_timeout.as_secs(),
        body_timeout_s = admission.body_timeout.as_secs(),
        drain_delay_s = options.drain_delay.as_secs(),
        shutdown_timeout_s = options.shutdown_timeout.as_secs(),
        log_format = format.as_str(),
        log_level = %level,
        "starting"
    );
}

/// One line for each decision.
pub(crate) fn decision(review: &Review, decision: &Decision, duration: Duration) {
    let reason = match &decision.verdict {
        Verdict::Inject(_) | Verdict::Valid => None,
        Verdict::Skip(reason) => Some(reason.to_string()),
        Verdict::Deny(reason) => Some(one_line(&reason.summary(), MAX)),
    };
    // All of them: a controller's pods have nobody else who is told.
    let detail: Vec<_> = reason.into_iter().chain(within_limits(&decision.warnings)).collect();
    info!(
        decision = decision.verdict.code(),
        reason = decision.verdict.reason(),
        webhook = review.endpoint.webhook.code(),
        namespace = one_line(&review.namespace, MAX),
        kind = review.kind,
        name = one_line(&review.name, MAX),
        owner = review.owner.as_deref().map(|owner| one_line(owner, MAX)),
        uid = one_line(&review.uid, MAX),
        dry_run = review.dry_run,
        duration_us = duration.as_micros() as u64,
        detail = detail.join("; "),
        "reviewed"
    );
}

/// One line for each request that gets no decision.
pub(crate) fn refusal(status: u16, error: &dyn Display) {
    warn!(status, error = one_line(&error.to_string(), MAX), "refused");
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use json_patch::patch;
    use serde_json::{Value, json};

    use super::*;
    use crate::endpoint::ENDPOINTS;
    use crate::settings::tests::settings;

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
        let made = review.decide(&settings(&[]).unwrap());
        let line = |format| {
            let lines = Lines::default();
            let subscriber = subscriber(format, LevelFilter::INFO, lines.clone());
            tracing::subscriber::with_default(subscriber, || {
                decision(&review, &made, Duration::from_micros(77));
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
                "target": "webhook::log",
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
        let text = include_str!("../../docs/operating.md");
        let (_, text) = text.split_once("\"Why has my pod no loader?\"").unwrap();
        let (_, text) = text.split_once("grep '").unwrap();
        let (pattern, _) = text.split_once('\'').unwrap();
        let (_, _, line) = reviewed("/mutate", &pod(json!({})), json!({}));
        assert!(line.contains(pattern), "{pattern} is not in {line}");
    }

    #[test]
    fn answers_of_the_cluster_are_not_logged() {
        for format in [Format::Text, Format::Json] {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = subscriber(format, LevelFilter::TRACE, writer);
            tracing::subscriber::with_default(subscriber, || {
                warn!(target: "kube_client::client", "a whole Secret");
                warn!("ours");
            });
            let lines = lines.take();
            assert!(lines.contains("ours") && !lines.contains("Secret"), "{lines}");
        }
    }

    /// Keeps log lines.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// What was logged since the last time.
        pub(crate) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }
}
