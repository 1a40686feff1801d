//! From exec to ready.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::certificate::Certificate;
use super::server::{Cores, Server};
use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit};

/// Compares the time until `/readyz` says so.
pub fn compare(rounds: usize, certificate: &Certificate, programs: &Path) -> Result<()> {
    let measurements: [&dyn Fn() -> Result<f64>; 3] = [
        &|| timed(|| Server::ours(certificate, Cores::One)),
        &|| timed(|| Server::self_signed(certificate, Cores::One)),
        &|| timed(|| Server::agnhost(certificate, programs, Cores::One)),
    ];
    // The first start reads the programs from the disk.
    in_turn(1, measurements)?;
    let [files, self_signed, agnhost] = in_turn(rounds, measurements)?;
    for (what, ours) in [
        ("from exec to ready : agnhost", &files),
        ("  making its own certificate : agnhost", &self_signed),
    ] {
        let target = Target::Within(Duration::from_millis(100));
        Row { what, ours, theirs: &agnhost, unit: Unit::Seconds, target }.print();
    }
    Ok(())
}

fn timed(start: impl FnOnce() -> Result<Server>) -> Result<f64> {
    let started = Instant::now();
    let server = start()?;
    let took = started.elapsed().as_secs_f64();
    drop(server);
    Ok(took)
}
