//! Any bytes as the body of a request.
//!
//! What begins as a JSON object does is taken as it is, at every path; any other bytes choose a path, a
//! review of a pod or a workload, and what is odd about it: in the pod, in the review, in its JSON, in its
//! bytes.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use webhook::admission::endpoint::{ENDPOINTS, Endpoint, Namespace, Webhook};
use webhook::admission::settings::Settings;

use super::admission::{self, Outcome, Verdict, check_message, check_warnings};
use crate::choices::Choices;
use crate::injection::undone;
use crate::pods;
use crate::verbatim::Json;

const PULL_SECRET: &str = "regcred";

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    admission::settings(&["--loader-pull-secret", PULL_SECRET, "--deny-runtime-class", "denied"])
});

/// A body, and the path that it came to.
struct Request {
    body: Vec<u8>,
    endpoint: Endpoint,
    known: Known,
}

/// Says what the bytes stood for that broke a promise. A fuzzer ends before; the replay does not.
impl Drop for Request {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { body, endpoint, known } = self;
            eprintln!("{endpoint:?}, {known:?}: {}", String::from_utf8_lossy(body));
        }
    }
}

/// What is known about a body beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Nothing,
    /// It is one that API servers send.
    Whole,
    /// It is one that API servers send when a pod, or a workload, is made that is to be injected.
    ToBeInjected,
    /// It is one that API servers send when nothing has changed that concerns us.
    Unchanged,
}

/// Reads a body, decides and answers. The answer is one that API servers take; a patch changes nothing but
/// what it has to, and makes a pod that gets no other one. What whole API servers send is never refused.
/// A template is judged as its pods will be.
///
/// # Panics
///
/// If anything of that does not hold.
pub fn check(data: &[u8]) {
    match data {
        [b'{', ..] => {
            for (_, endpoint) in ENDPOINTS {
                asked(&Request { body: data.to_vec(), endpoint, known: Known::Nothing });
            }
        }
        _ => asked(&chosen(&mut Choices::new(data))),
    }
}

fn asked(request: &Request) {
    let Request { body, endpoint, known } = request;
    let (outcome, answer) = match admission::review(body, *endpoint, &SETTINGS) {
        Ok(answered) => answered,
        Err(refusal) => {
            assert!(!refusal.is_empty() && refusal.len() < 4096, "{} bytes", refusal.len());
            return assert_eq!(*known, Known::Nothing, "{refusal}");
        }
    };
    // Fields that don't matter to the webhook may have any value; what others can't read goes no further.
    let Ok(text) = std::str::from_utf8(body) else { return };
    let Ok(all) = serde_json::from_str::<Value>(text) else { return };
    let review = Json::read(text);
    // serde also reads a structure from the list of its fields.
    if review.has_equal_keys() || !all["request"].is_object() {
        return;
    }
    check_answer(&answer, &all["request"]["uid"], &outcome);
    check_verdict(&outcome.verdict, *endpoint, *known);
    if *known != Known::Nothing {
        check_template(&review, *endpoint, &outcome);
    }
    check_whole_pod(&all["request"], *endpoint, &outcome);
    if let Verdict::Injected(patch) = &outcome.verdict {
        assert_eq!(all["request"]["operation"], "CREATE");
        check_patch(review, patch, *endpoint);
    }
}

/// What the path alone says about a verdict, and what is known beforehand.
fn check_verdict(verdict: &Verdict, endpoint: Endpoint, known: Known) {
    match (verdict, endpoint.webhook, endpoint.namespace) {
        (Verdict::Injected(_), Webhook::Validate, _) | (Verdict::Valid, Webhook::Mutate, _) => {
            panic!("{verdict:?} by {endpoint:?}")
        }
        (Verdict::Denied { .. } | Verdict::Valid, _, Namespace::Unlabelled) => {
            panic!("{verdict:?} where nothing is injected")
        }
        _ => {}
    }
    let left = |why: &str| matches!(verdict, Verdict::Left(code) if *code == why);
    let expected = match (known, endpoint.webhook, endpoint.namespace) {
        (Known::Nothing | Known::Whole, ..) => true,
        (Known::Unchanged, ..) => left("unchanged") || left("not-creation"),
        (Known::ToBeInjected, Webhook::Mutate, _) => matches!(verdict, Verdict::Injected(_)),
        (Known::ToBeInjected, _, Namespace::Unlabelled) => left("not-enabled"),
        (Known::ToBeInjected, Webhook::Validate, _) => *verdict == Verdict::Valid,
    };
    assert!(expected, "{verdict:?} by {endpoint:?} for {known:?}");
}

