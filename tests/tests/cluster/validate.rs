//! Mistakes are told where they are made: what the author of a workload sees when applying it.
//!
//! How packets reach Services makes no difference here, so one mode of kube-proxy is enough.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use tests::cluster::ProxyMode;

use crate::lab::{
    LABEL, Lab, Namespace, RULESET, SYSTEM, annotated_pod, plain_pod, repository, server_spec, with,
};

const NO_RULESET: &str = "ip tcp port 80 sport 540 actions unfunnel tcp";
/// What the author of [`NO_RULESET`] gets to see.
const DIAGNOSTIC: [&str; 4] = [
    "unknown match `port`; did you mean `dport`?",
    "at line 1, column 8",
    "| ip tcp port 80 sport 540 actions unfunnel tcp",
    "|        ^^^^",
];
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

#[test]
fn mistakes_in_templates_are_told_when_workloads_are_applied() {
    with(ProxyMode::Nftables, mistakes_in_templates);
}

#[test]
fn authors_are_warned_of_what_will_not_work() {
    with(ProxyMode::Nftables, warnings);
}

#[test]
fn what_was_broken_before_can_be_scaled_labelled_and_deleted() {
    with(ProxyMode::Nftables, broken_before);
}

#[test]
fn without_replicas_workloads_are_admitted_and_their_pods_wait() {
    with(ProxyMode::Nftables, without_replicas);
}

/// What `kubectl apply` did and said.
struct Applied {
    succeeded: bool,
    /// Both streams: warnings and refusals come on the second.
    text: String,
}

impl Applied {
    #[track_caller]
    fn admitted(self) -> Self {
        assert!(self.succeeded, "refused: {}", self.text);
        self
    }

    #[track_caller]
    fn refused(self) -> Self {
        assert!(!self.succeeded, "admitted: {}", self.text);
        self
    }

    #[track_caller]
    fn says(self, part: &str) -> Self {
        assert!(self.text.contains(part), "no `{part}` in\n{}", self.text);
        self
    }
}

fn apply(lab: &Lab, object: &Value) -> Applied {
    apply_with(lab, &[], object)
}

fn apply_with(lab: &Lab, flags: &[&str], object: &Value) -> Applied {
    let mut kubectl = lab.cluster().kubectl();
    kubectl.arg("apply").args(flags).args(["-f", "-"]);
    kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = kubectl.spawn().expect("kubectl starts");
    let text = object.to_string();
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl ends");
    let text = [output.stdout, output.stderr].concat();
    Applied {
        succeeded: output.status.success(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// Everything that makes pods.
const KINDS: [(&str, &str); 7] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "ReplicationController"),
];

/// A workload whose template has these annotations. It makes no pods by itself.
fn workload(namespace: &str, (version, kind): (&str, &str), annotations: Value) -> Value {
    let labels = json!({"app": kind});
    let mut template = json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": server_spec(),
    });
    let selector = json!({"matchLabels": labels});
    let spec = match kind {
        "Job" | "CronJob" => {
            template["spec"]["restartPolicy"] = json!("Never");
            let job = json!({"suspend": true, "template": template});
            match kind {
                "Job" => job,
                _ => json!({"schedule": "@yearly", "suspend": true, "jobTemplate": {"spec": job}}),
            }
        }
        "DaemonSet" => {
            template["spec"]["nodeSelector"] = json!({"no": "such-node"});
            json!({"selector": selector, "template": template})
        }
        "ReplicationController" => json!({"replicas": 0, "selector": labels, "template": template}),
        "StatefulSet" => {
            json!({"replicas": 0, "serviceName": "none", "selector": selector, "template": template})
        }
        _ => json!({"replicas": 0, "selector": selector, "template": template}),
    };
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": kind.to_lowercase(), "namespace": namespace},
        "spec": spec,
    })
}

fn deployment(namespace: &str, ruleset: &str) -> Value {
    workload(namespace, KINDS[0], json!({"sfunnel.io/ruleset": ruleset}))
}

/// What replicas have logged of their decisions in a namespace.
fn reviewed(lab: &Lab, namespace: &Namespace<'_>) -> Vec<String> {
    let logs = lab.replicas().into_iter().map(|pod| {
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        lab.kubectl(&format!("-n {SYSTEM} logs {name}"))
    });
    let here = format!(" namespace={:?} ", namespace.name());
    let logs: String = logs.collect();
    let lines = logs.lines().filter(|line| line.contains(": reviewed ") && line.contains(&here));
    lines.map(str::to_owned).collect()
}

