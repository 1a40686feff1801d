//! The entries of both webhook configurations: which objects API servers ask about, on which path, and
//! what a failure means.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, RuleWithOperations};
use kube::core::{Selector, SelectorExt as _};
use ruleset::contract::{INJECT, PREFIX};
use webhook::admission::endpoint::{ENDPOINTS, Endpoint, Namespace, Webhook};
use webhook::admission::workload::WORKLOADS;

use crate::rendered::{MUTATING, NAMESPACE, Rendered, VALIDATING, only};

/// How an entry is called whose path says so much.
fn name(endpoint: Endpoint) -> String {
    let what = match endpoint.webhook {
        Webhook::Mutate => "inject",
        Webhook::Validate => "validate",
    };
    let suffix = match endpoint.namespace {
        Namespace::Enabled => "",
        Namespace::Enforced => "-enforced",
        Namespace::Unlabelled => "-unlabelled",
    };
    format!("{what}{suffix}.sfunnel.io")
}

/// Names and paths of the entries that the webhook serves.
fn served(webhook: Webhook) -> Vec<(String, String)> {
    let ours = ENDPOINTS.into_iter().filter(|(_, endpoint)| endpoint.webhook == webhook);
    ours.map(|(path, endpoint)| (name(endpoint), path.to_owned())).collect()
}

fn path(entry: &MutatingWebhook) -> &str {
    entry.client_config.service.as_ref().unwrap().path.as_deref().unwrap()
}

#[test]
fn every_path_has_its_entry() {
    let rendered = Rendered::folder(".");
    for (kind, webhook) in [(MUTATING, Webhook::Mutate), (VALIDATING, Webhook::Validate)] {
        let entries = rendered.entries(kind);
        let found = entries.iter().map(|entry| (entry.name.clone(), path(entry).to_owned()));
        assert_eq!(found.collect::<Vec<_>>(), served(webhook));
    }
}

/// A namespace as its selectors see it.
struct Labels {
    name: &'static str,
    inject: Option<&'static str>,
    enforce: Option<&'static str>,
}

impl Labels {
    /// Every kind of namespace that there is.
    fn all() -> impl Iterator<Item = Self> {
        let names = ["shop", "kube-system", NAMESPACE];
        let injects = [None, Some("enabled"), Some("disabled"), Some("true"), Some("")];
        let enforced =
            [None, Some("privileged"), Some("baseline"), Some("restricted"), Some("unknown")];
        names.into_iter().flat_map(move |name| {
            injects.into_iter().flat_map(move |inject| {
                enforced.into_iter().map(move |enforce| Self { name, inject, enforce })
            })
        })
    }

    fn selected(&self, entry: &MutatingWebhook) -> bool {
        let labels = [
            ("kubernetes.io/metadata.name", Some(self.name)),
            (INJECT, self.inject),
            ("pod-security.kubernetes.io/enforce", self.enforce),
        ];
        let labels: BTreeMap<_, _> = labels
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        let selector = Selector::try_from(entry.namespace_selector.clone().unwrap()).unwrap();
        selector.matches(&labels)
    }

    /// The paths on which API servers ask about objects in it.
    fn asked_on(&self, entries: &[MutatingWebhook]) -> Vec<String> {
        let selected = entries.iter().filter(|entry| self.selected(entry));
        selected.map(|entry| path(entry).to_owned()).collect()
    }

    /// Whom the webhook has to do without.
    fn is_the_systems(&self) -> bool {
        self.name != "shop"
    }

    /// Whether the API server refuses the loader here.
    fn refuses_the_loader(&self) -> bool {
        matches!(self.enforce, Some("baseline" | "restricted"))
    }
}

#[test]
fn a_labelled_namespace_has_one_entry_and_others_have_none_that_changes_pods() {
    let rendered = Rendered::folder(".");
    let [mutating, validating] = [MUTATING, VALIDATING].map(|kind| rendered.entries(kind));
    let mut seen = Vec::new();
    for namespace in Labels::all() {
        let what = (namespace.name, namespace.inject, namespace.enforce);
        let enabled = namespace.inject == Some("enabled");
        let suffix = if namespace.refuses_the_loader() { "/enforced" } else { "" };
        let (mutate, validate) = match (namespace.is_the_systems(), enabled) {
            (true, _) => (None, None),
            (false, true) => (Some(format!("/mutate{suffix}")), Some(format!("/validate{suffix}"))),
            (false, false) => (None, Some("/validate/unlabelled".to_owned())),
        };
        assert_eq!(namespace.asked_on(&mutating), Vec::from_iter(mutate.clone()), "{what:?}");
        assert_eq!(namespace.asked_on(&validating), Vec::from_iter(validate.clone()), "{what:?}");
        seen.extend(mutate.into_iter().chain(validate));
    }
    for (path, _) in ENDPOINTS {
        assert!(seen.iter().any(|seen| seen == path), "no namespace led to {path}");
    }
}

