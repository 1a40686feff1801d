//! The webhook among clients that behave as badly as they can: the program that runs in a pod, for two
//! minutes.
//!
//! ```text
//!  namespace                                       namespace
//! ┌──────────────────────────────────────────┐    ┌───────────────────────────────┐
//! │ steady   reviews as API servers send     │    │ vanish   clients whose host   │
//! │          them, probes as kubelets do     │    │          is gone without a    │
//! │ attacks  scripts, records: they stall,   │    │          word                 │
//! │          reset, talk nonsense, crowd     ├────┤                               │
//! └──────────────────────────────────────────┘    └───────────────────────────────┘
//! ```
//!
//! Steady clients run before the attacks as well, so that both times come from one run. The test needs
//! root, for the namespaces, and the commands `ip` and `ss`. `CHAOS_SECONDS` is for a longer or a shorter
//! look; what is expected of memory and metrics needs a minute at least.

#[path = "chaos/attacks.rs"]
mod attacks;
#[path = "chaos/client.rs"]
mod client;
#[path = "chaos/play.rs"]
mod play;
#[path = "chaos/precedence.rs"]
mod precedence;
#[path = "chaos/records.rs"]
mod records;
#[path = "chaos/report.rs"]
mod report;
#[path = "chaos/sample.rs"]
mod sample;
#[path = "chaos/scripts.rs"]
mod scripts;
#[path = "chaos/steady.rs"]
mod steady;
#[path = "chaos/vanish.rs"]
mod vanish;
#[path = "chaos/webhook.rs"]
mod webhook;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tests::netns::Netns;
use tokio::runtime;

use crate::attacks::Attacks;
use crate::client::Target;
use crate::report::Run;
use crate::steady::Steady;
use crate::vanish::Cable;
use crate::webhook::Webhook;

/// The address of bad clients. Steady ones have another one, as API servers do.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The first requests make connections.
const WARM_UP: Duration = Duration::from_secs(2);

/// Steady clients alone.
const QUIET: Duration = Duration::from_secs(15);

/// From SIGTERM until API servers have heard of it. `--drain-delay` is 5 s.
const HEARD: Duration = Duration::from_secs(3);

#[test]
fn steady_clients_notice_nothing() {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(120, |seconds| seconds.parse().unwrap());
    let netns = Netns::new("webhook").unwrap_or_else(|error| panic!("{error:#}"));
    // Answers that nobody reads wait in the webhook, and not by the megabyte in the kernel.
    netns.sysctl(&[("net.ipv4.tcp_wmem", "4096 8192 16384")]).unwrap();
    // Those that a container has where nobody has decided otherwise.
    allow_files(1024);
    let mut webhook = Webhook::start(&netns);
    // Bad clients have some thousand connections at once.
    allow_files(8192);
    let run = run(&netns, &webhook, Duration::from_secs(seconds));
    let run = run.unwrap_or_else(|error| panic!("{error:#}"));
    let status = webhook.ended();
    run.print();

    let mut wrong = run.wrong();
    if !status.success() {
        wrong.push(format!("it ended with {status}"));
    }
    let log = webhook.log();
    if log.contains("before the last request was answered") {
        wrong.push("clients that stall hold up the end until --shutdown-timeout".to_owned());
    }
    if let Some(line) = log.lines().find(|line| line.contains("panic")) {
        wrong.push(format!("it panicked: {line}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs it all. When this returns, the webhook has been asked to end.
fn run(netns: &Netns, webhook: &Webhook, chaos: Duration) -> Result<Run> {
    let target = Target::new(Ipv4Addr::LOCALHOST, &webhook.ca_file());
    let (hello, review) = (target.hello(), steady::review("chaos", 0));
    let stages = scripts::stages_to_vanish_in(&hello, &review);
    let scripts = scripts::all(&hello, &target.hello_http2(), &review);
    let attacks = Attacks::new(target.from(ATTACKER), scripts);
    let steady = Steady::new(target.clone());
    let away = Netns::new("away")?;
    let cable = Cable::new(netns, &away)?;
    let over = AtomicBool::new(false);

    thread::scope(|scope| {
        let stop = Stop { steady: &steady, attacks: &attacks, over: &over };
        let steady_thread = scope.spawn(|| steady.run(netns));
        thread::sleep(WARM_UP);
        let start = Instant::now();
        let mut vitals = Vec::new();
        let mut watch_until = |end: Instant| {
            while Instant::now() < end {
                vitals.push((Instant::now(), webhook.vitals()));
                thread::sleep(Duration::from_secs(1).min(end - Instant::now()));
            }
        };
        let quiet_until = start + QUIET;
        watch_until(quiet_until);

        let attack_thread = scope.spawn(|| attacks.run(netns));
        let vanish_thread = scope.spawn(|| cable.run(&target, &stages, &over));
        let chaos_until = quiet_until + chaos;
        watch_until(chaos_until);

        let metrics = metrics(netns, &target);
        // Bad clients that are connected stay so.
        attacks.stop();
        over.store(true, Ordering::Relaxed);
        webhook.terminate();
        thread::sleep(HEARD);
        drop(stop);
        steady_thread.join().unwrap();
        attack_thread.join().unwrap();
        Ok(Run {
            start,
            quiet_until,
            chaos_until,
            steady: steady.samples(),
            reopened: steady.reopened(),
            attacks: attacks.tallies().into_iter().collect(),
            attackers_busy: attacks.busy(),
            vanished: vanish_thread.join().unwrap()?,
            vitals,
            metrics,
        })
    })
}

fn metrics(netns: &Netns, target: &Target) -> String {
    netns.enter(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(steady::get(target, "/metrics")).unwrap()
    })
}

/// Ends all clients, also when the test fails before its time.
struct Stop<'a> {
    steady: &'a Steady,
    attacks: &'a Attacks,
    over: &'a AtomicBool,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.steady.stop();
        self.attacks.stop();
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Sets how many files this program, and what it starts, may have open.
fn allow_files(files: u64) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(most >= files, "`ulimit -Hn` has to be {files} or more, and is {most}");
    setrlimit(Resource::RLIMIT_NOFILE, files, most).unwrap();
}