fn mistakes_in_templates(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("validate-mistakes");
    let list = |annotations: Value, name: &str| {
        let items = KINDS.map(|kind| {
            let mut workload = workload(namespace.name(), kind, annotations.clone());
            workload["metadata"]["name"] = json!(name);
            workload
        });
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    };
    apply(lab, &list(Value::Null, "plain")).admitted();
    // They are none of our business.
    assert_eq!(reviewed(lab, &namespace), [] as [&str; 0]);

    for kind in KINDS {
        let broken = workload(namespace.name(), kind, json!({"sfunnel.io/ruleset": NO_RULESET}));
        let template = match kind.1 {
            "CronJob" => "spec.jobTemplate.spec.template",
            _ => "spec.template",
        };
        let refused = apply(lab, &broken)
            .refused()
            .says("admission webhook \"validate.sfunnel.io\" denied the request")
            .says(&format!("{template}: annotation sfunnel.io/ruleset holds no valid ruleset"));
        DIAGNOSTIC.into_iter().fold(refused, Applied::says);
    }
    // For those who look before they leap.
    apply_with(lab, &["--dry-run=server"], &deployment(namespace.name(), NO_RULESET)).refused();

    let (lines, _) = lab.wait_for("all denials in the log", || {
        let lines = reviewed(lab, &namespace);
        (lines.len() > KINDS.len()).then_some(lines)
    });
    for (_, kind) in KINDS {
        let of_kind = lines.iter().filter(|line| line.contains(&format!(" kind={kind:?} ")));
        let expected = if kind == "Deployment" { 2 } else { 1 };
        assert_eq!(of_kind.count(), expected, "{kind}: {lines:#?}");
    }
    let denied = " decision=\"denied\" reason=\"bad-ruleset\" webhook=\"validate\" ";
    assert!(lines.iter().all(|line| line.contains(denied)), "{lines:#?}");

    let denied = "sfunnel_webhook_decisions_total\
                  {webhook=\"validate\",decision=\"denied\",reason=\"bad-ruleset\"} ";
    let metrics = metrics(lab);
    let counts =
        metrics.lines().filter_map(|line| line.strip_prefix(denied)?.parse::<usize>().ok());
    // Other tests may have come before.
    assert!(counts.sum::<usize>() > KINDS.len(), "{metrics}");

    apply(lab, &list(json!({"sfunnel.io/ruleset": RULESET}), "good")).admitted();
    assert_conditions_hold(lab);
}

/// The metrics of all replicas, from where Prometheus looks for them.
fn metrics(lab: &Lab) -> String {
    let metrics = lab.replicas().into_iter().map(|pod| {
        let metadata = &pod["metadata"];
        let [name, port, path] = [
            &metadata["name"],
            &metadata["annotations"]["prometheus.io/port"],
            &metadata["annotations"]["prometheus.io/path"],
        ]
        .map(|value| value.as_str().expect("a name, a port and a path"));
        let pods = format!("/api/v1/namespaces/{SYSTEM}/pods");
        lab.kubectl(&format!("get --raw {pods}/{name}:{port}/proxy{path}"))
    });
    metrics.collect()
}

/// Checks that the API server could always tell whether an object is one for us: where it can't, it doesn't
/// ask, and says nothing either.
fn assert_conditions_hold(lab: &Lab) {
    let metrics = lab.kubectl("get --raw /metrics");
    let ours = |name: &str| {
        let lines = metrics.lines().filter(move |line| line.starts_with(name));
        lines.filter(|line| line.contains(".sfunnel.io\"")).collect::<Vec<_>>()
    };
    assert_eq!(ours("apiserver_admission_match_condition_evaluation_errors_total"), [""; 0]);
    // There would be such a line.
    assert_ne!(ours("apiserver_admission_match_condition_exclusions_total"), [""; 0]);
}

