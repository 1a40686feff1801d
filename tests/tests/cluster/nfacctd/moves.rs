//! What becomes of flows while pods come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Outside;
use super::collectors::{Collected, Collectors, Export, Flow};
use super::routers::Router;

/// From one conversation of a router's customers to the next.
const EVERY: Duration = Duration::from_millis(500);
/// So long all is well before pods go, and again when it is said that flows have moved.
const WELL: Duration = Duration::from_secs(5);
/// More than any of it takes, on a busy machine too.
const MOST: Duration = Duration::from_secs(330);

/// What became of a router.
struct Fate {
    router: u8,
    /// Until BGP was established again, with both collectors; none if nobody saw it otherwise.
    bgp: Option<Duration>,
    /// Until all that customers did was known again, and where it went; none if it always was.
    flows: Option<Duration>,
}

/// The pod goes that most routers have their flows in. They move, and nobody else notices.
pub fn a_pod_is_deleted(outside: &mut Outside<'_>, collectors: &Collectors<'_>) -> Result<()> {
    let mut homes: BTreeMap<String, BTreeSet<u8>> = BTreeMap::new();
    let collected = collectors.collect();
    for router in &outside.routers {
        let mut flows = collected.flows.iter();
        let (_, seen) = flows
            .rfind(|(flow, _)| flow.router == router.address())
            .context("every router has flows")?;
        let pod = seen.pods.first().context("they are in a pod")?;
        homes.entry(pod.clone()).or_default().insert(router.number);
    }
    let (pod, routers) =
        homes.into_iter().max_by_key(|(_, routers)| routers.len()).context("there are pods")?;
    let fates = outside.watch(collectors, || {
        collectors.kubectl(&format!("delete pod {pod}"));
    })?;
    for Fate { router, bgp, flows } in &fates {
        // BGP may be back before anybody looks.
        let stayed = !routers.contains(router);
        ensure!(!stayed || bgp.is_none(), "router {router} has lost BGP for {bgp:?}");
        ensure!(!stayed || flows.is_none(), "router {router} has lost flows for {flows:?}");
    }
    outside.report("a pod is deleted", &fates);
    outside.converse(collectors, |_| true)?.is_complete()
}

/// Every pod is replaced, one after the other.
pub fn all_pods_are_replaced(outside: &mut Outside<'_>, collectors: &Collectors<'_>) -> Result<()> {
    let fates = outside.watch(collectors, || {
        collectors.kubectl("rollout restart deployment/nfacctd");
        collectors.kubectl("rollout status deployment/nfacctd --timeout=300s");
        // It doesn't count pods that are ending. Until they have, routers have no reason to move.
        collectors.ready();
    })?;
    outside.report("all pods are replaced", &fates);
    outside.converse(collectors, |_| true)?.is_complete()
}

/// What is known of a router's conversations since something happened. Later ones may be on their way: an
/// exporter takes its time, and more of it on a busy machine.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// When the last one took place that is not known, although a later one is.
    lost: Option<Instant>,
    /// When the last one took place that is known.
    last: Option<Instant>,
}

impl Known {
    /// Looks for conversations, given by port and time, oldest first.
    fn of(router: &Router, talks: &[(u16, Instant)], collected: &Collected) -> Self {
        let mut known = Self::default();
        let mut missing = None;
        for &(port, at) in talks {
            if is_known(collected, router, port) {
                known.lost = missing.take().or(known.lost);
                known.last = Some(at);
            } else {
                missing = Some(at);
            }
        }
        known
    }

    /// Whether none was lost for some time after `over`.
    fn is_well_after(&self, over: Instant) -> bool {
        let from = self.lost.map_or(over, |lost| lost.max(over));
        self.last.is_some_and(|last| last > from + WELL)
    }

    /// Both times, in seconds after `start`.
    fn since(&self, start: Instant) -> [Option<u64>; 2] {
        [self.lost, self.last].map(|time| time.map(|time| (time - start).as_secs()))
    }
}