/// A pod is read only as far as decisions go. One that is read as a whole gets the same decision.
fn check_whole_pod(request: &Value, endpoint: Endpoint, outcome: &Outcome) {
    let part = request["subResource"].as_str().is_some_and(|part| !part.is_empty());
    if part || request["operation"] != "CREATE" || endpoint.webhook != Webhook::Mutate {
        return;
    }
    // What nobody looks at may be of any type.
    let Ok(pod) = serde_json::from_value::<Pod>(request["object"].clone()) else { return };
    let mut whole = admission::decide(&pod, &SETTINGS);
    if endpoint.namespace == Namespace::Enforced && matches!(whole.verdict, Verdict::Injected(_)) {
        // The path adds a warning, for which others may leave no room.
        whole.warnings = outcome.warnings.clone();
    }
    assert_eq!(*outcome, whole, "{}", request["object"]);
}

/// Where a workload's template is judged, its pods will be judged the same, and in the same words.
fn check_template(review: &Json, endpoint: Endpoint, outcome: &Outcome) {
    let object = review.at(&["request", "object"]);
    let kind = object.and_then(|object| object.get("kind")).and_then(Json::text);
    let Some(workload) = WORKLOADS.iter().find(|workload| Some(workload.kind) == kind.as_deref())
    else {
        return;
    };
    let judged = match &outcome.verdict {
        Verdict::Left(why) => !matches!(*why, "unchanged" | "not-creation" | "subresource"),
        _ => true,
    };
    if !judged {
        return;
    }
    let template = object.and_then(|object| object.at(workload.template)).expect("a template");
    let parts = ["metadata", "spec"].map(|part| (part, template.get(part).cloned()));
    let pod = parts.into_iter().filter_map(|(part, value)| Some((part, value?))).collect();
    let review = review_of(request(&POD, pod));
    let mutate = Endpoint { webhook: Webhook::Mutate, namespace: endpoint.namespace };
    let of_pod = admission::review(review.to_string().as_bytes(), mutate, &SETTINGS);
    let (of_pod, _) = of_pod.unwrap_or_else(|refusal| panic!("{refusal}"));
    let expected = match of_pod.verdict {
        Verdict::Left(why) => Verdict::Left(why),
        _ if endpoint.namespace == Namespace::Unlabelled => Verdict::Left("not-enabled"),
        Verdict::Injected(_) | Verdict::Valid => Verdict::Valid,
        Verdict::Denied { code, message } => {
            let template = workload.template.join(".");
            Verdict::Denied { code, message: format!("{template}: {message}") }
        }
    };
    assert_eq!(outcome.verdict, expected);
}

/// As strictly as the API server (`VerifyAdmissionResponse` in
/// `k8s.io/apiserver/pkg/admission/plugin/webhook/request`).
fn check_answer(answer: &[u8], uid: &Value, outcome: &Outcome) {
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let mut response = answer["response"].as_object().expect("a response").clone();
    let mut take = |key: &str| response.remove(key).unwrap_or_default();
    assert_eq!(take("uid"), *uid);
    let denied = matches!(outcome.verdict, Verdict::Denied { .. });
    assert_eq!(take("allowed"), !denied);

    let warnings = match take("warnings") {
        Value::Null => Vec::new(),
        warnings => serde_json::from_value(warnings).expect("a list of strings"),
    };
    check_warnings(&warnings);
    assert_eq!(warnings, outcome.warnings);

    match &outcome.verdict {
        Verdict::Injected(patch) => {
            assert_eq!(take("patchType"), "JSONPatch");
            let patched = take("patch");
            let decoded = BASE64_STANDARD.decode(patched.as_str().expect("a string"));
            let decoded: Value = serde_json::from_slice(&decoded.expect("base64")).expect("JSON");
            assert_eq!(decoded, *patch);
        }
        Verdict::Denied { message, .. } => {
            check_message(message);
            assert!(warnings.is_empty());
            let status = json!({
                "status": "Failure", "code": 422, "reason": "Invalid", "message": message,
            });
            assert_eq!(take("status"), status);
        }
        Verdict::Left(_) | Verdict::Valid => {}
    }
    assert!(response.is_empty(), "{response:?}");
}

