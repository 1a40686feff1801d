//! What a validating webhook says of workloads and of pods that are complete.

use serde_json::{Value, json};

use crate::review::{Verdict, review};
use crate::server::TestServer;

const RULES: &str = "ip tcp dport 80 sport 540 actions unfunnel tcp";
const BROKEN: &str = "ip tcp dport 80 actions dorp";

/// Every kind with a template, and where that is.
const KINDS: [(&str, &str, &str); 7] = [
    ("", "replicationcontrollers", "ReplicationController"),
    ("apps", "deployments", "Deployment"),
    ("apps", "statefulsets", "StatefulSet"),
    ("apps", "daemonsets", "DaemonSet"),
    ("apps", "replicasets", "ReplicaSet"),
    ("batch", "jobs", "Job"),
    ("batch", "cronjobs", "CronJob"),
];

fn place(kind: &str) -> &'static str {
    match kind {
        "CronJob" => "spec.jobTemplate.spec.template",
        _ => "spec.template",
    }
}

/// An object of `kind` whose template has these annotations.
fn object(kind: &str, annotations: Value) -> Value {
    let template = json!({
        "metadata": { "labels": { "app": "web" }, "annotations": annotations },
        "spec": { "containers": [{ "name": "app", "image": "app" }] },
    });
    let spec = match kind {
        "CronJob" => {
            json!({ "schedule": "@daily", "jobTemplate": { "spec": { "template": template } } })
        }
        _ => json!({ "replicas": 1, "template": template }),
    };
    json!({ "kind": kind, "metadata": { "name": "web", "namespace": "shop" }, "spec": spec })
}

fn deployment(annotations: Value) -> Value {
    object("Deployment", annotations)
}

/// The question about `object`, updated from `before` or created.
fn question(kind: &str, object: &Value, before: Option<&Value>) -> Value {
    let (group, plural, _) = KINDS.into_iter().find(|(.., name)| *name == kind).unwrap();
    let kind = json!({ "group": group, "version": "v1", "kind": kind });
    let resource = json!({ "group": group, "version": "v1", "resource": plural });
    review(
        object,
        &json!({
            "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
            "operation": if before.is_some() { "UPDATE" } else { "CREATE" },
            "oldObject": before,
        }),
    )
}

fn silent() -> Verdict {
    Verdict::Skipped { warnings: Vec::new() }
}

#[track_caller]
fn assert_warned(verdict: &Verdict, expect: &[&str]) {
    let Verdict::Skipped { warnings } = verdict else { panic!("{verdict:?}") };
    assert_eq!(warnings.len(), expect.len(), "{warnings:?}");
    for (warning, expect) in warnings.iter().zip(expect) {
        assert!(warning.contains(expect), "{warning:?} instead of {expect:?}");
    }
}

#[tokio::test]
async fn a_mistake_is_told_with_the_workload() {
    let server = TestServer::start(&[]).await;
    for (.., kind) in KINDS {
        for path in ["/validate", "/validate/enforced"] {
            let broken = object(kind, json!({ "sfunnel.io/ruleset": BROKEN }));
            let verdict = server.review_at(path, &question(kind, &broken, None)).await;
            assert_eq!(
                verdict.denied(),
                format!(
                    "{}: annotation sfunnel.io/ruleset holds no valid ruleset\n\
                     error: unknown action `dorp`; did you mean `drop`?\n  at line 1, column 25\n  | \
                     {BROKEN}\n  |                         ^^^^\n  help: actions are `accept`, `drop`, \
                     `funnel`, `unfunnel` and `dnat`",
                    place(kind)
                ),
                "{kind}"
            );
        }
        let right = object(kind, json!({ "sfunnel.io/ruleset": RULES }));
        let verdict = server.review_at("/validate", &question(kind, &right, None)).await;
        assert_eq!(verdict, silent(), "{kind}");
    }
}

