//! The installation's variants.

use std::path::Path;

use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use webhook::certificates::source::Source;

use crate::rendered::{MUTATING, NAME, NAMESPACE, Rendered, VALIDATING, only, only_container};

const CERT_MANAGER: &str = "overlays/cert-manager";
const GKE: &str = "overlays/gke";

#[test]
fn all_are_as_hard_as_the_base() {
    let base = Rendered::folder(".");
    assert!(!base.config().settings.loader_privileged);
    for overlay in [CERT_MANAGER, GKE] {
        let rendered = Rendered::folder(overlay);
        rendered.assert_hardened();
        rendered.assert_ports_agree();
        for kind in [MUTATING, VALIDATING] {
            assert_eq!(rendered.entries(kind), base.entries(kind), "{overlay}");
        }
    }
}

#[test]
fn with_cert_manager_the_webhook_has_no_rights_and_no_way_out() {
    let rendered = Rendered::folder(CERT_MANAGER);
    let rights = ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    assert!(!rendered.kinds().iter().any(|kind| rights.contains(kind)));
    assert_eq!(rendered.pods(NAME).automount_service_account_token, Some(false));
    let policy: NetworkPolicy = rendered.get("NetworkPolicy", NAME);
    let spec = policy.spec.unwrap();
    assert_eq!((spec.egress, spec.policy_types.unwrap().len()), (Some(Vec::new()), 2));
}

#[test]
fn the_webhook_reads_the_certificate_that_cert_manager_publishes() {
    let rendered = Rendered::folder(CERT_MANAGER);
    let certificate = rendered.get::<Value>("Certificate", NAME);
    let path = format!("{NAMESPACE}/{}", certificate["metadata"]["name"].as_str().unwrap());
    for kind in [MUTATING, VALIDATING] {
        let configuration = rendered.get::<Value>(kind, NAME);
        let annotations = &configuration["metadata"]["annotations"];
        assert_eq!(*annotations, json!({"cert-manager.io/inject-ca-from": path}), "{kind}");
    }
    let spec = &certificate["spec"];
    assert_eq!(spec["dnsNames"], json!([format!("{NAME}.{NAMESPACE}.svc")]));
    assert_eq!(
        spec["privateKey"],
        json!({"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"})
    );

    let pods = rendered.pods(NAME);
    let volume = only(pods.volumes.clone().unwrap());
    let secret = volume.secret.unwrap();
    assert_eq!(spec["secretName"], secret.secret_name.unwrap());
    assert_eq!(secret.default_mode, Some(0o440));
    let context = pods.security_context.clone().unwrap();
    assert_eq!(context.fs_group, context.run_as_group, "or the key can't be read");
    let mount = only(only_container(&pods).volume_mounts.unwrap());
    assert_eq!((mount.name, mount.sub_path), (volume.name, None));
    let Source::Files(files) = rendered.config().tls else { panic!("not from files") };
    assert_eq!(files.certificate, Path::new(&mount.mount_path).join("tls.crt"));
    assert_eq!(files.key, Path::new(&mount.mount_path).join("tls.key"));
}

/// A CA whose certificate is renewed with another key would invalidate what it has issued.
#[test]
fn cert_managers_ca_keeps_its_key() {
    let rendered = Rendered::folder(CERT_MANAGER);
    let issuer = |name: &str| rendered.get::<Value>("Issuer", name);
    let leaf = rendered.get::<Value>("Certificate", NAME);
    let issuer_of = |certificate: &Value| {
        issuer(certificate["spec"]["issuerRef"]["name"].as_str().unwrap())["spec"].clone()
    };
    let ca = rendered.get::<Value>("Certificate", "sfunnel-webhook-ca");
    assert_eq!(issuer_of(&leaf), json!({"ca": {"secretName": ca["spec"]["secretName"]}}));
    assert_eq!(issuer_of(&ca), json!({"selfSigned": {}}));
    assert_eq!(ca["spec"]["isCA"], true);
    assert_eq!(ca["spec"]["privateKey"]["rotationPolicy"], "Never");
    // Should both ways have been installed one after the other.
    let Source::Managed(managed) = Rendered::folder(".").config().tls else {
        panic!("not managed")
    };
    assert_ne!(ca["spec"]["secretName"], managed.secret);
}

#[test]
fn on_gke_the_loader_is_privileged_and_the_port_one_that_control_planes_reach() {
    let rendered = Rendered::folder(GKE);
    let config = rendered.config();
    assert!(config.settings.loader_privileged);
    assert_eq!(config.options.listen.port(), 10250);
    let quota: ResourceQuota = rendered.get("ResourceQuota", NAME);
    assert_eq!(quota.metadata.namespace.as_deref(), Some(NAMESPACE));
    let selector = quota.spec.unwrap().scope_selector.unwrap();
    let scope = only(selector.match_expressions.unwrap());
    assert_eq!(scope.scope_name, "PriorityClass");
    assert_eq!(scope.values, rendered.pods(NAME).priority_class_name.map(|name| vec![name]));
}
