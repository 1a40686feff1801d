//! Objects that hold a template of pods, as far as pods are concerned.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::names::{ANNOTATIONS, EGRESS_RULESET, PREFIX, RULESET, STATUS};

/// A resource of the API whose objects make pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its group; empty for the core.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its plural, as paths of the API have it.
    pub plural: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Where its objects have the template.
    pub template: &'static str,
}

const TEMPLATE: &str = "spec.template";
const JOB_TEMPLATE: &str = "spec.jobTemplate.spec.template";

/// All of them.
pub const WORKLOADS: [Resource; 7] = [
    Resource::new("", "replicationcontrollers", "ReplicationController", TEMPLATE),
    Resource::new("apps", "deployments", "Deployment", TEMPLATE),
    Resource::new("apps", "statefulsets", "StatefulSet", TEMPLATE),
    Resource::new("apps", "daemonsets", "DaemonSet", TEMPLATE),
    Resource::new("apps", "replicasets", "ReplicaSet", TEMPLATE),
    Resource::new("batch", "jobs", "Job", TEMPLATE),
    Resource::new("batch", "cronjobs", "CronJob", JOB_TEMPLATE),
];

impl Resource {
    const fn new(
        group: &'static str,
        plural: &'static str,
        kind: &'static str,
        template: &'static str,
    ) -> Self {
        // The API server converts other versions (matchPolicy: Equivalent).
        Self { group, version: "v1", plural, kind, template }
    }
}

/// An object with a template.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Workload {
    /// Its own metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    template: PodTemplateSpec,
    job_template: Option<JobTemplate>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct JobSpec {
    template: PodTemplateSpec,
}

impl Workload {
    /// The template.
    pub fn template(&self) -> &PodTemplateSpec {
        match &self.spec.job_template {
            Some(job) => &job.spec.template,
            None => &self.spec.template,
        }
    }

    /// A pod of this workload, before its name and other webhooks.
    pub fn pod(&self) -> Pod {
        let PodTemplateSpec { metadata, spec } = self.template().clone();
        Pod { metadata: metadata.unwrap_or_default(), spec, status: None }
    }

    /// Whether pods are the same, and so are annotations of ours on the object itself.
    pub fn same_to_us(&self, other: &Self) -> bool {
        self.template() == other.template() && ours(&self.metadata).eq(ours(&other.metadata))
    }

    /// Annotations of ours that stand here, and not in the template, where they would mean something.
    /// Objects that another one owns have copies of its annotations; nobody put them there.
    pub fn misplaced(&self) -> Vec<&'static str> {
        if owner(&self.metadata).is_some() {
            return Vec::new();
        }
        let has = |metadata: Option<&ObjectMeta>, name: &str| {
            let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
            annotations.is_some_and(|all| all.contains_key(name))
        };
        let template = self.template().metadata.as_ref();
        let mut known: Vec<_> = ANNOTATIONS
            .into_iter()
            .filter(|name| *name != STATUS)
            .filter(|name| has(Some(&self.metadata), name) && !has(template, name))
            .collect();
        // One that opts out, or names interfaces, is misplaced only where rules are.
        let rules = [RULESET, EGRESS_RULESET];
        if !rules.iter().any(|name| has(template, name) || has(Some(&self.metadata), name)) {
            known.clear();
        }
        known
    }
}

/// Annotations under our prefix, but for the one that we write ourselves.
pub fn ours(metadata: &ObjectMeta) -> impl Iterator<Item = (&String, &String)> {
    let annotations = metadata.annotations.iter().flatten();
    annotations.filter(|(name, _)| name.starts_with(PREFIX) && *name != STATUS)
}

/// Kind and name of the object that made this one, and answers for it.
pub fn owner(metadata: &ObjectMeta) -> Option<String> {
    let owners = metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.next().map(|owner| format!("{}/{}", owner.kind, owner.name))
}