#[tokio::test]
async fn what_a_pod_would_be_denied_for_a_template_is_denied_for() {
    let server = TestServer::start(&[]).await;
    let mut deployment = deployment(json!({ "sfunnel.io/ruleset": RULES }));
    deployment["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let verdict = server.review_at("/validate", &question("Deployment", &deployment, None)).await;
    let message = verdict.denied();
    assert!(message.starts_with("spec.template: the pod has hostNetwork: true"), "{message}");
}

/// A controller scales down what was admitted while nobody validated, and finalizers are removed.
#[tokio::test]
async fn an_update_that_leaves_the_mistake_alone_is_admitted() {
    let server = TestServer::start(&[]).await;
    for (.., kind) in KINDS {
        let before = object(kind, json!({ "sfunnel.io/ruleset": BROKEN }));
        let mut after = before.clone();
        after["spec"]["replicas"] = json!(0);
        after["metadata"]["labels"] = json!({ "a": "b" });
        let verdict = server.review_at("/validate", &question(kind, &after, Some(&before))).await;
        assert_eq!(verdict, silent(), "{kind}");

        // On the object itself, rules mean nothing, before or after.
        let mut annotated = after.clone();
        annotated["metadata"]["annotations"] = json!({ "sfunnel.io/egress-ruleset": BROKEN });
        let verdict =
            server.review_at("/validate", &question(kind, &annotated, Some(&before))).await;
        assert_warned(&verdict, &["annotation sfunnel.io/egress-ruleset does nothing here"]);
        let verdict =
            server.review_at("/validate", &question(kind, &before, Some(&annotated))).await;
        assert_eq!(verdict, silent(), "{kind}");

        let made_worse = object(kind, json!({ "sfunnel.io/ruleset": "x" }));
        let verdict =
            server.review_at("/validate", &question(kind, &made_worse, Some(&after))).await;
        assert!(verdict.denied().starts_with(place(kind)));
        let repaired = object(kind, json!({ "sfunnel.io/ruleset": RULES }));
        let verdict = server.review_at("/validate", &question(kind, &repaired, Some(&after))).await;
        assert_eq!(verdict, silent(), "{kind}");
    }
}

#[tokio::test]
async fn an_annotation_on_the_workload_itself_is_told() {
    let server = TestServer::start(&[]).await;
    let ask = async |object: &Value, before: Option<&Value>| {
        server.review_at("/validate", &question("Deployment", object, before)).await
    };
    let mut misplaced = deployment(json!({}));
    misplaced["metadata"]["annotations"] = json!({
        "sfunnel.io/ruleset": BROKEN, "sfunnel.io/interfaces": "eth0", "sfunnel.io/status": "injected",
    });
    let text = "annotation sfunnel.io/ruleset does nothing here: move it to spec.template.metadata.annotations";
    let interfaces = "annotation sfunnel.io/interfaces does nothing here";
    assert_warned(&ask(&misplaced, None).await, &[text, interfaces]);
    assert_warned(&ask(&misplaced, Some(&deployment(json!({})))).await, &[text, interfaces]);
    assert_eq!(ask(&misplaced, Some(&misplaced)).await, silent());

    let mut jobs = object("CronJob", json!({}));
    jobs["spec"]["jobTemplate"]["metadata"] =
        json!({ "annotations": { "sfunnel.io/ruleset": RULES } });
    let verdict = server.review_at("/validate", &question("CronJob", &jobs, None)).await;
    assert_warned(&verdict, &["move it to spec.jobTemplate.spec.template.metadata.annotations"]);

    let mut both = deployment(json!({ "sfunnel.io/ruleset": RULES }));
    both["metadata"]["annotations"] = json!({ "sfunnel.io/ruleset": RULES });
    assert_eq!(ask(&both, None).await, silent());
    // What a Deployment's ReplicaSets inherit, nobody has put there.
    misplaced["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "1", "controller": true }]);
    assert_eq!(ask(&misplaced, None).await, silent());
}

#[tokio::test]
async fn warnings_of_the_template_are_told_with_the_workload() {
    let server = TestServer::start(&[]).await;
    let ask = async |path: &str, annotations: Value| {
        server.review_at(path, &question("Deployment", &deployment(annotations), None)).await
    };
    let rulesets = json!({ "sfunnel.io/rulesets": RULES });
    let meant = "annotation sfunnel.io/rulesets is unknown and does nothing; did you mean sfunnel.io/ruleset?";
    assert_warned(&ask("/validate", rulesets).await, &[meant]);
    let shadowed = json!({ "sfunnel.io/ruleset": "tcp actions drop; tcp dport 80 actions accept" });
    assert_warned(&ask("/validate", shadowed).await, &["the rule can never match"]);
    let open = "ip tcp dport 80 sport 1024-29255 actions unfunnel tcp dport 8080 sport 32768-60999";
    assert_warned(
        &ask("/validate", json!({ "sfunnel.io/ruleset": open })).await,
        &["ports are translated back for packets from anywhere"],
    );
    let fine = || json!({ "sfunnel.io/ruleset": RULES });
    assert_warned(
        &ask("/validate/enforced", fine()).await,
        &["Pod Security baseline or restricted"],
    );
    assert_warned(
        &ask("/validate/unlabelled", fine()).await,
        &["the namespace lacks the label sfunnel.io/inject=enabled"],
    );
    assert_eq!(
        ask(
            "/validate/enforced",
            json!({ "sfunnel.io/ruleset": RULES, "sfunnel.io/inject": "false" })
        )
        .await,
        silent()
    );
}

/// Its owner didn't opt in: what stands there may be meant for another cluster.
#[tokio::test]
async fn nothing_is_denied_in_a_namespace_without_the_label() {
    let server = TestServer::start(&[]).await;
    let not_enabled = ["pods get no rules here"];
    for (.., kind) in KINDS {
        let broken = object(kind, json!({ "sfunnel.io/ruleset": BROKEN }));
        let question = question(kind, &broken, None);
        assert_warned(&server.review_at("/validate/unlabelled", &question).await, &not_enabled);
    }
    let mut pod = pod(BROKEN);
    let verdict = server.review_at("/validate/unlabelled", &review(&pod, &json!({}))).await;
    assert_warned(&verdict, &not_enabled);
    pod["metadata"]["annotations"] = json!({ "example.com/a": "b" });
    let verdict = server.review_at("/validate/unlabelled", &review(&pod, &json!({}))).await;
    assert_eq!(verdict, silent());
}

fn pod(rules: &str) -> Value {
    json!({
        "metadata": { "name": "web", "annotations": { "sfunnel.io/ruleset": rules } },
        "spec": { "containers": [{ "name": "app", "image": "app" }] },
    })
}

#[tokio::test]
async fn a_pod_that_lost_its_loader_is_told() {
    let server = TestServer::start(&[]).await;
    let question = |pod: &Value| review(pod, &json!({}));
    let plain = pod(RULES);
    let verdict = server.review_at("/validate", &question(&plain)).await;
    assert_warned(&verdict, &["the pod starts without its rules"]);

    let Verdict::Patched { patch, .. } = server.review(&question(&plain)).await else {
        panic!("not patched")
    };
    let mut injected = plain.clone();
    json_patch::patch(&mut injected, &patch).unwrap();
    assert_eq!(server.review_at("/validate", &question(&injected)).await, silent());
    // In a rolling update, the replica that validates may have another image.
    injected["spec"]["initContainers"][0]["image"] = json!("registry.example/sfunnel-loader:next");
    assert_eq!(server.review_at("/validate", &question(&injected)).await, silent());
    let message = server.review_at("/validate", &question(&pod(BROKEN))).await.denied();
    assert!(
        message.starts_with("annotation sfunnel.io/ruleset holds no valid ruleset"),
        "{message}"
    );
}

#[tokio::test]
async fn a_pod_that_runs_reads_no_other_rules() {
    let server = TestServer::start(&[]).await;
    let ask = async |after: &Value, before: &Value| {
        let update = json!({ "operation": "UPDATE", "oldObject": before });
        server.review_at("/validate", &review(after, &update)).await
    };
    let before = pod(RULES);
    let mut labelled = before.clone();
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    labelled["metadata"]["annotations"]["sfunnel.io/status"] = json!("injected");
    assert_eq!(ask(&labelled, &before).await, silent());
    assert_warned(&ask(&pod(BROKEN), &before).await, &["a pod reads its rules when it starts"]);
}

#[tokio::test]
async fn a_pod_in_a_namespace_that_enforces_pod_security_is_told() {
    let server = TestServer::start(&[]).await;
    let verdict = server.review_at("/mutate/enforced", &review(&pod(RULES), &json!({}))).await;
    let Verdict::Patched { warnings, .. } = verdict else { panic!("{verdict:?}") };
    assert!(warnings[0].contains("Pod Security baseline or restricted"), "{warnings:?}");
    let mut plain = pod(RULES);
    plain["metadata"]["annotations"]["sfunnel.io/inject"] = json!("false");
    let verdict = server.review_at("/mutate/enforced", &review(&plain, &json!({}))).await;
    assert_eq!(verdict, silent());
}

#[tokio::test]
async fn questions_about_others_are_refused() {
    let server = TestServer::start(&[]).await;
    let post = async |path: &str, review: Value| {
        let mut request = crate::server::post("application/json", review.to_string());
        *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
        let answer = server.send(request).await;
        (answer.status.as_u16(), answer.text().to_owned())
    };
    let good = question("Deployment", &deployment(json!({})), None);
    let correct = "correct the rules in the webhook configuration\n";
    let refused =
        format!("the request is about apps/v1 deployments, not about core/v1 pods; {correct}");
    assert_eq!(post("/mutate", good.clone()).await, (400, refused));

    let mut other = good.clone();
    other["request"]["resource"]["resource"] = json!("widgets");
    let refused = format!(
        "the request is about apps/v1 widgets, not about pods or the workloads that make them; {correct}"
    );
    assert_eq!(post("/validate", other).await, (400, refused));
    let mut kind = good.clone();
    kind["request"]["kind"]["kind"] = json!("Scale");
    assert_eq!(post("/validate", kind.clone()).await.0, 400);
    kind["request"]["subResource"] = json!("scale");
    assert_eq!(post("/validate", kind).await.0, 200);

    let mut update = good.clone();
    update["request"]["operation"] = json!("UPDATE");
    assert_eq!(post("/validate", update).await, (400, "request.oldObject is missing\n".to_owned()));
    let mut wrong = good;
    wrong["request"]["object"]["spec"]["template"]["metadata"]["annotations"] = json!({ "a": 1 });
    let (status, text) = post("/validate", wrong).await;
    assert_eq!(status, 400);
    let place = "request.object is no Deployment: spec.template: invalid type: integer `1`, expected a string";
    assert!(text.starts_with(place), "{text}");
}
