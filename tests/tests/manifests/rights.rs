//! What the webhook may do in the cluster.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use webhook::certificates::source::Source;

use crate::rendered::{NAME, NAMESPACE, Rendered};

fn rule(group: &str, resources: &[&str], name: String, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.iter().map(|resource| (*resource).to_owned()).collect()),
        resource_names: Some(vec![name]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        non_resource_urls: None,
    }
}

#[test]
fn rights_are_for_three_objects_by_name() {
    let rendered = Rendered::folder(".");
    let Source::Managed(managed) = rendered.config().tls else { panic!("not managed") };
    let role: Role = rendered.get("Role", NAME);
    assert_eq!(role.metadata.namespace.as_deref(), Some(NAMESPACE));
    let verbs = ["get", "list", "watch", "create", "patch"];
    assert_eq!(role.rules.unwrap(), [rule("", &["secrets"], managed.secret, &verbs)]);

    let role: ClusterRole = rendered.get("ClusterRole", NAME);
    assert_eq!(role.aggregation_rule, None);
    let group = "admissionregistration.k8s.io";
    let resources = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    let verbs = ["get", "list", "watch", "patch"];
    assert_eq!(role.rules.unwrap(), [rule(group, &resources, managed.configuration, &verbs)]);
}

#[test]
fn rights_are_the_webhooks_alone() {
    let rendered = Rendered::folder(".");
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: NAME.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        api_group: None,
    };
    let role = |kind: &str| RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: kind.to_owned(),
        name: NAME.to_owned(),
    };
    let binding: RoleBinding = rendered.get("RoleBinding", NAME);
    assert_eq!(binding.metadata.namespace.as_deref(), Some(NAMESPACE));
    assert_eq!(binding.role_ref, role("Role"));
    assert_eq!(binding.subjects.as_deref().unwrap(), std::slice::from_ref(&subject));
    let binding: ClusterRoleBinding = rendered.get("ClusterRoleBinding", NAME);
    assert_eq!(binding.role_ref, role("ClusterRole"));
    assert_eq!(binding.subjects.unwrap(), [subject]);

    let account: ServiceAccount = rendered.get("ServiceAccount", NAME);
    assert_eq!(account.automount_service_account_token, Some(false));
    let pods = rendered.pods(NAME);
    assert_eq!(pods.service_account_name.as_deref(), Some(NAME));
    assert_eq!(pods.automount_service_account_token, Some(true));
}