fn check_patch(mut review: Json, patch: &Value, endpoint: Endpoint) {
    let object = review.at_mut(&["request", "object"]).expect("an object");
    let original = object.clone();
    object.patch(patch);
    let injected = object.clone();
    let left = undone(injected.clone(), &original, Some(PULL_SECRET));
    assert_eq!(left.to_string(), original.to_string());

    // Another reader of patches comes to the same.
    let operations: Patch = serde_json::from_value(patch.clone()).expect("a JSON patch");
    let mut value = original.value();
    json_patch::patch(&mut value, &operations).unwrap_or_else(|error| panic!("{error}: {patch}"));
    assert_eq!(value, injected.value());

    // Neither this webhook, asked again, nor the validating one has anything to say.
    let body = review.to_string();
    for webhook in [Webhook::Mutate, Webhook::Validate] {
        let again = admission::review(body.as_bytes(), Endpoint { webhook, ..endpoint }, &SETTINGS);
        let (outcome, _) = again.unwrap_or_else(|refusal| panic!("{refusal}"));
        let nothing = Outcome { verdict: Verdict::Left("already-injected"), warnings: Vec::new() };
        assert_eq!(outcome, nothing, "{injected}");
    }
}

/// A resource, as requests name it.
struct Resource {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    /// Where its objects have the template of their pods.
    template: &'static [&'static str],
}

const POD: Resource = Resource { group: "", plural: "pods", kind: "Pod", template: &[] };

const WORKLOADS: [Resource; 7] = {
    const fn new(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
        Resource { group, plural, kind, template: &["spec", "template"] }
    }
    [
        new("apps", "deployments", "Deployment"),
        new("apps", "statefulsets", "StatefulSet"),
        new("apps", "daemonsets", "DaemonSet"),
        new("apps", "replicasets", "ReplicaSet"),
        new("", "replicationcontrollers", "ReplicationController"),
        new("batch", "jobs", "Job"),
        Resource {
            template: &["spec", "jobTemplate", "spec", "template"],
            ..new("batch", "cronjobs", "CronJob")
        },
    ]
};

/// A body, its path, and what is known about it.
fn chosen(choices: &mut Choices<'_>) -> Request {
    let mut known = Known::ToBeInjected;
    let [odd_pod, odd_review, odd_json, odd_bytes] =
        [3, 3, 3, 6].map(|times| choices.once_in(times));
    let (_, endpoint) = choices.pick(&ENDPOINTS);
    let mut pod = pods::pod(choices);
    if odd_pod {
        known = Known::Whole;
        for _ in 0..=choices.below(3) {
            twist(choices, &mut pod);
        }
    }
    let resource = match endpoint.webhook {
        Webhook::Validate if choices.once_in(2) => &WORKLOADS[choices.below(WORKLOADS.len())],
        _ => &POD,
    };
    let object = if resource.template.is_empty() { pod } else { workload(choices, resource, pod) };
    let mut request = request(resource, object);
    if odd_review {
        known = ask_otherwise(choices, resource, &mut request);
    }
    let mut review = review_of(request);
    if odd_json {
        known = Known::Nothing;
        for _ in 0..=choices.below(3) {
            edit(choices, &mut review);
        }
    }
    let mut body = review.to_string().into_bytes();
    if odd_bytes {
        known = Known::Nothing;
        choices.damage(&mut body);
    }
    Request { body, endpoint, known }
}

fn review_of(request: Json) -> Json {
    Json::from_iter([
        ("kind", Json::string("AdmissionReview")),
        ("apiVersion", Json::string("admission.k8s.io/v1")),
        ("request", request),
    ])
}

/// The question about the creation of an object.
fn request(resource: &Resource, object: Json) -> Json {
    let named = |what, name| {
        [("group", resource.group), ("version", "v1"), (what, name)]
            .into_iter()
            .map(|(key, value)| (key, Json::string(value)))
            .collect()
    };
    let (kind, plural): (Json, Json) =
        (named("kind", resource.kind), named("resource", resource.plural));
    let mut request = Json::read(
        r#"{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind":null,"resource":null,"requestKind":null,"requestResource":null,
            "name":"web","namespace":"shop","operation":"CREATE",
            "userInfo":{"username":"system:admin","groups":["system:masters"],"extra":{}},
            "object":null,"oldObject":null,"dryRun":false,
            "options":{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}"#,
    );
    request.set("kind", kind.clone());
    request.set("requestKind", kind);
    request.set("resource", plural.clone());
    request.set("requestResource", plural);
    request.set("object", object);
    request
}

