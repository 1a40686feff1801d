//! What sfunnel was made for: nfacctd needs what a router exports, and the router's BGP, in one pod.
//!
//! ```text
//! routers     ten of them, with BIRD and pmacctd, and the gateway that funnels
//! collectors  the pods of nfacctd, and what they say
//! moves       what becomes of flows while pods come and go
//! ```
//!
//! The files are those of `deploy/use-cases/nfacctd`, which docs/use-cases/nfacctd.md shows.

#[path = "nfacctd/collectors.rs"]
mod collectors;
#[path = "nfacctd/moves.rs"]
mod moves;
#[path = "nfacctd/routers.rs"]
mod routers;

use std::collections::BTreeSet;
use std::fmt;
use std::iter;
use std::ops::Range;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use self::collectors::{Collected, Collectors, Export, Flow};
use self::routers::{Gateway, ROUTERS, Router, connect_all};
use crate::lab::{Lab, in_both_modes, repository, wait_for};

in_both_modes! { alone: flows_meet_the_bgp_of_their_router }

/// Conversations of each router's customers.
const CONVERSATIONS: u16 = 50;
/// From one to the next: those of ten routers are some 150 samples a second for each of three pods.
const PAUSE: Duration = Duration::from_millis(60);
/// The port of a customer who talks, and nobody counts how often.
const CHATTER: u16 = 19_999;
/// An exporter takes three seconds until it says that a conversation is over, a collector two until it
/// tells, both more on a busy machine. When nothing has come for this time, nothing more comes.
const ARRIVAL: Duration = Duration::from_secs(20);

fn flows_meet_the_bgp_of_their_router(lab: &Lab) {
    check(lab).unwrap_or_else(|error| panic!("{error:#}"));
}

fn check(lab: &Lab) -> Result<()> {
    lab.install();
    lab.cluster().import(&repository("target/images/nfacctd.tar"))?;
    let mut outside = Outside::new(lab)?;

    let collectors = Collectors::deploy(lab, "nfacctd-before", "before")?;
    let before = outside.compare(&collectors)?;
    collectors.remove()?;
    Router::stop_all(&mut outside.routers);

    outside.gateway.funnel()?;
    let collectors = Collectors::deploy(lab, "nfacctd", "collector")?;
    let after = outside.compare(&collectors)?;
    lab.report(Table { before: &before, after: &after, pods: collectors.pods().len() });
    after.is_complete()?;
    before.is_chance()?;

    outside.without_checksums(&collectors)?;
    outside.in_pieces(&collectors)?;
    moves::a_pod_is_deleted(&mut outside, &collectors)?;
    moves::all_pods_are_replaced(&mut outside, &collectors)?;
    Router::stop_all(&mut outside.routers);
    outside.gateway.stop_funnel()
}

/// What is outside of the cluster.
struct Outside<'a> {
    lab: &'a Lab,
    gateway: Gateway,
    routers: Vec<Router>,
    /// The next port of a customer: no two conversations have the same.
    port: u16,
}

/// What became of conversations.
struct Outcome {
    sent: usize,
    received: usize,
    enriched: usize,
    /// Routers' exports of which all flows were enriched, and how many there are.
    together: (usize, usize),
    /// What is wrong with flows, if all of them should be enriched in one pod.
    wrong: Vec<String>,
}

struct Table<'a> {
    before: &'a Outcome,
    after: &'a Outcome,
    pods: usize,
}

