//! The paths by which API servers call, and what each of them says.
//!
//! A webhook may only know of a namespace what the API server tells it, and a review carries nothing but
//! the namespace's name. So each entry in the webhook configurations has a `namespaceSelector` and a
//! path of its own: what the selector chose by is what the path says. Nothing has to be read, and no
//! right to read namespaces is needed.

/// What the API server asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Webhook {
    /// How to change a pod, as a mutating webhook.
    Mutate,
    /// Whether an object is right, as a validating webhook.
    Validate,
}

impl Webhook {
    /// A stable word for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }
}

/// What the API server knows of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// It is labelled: pods in it are injected.
    Enabled,
    /// It is labelled, and enforces the level `baseline` or `restricted` of Pod Security.
    Enforced,
    /// It is not labelled: nothing in it is injected.
    Unlabelled,
}

/// A path, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// What is asked.
    pub webhook: Webhook,
    /// Of an object in which namespace.
    pub namespace: Namespace,
}

/// Every path with what it says. The manifests have an entry for each.
pub const ENDPOINTS: [(&str, Endpoint); 5] = [
    ("/mutate", Endpoint { webhook: Webhook::Mutate, namespace: Namespace::Enabled }),
    ("/mutate/enforced", Endpoint { webhook: Webhook::Mutate, namespace: Namespace::Enforced }),
    ("/validate", Endpoint { webhook: Webhook::Validate, namespace: Namespace::Enabled }),
    ("/validate/enforced", Endpoint { webhook: Webhook::Validate, namespace: Namespace::Enforced }),
    (
        "/validate/unlabelled",
        Endpoint { webhook: Webhook::Validate, namespace: Namespace::Unlabelled },
    ),
];
