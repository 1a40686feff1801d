//! From a decision to the bytes of the AdmissionReview that answers.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::core::admission::{META_API_VERSION_V1, META_KIND};
use serde::Serialize;

use super::decision::{Decision, Verdict};
use super::reason::DenyReason;
use super::warning::within_limits;

/// kube's own type writes the patch as a list of numbers; the API wants it in base64.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionReview<'a> {
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
            // `Invalid` and not `Forbidden`: the pod is at fault, not the right to create it.
            reason: "Invalid",
            code: 422,
        }
    }
}

/// The response to the question with this `uid`, as JSON.
pub fn serialize(uid: &str, decision: &Decision) -> Vec<u8> {
    let mut response = Response {
        uid,
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
    let review = AdmissionReview { api_version: META_API_VERSION_V1, kind: META_KIND, response };
    serde_json::to_vec(&review).expect("a response is plain data")
}
