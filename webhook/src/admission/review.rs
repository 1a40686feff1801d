//! From the bytes of an AdmissionReview to what it asks.
//!
//! The format is `admission.k8s.io/v1`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).

use kube::core::admission::{META_API_VERSION_V1, META_KIND, Operation};
use kube::core::{GroupVersionKind, GroupVersionResource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::annotations;
use super::endpoint::{Endpoint, Webhook};
use super::pod::{Metadata, PodFacts, null_is_default};
use super::reason::SkipReason;
use super::text::one_line;
use super::workload::{Resource, WORKLOADS, Workload};

/// A question of the API server.
#[derive(Clone, Debug)]
pub struct Review {
    /// Identifies the question; the response repeats it.
    pub uid: String,
    /// The path that it came by.
    pub endpoint: Endpoint,
    /// Kind of the object.
    pub kind: &'static str,
    /// Namespace of the object. The object itself need not have it.
    pub namespace: String,
    /// Name of the object, or its `generateName` with a `*`: the name is made up after admission.
    pub name: String,
    /// Kind and name of the controller that made the object.
    pub owner: Option<String>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What the question is about.
    pub subject: Subject,
}

/// What a question is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A pod that is created.
    Pod(Box<PodFacts>),
    /// A pod that exists.
    RunningPod {
        /// Its metadata after the update.
        after: Metadata,
        /// And before.
        before: Metadata,
    },
    /// A workload that is created or updated.
    Workload {
        /// Its resource.
        resource: &'static Resource,
        /// The workload after the operation.
        after: Box<Workload>,
        /// And before, if there is an update.
        before: Option<Box<Workload>>,
    },
    /// An object that doesn't matter here, whatever it is.
    Other(SkipReason),
}

/// A body that is no question for this webhook.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// Not a JSON object, or one with a wrong type where an AdmissionReview has its own fields.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    /// Something else, or a version that we don't speak.
    #[error(
        "the body is a {kind:?} of {api_version:?}, not an {META_KIND} of {META_API_VERSION_V1}; \
         set admissionReviewVersions: [v1] in the webhook configuration"
    )]
    NotReview {
        /// Its kind.
        kind: String,
        /// Its apiVersion.
        api_version: String,
    },
    /// A review without a question.
    #[error("the {META_KIND} has no request")]
    NoRequest,
    /// A question with a field missing or of the wrong type.
    #[error("the {META_KIND} can't be read: {0}")]
    Request(String),
    /// A question that no response can refer to.
    #[error("request.uid is empty")]
    NoUid,
    /// A question about other objects than pods or their workloads.
    #[error(
        "the request is about {what}, not about {ours}; correct the rules in the webhook configuration"
    )]
    NotOurs {
        /// Resource or kind with its group and version.
        what: String,
        /// What this path is for.
        ours: &'static str,
    },
    /// The creation of nothing.
    #[error("request.object is missing")]
    NoObject,
    /// The update of nothing.
    #[error("request.oldObject is missing")]
    NoOldObject,
    /// An object with a field missing or of the wrong type.
    #[error("request.{field} is no {what}: {error}")]
    Object {
        /// `object` or `oldObject`.
        field: &'static str,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it, and where.
        error: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct AdmissionReview<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

/// kube's own type reads the whole object. Requests that don't matter here may have any object, `exec` for
/// instance PodExecOptions, so objects stay text until it is known what they should be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct AdmissionRequest<Object> {
    uid: String,
    kind: GroupVersionKind,
    resource: GroupVersionResource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    operation: Operation,
    object: Option<Object>,
    old_object: Option<Object>,
    #[serde(default)]
    dry_run: bool,
}

/// An object of which the metadata are enough.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct OnlyMetadata {
    #[serde(default, deserialize_with = "null_is_default")]
    metadata: Metadata,
}

impl Review {
    /// Reads the body of a request that came to `endpoint`.
    ///
    /// # Errors
    ///
    /// When it is no AdmissionReview of `admission.k8s.io/v1` about what the endpoint is for.
    pub fn parse(body: &[u8], endpoint: Endpoint) -> Result<Self, BadReview> {
        let request = request(body)?;
        let about = About::check(&request, endpoint.webhook)?;
        let subject = about.subject(&request, endpoint.webhook)?;
        let none = Metadata::default();
        let metadata = match &subject {
            Subject::Pod(pod) => &pod.metadata,
            Subject::RunningPod { after, .. } => after,
            Subject::Workload { after, .. } => &after.metadata,
            Subject::Other(_) => &none,
        };
        let name = match &metadata.generate_name {
            _ if !request.name.is_empty() => request.name,
            Some(prefix) => format!("{prefix}*"),
            None => metadata.name.clone().unwrap_or_default(),
        };
        Ok(Self {
            uid: request.uid,
            endpoint,
            kind: about.kind(),
            namespace: request.namespace.unwrap_or_default(),
            name,
            owner: metadata.controller(),
            dry_run: request.dry_run,
            subject,
        })
    }