fn warnings(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("validate-warnings");
    let enforcing = lab.labelled("validate-enforcing");
    lab.kubectl(&format!("label namespace {} {POD_SECURITY}=baseline", enforcing.name()));
    let unlabelled = lab.unlabelled("validate-unlabelled");
    // On the workload, where nobody looks.
    for (kind, template) in
        [(KINDS[0], "spec.template"), (KINDS[5], "spec.jobTemplate.spec.template")]
    {
        let mut misplaced = workload(namespace.name(), kind, Value::Null);
        misplaced["metadata"]["annotations"] = json!({"sfunnel.io/ruleset": RULESET});
        apply(lab, &misplaced).admitted().says(&format!(
            "Warning: annotation sfunnel.io/ruleset does nothing here: move it to \
             {template}.metadata.annotations"
        ));
    }
    let misspelt = workload(namespace.name(), KINDS[1], json!({"sfunnel.io/rulesets": RULESET}));
    apply(lab, &misspelt).admitted().says(
        "Warning: annotation sfunnel.io/rulesets is unknown and does nothing; did you mean \
         sfunnel.io/ruleset?",
    );

    // A pod without the loader is seen, whoever took it out.
    let without_loader = || {
        let pod = annotated_pod(namespace.name(), "pod");
        let Applied { succeeded, text } = apply_with(lab, &["--dry-run=server"], &pod);
        succeeded.then(|| text.contains("Warning: the pod starts without its rules"))
    };
    lab.kubectl("delete mutatingwebhookconfiguration sfunnel-webhook");
    lab.wait_for("a pod without the loader", || without_loader()?.then_some(()));
    lab.kubectl_with("apply", "-k", &repository("deploy"));
    published(lab);
    lab.wait_for("a pod with it", || (!without_loader()?).then_some(()));

    // Where Pod Security is to refuse the loader.
    let refuses = "Warning: the namespace enforces Pod Security baseline or restricted, which refuses pods \
                   with sfunnel-loader";
    apply(lab, &deployment(enforcing.name(), RULESET)).admitted().says(refuses);
    apply(lab, &annotated_pod(enforcing.name(), "pod"))
        .refused()
        .says("violates PodSecurity \"baseline")
        .says("sfunnel-loader")
        .says(refuses);
    apply(lab, &plain_pod(enforcing.name(), "plain")).admitted();
    DIAGNOSTIC.into_iter().fold(
        apply(lab, &deployment(enforcing.name(), NO_RULESET))
            .refused()
            .says("admission webhook \"validate-enforced.sfunnel.io\" denied the request"),
        Applied::says,
    );

    // Where nothing is injected, nothing is denied.
    for ruleset in [RULESET, NO_RULESET] {
        apply(lab, &deployment(unlabelled.name(), ruleset)).admitted().says(&format!(
            "Warning: pods get no rules here: the namespace lacks the label {LABEL}"
        ));
    }
    let pod = apply(lab, &annotated_pod(unlabelled.name(), "pod")).admitted();
    assert!(pod.says("Warning: pods get no rules here").text.contains("pod/pod created"));
    assert_conditions_hold(lab);
}

/// Waits until the CA stands in every entry of both configurations, and has API servers call them all.
fn published(lab: &Lab) {
    lab.wait_for("the CA in both configurations", || {
        let bundles = bundles(lab);
        (bundles.len() == 5 && BTreeSet::from_iter(&bundles).len() == 1 && !bundles[0].is_empty())
            .then_some(())
    });
}

fn bundles(lab: &Lab) -> Vec<String> {
    let configurations = ["mutating", "validating"].into_iter().flat_map(|kind| {
        let configuration = lab.get(&format!("{kind}webhookconfiguration sfunnel-webhook"));
        configuration["webhooks"].as_array().expect("entries").clone()
    });
    let bundle = |entry: Value| entry["clientConfig"]["caBundle"].as_str().unwrap_or("").to_owned();
    configurations.map(bundle).collect()
}