/// A workload whose template makes pods like this one.
fn workload(choices: &mut Choices<'_>, resource: &Resource, mut pod: Json) -> Json {
    let parts = ["metadata", "spec"].map(|part| (part, pod.remove(part)));
    let template = parts.into_iter().filter_map(|(part, value)| Some((part, value?))).collect();
    // From the inside to the outside.
    let (spec, outer) = resource.template.split_first().expect("a path");
    let inner = outer.iter().rev().fold(template, |inner, key| {
        Json::from_iter([("parallelism", Json::leaf("2")), (key, inner)])
    });
    let mut metadata = Json::from_iter([("name", Json::string("web"))]);
    if choices.once_in(3) {
        let name = choices.pick(&["sfunnel.io/ruleset", "sfunnel.io/rulesets", "other"]);
        metadata.set("annotations", Json::from_iter([(name, Json::string("tcp actions drop"))]));
    }
    Json::from_iter([
        ("kind", Json::string(resource.kind)),
        ("metadata", metadata),
        (spec, inner),
        ("status", pods::anything(choices, 1)),
    ])
}

/// Asks about something else than a creation, or in another way.
fn ask_otherwise(choices: &mut Choices<'_>, resource: &Resource, request: &mut Json) -> Known {
    match choices.below(8) {
        0 => {
            request.set("operation", Json::string(choices.pick(&["DELETE", "CONNECT"])));
            let object = request.remove("object").expect("an object");
            request.set("oldObject", object);
        }
        1 | 2 => {
            request.set("operation", Json::string("UPDATE"));
            let mut before = request.get("object").expect("an object").clone();
            before.set("status", pods::anything(choices, 2));
            let changed = choices.once_in(2);
            if changed {
                twist(choices, before.at_mut(resource.template).expect("a pod, or its template"));
            }
            request.set("oldObject", before);
            return if changed { Known::Whole } else { Known::Unchanged };
        }
        3 => {
            let parts = ["status", "ephemeralcontainers", "binding", "exec", "scale", ""];
            request.set("subResource", Json::string(choices.pick(&parts)));
        }
        4 => request.set("dryRun", Json::leaf("true")),
        5 => drop(request.remove(choices.pick(&["name", "namespace", "dryRun", "options"]))),
        6 => request.set("uid", Json::string(&format!("u{}", choices.text(40)))),
        _ => request.set("userInfo", Json::Object(Vec::new())),
    }
    Known::Whole
}

