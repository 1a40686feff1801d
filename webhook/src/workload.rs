//! Objects that hold a template of pods, as far as pods are concerned.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::Object;
use crate::names::{ANNOTATIONS, EGRESS_RULESET, PREFIX, RULESET, STATUS};
use crate::pod;

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
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its own metadata.
    pub metadata: ObjectMeta,
    /// A pod of it, before its name and other webhooks.
    pub pod: Pod,
    /// The template as it was written.
    template: String,
    /// Metadata of a CronJob's jobs, where pods have no part in.
    jobs: ObjectMeta,
}

impl<'de> Deserialize<'de> for Workload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(Parts { metadata, spec }) = Object::deserialize(deserializer)?;
        let Object(Spec { template, job_template }) = spec.unwrap_or_default();
        let (jobs, of_jobs) = match job_template {
            None => (ObjectMeta::default(), None),
            Some(Object(JobTemplate { metadata, spec })) => {
                (metadata, spec.and_then(|Object(spec)| spec.template))
            }
        };
        let (pod, template) = match of_jobs.or(template) {
            None => (Pod::default(), String::new()),
            Some(Template { pod, text }) => (pod, text),
        };
        Ok(Self { metadata, pod, template, jobs })
    }
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default, deserialize_with = "pod::read_metadata")]
    metadata: ObjectMeta,
    spec: Option<Object<Spec>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    template: Option<Template>,
    job_template: Option<Object<JobTemplate>>,
}

#[derive(Deserialize)]
struct JobTemplate {
    #[serde(default, deserialize_with = "pod::read_metadata")]
    metadata: ObjectMeta,
    spec: Option<Object<JobSpec>>,
}

#[derive(Deserialize)]
struct JobSpec {
    template: Option<Template>,
}

struct Template {
    pod: Pod,
    text: String,
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let pod = pod::read(&mut serde_json::Deserializer::from_str(text.get()));
        Ok(Self { pod: pod.map_err(D::Error::custom)?, text: Box::<str>::from(text).into() })
    }
}

impl Workload {
    /// Whether templates are the same.
    pub fn same_template(&self, other: &Self) -> bool {
        self.template == other.template
    }

    /// Whether annotations of ours are the same outside of the templates.
    pub fn same_annotations(&self, other: &Self) -> bool {
        ours(&self.metadata).eq(ours(&other.metadata)) && ours(&self.jobs).eq(ours(&other.jobs))
    }

    /// Annotations of ours that stand here, and not in the template, where they would mean something.
    /// Objects that another one owns have copies of its annotations; nobody put them there.
    pub fn misplaced(&self) -> Vec<&'static str> {
        if owner(&self.metadata).is_some() {
            return Vec::new();
        }
        let has = |metadata: &ObjectMeta, name: &str| {
            metadata.annotations.as_ref().is_some_and(|all| all.contains_key(name))
        };
        let in_template = |name: &str| has(&self.pod.metadata, name);
        let here = |name: &str| has(&self.metadata, name) || has(&self.jobs, name);
        // One that opts out, or names interfaces, is misplaced only where rules are.
        if ![RULESET, EGRESS_RULESET].into_iter().any(|name| here(name) || in_template(name)) {
            return Vec::new();
        }
        let known = ANNOTATIONS.into_iter().filter(|name| *name != STATUS);
        known.filter(|name| here(name) && !in_template(name)).collect()
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
