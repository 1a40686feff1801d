//! The installation itself, `deploy/base`.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ruleset::contract::INJECT;
use serde_json::{Value, json};
use webhook::certificates::source::Source;

use crate::rendered::{
    MUTATING, NAME, NAMESPACE, Rendered, VALIDATING, deploy, only, only_container,
};

/// The workspace's version is that of the images.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn one_file_is_the_same() {
    let file = std::fs::read_to_string(deploy().join("install.yaml")).expect("install.yaml");
    let (comment, rest) = file.split_once('\n').expect("lines");
    assert_eq!(comment, "# Made of deploy/base by `make manifests`. Change it there.");
    let rendered = Rendered::text(".");
    let different = rest.lines().zip(rendered.lines()).find(|(in_file, made)| in_file != made);
    assert_eq!(different, None, "`make manifests` writes install.yaml anew");
    assert_eq!(rest.len(), rendered.len(), "`make manifests` writes install.yaml anew");
}

#[test]
fn the_configurations_are_the_first_to_go() {
    let kinds = Rendered::folder(".").kinds().join(" ");
    assert_eq!(
        kinds,
        "MutatingWebhookConfiguration ValidatingWebhookConfiguration Namespace ServiceAccount Role \
         RoleBinding ClusterRole ClusterRoleBinding NetworkPolicy PodDisruptionBudget Service \
         Deployment"
    );
    for overlay in ["overlays/cert-manager", "overlays/gke"] {
        assert_eq!(Rendered::folder(overlay).kinds()[..2], [MUTATING, VALIDATING]);
    }
}

#[test]
fn versions_are_the_workspaces() {
    let rendered = Rendered::folder(".");
    let image = only_container(&rendered.pods(NAME)).image;
    assert_eq!(image, Some(format!("sfunnel/webhook:{VERSION}")));
    let loader = rendered.config().settings.loader_image;
    assert_eq!(loader.as_str(), format!("sfunnel/loader:{VERSION}"));
    for object in rendered.objects() {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "sfunnel", "{object}");
        assert_eq!(labels["app.kubernetes.io/version"], VERSION, "{object}");
    }
}

#[test]
fn selectors_agree_and_outlive_versions() {
    let rendered = Rendered::folder(".");
    let labels = json!({
        "app.kubernetes.io/name": "sfunnel",
        "app.kubernetes.io/component": "webhook",
    });
    let get = |kind: &str| rendered.get::<Value>(kind, NAME);
    let deployment = get("Deployment");
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &get("Service")["spec"]["selector"],
        &get("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &get("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ] {
        assert_eq!(*selector, labels);
    }
    let pods = deployment["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    let selected = labels.as_object().unwrap();
    assert!(selected.iter().all(|(name, value)| pods.get(name) == Some(value)));
}

#[test]
fn ports_agree() {
    Rendered::folder(".").assert_ports_agree();
}

#[test]
fn the_webhook_is_hardened() {
    let rendered = Rendered::folder(".");
    rendered.assert_hardened();
    let namespace: Namespace = rendered.get("Namespace", NAMESPACE);
    let labels = namespace.metadata.labels.unwrap();
    for mode in ["enforce", "audit", "warn"] {
        assert_eq!(labels[&format!("pod-security.kubernetes.io/{mode}")], "restricted");
    }
    assert_ne!(labels[INJECT], "enabled");
}

/// A review with the largest rulesets peaks at 125 MB.
#[test]
fn the_largest_pods_do_not_take_the_webhook_down() {
    let rendered = Rendered::folder(".");
    let limits = only_container(&rendered.pods(NAME)).resources.unwrap().limits.unwrap();
    let limit = limits["memory"].0.strip_suffix("Mi").and_then(|mi| mi.parse().ok());
    let reviews: usize = rendered.config().options.limits.max_reviews;
    assert!(reviews * 125 + 16 < limit.expect("MiB"), "{reviews} reviews, {limits:?}");
}

#[test]
fn replicas_stay_available() {
    let rendered = Rendered::folder(".");
    let deployment: Deployment = rendered.get("Deployment", NAME);
    let spec = deployment.spec.unwrap();
    assert_eq!(spec.replicas, Some(2));
    let rolling = spec.strategy.unwrap().rolling_update.unwrap();
    assert_eq!(rolling.max_unavailable, Some(IntOrString::Int(0)));
    assert_eq!(rolling.max_surge, Some(IntOrString::Int(1)));

    let pods = rendered.pods(NAME);
    assert_eq!(pods.priority_class_name.as_deref(), Some("system-cluster-critical"));
    let anti_affinity = pods.affinity.unwrap().pod_anti_affinity.unwrap();
    assert_eq!(anti_affinity.required_during_scheduling_ignored_during_execution, None);
    let terms = anti_affinity.preferred_during_scheduling_ignored_during_execution.unwrap();
    assert_eq!(terms[0].pod_affinity_term.topology_key, "kubernetes.io/hostname");
    for spread in pods.topology_spread_constraints.unwrap() {
        assert_eq!(spread.when_unsatisfiable, "ScheduleAnyway");
    }

    let options = rendered.config().options;
    let end = options.drain_delay + options.shutdown_timeout;
    let grace = pods.termination_grace_period_seconds.unwrap();
    let grace = Duration::from_secs(grace.try_into().unwrap());
    assert!(end < grace, "{end:?} to end, {grace:?} until it is killed");

    let budget: PodDisruptionBudget = rendered.get("PodDisruptionBudget", NAME);
    let budget = budget.spec.unwrap();
    assert_eq!(budget.max_unavailable, Some(IntOrString::Int(1)));
    assert_eq!(budget.unhealthy_pod_eviction_policy.as_deref(), Some("AlwaysAllow"));
}

#[test]
fn the_webhook_talks_to_the_api_server_and_is_asked_by_it_and_prometheus() {
    let policy: NetworkPolicy = Rendered::folder(".").get("NetworkPolicy", NAME);
    let spec = policy.spec.unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
    let [api_servers, prometheus] = <[_; 2]>::try_from(spec.ingress.unwrap()).unwrap();
    let port = |name: &str| NetworkPolicyPort {
        port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    assert_eq!((api_servers.from, api_servers.ports), (None, Some(vec![port("https")])));
    assert_eq!(prometheus.ports, Some(vec![port("health")]));
    let peer = only(prometheus.from.unwrap());
    assert_eq!(peer.namespace_selector, Some(LabelSelector::default()));
    assert_eq!((peer.pod_selector, peer.ip_block), (None, None));
    let egress = only(spec.egress.unwrap());
    let ports = egress.ports.unwrap();
    assert!(ports.iter().all(|port| port.protocol.as_deref() == Some("TCP")));
    let numbers: Vec<_> = ports.into_iter().map(|port| port.port).collect();
    assert_eq!(numbers, [Some(IntOrString::Int(443)), Some(IntOrString::Int(6443))]);
}

#[test]
fn the_certificate_is_for_the_service_that_is_called() {
    let rendered = Rendered::folder(".");
    let Source::Managed(managed) = rendered.config().tls else { panic!("not managed") };
    assert_eq!(managed.namespace.as_deref(), Some(NAMESPACE));
    let service: Service = rendered.get("Service", &managed.service);
    assert_eq!(service.metadata.namespace.as_deref(), Some(NAMESPACE));
    for kind in [MUTATING, VALIDATING] {
        rendered.get::<Value>(kind, &managed.configuration);
    }
}
