//! A steady stream of admissions, and what became of each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::Value;
use tests::cluster::Cluster;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Creations in a second.
pub const RATE: u32 = 50;

/// Pods that are created as dry runs: all of admission happens, but nothing is stored.
pub struct Load {
    stop: Arc<AtomicBool>,
    created: Arc<AtomicUsize>,
    thread: JoinHandle<Outcome>,
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Created, with the loader.
    pub injected: usize,
    /// Created, without it.
    pub plain: usize,
    /// Not created: seconds since the start, and the API server's words.
    pub failures: Vec<(f32, String)>,
    /// The longest that one took.
    pub slowest: Duration,
}

/// A client of the cluster as its administrator.
pub async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.folder().kubeconfig()).expect("the kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("the kubeconfig");
    // What fails has to be seen.
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

impl Load {
    /// Creates `pod` again and again, [`RATE`] times a second, until [`Self::stop`].
    pub fn start(cluster: &Cluster, pod: &Value) -> Self {
        let namespace = pod["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
        let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(client(cluster));
        let pods = Api::<Pod>::namespaced(client, &namespace);

        let stop = Arc::new(AtomicBool::new(false));
        let created = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let (stop, created) = (Arc::clone(&stop), Arc::clone(&created));
            move || runtime.block_on(create(&pods, &pod, &stop, created))
        });
        Self { stop, created, thread }
    }

    /// Waits until so many more have been answered.
    pub fn pass(&self, count: usize) {
        let until = self.created.load(Ordering::Relaxed) + count;
        crate::lab::wait_for("answers of the API server", || {
            (self.created.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Waits for the last answer.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

async fn create(
    pods: &Api<Pod>,
    pod: &Pod,
    stop: &AtomicBool,
    created: Arc<AtomicUsize>,
) -> Outcome {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let start = Instant::now();
    let mut tick = interval(Duration::from_secs(1) / RATE);
    // What a busy machine has missed is made up for: the number counts.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let (pods, pod) = (pods.clone(), pod.clone());
        let (outcome, created) = (Arc::clone(&outcome), Arc::clone(&created));
        requests.spawn(async move {
            let sent = Instant::now();
            let params = PostParams { dry_run: true, ..PostParams::default() };
            let answer = pods.create(&params, &pod).await;
            let mut outcome = outcome.lock().expect("nobody panics");
            outcome.slowest = outcome.slowest.max(sent.elapsed());
            match answer {
                Ok(pod) if is_injected(&pod) => outcome.injected += 1,
                Ok(_) => outcome.plain += 1,
                Err(error) => {
                    outcome.failures.push((start.elapsed().as_secs_f32(), error.to_string()));
                }
            }
            created.fetch_add(1, Ordering::Relaxed);
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
    Arc::into_inner(outcome).expect("all requests have ended").into_inner().expect("nobody panics")
}

fn is_injected(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    containers.is_some_and(|all| all.iter().any(|container| container.name == "sfunnel-loader"))
}

impl Outcome {
    /// Everything was created, and with the loader.
    #[track_caller]
    pub fn assert_all_injected(&self) {
        assert!(
            self.failures.is_empty() && self.plain == 0,
            "{} injected, {} without the loader, {} failed, the first of them: {:#?}",
            self.injected,
            self.plain,
            self.failures.len(),
            &self.failures[..self.failures.len().min(10)]
        );
    }
}