#[test]
fn entries_differ_in_names_paths_and_namespaces_alone() {
    let rendered = Rendered::folder(".");
    for kind in [MUTATING, VALIDATING] {
        let entries = rendered.entries(kind);
        let alike = |entry: &MutatingWebhook| {
            let mut entry = entry.clone();
            entry.name.clear();
            entry.client_config.service.as_mut().unwrap().path = None;
            entry.namespace_selector = None;
            entry
        };
        for entry in &entries {
            assert_eq!(alike(entry), alike(&entries[0]), "{}", entry.name);
        }
    }
}

#[test]
fn only_pods_that_ask_for_it_depend_on_the_webhook() {
    for entry in Rendered::folder(".").entries(MUTATING) {
        let list = |item: &str| Some(vec![item.to_owned()]);
        let creation_of_pods = RuleWithOperations {
            api_groups: list(""),
            api_versions: list("v1"),
            operations: list("CREATE"),
            resources: list("pods"),
            scope: Some("Namespaced".to_owned()),
        };
        assert_eq!(entry.rules.unwrap(), [creation_of_pods]);
        assert_eq!(entry.match_policy.as_deref(), Some("Equivalent"));
        assert_eq!(entry.object_selector, None);
        let conditions = entry.match_conditions.unwrap();
        let expressions: Vec<_> = conditions.iter().map(|c| c.expression.as_str()).collect();
        let annotated = format!(
            "has(object.metadata.annotations) && \
             object.metadata.annotations.exists(name, name.startsWith('{PREFIX}'))"
        );
        let not_opted_out =
            format!("object.metadata.?annotations[?'{INJECT}'].orValue('') != 'false'");
        assert_eq!(expressions, [annotated, not_opted_out]);
    }
}

/// `tests/tests/cluster/validate.rs` has an API server evaluate the expression on all these kinds.
#[test]
fn whatever_makes_annotated_pods_is_looked_at() {
    for entry in Rendered::folder(".").entries(VALIDATING) {
        let mut asked = BTreeSet::new();
        for rule in entry.rules.unwrap() {
            assert_eq!(rule.operations.unwrap(), ["CREATE", "UPDATE"]);
            assert_eq!(rule.scope.as_deref(), Some("Namespaced"));
            let [group, version] =
                [rule.api_groups, rule.api_versions].map(|list| only(list.unwrap()));
            for resource in rule.resources.unwrap() {
                asked.insert((group.clone(), version.clone(), resource));
            }
        }
        let owned = |group: &str, version: &str, plural: &str| {
            (group.to_owned(), version.to_owned(), plural.to_owned())
        };
        let read = WORKLOADS.map(|known| owned(known.group, "v1", known.plural));
        assert_eq!(asked, read.into_iter().chain([owned("", "v1", "pods")]).collect());
        assert_eq!(entry.match_policy.as_deref(), Some("Equivalent"));
        assert_eq!(entry.object_selector, None);
        let condition = only(entry.match_conditions.unwrap());
        let annotated = format!(
            "[object.metadata.?annotations, \
             object.?spec.template.metadata.annotations, \
             object.?spec.jobTemplate.metadata.annotations, \
             object.?spec.jobTemplate.spec.template.metadata.annotations] \
             .exists(annotations, annotations.orValue({{}}).exists(name, name.startsWith('{PREFIX}')))"
        );
        assert_eq!(condition.expression, annotated);
    }
}

#[test]
fn a_failure_refuses_pods_and_nothing_else_and_soon() {
    let rendered = Rendered::folder(".");
    for (kind, policy, seconds, reinvocation) in
        [(MUTATING, "Fail", 5, Some("IfNeeded")), (VALIDATING, "Ignore", 2, None)]
    {
        for entry in rendered.entries(kind) {
            assert_eq!(entry.failure_policy.as_deref(), Some(policy));
            assert_eq!(entry.timeout_seconds, Some(seconds));
            assert_eq!(entry.reinvocation_policy.as_deref(), reinvocation);
            assert_eq!(entry.side_effects, "None");
            assert_eq!(entry.admission_review_versions, ["v1"]);
        }
    }
}
