//! One cluster for each mode of kube-proxy, which the tests take turns on.
//!
//! Tests run beside each other, one for each core ([`with`], [`turn`]). Those that measure loss or time have
//! the machine to themselves ([`alone`]): what others do would be measured, too.

use std::fmt::Display;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::sync::{LockResult, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::cluster::{Cluster, Options, ProxyMode, programs};
use tests::netns::Checked as _;

/// The namespace of the installation.
pub const SYSTEM: &str = "sfunnel-system";
/// What opts a namespace in.
pub const LABEL: &str = "sfunnel.io/inject=enabled";
/// The entry in the MutatingWebhookConfiguration.
pub const WEBHOOK: &str = "inject.sfunnel.io";
/// A ruleset that does nothing to anybody's packets in these tests.
pub const RULESET: &str = "ip tcp dport 80 sport 540 actions unfunnel tcp";

/// Far more than anything takes, on a busy machine too: a wait is for a condition.
const LONGEST: Duration = Duration::from_secs(300);

/// A cluster that a test has to itself for a while.
pub struct Lab(Cluster, ProxyMode);

static IPTABLES: Mutex<Option<Lab>> = Mutex::new(None);
static NFTABLES: Mutex<Option<Lab>> = Mutex::new(None);

/// Takes a turn on the cluster of that mode, and starts it for the first one. It ends with this process.
pub fn with(mode: ProxyMode, test: impl FnOnce(&Lab)) {
    on_cluster(mode, || MACHINE.read(), test);
}

/// The same while no other test runs.
pub fn alone(mode: ProxyMode, test: impl FnOnce(&Lab)) {
    on_cluster(mode, || MACHINE.write(), test);
}

/// Shared by tests, or one's own.
static MACHINE: RwLock<()> = RwLock::new(());

fn on_cluster<T>(mode: ProxyMode, turn: impl FnOnce() -> LockResult<T>, test: impl FnOnce(&Lab)) {
    let slot = match mode {
        ProxyMode::Iptables => &IPTABLES,
        ProxyMode::Nftables => &NFTABLES,
    };
    // A test that failed has not broken the locks for the next one.
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    // Behind the cluster's: who waits for that one holds up nobody else.
    let _turn = turn().unwrap_or_else(PoisonError::into_inner);
    test(slot.get_or_insert_with(|| Lab::start(mode, "")));
}

/// A turn for a test with clusters of its own: a small machine has no room for all of them at once.
pub fn turn() -> (MutexGuard<'static, ()>, RwLockReadGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (turn, MACHINE.read().unwrap_or_else(PoisonError::into_inner))
}

/// Tests in both modes, in whose names the mode comes last: two threads then work on both clusters. Behind
/// `alone:`, tests that measure.
macro_rules! in_both_modes {
    (alone: $($test:ident)*) => { $crate::lab::in_both_modes! { @alone $($test)* } };
    (@$turn:ident $($test:ident)*) => {$(
        mod $test {
            #[test]
            fn iptables() {
                $crate::lab::$turn(tests::cluster::ProxyMode::Iptables, super::$test);
            }

            #[test]
            fn nftables() {
                $crate::lab::$turn(tests::cluster::ProxyMode::Nftables, super::$test);
            }
        }
    )*};
    ($($test:ident)*) => { $crate::lab::in_both_modes! { @with $($test)* } };
}
pub(crate) use in_both_modes;

/// A file or folder of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The images that `make images` leaves.
fn images() -> Vec<PathBuf> {
    let folder = repository("target/images");
    let images = ["webhook", "loader", "example"].map(|name| folder.join(format!("{name}.tar")));
    for image in &images {
        assert!(image.exists(), "{} is missing; `make images` builds it", image.display());
    }
    images.into()
}

impl Lab {
    /// A cluster of its own. `suffix` tells it from others of the same mode.
    pub fn start(mode: ProxyMode, suffix: &str) -> Self {
        let options = Options {
            name: format!("test-{}-{mode}{suffix}", std::process::id()),
            proxy_mode: mode,
            programs: programs().unwrap_or_else(|error| panic!("{error:#}")),
            images: images(),
        };
        let supervisor = Path::new(env!("CARGO_BIN_EXE_cluster"));
        let cluster = Cluster::start(&options, supervisor);
        Self(cluster.unwrap_or_else(|error| panic!("{error:#}")), mode)
    }

    /// Prints what was seen, also where the test passes.
    pub fn report(&self, seen: impl Display) {
        // Unlike println!, this is not captured.
        writeln!(stdout(), "kube-proxy {}: {seen}", self.1).expect("standard output");
    }

    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster {
        &self.0
    }

    /// What kubectl prints, its words separated by blanks.
    #[track_caller]
    pub fn kubectl(&self, line: &str) -> String {
        self.0.run(line).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What kubectl says when it fails, as it has to.
    #[track_caller]
    pub fn kubectl_fails(&self, line: &str) -> String {
        match self.0.run(line) {
            Ok(output) => panic!("kubectl {line}: should fail, but prints {output}"),
            Err(error) => format!("{error:#}"),
        }
    }

    /// An object, or a list of them.
    #[track_caller]
    pub fn get(&self, line: &str) -> Value {
        serde_json::from_str(&self.kubectl(&format!("get {line} -o json"))).expect("kubectl's JSON")
    }

    /// The items of a list.
    #[track_caller]
    pub fn list(&self, line: &str) -> Vec<Value> {
        let list = self.get(line);
        list["items"].as_array().unwrap_or_else(|| panic!("{line} is no list")).clone()
    }

    /// Applies an object.
    #[track_caller]
    pub fn apply(&self, object: &Value) -> String {
        self.0.apply(&object.to_string()).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What kubectl says when an object is refused, as it has to be.
    #[track_caller]
    pub fn apply_fails(&self, object: &Value) -> String {
        match self.0.apply(&object.to_string()) {
            Ok(output) => panic!("should be refused: {output}"),
            Err(error) => format!("{error:#}"),
        }
    }

    /// Installs sfunnel as the README says, and waits until both replicas serve, and no other is left.
    #[track_caller]
    pub fn install(&self) {
        self.kubectl_with("apply", "-k", &repository("deploy"));
        self.rolled_out(SYSTEM, "deployment/sfunnel-webhook");
        self.wait_for("replicas of before to end", || (self.replicas().len() == 2).then_some(()));
    }

    /// What kubectl prints, with a flag whose value is a path.
    #[track_caller]
    pub fn kubectl_with(&self, line: &str, flag: &str, path: &Path) -> String {
        self.0.run_with(line, flag, path).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Waits until all pods of a workload are new and ready.
    #[track_caller]
    pub fn rolled_out(&self, namespace: &str, workload: &str) {
        let line =
            format!("-n {namespace} rollout status {workload} --timeout={}s", LONGEST.as_secs());
        if let Err(error) = self.0.run(&line) {
            let pods = self.0.run(&format!("-n {namespace} describe pods")).unwrap_or_default();
            panic!("{error:#}\n{pods}");
        }
    }

    /// The webhook's pods, also those that are ending.
    #[track_caller]
    pub fn replicas(&self) -> Vec<Value> {
        self.list(&format!("pods -n {SYSTEM} -l app.kubernetes.io/component=webhook"))
    }

    /// Waits until `is_there` finds something, and says how long it took.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, is_there: impl FnMut() -> Option<T>) -> (T, Duration) {
        wait_for(what, is_there)
    }

    /// A new namespace with the label, gone with the value.
    pub fn labelled(&self, name: &str) -> Namespace<'_> {
        let namespace = self.unlabelled(name);
        self.kubectl(&format!("label namespace {} {LABEL}", namespace.name()));
        namespace
    }

    /// A new namespace, gone with the value.
    pub fn unlabelled(&self, name: &str) -> Namespace<'_> {
        self.kubectl(&format!("create namespace {name}"));
        // Pods can't be made before.
        self.wait_for("the service account", || {
            self.0.run(&format!("-n {name} get serviceaccount default")).ok()
        });
        Namespace { lab: self, name: name.to_owned() }
    }

    /// How often the API server has called the webhook, by its own count.
    pub fn calls(&self) -> u64 {
        let metrics = self.kubectl("get --raw /metrics");
        let count = "apiserver_admission_webhook_admission_duration_seconds_count";
        let name = format!("name=\"{WEBHOOK}\"");
        let ours = metrics.lines().filter(|line| line.starts_with(count) && line.contains(&name));
        ours.map(|line| {
            let (_, value) = line.rsplit_once(' ').expect("a sample has a value");
            value.parse::<u64>().expect("a count")
        })
        .sum()
    }
}

/// Waits until `is_there` finds something, and says how long it took.
#[track_caller]
pub fn wait_for<T>(what: &str, mut is_there: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(found) = is_there() {
            return (found, start.elapsed());
        }
        assert!(start.elapsed() < LONGEST, "waited {} s for {what}", LONGEST.as_secs());
        // What takes long isn't had sooner by a thousand questions, each of them a kubectl.
        let soon = start.elapsed() < Duration::from_secs(1);
        sleep(Duration::from_millis(if soon { 50 } else { 300 }));
    }
}