    /// Bytes of rulesets that are compiled to decide about it.
    pub fn ruleset_len(&self) -> usize {
        match &self.subject {
            Subject::Pod(pod) => annotations::ruleset_len(pod),
            Subject::Workload { after, before, .. } => match before {
                Some(before) if after.same_template(before) => 0,
                _ => annotations::ruleset_len(after.pod()),
            },
            Subject::RunningPod { .. } | Subject::Other(_) => 0,
        }
    }
}

fn request(body: &[u8]) -> Result<AdmissionRequest<&RawValue>, BadReview> {
    let AdmissionReview { kind, api_version, request } = serde_json::from_slice(body)
        .map_err(|error| BadReview::Json(one_line(&error.to_string(), MAX_QUOTED)))?;
    if (kind.as_str(), api_version.as_str()) != (META_KIND, META_API_VERSION_V1) {
        return Err(BadReview::NotReview {
            kind: one_line(&kind, 64),
            api_version: one_line(&api_version, 64),
        });
    }
    let text = request.ok_or(BadReview::NoRequest)?;
    let request: AdmissionRequest<&RawValue> = read("request", text).map_err(BadReview::Request)?;
    if request.uid.is_empty() {
        return Err(BadReview::NoUid);
    }
    Ok(request)
}

/// Reads an object that is to be decided about.
fn object<T: DeserializeOwned>(
    field: &'static str,
    what: &'static str,
    text: &RawValue,
) -> Result<T, BadReview> {
    read("", text).map_err(|error| BadReview::Object { field, what, error })
}

/// Reads a part of the body. An error begins with the path to the field, from `part` on.
fn read<'a, T: Deserialize<'a>>(part: &str, text: &'a RawValue) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text.get());
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (path, problem) = (error.path().to_string(), error.into_inner().to_string());
        let path: Vec<_> =
            [part, path.trim_start_matches('.')].into_iter().filter(|s| !s.is_empty()).collect();
        // Line and column would count from the start of the part.
        let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(text, _)| text);
        let [path, problem] = [&path.join("."), problem].map(|text| one_line(text, MAX_QUOTED));
        if path.is_empty() { problem } else { format!("{path}: {problem}") }
    })
}

/// Characters of a path or a value that an error quotes, at the most.
const MAX_QUOTED: usize = 256;

/// What a request is about.
#[derive(Clone, Copy)]
enum About {
    Pod,
    Workload(&'static Resource),
}

impl About {
    fn check<O>(request: &AdmissionRequest<O>, webhook: Webhook) -> Result<Self, BadReview> {
        let GroupVersionResource { group, version, resource, .. } = &request.resource;
        let not_ours = |what: String| BadReview::NotOurs {
            what: one_line(&what, 128),
            ours: match webhook {
                Webhook::Mutate => "core/v1 pods",
                Webhook::Validate => "pods or the workloads that make them",
            },
        };
        let asked = (group.as_str(), resource.as_str());
        let workloads = match webhook {
            Webhook::Mutate => &[][..],
            Webhook::Validate => &WORKLOADS,
        };
        let workload = workloads.iter().find(|of| asked == (of.group, of.plural));
        let about = match (version.as_str(), asked, workload) {
            ("v1", ("", "pods"), _) => Self::Pod,
            ("v1", _, Some(workload)) => Self::Workload(workload),
            _ => return Err(not_ours(format!("{group}/{version} {resource}"))),
        };
        let GroupVersionKind { group: of, version: in_version, kind } = &request.kind;
        let consistent = (of, in_version, kind.as_str()) == (group, version, about.kind());
        match request.is_about_subresource() || consistent {
            true => Ok(about),
            false => Err(not_ours(format!("{of}/{in_version} {kind}"))),
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Workload(resource) => resource.kind,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Pod => "core/v1 Pod",
            Self::Workload(resource) => resource.kind,
        }
    }

    fn subject(
        self,
        request: &AdmissionRequest<&RawValue>,
        webhook: Webhook,
    ) -> Result<Subject, BadReview> {
        let what = self.what();
        let after = || request.object.ok_or(BadReview::NoObject);
        let before = || request.old_object.ok_or(BadReview::NoOldObject);
        Ok(match (self, &request.operation, webhook) {
            _ if request.is_about_subresource() => Subject::Other(SkipReason::SubResource),
            (Self::Pod, Operation::Create, _) => Subject::Pod(object("object", what, after()?)?),
            (Self::Pod, Operation::Update, Webhook::Validate) => {
                let OnlyMetadata { metadata: after } = object("object", what, after()?)?;
                let OnlyMetadata { metadata: before } = object("oldObject", what, before()?)?;
                Subject::RunningPod { after, before }
            }
            (Self::Workload(resource), Operation::Create, _) => {
                let after = object("object", what, after()?)?;
                Subject::Workload { resource, after, before: None }
            }
            (Self::Workload(resource), Operation::Update, _) => {
                let after = object("object", what, after()?)?;
                let before = Some(object("oldObject", what, before()?)?);
                Subject::Workload { resource, after, before }
            }
            _ => Subject::Other(SkipReason::NotCreation),
        })
    }
}

impl<O> AdmissionRequest<O> {
    /// Whether it is about a subresource, such as `ephemeralcontainers` or `scale`.
    fn is_about_subresource(&self) -> bool {
        self.sub_resource.as_ref().is_some_and(|name| !name.is_empty())
    }
}
