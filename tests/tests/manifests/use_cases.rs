//! The use cases: their documents show the files that tests run, and the webhook takes their pods.

use std::fs;

use crate::examples::facts;
use clap::Parser as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use webhook::admission::decision::{Decision, Verdict, decide};
use webhook::admission::settings::Settings;

use crate::rendered::{Rendered, deploy};

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

/// The pod that a folder's Deployment makes.
fn pod(folder: &str) -> Pod {
    let deployment: Deployment = Rendered::folder(folder).get("Deployment", "nfacctd");
    let template = deployment.spec.unwrap().template;
    Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None }
}

#[test]
fn nfacctd_gets_the_loader_without_a_warning() {
    let settings = Cli::parse_from(["test", "--loader-image", "loader:1"]).settings;
    let Decision { verdict, warnings } =
        decide(&facts(&pod("use-cases/nfacctd/collector")), &settings);
    assert!(matches!(verdict, Verdict::Inject(_)), "{verdict:?}");
    assert_eq!(warnings, []);
    assert_eq!(pod("use-cases/nfacctd/before").metadata.annotations, None);
}

#[test]
fn the_document_shows_the_files_as_they_are() {
    let repository = deploy().join("..");
    let document = repository.join("docs/use-cases/nfacctd.md");
    let document = fs::read_to_string(document).unwrap();
    let mut shown = 0;
    for part in document.split("\n<!-- ").skip(1) {
        let (path, rest) = part.split_once(" -->\n```").expect("a block behind its file's name");
        let (_language, rest) = rest.split_once('\n').unwrap();
        let (block, _) = rest.split_once("\n```\n").expect("the block's end");
        let file = fs::read_to_string(repository.join(path)).unwrap();
        assert_eq!(block, file.trim_end(), "docs/use-cases/nfacctd.md shows another {path}");
        shown += 1;
    }
    assert_eq!(shown, 5);
}