/// Makes a pod one that is denied, or left alone, or nearly so. It remains a pod.
fn twist(choices: &mut Choices<'_>, pod: &mut Json) {
    let annotation = [
        ("sfunnel.io/inject", choices.pick(&["false", "no", "true", "\u{202e}"])),
        ("sfunnel.io/ruleset", choices.pick(&["tcp port 80", "", "tcp actions drop\0", "\u{fc}"])),
        ("sfunnel.io/interfaces", choices.pick(&["a/b", "\u{1b}[31m", "eth0"])),
        ("sfunnel.io/status", "injected"),
        ("kubernetes.io/config.mirror", ""),
        (choices.pick(&["sfunnel.io/rule-set", "sfunnel.io/", "sfunnel.io/\u{1b}"]), ""),
    ];
    let object = |text: &str| Json::read(text);
    let spec = |pod: &mut Json, key: &str, value: Json| {
        if let Some(spec @ Json::Object(_)) = pod.get_mut("spec") {
            spec.set(key, value);
        }
    };
    match choices.below(16) {
        0 => spec(pod, "hostNetwork", Json::leaf("true")),
        1 => spec(pod, "os", object(r#"{"name":"windows"}"#)),
        2 => spec(pod, "nodeSelector", object(r#"{"kubernetes.io/os":"windows"}"#)),
        3 => spec(pod, "hostUsers", Json::leaf("false")),
        4 => spec(pod, "runtimeClassName", Json::string(choices.pick(&["denied", "gvisor"]))),
        5 => append(pod, "containers", object(r#"{"name":"sfunnel-loader"}"#)),
        6 => append(pod, "volumes", object(r#"{"name":"sfunnel-no-token","emptyDir":{}}"#)),
        7 => append(pod, "volumes", object(r#"{"name":"sfunnel-no-token","secret":{}}"#)),
        8 => append(pod, "initContainers", lookalike(choices)),
        9 => append(pod, "imagePullSecrets", Json::Object(Vec::new())),
        10 => drop(pod.remove(choices.pick(&["spec", "metadata", "kind", "apiVersion"]))),
        11 => pod.set(choices.pick(&["spec", "status"]), Json::NULL),
        12 => {
            if let Some(metadata) = pod.get_mut("metadata") {
                metadata.set("annotations", Json::NULL);
            }
        }
        _ => {
            let (name, value) = choices.pick(&annotation);
            if let Some(all @ Json::Object(_)) = pod.at_mut(&["metadata", "annotations"]) {
                all.set(name, Json::string(value));
            }
        }
    }
}

fn append(pod: &mut Json, list: &str, item: Json) {
    let Some(spec @ Json::Object(_)) = pod.get_mut("spec") else { return };
    match spec.get_mut(list) {
        Some(Json::List(items)) => items.push(item),
        _ => spec.set(list, Json::List(vec![item])),
    }
}

/// Something that might be taken for the loader.
fn lookalike(choices: &mut Choices<'_>) -> Json {
    let mut container = Json::read(
        r#"{"name":"sfunnel-loader","image":"loader:1","env":[{"name":"SFUNNEL_RULESET","valueFrom":
            {"fieldRef":{"fieldPath":"metadata.annotations['sfunnel.io/ruleset']"}}}],
            "securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"add":["BPF",
            "NET_ADMIN"],"drop":["ALL"]},"privileged":false,"readOnlyRootFilesystem":true,
            "runAsGroup":0,"runAsNonRoot":false,"runAsUser":0,"seccompProfile":{"type":
            "RuntimeDefault"}},"volumeMounts":[{"mountPath":
            "/var/run/secrets/kubernetes.io/serviceaccount","name":"sfunnel-no-token",
            "readOnly":true}]}"#,
    );
    match choices.below(6) {
        0 => {}
        1 => container.set("image", Json::string(choices.pick(&["other", "", "\u{1b}"]))),
        2 => container.set("command", Json::read(r#"["sh"]"#)),
        3 => drop(container.remove(choices.pick(&["env", "securityContext", "volumeMounts"]))),
        4 => container.set("restartPolicy", Json::string("Always")),
        _ => container.set("env", Json::read(r#"[{"name":"CLEAN","value":"1"}]"#)),
    }
    container
}

/// Changes something in a JSON value so that it is another one, or none.
fn edit(choices: &mut Choices<'_>, json: &mut Json) {
    let len = match json {
        Json::Leaf(_) => 0,
        Json::List(items) => items.len(),
        Json::Object(entries) => entries.len(),
    };
    if len == 0 || choices.once_in(8) {
        *json = something_else(choices);
        return;
    }
    let at = choices.below(len);
    match json {
        Json::Leaf(_) => {}
        // A list of an object's values may be taken for the object.
        Json::Object(entries) if choices.once_in(16) => {
            *json = entries.drain(..).map(|(_, value)| value).collect();
        }
        Json::List(items) => match choices.below(8) {
            0 => drop(items.remove(at)),
            1 => items.push(items[at].clone()),
            _ => edit(choices, &mut items[at]),
        },
        Json::Object(entries) => match choices.below(12) {
            0 => drop(entries.remove(at)),
            1 => entries.push(entries[at].clone()),
            2 => {
                // The same key, written otherwise.
                let (key, value) = entries[at].clone();
                let first = key.chars().nth(1).filter(char::is_ascii_alphanumeric);
                if let Some(first) = first {
                    let key = format!("\"\\u{:04x}{}", u32::from(first), &key[2..]);
                    entries.push((key.into(), value));
                }
            }
            3 => entries[at].0 = r#""renamed""#.into(),
            _ => edit(choices, &mut entries[at].1),
        },
    }
}

fn something_else(choices: &mut Choices<'_>) -> Json {
    match choices.below(8) {
        0 => Json::NULL,
        1 => Json::Object(Vec::new()),
        2 => Json::List(Vec::new()),
        3 => Json::List(vec![Json::NULL]),
        4 => (0..choices.pick(&[2, 100, 140, 1000]))
            .fold(Json::NULL, |inner, _| Json::List(vec![inner])),
        5 => Json::string(&choices.text(4).repeat(choices.pick(&[1, 64, 2000]))),
        6 => Json::leaf(choices.pick(&[
            "1e999",
            "-",
            "01",
            "tru",
            "'",
            "\"\\ud800\"",
            "18446744073709551616",
        ])),
        _ => pods::anything(choices, 3),
    }
}
