//! From the bytes of an AdmissionReview to a question, and from a decision to bytes.
//!
//! The format is `admission.k8s.io/v1`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionReview, META_API_VERSION_V1, META_KIND};
use kube::core::{DynamicObject, GroupVersionKind, GroupVersionResource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::decision::{Decision, RequestFacts, decide};
use crate::json;
use crate::reason::{DenyReason, SkipReason};
use crate::settings::Settings;
use crate::text::one_line;
use crate::warning::within_limits;

/// A question of the API server.
#[derive(Clone, Debug)]
pub struct Review {
    /// Identifies the question; the answer repeats it.
    pub uid: String,
    /// Namespace of the pod. The pod itself need not say it.
    pub namespace: String,
    /// Name of the pod, or its `generateName` with a `*`: the name is made up after admission.
    pub name: String,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What is done to the pod.
    pub facts: RequestFacts,
    subject: Subject,
}

/// What the question is about.
#[derive(Clone, Debug)]
enum Subject {
    /// A pod to decide about.
    Pod(Box<Pod>),
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
    Request(#[source] serde_path_to_error::Error<serde_json::Error>),
    /// Without a uid there is no answer.
    #[error("request.uid is empty")]
    NoUid,
    /// A question about something else than pods.
    #[error(
        "the request is about {what}, not about core/v1 pods; correct the rules in the webhook configuration"
    )]
    NotPods {
        /// Resource or kind with its group and version.
        what: String,
    },
    /// The creation of nothing.
    #[error("request.object is missing")]
    NoObject,
    /// A pod with a field missing or of the wrong type.
    #[error("request.object is no core/v1 Pod: {0}")]
    Pod(#[source] serde_path_to_error::Error<serde_json::Error>),
}

impl Review {
    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// When it is no AdmissionReview of `admission.k8s.io/v1` about pods.
    pub fn parse(body: &[u8]) -> Result<Self, BadReview> {
        let mut review = json::parse(body).map_err(BadReview::Json)?;
        check_kind(&review)?;
        // Objects of requests that don't concern us needn't be pods: `exec` sends PodExecOptions.
        let object = take_objects(&mut review);
        let review: AdmissionReview<DynamicObject> =
            from_value(review).map_err(BadReview::Request)?;
        let request = review.request.ok_or(BadReview::NoRequest)?;
        if request.uid.is_empty() {
            return Err(BadReview::NoUid);
        }
        check_pods(&request)?;

        let facts = RequestFacts {
            operation: request.operation,
            sub_resource: request.sub_resource.filter(|name| !name.is_empty()),
        };
        let subject = match facts.skip() {
            Some(reason) => Subject::Other(reason),
            None => {
                let object = object.ok_or(BadReview::NoObject)?;
                Subject::Pod(from_value(object).map_err(BadReview::Pod)?)
            }
        };
        let name = match &subject {
            Subject::Pod(pod) if request.name.is_empty() => match &pod.metadata.generate_name {
                Some(prefix) => format!("{prefix}*"),
                None => pod.metadata.name.clone().unwrap_or_default(),
            },
            _ => request.name,
        };
        Ok(Self {
            uid: request.uid,
            namespace: request.namespace.unwrap_or_default(),
            name,
            dry_run: request.dry_run,
            facts,
            subject,
        })
    }

    /// Decides about the pod.
    pub fn decide(&self, settings: &Settings) -> Decision {
        match &self.subject {
            Subject::Pod(pod) => decide(pod, &self.facts, settings),
            Subject::Other(reason) => Decision::Skip(reason.clone()),
        }
    }

    /// The answer to this question, as JSON.
    pub fn answer(&self, decision: &Decision) -> Vec<u8> {
        let warnings = within_limits(decision.warnings());
        let mut response = Response {
            uid: &self.uid,
            allowed: true,
            status: None,
            patch: None,
            patch_type: None,
            warnings,
        };
        match decision {
            Decision::Skip(_) => {}
            Decision::Patch(patch, _) => {
                let patch = serde_json::to_vec(patch).expect("a patch is plain data");
                response.patch = Some(BASE64_STANDARD.encode(patch));
                response.patch_type = Some("JSONPatch");
            }
            Decision::Deny(reason) => {
                response.allowed = false;
                response.status = Some(Status::from(reason));
            }
        }
        let answer = Answer { api_version: META_API_VERSION_V1, kind: META_KIND, response };
        serde_json::to_vec(&answer).expect("an answer is plain data")
    }
}

fn check_kind(review: &Value) -> Result<(), BadReview> {
    let text = |field: &str| review.get(field).and_then(Value::as_str).unwrap_or_default();
    if (text("kind"), text("apiVersion")) == (META_KIND, META_API_VERSION_V1) {
        return Ok(());
    }
    Err(BadReview::NotReview {
        kind: one_line(text("kind"), 64),
        api_version: one_line(text("apiVersion"), 64),
    })
}

/// Takes `request.object` out, and `request.oldObject` away.
fn take_objects(review: &mut Value) -> Option<Value> {
    let request = review.get_mut("request")?.as_object_mut()?;
    request.remove("oldObject");
    request.remove("object").filter(|object| !object.is_null())
}

fn check_pods(request: &AdmissionRequest<DynamicObject>) -> Result<(), BadReview> {
    let GroupVersionResource { group, version, resource, .. } = &request.resource;
    if (group.as_str(), version.as_str(), resource.as_str()) != ("", "v1", "pods") {
        let what = one_line(&format!("{group}/{version} {resource}"), 128);
        return Err(BadReview::NotPods { what });
    }
    let itself = request.sub_resource.as_ref().is_none_or(String::is_empty);
    let GroupVersionKind { group, version, kind } = &request.kind;
    if itself && (group.as_str(), version.as_str(), kind.as_str()) != ("", "v1", "Pod") {
        let what = one_line(&format!("{group}/{version} {kind}"), 128);
        return Err(BadReview::NotPods { what });
    }
    Ok(())
}

fn from_value<T: DeserializeOwned>(
    value: Value,
) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(value)
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
