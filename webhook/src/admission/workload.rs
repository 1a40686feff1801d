//! Objects that hold a template of pods.

use ruleset::contract::{ANNOTATIONS, EGRESS_RULESET, RULESET, STATUS};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::pod::{Metadata, PodFacts, null_is_default};

/// A resource of the API whose objects make pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its group; empty for the core.
    pub group: &'static str,
    /// Its plural, as in paths of the API.
    pub plural: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// The path of the template in its objects.
    pub template: &'static str,
}

const TEMPLATE: &str = "spec.template";
const JOB_TEMPLATE: &str = "spec.jobTemplate.spec.template";

/// All of them, in version v1: the API server converts other versions (`matchPolicy: Equivalent`).
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
        Self { group, plural, kind, template }
    }
}

/// An object with a template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Workload {
    #[serde(deserialize_with = "null_is_default")]
    pub metadata: Metadata,
    #[serde(deserialize_with = "null_is_default")]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "an object")]
struct Spec {
    #[serde(deserialize_with = "null_is_default")]
    template: Template,
    /// Of a CronJob.
    job_template: Option<Box<Workload>>,
}

#[derive(Clone, Debug, Default)]
struct Template {
    pod: PodFacts,
    text: Box<str>,
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let pod = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { pod, text: text.into() })
    }
}

impl Workload {
    /// A pod of it, before it has a name and other webhooks have changed it.
    pub fn pod(&self) -> &PodFacts {
        &self.template().pod
    }

    /// Whether both have the same template, to the letter.
    pub fn same_template(&self, other: &Self) -> bool {
        self.template().text == other.template().text
    }

    /// Whether annotations of ours are the same outside of the templates.
    pub fn same_annotations(&self, other: &Self) -> bool {
        let (these, those) = (self.outer_metadata(), other.outer_metadata());
        these.len() == those.len()
            && these
                .iter()
                .zip(those)
                .all(|(one, other)| one.own_annotations().eq(other.own_annotations()))
    }

    /// Annotations of ours that stand on the workload, and not in the template, where they would have an
    /// effect. Objects that a controller made have copies of its annotations, which nobody wrote there.
    pub fn misplaced(&self) -> Vec<&'static str> {
        if self.metadata.controller().is_some() {
            return Vec::new();
        }
        let in_template = |name: &str| self.pod().metadata.annotations.contains_key(name);
        let here = |name: &str| {
            self.outer_metadata().iter().any(|metadata| metadata.annotations.contains_key(name))
        };
        // One that opts out, or names interfaces, is misplaced only where rules are.
        if ![RULESET, EGRESS_RULESET].into_iter().any(|name| here(name) || in_template(name)) {
            return Vec::new();
        }
        let known = ANNOTATIONS.into_iter().filter(|name| *name != STATUS);
        known.filter(|name| here(name) && !in_template(name)).collect()
    }

    fn template(&self) -> &Template {
        match &self.spec.job_template {
            Some(jobs) => jobs.template(),
            None => &self.spec.template,
        }
    }

    /// The metadata of the object, and those of a CronJob's jobs, in which pods have no part.
    fn outer_metadata(&self) -> Vec<&Metadata> {
        let jobs = self.spec.job_template.iter().map(|jobs| &jobs.metadata);
        std::iter::once(&self.metadata).chain(jobs).collect()
    }
}
