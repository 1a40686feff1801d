//! A hundred pods on a real node, with and without the loader.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::cluster::{Cluster, Options, ProxyMode, programs};

use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, median, note, section};

const MANY: usize = 100;

/// A round takes a minute or so: each pod is a process to start, and its end to wait for.
const MOST_ROUNDS: usize = 3;

/// Compares the time until pods are ready with that of pods that are not injected.
pub fn compare(rounds: usize) -> Result<()> {
    section("Pods on a node, from scaling up to ready");
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let image = |name| {
        let image = root.join("target/images").join(name);
        ensure!(image.exists(), "{} is missing; `make images` builds it", image.display());
        Ok(image)
    };
    let options = Options {
        name: format!("bench-{}", std::process::id()),
        proxy_mode: ProxyMode::Nftables,
        programs: programs()?,
        images: [image("webhook.tar")?, image("loader.tar")?, image("example.tar")?].into(),
    };
    let cluster = Cluster::start(&options, &supervisor()?)?;
    cluster.run_with("apply", "-k", &root.join("deploy"))?;
    cluster.run("-n sfunnel-system rollout status deployment/sfunnel-webhook --timeout=120s")?;
    cluster.run("label namespace default sfunnel.io/inject=enabled")?;
    for (name, annotations) in [
        (
            "injected",
            json!({"sfunnel.io/ruleset": "ip tcp dport 80 sport 540 actions unfunnel tcp"}),
        ),
        ("plain", json!({})),
    ] {
        cluster.apply(&deployment(name, &annotations).to_string())?;
    }

    let rounds = rounds.min(MOST_ROUNDS);
    // The first pod of a kind is slower than all that follow.
    in_turn(1, [&|| scale(&cluster, "plain", 1), &|| scale(&cluster, "injected", 1)] as Turns<'_>)?;
    for count in [1, MANY] {
        let [plain, injected] = in_turn(
            rounds,
            [&|| scale(&cluster, "plain", count), &|| scale(&cluster, "injected", count)]
                as Turns<'_>,
        )?;
        Row {
            what: &format!("{count} injected : {count} not injected"),
            ours: &injected,
            theirs: &plain,
            unit: Unit::Seconds,
            target: Target::None,
        }
        .print();
        let extra = (median(&injected) - median(&plain)) / count as f64;
        note("  extra time for each pod", &format!("{:.0} ms", extra * 1e3));
    }
    Ok(())
}

type Turns<'a> = [&'a dyn Fn() -> Result<f64>; 2];

/// Seconds from `count` replicas wanted to all of them ready. Before it returns, they are gone again.
fn scale(cluster: &Cluster, name: &str, count: usize) -> Result<f64> {
    let replicas = |count| format!("scale deployment {name} --replicas={count}");
    let started = Instant::now();
    cluster.run(&replicas(count))?;
    let ready = format!("get deployment {name} -o jsonpath={{.status.readyReplicas}}");
    wait(|| Ok(cluster.run(&ready)? == count.to_string()))?;
    let took = started.elapsed().as_secs_f64();

    let loaders = "jsonpath={.items[*].status.initContainerStatuses[*].state.terminated.reason}";
    let ends = cluster.run(&format!("get pods -l app={name} -o {loaders}"))?;
    let wanted = if name == "injected" { count } else { 0 };
    let completed = ends.split_whitespace().filter(|reason| *reason == "Completed").count();
    ensure!(completed == wanted, "{completed} of {wanted} loaders have completed");

    cluster.run(&replicas(0))?;
    wait(|| Ok(cluster.run(&format!("get pods -l app={name} -o name"))?.is_empty()))?;
    Ok(took)
}

fn wait(is_there: impl Fn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_there()? {
        ensure!(started.elapsed() < Duration::from_secs(300), "waited five minutes for pods");
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn deployment(name: &str, annotations: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "server",
                        "image": "sfunnel/example:0.1.0",
                        "args": ["serve", "--tcp", "80,8080"],
                    }],
                },
            },
        },
    })
}

/// The program `cluster`, beside this one.
fn supervisor() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let supervisor = this.with_file_name("cluster");
    ensure!(supervisor.exists(), "{} is missing; `make bench` builds it", supervisor.display());
    supervisor.canonicalize().with_context(|| format!("{}", supervisor.display()))
}
