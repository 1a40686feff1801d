//! From the bytes of an AdmissionReview to a question, and from a decision to bytes.
//!
//! The format is `admission.k8s.io/v1`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::admission::{META_API_VERSION_V1, META_KIND, Operation};
use kube::core::{GroupVersionKind, GroupVersionResource};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::decision::{Decision, Verdict, decide};
use crate::endpoint::{Endpoint, Namespace, Webhook};
use crate::json::Object;
use crate::reason::{DenyReason, SkipReason};
use crate::settings::Settings;
use crate::text::one_line;
use crate::warning::{Warning, within_limits};
use crate::workload::{self, Resource, WORKLOADS, Workload};
use crate::{annotations, json, pod, validation};

/// A question of the API server.
#[derive(Clone, Debug)]
pub struct Review {
    /// Identifies the question; the answer repeats it.
    pub uid: String,
    /// By which path it came.
    pub endpoint: Endpoint,
    /// Kind of the object.
    pub kind: &'static str,
    /// Namespace of the object. The object itself need not say it.
    pub namespace: String,
    /// Name of the object, or its `generateName` with a `*`: the name is made up after admission.
    pub name: String,
    /// Kind and name of the object that made this one.
    pub owner: Option<String>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    subject: Subject,
}

/// What the question is about.
#[derive(Clone, Debug)]
enum Subject {
    /// A pod that is made.
    Pod(Box<Pod>),
    /// A pod that is there, now and before.
    RunningPod(Box<[Metadata; 2]>),
    /// A workload, now and before.
    Workload(&'static Resource, Box<(Workload, Option<Workload>)>),
    /// Something that doesn't concern us, whatever its object is.
    Other(SkipReason),
}

/// Bytes that are no question that we could answer.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// Not JSON, or JSON that two readers could understand differently.
    #[error("the body is not valid JSON: {0}")]
    Json(#[source] serde_json::Error),
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
    Request(Misread),
    /// Without a uid there is no answer.
    #[error("request.uid is empty")]
    NoUid,
    /// A question about something else than pods or what makes them.
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
        /// What is wrong with it.
        error: Misread,
    },
}

/// A field that is missing or of the wrong type.
#[derive(Debug)]
pub struct Misread {
    /// The path to it, or to where it should be; empty at the top.
    path: String,
    problem: String,
}

impl Misread {
    /// The same, as seen from the object that has what was read in `field`.
    fn within(self, field: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{field}{dot}{}", self.path), ..self }
    }
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.problem),
            path => write!(f, "{path}: {}", self.problem),
        }
    }
}

/// `object` and `oldObject` are text first: requests that don't concern us may have any, `exec` for
/// instance sends PodExecOptions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
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

/// An object's metadata, and nothing else of it.
#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    #[serde(default, deserialize_with = "pod::read_metadata")]
    metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct WholePod(#[serde(deserialize_with = "pod::read")] Pod);

impl Review {
    /// Reads the body of a request that came to `endpoint`.
    ///
    /// # Errors
    ///
    /// When it is no AdmissionReview of `admission.k8s.io/v1` about what the endpoint is for.
    pub fn parse(body: &[u8], endpoint: Endpoint) -> Result<Self, BadReview> {
        let text = json::check(body).map_err(BadReview::Json)?;
        let request = request(text)?;
        if request.uid.is_empty() {
            return Err(BadReview::NoUid);
        }
        let about = About::check(&request, endpoint.webhook)?;
        let subject = about.subject(&request, endpoint.webhook)?;
        let none = ObjectMeta::default();
        let metadata = subject.metadata().unwrap_or(&none);
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
            owner: workload::owner(metadata),
            dry_run: request.dry_run,
            subject,
        })
    }

    /// Decides about the object.
    pub fn decide(&self, settings: &Settings) -> Decision {
        let namespace = self.endpoint.namespace;
        match (&self.subject, self.endpoint.webhook) {
            (Subject::Other(reason), _) => reason.clone().into(),
            (Subject::Pod(pod), Webhook::Validate) => validation::pod(pod, namespace, settings),
            (Subject::Pod(pod), Webhook::Mutate) => {
                let mut decision = decide(pod, settings);
                if namespace == Namespace::Enforced
                    && matches!(decision.verdict, Verdict::Inject(_))
                {
                    decision.warnings.push(Warning::PodSecurity);
                }
                decision
            }
            (Subject::RunningPod(both), _) => {
                let [after, before] = &**both;
                validation::running_pod(&after.metadata, &before.metadata)
            }
            (Subject::Workload(resource, both), _) => {
                let (after, before) = &**both;
                validation::workload(resource, after, before.as_ref(), namespace, settings)
            }
        }
    }

    /// Bytes of rulesets that are compiled to decide about it.
    pub fn ruleset_len(&self) -> usize {
        match &self.subject {
            Subject::Pod(pod) => annotations::ruleset_len(pod),
            Subject::Workload(_, both) => {
                let (after, before) = &**both;
                let unchanged = before.as_ref().is_some_and(|before| after.same_template(before));
                if unchanged { 0 } else { annotations::ruleset_len(&after.pod) }
            }
            Subject::RunningPod(_) | Subject::Other(_) => 0,
        }
    }

    /// The answer to this question, as JSON.
    pub fn answer(&self, decision: &Decision) -> Vec<u8> {
        let mut response = Response {
            uid: &self.uid,
            allowed: true,
            status: None,
            patch: None,
            patch_type: None,
            warnings: within_limits(&decision.warnings),
        };
        match &decision.verdict {
            Verdict::Valid | Verdict::Skip(_) => {}
            Verdict::Inject(patch) => {
                let patch = serde_json::to_vec(patch).expect("a patch is plain data");
                response.patch = Some(BASE64_STANDARD.encode(patch));
                response.patch_type = Some("JSONPatch");
            }
            Verdict::Deny(reason) => {
                response.allowed = false;
                response.status = Some(Status::from(reason));
            }
        }
        let answer = Answer { api_version: META_API_VERSION_V1, kind: META_KIND, response };
        serde_json::to_vec(&answer).expect("an answer is plain data")
    }
}