impl Outside<'_> {
    /// Customers talk all the time. Then something happens, and all is watched until every flow of the
    /// time after it is enriched.
    fn watch(
        &mut self,
        collectors: &Collectors<'_>,
        happens: impl FnOnce() + Send,
    ) -> Result<Vec<Fate>> {
        let ports = self.ports(u16::try_from((MOST + WELL).as_millis() / EVERY.as_millis())?);
        let routers = &self.routers;
        let stop = &AtomicBool::new(false);
        scope(|scope| {
            let start = Instant::now();
            for router in routers {
                // Those of all routers talk at the same times, so a port stands for a time.
                let ports = ports.clone().enumerate().take_while(move |(number, _)| {
                    let next = start + EVERY * u32::try_from(*number).expect("there are few");
                    sleep(next.saturating_duration_since(Instant::now()));
                    !stop.load(Ordering::Relaxed)
                });
                scope.spawn(move || router.converse(ports.map(|(_, port)| port), Duration::ZERO));
            }
            let talked_at = |port: u16| start + EVERY * u32::from(port - ports.start);
            sleep(WELL);

            let gone = Instant::now();
            let happening = scope.spawn(happens);
            let mut over = None;
            let (mut down, mut bgp) = (BTreeSet::new(), BTreeMap::new());
            let result = loop {
                for router in routers {
                    match router.is_connected() {
                        Some(false) => drop(down.insert(router.number)),
                        Some(true) if down.remove(&router.number) => {
                            bgp.insert(router.number, gone.elapsed());
                        }
                        _ => {}
                    }
                }
                if happening.is_finished() {
                    over.get_or_insert_with(Instant::now);
                }
                let collected = collectors.collect();
                let talks = ports.clone().map(|port| (port, talked_at(port)));
                let talks: Vec<_> =
                    talks.filter(|(_, at)| (gone..Instant::now()).contains(at)).collect();
                let known = |router| Known::of(router, &talks, &collected);
                let known: BTreeMap<_, _> =
                    routers.iter().map(|router| (router.number, known(router))).collect();
                if over.is_some_and(|over| known.values().all(|known| known.is_well_after(over))) {
                    break Ok(known);
                }
                if gone.elapsed() > MOST {
                    let seconds = known.iter().map(|(router, known)| (router, known.since(gone)));
                    break Err(anyhow!(
                        "flows don't come back; seconds from the event to the last one that was \
                         lost, and to the last one that is known: {:?}\n{}",
                        seconds.collect::<Vec<_>>(),
                        collectors.kubectl("get pods -l app=nfacctd -o wide"),
                    ));
                }
                // The machine has more to do than to be asked.
                sleep(EVERY);
            };
            stop.store(true, Ordering::Relaxed);
            let known = result?;
            Ok(routers
                .iter()
                .map(|router| Fate {
                    router: router.number,
                    bgp: bgp.get(&router.number).copied(),
                    flows: known[&router.number].lost.map(|last| last + EVERY - gone),
                })
                .collect())
        })
    }

    fn report(&self, what: &str, fates: &[Fate]) {
        let seconds = |time: fn(&Fate) -> Option<Duration>| {
            let mut times: Vec<_> = fates.iter().filter_map(time).map(|t| t.as_secs()).collect();
            times.sort_unstable();
            times
        };
        let (bgp, flows) = (seconds(|fate| fate.bgp), seconds(|fate| fate.flows));
        self.lab.report(format_args!(
            "{what}: seconds until a router's BGP is back {bgp:?}, until all of its flows are \
             enriched again {flows:?}; {} of {} routers lose none",
            fates.len() - flows.len(),
            fates.len()
        ));
    }
}

/// Whether a conversation is known in all exports, with its destination.
fn is_known(collected: &Collected, router: &Router, port: u16) -> bool {
    Export::ALL.into_iter().all(|export| {
        let flow = Flow { export, router: router.address(), port };
        collected.flows.get(&flow).is_some_and(|seen| seen.enriched_by(router))
    })
}
