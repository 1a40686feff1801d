//! Rules are replaced under load. A packet meets the old ones or the new ones, and never none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use abi::Family;
use anyhow::{Context as _, Result, ensure};
use tests::lab::{Lab, address, load};
use tests::netns::Netns;
use tests::transfer::{Connection, Direction, Transfer, listen, transfer};

use crate::funnel::whole_machine;
use crate::rules::{Mode, OTHER_PORT, PORT, Rules};
use crate::watch;

/// How often at each end, and how far apart: ten a second at both, for 30 s.
const REPLACEMENTS: u32 = 150;
const PERIOD: Duration = Duration::from_millis(200);
/// Twice as long: a busy machine may need more time.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes that a flow carries meanwhile, at the least.
const FLOOR: u64 = 256 << 20;

/// A flow for each: its mode, its port, the end that sends. A connection takes its limit on
/// segmentation offload from the interface when it begins; so in place comes first, before the
/// rules of the other lower it.
const FLOWS: [(Mode, u16, Direction); 2] =
    [(Mode::TCP_IN_PLACE, PORT, Direction::Up), (Mode::TCP_IN_TCP, OTHER_PORT, Direction::Down)];

#[test]
fn ten_times_a_second() -> Result<()> {
    let _alone = whole_machine();
    let lab = Lab::new()?;
    let (client, server) = (address::client(Family::Ip), address::server(Family::Ip));
    let ends = [
        (&lab.client, FLOWS.map(|(mode, port, _)| Rules::client(mode, server, port))),
        (&lab.server, FLOWS.map(|(mode, port, _)| Rules::server(mode, client, port))),
    ];
    watch::watch(&lab.router)?;
    let mut connections = Vec::new();
    for (number, (_, port, _)) in FLOWS.into_iter().enumerate() {
        for (netns, rules) in &ends {
            replace(netns, &rules[..=number], 0)?;
        }
        let listener = listen(&lab.server, (server, port).into())?;
        connections.push(Connection::open(&lab.client, (server, port).into(), &listener)?);
    }

    let start = Instant::now();
    let (replaced, transfers) = under_load(&connections, || {
        let turns = |(netns, rules): &(&Netns, [Rules; 2])| -> Result<()> {
            for number in 0..REPLACEMENTS {
                let due = start + PERIOD * number;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                replace(netns, rules, number).with_context(|| format!("replacement {number}"))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads = ends.each_ref().map(|end| scope.spawn(|| turns(end)));
            threads.into_iter().try_for_each(joined)
        })
    });
    let took = start.elapsed();
    replaced?;
    eprintln!("{} replacements in {:.1} s", 2 * REPLACEMENTS, took.as_secs_f64());
    for ((mode, ..), transfer) in FLOWS.iter().zip(transfers) {
        let transfer = transfer.with_context(|| mode.to_string())?;
        eprintln!("{mode}: {transfer}");
        ensure!(transfer.bytes > FLOOR, "{mode}: hardly any load");
    }
    let bare = watch::bare(&lab.router)?;
    ensure!(bare.packets == 0, "not funnelled on the wire: {bare:?}");
    ensure!(took < LIMIT, "a replacement takes too long");
    Ok(())
}

/// Does `work` while all connections carry what they can, but for no longer than [`LIMIT`].
fn under_load<T>(
    connections: &[Connection],
    work: impl FnOnce() -> T,
) -> (T, Vec<Result<Transfer>>) {
    let (done, start) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (connection, (.., direction)) in connections.iter().zip(FLOWS) {
            let ends = connection.ends(direction);
            let more = |_| !done.load(Ordering::Relaxed) && start.elapsed() < LIMIT;
            threads.push(scope.spawn(move || transfer(ends, 5, more)));
        }
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, threads.into_iter().map(joined).collect())
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Loads the same rules in another order, among a changing number of others.
fn replace(netns: &Netns, flows: &[Rules], number: u32) -> Result<()> {
    let text = |hook: fn(&Rules) -> &str| {
        let mut rules: Vec<String> = flows.iter().map(|rules| hook(rules).to_owned()).collect();
        if number / 2 % 2 == 1 {
            rules.reverse();
        }
        let others = (1..=number % 50).map(|n| format!("ip daddr 192.0.2.{n} tcp actions drop"));
        let at = number as usize % 3;
        rules.splice(at..at, others);
        rules.join("\n")
    };
    load(netns, &text(|rules| &rules.ingress), &text(|rules| &rules.egress)).map(drop)
}