fn broken_before(lab: &Lab) {
    lab.install();
    published(lab);
    let namespace = lab.labelled("validate-before");
    let name = namespace.name();
    let mut broken = deployment(name, NO_RULESET);
    broken["spec"]["replicas"] = json!(1);

    lab.kubectl("delete validatingwebhookconfiguration sfunnel-webhook");
    lab.wait_for("the API server to ask no more", || lab.cluster().apply(&broken.to_string()).ok());
    let replicas_of_set = || {
        let sets = lab.list(&format!("replicasets -n {name}"));
        sets.first().map(|set| set["spec"]["replicas"].clone())
    };
    lab.wait_for("the ReplicaSet", || (replicas_of_set()? == json!(1)).then_some(()));

    lab.kubectl_with("apply", "-k", &repository("deploy"));
    published(lab);
    lab.wait_for("the API server to ask again", || {
        let mut other = broken.clone();
        other["metadata"]["name"] = json!("other");
        let applied = apply_with(lab, &["--dry-run=server"], &other);
        (!applied.succeeded).then(|| applied.says("\"validate.sfunnel.io\" denied"))
    });

    // Nobody made a mistake just now.
    apply(lab, &broken).admitted();
    lab.kubectl(&format!("-n {name} label deployment deployment team=shop"));
    lab.kubectl(&format!("-n {name} annotate deployment deployment example.com/team=shop"));
    // The Deployment's controller updates the ReplicaSet.
    lab.kubectl(&format!("-n {name} scale deployment deployment --replicas=0"));
    lab.wait_for("the ReplicaSet to shrink", || (replicas_of_set()? == json!(0)).then_some(()));
    let unchanged = " decision=\"skipped\" reason=\"unchanged\" webhook=\"validate\" ";
    for kind in ["Deployment", "ReplicaSet"].map(|kind| format!(" kind={kind:?} ")) {
        lab.wait_for("a line in the log", || {
            let mut lines = reviewed(lab, &namespace).into_iter();
            lines.find(|line| line.contains(unchanged) && line.contains(&kind))
        });
    }
    // Now somebody would.
    let mut image = broken.clone();
    image["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other/image:1");
    apply(lab, &image).refused().says("\"validate.sfunnel.io\" denied");

    lab.kubectl(&format!("-n {name} delete deployment deployment"));
    lab.wait_for("the end of the ReplicaSet", || replicas_of_set().is_none().then_some(()));
    assert_conditions_hold(lab);
}

fn without_replicas(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("validate-alone");
    let name = namespace.name();
    lab.kubectl(&format!("-n {SYSTEM} scale deployment sfunnel-webhook --replicas=0"));
    // Nobody's requests are in flight.
    let selector = "app.kubernetes.io/component=webhook";
    lab.kubectl(&format!("-n {SYSTEM} delete pods -l {selector} --grace-period=1"));

    let mut admitted = deployment(name, RULESET);
    admitted["spec"]["replicas"] = json!(1);
    lab.wait_for("the last replica to end", || lab.replicas().is_empty().then_some(()));
    apply(lab, &admitted).admitted();
    let describe = format!("-n {name} describe replicaset");
    lab.wait_for("the event of the ReplicaSet", || {
        let text = lab.kubectl(&describe);
        text.contains("failed calling webhook \"inject.sfunnel.io\"").then_some(())
    });
    assert_eq!(lab.list(&format!("pods -n {name}")), [] as [Value; 0]);
    assert_metrics_of_alerts(lab);
    // Nobody waits for them here: whoever needs them installs them.
    lab.kubectl(&format!("-n {SYSTEM} scale deployment sfunnel-webhook --replicas=2"));
}

/// Checks that API servers count what alerts and dashboard ask for, where calls have failed.
fn assert_metrics_of_alerts(lab: &Lab) {
    let metrics = lab.kubectl("get --raw /metrics");
    let series = |name: &str, labels: &[&str]| {
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.filter(|line| labels.iter().all(|label| line.contains(label))).count()
    };
    let mut asked = BTreeSet::new();
    for file in ["alerts.yaml", "dashboard.json"] {
        let path = repository("deploy/monitoring").join(file);
        let text = std::fs::read_to_string(&path).expect("deploy/monitoring");
        for (start, _) in text.match_indices("apiserver_") {
            let name = text[start..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            asked.extend(name.take(1).filter(|name| !name.ends_with('_')).map(str::to_owned));
        }
    }
    for name in &asked {
        assert!(series(name, &["name=\""]) > 0, "API servers have no {name}");
    }
    let rejected = ["name=\"inject.sfunnel.io\"", "error_type=\"calling_webhook_error\""];
    assert!(series("apiserver_admission_webhook_rejection_count", &rejected) > 0);
    let skipped = ["name=\"validate.sfunnel.io\""];
    assert!(series("apiserver_admission_webhook_fail_open_count", &skipped) > 0);
    assert_eq!(asked.len(), 3, "{asked:?}");
}
