//! Memory after a million reviews, and with thousands of connections.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tests::netns::Netns;

use super::certificate::Certificate;
use super::generator::{Generator, Pace};
use super::server::{Cores, Server, agent, ask};
use super::{LARGEST, ORDINARY, programs, review};
use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, note, section};

const MEBIBYTE: f64 = (1 << 20) as f64;

/// What the webhook's memory may grow to. It is measured once: rounds would take as many times minutes.
pub fn compare(_rounds: usize) -> Result<()> {
    section("Webhook's memory, compared to what it may have, measured once");
    let programs = programs()?;
    Netns::new("bench")?.enter(|| {
        let certificate = Certificate::new()?;
        large_reviews(&certificate)?;
        idle_connections(&certificate)?;
        many_reviews(&certificate, &programs)
    })
}

fn row(what: &str, ours: f64, theirs: f64, target: Target) {
    Row { what, ours: &[ours], theirs: &[theirs], unit: Unit::Mebibytes, target }.print();
}

/// The largest that an API server sends, one after the other.
fn large_reviews(certificate: &Certificate) -> Result<()> {
    let server = Server::ours(certificate, Cores::All)?;
    note("at the start", &format!("{:.1} MiB", server.resident()? / MEBIBYTE));
    let review = review::review(LARGEST);
    for _ in 0..10 {
        server.review(&review)?;
    }
    let (peak, after) = (server.peak()? / MEBIBYTE, server.resident()? / MEBIBYTE);
    note("peak of 10 reviews of 3 MiB, and after them", &format!("{peak:.1} / {after:.1} MiB"));
    Ok(())
}

/// Each is answered once, and stays open.
const IDLE: usize = 2000;

fn idle_connections(certificate: &Certificate) -> Result<()> {
    // Both ends of a connection count, in two processes: the server gets the same limit.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let enough = IDLE as u64 + 1000;
    ensure!(hard >= enough, "{enough} open files are needed, and the limit is {hard} (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(enough), hard)?;

    let server = Server::ours(certificate, Cores::All)?;
    let review = review::review(ORDINARY);
    let mut clients = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let client = agent(certificate)?;
        ask(&client, &server.url, &review)?;
        clients.push(client);
    }
    // API servers keep connections idle for 90 s; the last ones had no time to be so yet.
    sleep(Duration::from_secs(3));
    let (sockets, resident) = (server.sockets()?, server.resident()?);
    ensure!(sockets >= IDLE, "{sockets} sockets are open, not {IDLE}");
    row("with 2,000 idle connections : 40 MiB", resident, 40.0 * MEBIBYTE, Target::AtMost(1.0));
    Ok(())
}

/// How long one load lasts. The next one comes with new connections.
const LASTS: Duration = Duration::from_secs(5);

const CONNECTIONS: usize = 8;

fn many_reviews(certificate: &Certificate, programs: &Path) -> Result<()> {
    let server = Server::ours(certificate, Cores::All)?;
    let generator = Generator::new(ORDINARY, certificate, programs, Cores::All)?;
    let load = || Ok(generator.ask(&server, Pace::Full(CONNECTIONS), LASTS)?.count);
    let mut answered = 0;
    let mut resident_after = |reviews| {
        while answered < reviews {
            let [counts] = in_turn(1, [&load])?;
            answered += counts.iter().sum::<usize>();
        }
        server.resident()
    };
    let (few, many) = (resident_after(100_000)?, resident_after(1_000_000)?);
    row("after 1,000,000 reviews : 20 MiB", many, 20.0 * MEBIBYTE, Target::AtMost(1.0));
    row("after 1,000,000 reviews : after 100,000", many, few, Target::AtMost(1.05));
    Ok(())
}