/// A namespace of Kubernetes. It is deleted with the value; nobody waits for its end.
pub struct Namespace<'a> {
    lab: &'a Lab,
    name: String,
}

impl Namespace<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until every pod that matches is ready, and there are `count` of them.
    #[track_caller]
    pub fn ready(&self, selector: &str, count: usize) -> Vec<Value> {
        let line = format!("pods -n {} -l {selector}", self.name);
        let start = Instant::now();
        loop {
            let pods = self.lab.list(&line);
            if pods.len() == count && pods.iter().all(is_ready) {
                return pods;
            }
            if start.elapsed() > LONGEST {
                let describe = self.lab.kubectl(&format!("-n {} describe pods", self.name));
                let seconds = LONGEST.as_secs();
                panic!("{count} pods ({selector}) are not ready after {seconds} s:\n{describe}");
            }
            sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let line = format!("delete namespace {} --wait=false", self.name);
        if let Err(error) = self.lab.0.run(&line) {
            eprintln!("{error:#}");
        }
        let now =
            format!("-n {} delete pods --all --force --grace-period=0 --wait=false", self.name);
        let mut command = self.lab.0.kubectl();
        let _ = command.args(now.split_whitespace()).checked();
    }
}

/// Whether a pod's condition Ready is true.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    })
}

/// The loader among a pod's init containers.
pub fn loader(pod: &Value) -> Option<&Value> {
    let containers = pod["spec"]["initContainers"].as_array()?;
    containers.iter().find(|container| container["name"] == "sfunnel-loader")
}

/// A pod's specification that runs the example server.
pub fn server_spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "server",
            "image": "sfunnel/example:0.1.0",
            "args": ["serve", "--tcp", "80,8080"],
        }],
    })
}

/// A pod that asks for the loader.
pub fn annotated_pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": name},
            "annotations": {"sfunnel.io/ruleset": RULESET},
        },
        "spec": server_spec(),
    })
}

/// A pod that does not.
pub fn plain_pod(namespace: &str, name: &str) -> Value {
    let mut pod = annotated_pod(namespace, name);
    pod["metadata"].as_object_mut().expect("metadata").remove("annotations");
    pod
}

/// A pod that has rules, and wants none of them now.
pub fn opted_out_pod(namespace: &str, name: &str) -> Value {
    let mut pod = annotated_pod(namespace, name);
    pod["metadata"]["annotations"]["sfunnel.io/inject"] = json!("false");
    pod
}
