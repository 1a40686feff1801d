//! One folder of `tests/golden` for each kind of pod.
//!
//! - `pod.json`: the object of the request
//! - `request.json`, optional: keys of the request that differ from a plain creation
//! - `flags.json`, optional: flags of the server
//! - `expected.json`: `{"patched": POD}`, `{"denied": MESSAGE}` or `{"skipped": true}`, the first and
//!   the last with `"warnings"` if there are any

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::review::{Verdict, review};
use crate::server::TestServer;

#[tokio::test]
async fn every_pod_is_handled_as_written_down() {
    let mut servers: BTreeMap<Vec<String>, TestServer> = BTreeMap::new();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut failures = Vec::new();
    for case in Case::all() {
        if !servers.contains_key(&case.flags) {
            let flags: Vec<_> = case.flags.iter().map(String::as_str).collect();
            servers.insert(case.flags.clone(), TestServer::start(&flags).await);
        }
        let got = case.run(&servers[&case.flags]).await;
        if update {
            case.write(&got);
        } else if case.expected() != Some(&got) {
            failures.push(case.difference(&got));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

struct Case {
    folder: PathBuf,
    pod: Value,
    request: Value,
    flags: Vec<String>,
    expected: Option<Value>,
}

impl Case {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let mut folders: Vec<_> =
            std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        assert!(folders.len() > 80, "golden files are missing: {}", folders.len());
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Self {
        let read = |name: &str| -> Option<Value> {
            let text = std::fs::read_to_string(folder.join(name)).ok()?;
            let value = serde_json::from_str(&text);
            Some(value.unwrap_or_else(|error| panic!("{}/{name}: {error}", folder.display())))
        };
        let flags = read("flags.json").unwrap_or_else(|| json!([]));
        Self {
            pod: read("pod.json").unwrap_or_else(|| panic!("{}: no pod.json", folder.display())),
            request: read("request.json").unwrap_or_else(|| json!({})),
            flags: serde_json::from_value(flags).unwrap(),
            expected: read("expected.json"),
            folder,
        }
    }

    fn expected(&self) -> Option<&Value> {
        self.expected.as_ref()
    }

    /// Asks about the pod and, where it was patched, about the result once more.
    async fn run(&self, server: &TestServer) -> Value {
        let verdict = server.review(&review(&self.pod, &self.request)).await;
        let (mut got, warnings) = match verdict {
            Verdict::Denied { message } => (json!({ "denied": message }), Vec::new()),
            Verdict::Skipped { warnings } => (json!({ "skipped": true }), warnings),
            Verdict::Patched { patch, warnings } => {
                let mut pod = self.pod.clone();
                json_patch::patch(&mut pod, &patch).unwrap_or_else(|error| {
                    panic!("{}: the patch doesn't apply: {error}", self.folder.display())
                });
                let again = server.review(&review(&pod, &self.request)).await;
                let nothing = Verdict::Skipped { warnings: Vec::new() };
                assert_eq!(again, nothing, "{}: asked again", self.folder.display());
                (json!({ "patched": pod }), warnings)
            }
        };
        if !warnings.is_empty() {
            got["warnings"] = json!(warnings);
        }
        got
    }

    fn write(&self, got: &Value) {
        let text = format!("{got:#}\n");
        std::fs::write(self.folder.join("expected.json"), text).unwrap();
    }

    fn difference(&self, got: &Value) -> String {
        let expected =
            self.expected.as_ref().map_or("nothing".to_owned(), |value| format!("{value:#}"));
        format!("{}\nexpected: {expected}\ngot: {got:#}", self.folder.display())
    }
}
