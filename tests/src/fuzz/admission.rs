//! The webhook's own functions, called in one place.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use webhook::admission::decision::Decision;
use webhook::admission::endpoint::Endpoint;
use webhook::admission::pod::PodFacts;
use webhook::admission::response;
use webhook::admission::review::Review;
use webhook::admission::settings::Settings;
use webhook::admission::warning::within_limits;

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The decision.
    pub verdict: Verdict,
    /// What the API server passes on to the author.
    pub warnings: Vec<String>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is admitted with these changes.
    Injected(Value),
    /// It is admitted, as it is right.
    Valid,
    /// It is admitted as it is, for the reason with this code.
    Left(&'static str),
    /// It is not admitted.
    Denied {
        /// The reason's code.
        code: &'static str,
        /// What the author is told.
        message: String,
    },
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

/// What the flags say, with an image that all share.
///
/// # Panics
///
/// If they say nothing that makes sense.
pub fn settings(flags: &[&str]) -> Settings {
    let flags = ["sfunnel-webhook", "--loader-image", "loader:1"].iter().chain(flags);
    let cli: Cli = clap::Parser::try_parse_from(flags).unwrap_or_else(|error| panic!("{error}"));
    cli.settings
}

/// Decides about a pod that is being created.
pub fn decide(pod: &Pod, settings: &Settings) -> Outcome {
    outcome(&webhook::admission::decision::decide(&facts(pod), settings))
}

/// What the webhook sees of a pod.
fn facts(pod: &Pod) -> PodFacts {
    let pod = serde_json::to_value(pod).expect("a pod is plain data");
    serde_json::from_value(pod).expect("it can be read again")
}

/// Reads a review that came to `endpoint`, decides, and answers.
///
/// # Errors
///
/// Why the body is refused.
pub fn review(
    body: &[u8],
    endpoint: Endpoint,
    settings: &Settings,
) -> Result<(Outcome, Vec<u8>), String> {
    let review = Review::parse(body, endpoint).map_err(|error| error.to_string())?;
    let decision = webhook::admission::decide(&review, settings);
    let response = response::serialize(&review.uid, &decision);
    Ok((outcome(&decision), response))
}

fn outcome(decision: &Decision) -> Outcome {
    use webhook::admission::decision::Verdict as Decided;
    let verdict = match &decision.verdict {
        Decided::Inject(patch) => {
            Verdict::Injected(serde_json::to_value(patch).expect("a patch is plain data"))
        }
        Decided::Valid => Verdict::Valid,
        Decided::Skip(reason) => Verdict::Left(reason.code()),
        Decided::Deny(reason) => {
            Verdict::Denied { code: reason.code(), message: reason.to_string() }
        }
    };
    Outcome { verdict, warnings: within_limits(&decision.warnings) }
}

/// Checks a message to an author: a few lines, and nothing in it that a terminal obeys.
///
/// # Panics
///
/// If it is none.
pub fn check_message(message: &str) {
    assert!(!message.is_empty() && message.chars().count() <= 2048, "{message}");
    assert!(!message.contains(|c: char| c.is_control() && c != '\n'), "{message:?}");
}

/// Checks warnings. The API server drops one with a control character, and cuts what is too long
/// (`k8s.io/apiserver/pkg/endpoints/filters/warning.go`).
///
/// # Panics
///
/// If the API server would not pass them on as they are.
pub fn check_warnings(warnings: &[String]) {
    let size = |text: &String| text.chars().count();
    assert!(warnings.iter().map(size).sum::<usize>() <= 4096, "{warnings:?}");
    for warning in warnings {
        assert!(!warning.is_empty() && size(warning) <= 256, "{warning:?}");
        assert!(!warning.contains(char::is_control), "{warning:?}");
    }
}
