//! Ratios, each with what it is compared to, measured in turn in one run.
//!
//! ```text
//! rounds      several things measured in turn, several times
//! table       what came out, beside what should have
//! start_up    the loader, from exec to exit
//! look_up     the program on one packet, without a network
//! path        the way through client, router and server: bulk TCP, UDP, latency
//! sizes       what an image would hold
//! webhook     reviews over TLS, beside another admission server; and the memory that they take
//! pods        a hundred pods on a Kubernetes node
//! ```
//!
//! A missed target is printed and is no failure: the machine may be busy with something else.

mod look_up;
mod path;
mod pods;
mod rounds;
mod sizes;
mod start_up;
mod table;
mod webhook;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// What the environment says.
struct Options {
    /// `BENCH`: only the sections whose names contain it.
    only: String,
    /// `BENCH_ROUNDS`: how often each is repeated.
    rounds: usize,
}

/// Enough for a median that a single disturbed round does not move; some fifteen minutes in all.
const ROUNDS: usize = 9;

impl Options {
    fn from_env() -> Result<Self> {
        let only = std::env::var("BENCH").unwrap_or_default();
        let rounds = match std::env::var("BENCH_ROUNDS") {
            Ok(rounds) => rounds
                .parse()
                .with_context(|| format!("BENCH_ROUNDS is a number, not `{rounds}`"))?,
            Err(_) => ROUNDS,
        };
        ensure!(rounds > 0, "BENCH_ROUNDS is 1 or more");
        Ok(Self { only, rounds })
    }
}

/// A name for `BENCH`, and what it stands for.
type Section = (&'static str, fn(usize) -> Result<()>);

const SECTIONS: [Section; 9] = [
    ("loader", start_up::compare),
    ("lookup", look_up::compare),
    ("bulk", path::bulk::compare),
    ("udp", path::datagrams::compare),
    ("latency", path::round_trip::compare),
    ("sizes", sizes::compare),
    ("webhook", webhook::compare),
    ("webhook-memory", webhook::memory::compare),
    ("pods", pods::compare),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Options { only, rounds } = Options::from_env()?;
    let names = SECTIONS.map(|(name, _)| name);
    let mut chosen = SECTIONS.iter().filter(|(name, _)| name.contains(&only)).peekable();
    ensure!(chosen.peek().is_some(), "BENCH is one of {}, not `{only}`", names.join(", "));
    rounds::stop_on_interrupt()?;
    let started = Instant::now();
    table::head(rounds);
    for (_, compare) in chosen {
        compare(rounds)?;
    }
    println!("\n{:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