fn request(text: &str) -> Result<AdmissionRequest<&RawValue>, BadReview> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        #[serde(borrow)]
        kind: Option<&'a RawValue>,
        #[serde(borrow)]
        api_version: Option<&'a RawValue>,
        #[serde(borrow)]
        request: Option<&'a RawValue>,
    }
    // What is no object has none of the fields.
    let Object(Envelope { kind, api_version, request }) =
        serde_json::from_str(text).unwrap_or_default();
    let string = |value: Option<&RawValue>| -> String {
        value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default()
    };
    let (kind, api_version) = (string(kind), string(api_version));
    if (kind.as_str(), api_version.as_str()) != (META_KIND, META_API_VERSION_V1) {
        return Err(BadReview::NotReview {
            kind: one_line(&kind, 64),
            api_version: one_line(&api_version, 64),
        });
    }
    let request = request.ok_or(BadReview::NoRequest)?.get();
    match serde_json::from_str(request) {
        Ok(Object(request)) => Ok(request),
        Err(error) => {
            let misread = explain::<Object<AdmissionRequest<IgnoredAny>>>(request, error);
            Err(BadReview::Request(misread.within("request")))
        }
    }
}

/// Reads an object that is to be decided about.
fn object<T: DeserializeOwned>(
    field: &'static str,
    what: &'static str,
    text: &RawValue,
) -> Result<T, BadReview> {
    let text = text.get();
    serde_json::from_str(text).map_err(|error| BadReview::Object {
        field,
        what,
        error: explain::<T>(text, error),
    })
}

/// Where in `text` the error is. To keep track of that costs time, so only what is wrong is read again.
fn explain<T: DeserializeOwned>(text: &str, error: serde_json::Error) -> Misread {
    let mut again = serde_json::Deserializer::from_str(text);
    let (path, error) = match serde_path_to_error::deserialize::<_, T>(&mut again) {
        Ok(_) => (String::new(), error),
        Err(found) => (one_line(&found.path().to_string(), MAX_QUOTED), found.into_inner()),
    };
    let path = if path == "." { String::new() } else { path };
    // Line and column are those of a part of the body, of which nobody knows where it begins.
    let problem = error.to_string();
    let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(text, _)| text);
    let problem = one_line(problem, MAX_QUOTED);
    Misread { path, problem }
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
        let asked = (group.as_str(), version.as_str(), resource.as_str());
        let not_ours = |what: String| BadReview::NotOurs {
            what: one_line(&what, 128),
            ours: match webhook {
                Webhook::Mutate => "core/v1 pods",
                Webhook::Validate => "pods or the workloads that make them",
            },
        };
        let workload = |of: &&Resource| asked == (of.group, of.version, of.plural);
        let about = match webhook {
            _ if asked == ("", "v1", "pods") => Self::Pod,
            Webhook::Mutate => return Err(not_ours(format!("{group}/{version} {resource}"))),
            Webhook::Validate => WORKLOADS
                .iter()
                .find(workload)
                .map(Self::Workload)
                .ok_or_else(|| not_ours(format!("{group}/{version} {resource}")))?,
        };
        let GroupVersionKind { group: of, version: in_version, kind } = &request.kind;
        let consistent = (of, in_version, kind.as_str()) == (group, version, about.kind());
        match request.is_about_part() || consistent {
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
            _ if request.is_about_part() => Subject::Other(SkipReason::SubResource),
            (Self::Pod, Operation::Create, _) => {
                let WholePod(pod) = object("object", what, after()?)?;
                Subject::Pod(Box::new(pod))
            }
            (Self::Pod, Operation::Update, Webhook::Validate) => {
                let Object(after) = object("object", what, after()?)?;
                let Object(before) = object("oldObject", what, before()?)?;
                Subject::RunningPod(Box::new([after, before]))
            }
            (Self::Workload(resource), Operation::Create, _) => {
                Subject::Workload(resource, Box::new((object("object", what, after()?)?, None)))
            }
            (Self::Workload(resource), Operation::Update, _) => {
                let after = object("object", what, after()?)?;
                let before = object("oldObject", what, before()?)?;
                Subject::Workload(resource, Box::new((after, Some(before))))
            }
            _ => Subject::Other(SkipReason::NotCreation),
        })
    }
}

impl<O> AdmissionRequest<O> {
    /// Whether it is about a subresource, such as `ephemeralcontainers` or `scale`.
    fn is_about_part(&self) -> bool {
        self.sub_resource.as_ref().is_some_and(|name| !name.is_empty())
    }
}

impl Subject {
    fn metadata(&self) -> Option<&ObjectMeta> {
        match self {
            Self::Pod(pod) => Some(&pod.metadata),
            Self::RunningPod(both) => Some(&both[0].metadata),
            Self::Workload(_, both) => Some(&both.0.metadata),
            Self::Other(_) => None,
        }
    }
}

/// An answer. kube's own type writes the patch as a list of numbers; the API wants it in base64.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
    message: String,
    reason: &'static str,
    code: u16,
}

impl From<&DenyReason> for Status {
    fn from(reason: &DenyReason) -> Self {
        Self {
            status: "Failure",
            message: reason.to_string(),
            // The pod is at fault, not the right to create it: `Invalid` and not `Forbidden`.
            reason: "Invalid",
            code: 422,
        }
    }
}
