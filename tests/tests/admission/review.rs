//! Reviews as the API server writes them, and its view of the answers.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use serde_json::{Value, json};

/// The question about the creation of `object`. Each key of `overrides` replaces one of the request's.
pub fn review(object: &Value, overrides: &Value) -> Value {
    let mut request = json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "resource": { "group": "", "version": "v1", "resource": "pods" },
        "requestKind": { "group": "", "version": "v1", "kind": "Pod" },
        "requestResource": { "group": "", "version": "v1", "resource": "pods" },
        "name": "web",
        "namespace": "shop",
        "operation": "CREATE",
        "userInfo": {
            "username": "system:serviceaccount:kube-system:replicaset-controller",
            "groups": ["system:serviceaccounts", "system:authenticated"],
        },
        "object": object,
        "oldObject": null,
        "dryRun": false,
        "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
    });
    for (key, value) in overrides.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request })
}

/// What an answer says.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Patched { patch: Patch, warnings: Vec<String> },
    Skipped { warnings: Vec<String> },
    Denied { message: String },
}

impl Verdict {
    /// Reads an answer as strictly as the API server does (`VerifyAdmissionResponse` in
    /// `k8s.io/apiserver/pkg/admission/plugin/webhook/request`).
    pub fn read(review: &Value, answer: &[u8]) -> Self {
        let answer: Value = serde_json::from_slice(answer).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer.get("request"), None);
        let response = answer["response"].as_object().unwrap();
        assert_eq!(response["uid"], review["request"]["uid"]);
        let warnings = match response.get("warnings") {
            Some(warnings) => serde_json::from_value(warnings.clone()).unwrap(),
            None => Vec::new(),
        };
        check_limits(&warnings);

        if response["allowed"] == json!(false) {
            assert!(!response.contains_key("patch") && warnings.is_empty(), "{answer}");
            let status = &response["status"];
            assert_eq!(
                (&status["status"], &status["code"], &status["reason"]),
                (&json!("Failure"), &json!(422), &json!("Invalid"))
            );
            let message = status["message"].as_str().unwrap().to_owned();
            return Self::Denied { message };
        }
        assert_eq!(response["allowed"], json!(true));
        assert!(!response.contains_key("status"), "{answer}");
        match response.get("patch") {
            None => {
                assert!(!response.contains_key("patchType"), "{answer}");
                Self::Skipped { warnings }
            }
            Some(patch) => {
                assert_eq!(response["patchType"], "JSONPatch");
                let patch = BASE64_STANDARD.decode(patch.as_str().unwrap()).unwrap();
                let patch = serde_json::from_slice(&patch).unwrap();
                Self::Patched { patch, warnings }
            }
        }
    }

    /// The message of a denial.
    #[track_caller]
    pub fn denied(self) -> String {
        match self {
            Self::Denied { message } => message,
            other => panic!("not denied: {other:?}"),
        }
    }
}

/// A warning with a control character is dropped, a long one is cut.
fn check_limits(warnings: &[String]) {
    let size = |text: &String| text.chars().count();
    assert!(warnings.iter().map(size).sum::<usize>() <= 4096);
    for warning in warnings {
        assert!(size(warning) <= 256 && !warning.contains(char::is_control), "{warning:?}");
    }
}