impl<'a> Outside<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let gateway = Gateway::new(lab)?;
        let routers = connect_all(&gateway)?;
        Ok(Self { lab, gateway, routers, port: 20_000 })
    }

    /// Ports for so many conversations.
    fn ports(&mut self, count: u16) -> Range<u16> {
        self.port += count;
        self.port - count..self.port
    }

    /// Starts the routers, has their customers talk, and sees what the collectors make of it.
    fn compare(&mut self, collectors: &Collectors<'_>) -> Result<Outcome> {
        self.routers.iter_mut().try_for_each(Router::start_bgp)?;
        let routers = &self.routers;
        wait_for("BGP of all routers", || {
            routers.iter().all(|router| router.is_connected() == Some(true)).then_some(())
        });
        self.routers.iter_mut().try_for_each(Router::start_exporters)?;
        for router in &self.routers {
            wait_for("the exporters", || router.exports().ok()?.then_some(()));
        }
        // A session is established before its routes are there.
        sleep(Duration::from_secs(1));
        self.converse(collectors, |_| true)
    }

    /// The customers of some routers talk.
    fn converse(
        &mut self,
        collectors: &Collectors<'_>,
        which: impl Fn(&Router) -> bool,
    ) -> Result<Outcome> {
        let ports = self.ports(CONVERSATIONS);
        let routers: Vec<_> = self.routers.iter().filter(|router| which(router)).collect();
        scope(|scope| {
            for router in &routers {
                let ports = ports.clone();
                scope.spawn(|| router.converse(ports, PAUSE));
            }
        });
        let (mut received, mut news) = (0, Instant::now());
        loop {
            let outcome = Outcome::new(&collectors.collect(), &routers, &ports);
            if outcome.received > received {
                (received, news) = (outcome.received, Instant::now());
            }
            if outcome.received == outcome.sent || news.elapsed() > ARRIVAL {
                return Ok(outcome);
            }
            // An exporter of sFlow keeps the last samples until there is more to tell.
            for router in &routers {
                router.converse(iter::once(CHATTER), Duration::ZERO);
            }
            sleep(Duration::from_millis(500));
        }
    }

    /// A router that sends UDP without checksums: the first one, whose checksums the gateway removes.
    fn without_checksums(&mut self, collectors: &Collectors<'_>) -> Result<()> {
        let router = &self.routers[0];
        // Else the checksum would be written behind the gateway.
        router.netns.run("ethtool -K eth0 tx-checksumming off")?;
        let from = router.address();
        self.gateway.netns.nft(&format!(
            "table ip exporter {{
                chain prerouting {{
                    type filter hook prerouting priority -300
                    ip saddr {from} udp dport {{ 2055, 4739, 6343 }} udp checksum set 0
                    ip saddr {from} udp dport {{ 2055, 4739, 6343 }} udp checksum 0 counter
                }}
            }}"
        ))?;
        let number = router.number;
        let outcome = self.converse(collectors, |router| router.number == number)?;
        let counted = self.gateway.netns.run("nft list table ip exporter")?;
        let (_, count) = counted.split_once("counter packets ").context("a counter")?;
        let count: usize = count.split(' ').next().unwrap_or_default().parse()?;
        self.lab.report(format_args!(
            "{count} datagrams without a checksum: {} of {} flows enriched",
            outcome.enriched, outcome.sent
        ));
        ensure!(count > 0, "no datagram was without a checksum: {counted}");
        outcome.is_complete()?;
        self.gateway.netns.run("nft delete table ip exporter")?;
        self.routers[0].netns.run("ethtool -K eth0 tx-checksumming on").map(drop)
    }

    /// A router whose datagrams are larger than its MTU. Their pieces are counted at the gateway, and don't
    /// come in; datagrams that fit do.
    fn in_pieces(&mut self, collectors: &Collectors<'_>) -> Result<()> {
        let number = self.routers[1].number;
        self.routers[1].netns.run("ip link set eth0 mtu 400")?;
        let outcome = self.converse(collectors, |router| router.number == number)?;
        ensure!(outcome.received < outcome.sent, "all flows arrived, even those in pieces");
        // Told before the rules are replaced by the next ones.
        let gateway = &self.gateway;
        let (told, _) = wait_for("the gateway to tell of fragments", || {
            let said = gateway.said().ok()?;
            said.lines().find(|line| line.contains("not done: fragment")).map(str::to_owned)
        });
        self.lab.report(format_args!(
            "an exporter that fragments: {} of {} flows arrived; the gateway tells: {}",
            outcome.received,
            outcome.sent,
            told.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
        self.routers[1].netns.run("ip link set eth0 mtu 1480")?;
        self.converse(collectors, |router| router.number == number)?.is_complete()
    }
}

impl Outcome {
    fn new(collected: &Collected, routers: &[&Router], ports: &Range<u16>) -> Self {
        let mut outcome =
            Self { sent: 0, received: 0, enriched: 0, together: (0, 0), wrong: Vec::new() };
        for router in routers {
            let mut pods = BTreeSet::new();
            for export in Export::ALL {
                let (received, enriched) = (outcome.received, outcome.enriched);
                for port in ports.clone() {
                    let flow = Flow { export, router: router.address(), port };
                    outcome.add(collected, router, flow, &mut pods);
                }
                let (received, enriched) =
                    (outcome.received - received, outcome.enriched - enriched);
                outcome.together.0 += usize::from(received > 0 && enriched == received);
                outcome.together.1 += 1;
            }
            if pods.len() > 1 {
                outcome.wrong.push(format!("router {} is in {pods:?}", router.number));
            }
        }
        outcome
    }

    fn add(
        &mut self,
        collected: &Collected,
        router: &Router,
        flow: Flow,
        pods: &mut BTreeSet<String>,
    ) {
        self.sent += 1;
        let Some(seen) = collected.flows.get(&flow) else {
            return self.wrong.push(format!("{flow:?} has not arrived"));
        };
        self.received += usize::from(seen.whole());
        self.enriched += usize::from(seen.enriched_by(router));
        if !seen.enriched_by(router) {
            self.wrong.push(format!("{flow:?}: {seen:?}"));
        }
        for pod in &seen.pods {
            if !collected.has_session(pod, flow) {
                self.wrong.push(format!("{flow:?} is in {pod}, which has no BGP session with it"));
            }
        }
        pods.extend(seen.pods.iter().cloned());
    }

    /// Everything that was sent is enriched, in the one pod that has the router's BGP.
    fn is_complete(&self) -> Result<()> {
        let first: Vec<_> = self.wrong.iter().take(20).map(String::as_str).collect();
        ensure!(first.is_empty(), "{} mistakes:\n{}", self.wrong.len(), first.join("\n"));
        ensure!(self.enriched == self.sent, "{} of {}", self.enriched, self.sent);
        Ok(())
    }

    /// Everything has arrived. Which of it is enriched is chance: one of three pods is the right one, for
    /// each router and export by itself, so five standard deviations are allowed.
    fn is_chance(&self) -> Result<()> {
        ensure!(self.received == self.sent, "{} of {} arrived", self.received, self.sent);
        let (together, all) = self.together;
        let mean = all as f64 / 3.0;
        let far = 5.0 * (mean * (2.0 / 3.0)).sqrt();
        ensure!(
            together > 0 && (together as f64 - mean).abs() < far,
            "{together} of {all} exports are enriched, but {mean:.0} by chance"
        );
        Ok(())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "NetFlow, IPFIX and sFlow with the BGP of their router")?;
        writeln!(f, "          routers  pods  flows sent  received  enriched")?;
        for (name, outcome) in [("before", self.before), ("after", self.after)] {
            let Outcome { sent, received, enriched, .. } = outcome;
            let pods = self.pods;
            writeln!(f, "{name:<9} {ROUTERS:>7} {pods:>5} {sent:>11} {received:>9} {enriched:>9}")?;
        }
        Ok(())
    }
}
