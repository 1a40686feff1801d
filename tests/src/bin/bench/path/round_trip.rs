//! Request and response over one TCP connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tests::lab::Lab;

use super::connection::{Connection, connect};
use super::cpu::{Cpu, stay_on};
use super::join;
use super::labs;
use super::meter::{MEASURE, WARM_UP};
use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, section};

/// Bytes of a request, and of a response.
const LEN: usize = 64;

/// Of many round trips, in seconds: what half of them and what 99 of 100 take at most.
type Percentiles = [f64; 2];

/// Compares both ways of funnelling with the direct way.
pub fn compare(rounds: usize) -> Result<()> {
    section("Latency, request and response of 64 B over one TCP connection");
    let labs = [&labs::in_place()?, &labs::direct()?, &labs::tcp_in_tcp()?];
    let series = in_turn(rounds, labs.map(|lab| move || measure(lab)))?;
    for (number, name) in ["median", "p99"].into_iter().enumerate() {
        let [in_place, direct, encapsulated] = series
            .each_ref()
            .map(|trips| trips.iter().map(|trip| trip[number]).collect::<Vec<_>>());
        for (way, ours) in [("in place", &in_place), ("encapsulated", &encapsulated)] {
            let what = format!("{name}, {way} : direct");
            let (unit, target) = (Unit::Seconds, Target::AtMost(1.05));
            Row { what: &what, ours, theirs: &direct, unit, target }.print();
        }
    }
    let [in_place, _, encapsulated] = labs;
    labs::ensure_funnelled(in_place)?;
    labs::ensure_funnelled(encapsulated)
}

fn measure(lab: &Lab) -> Result<Percentiles> {
    let connection = connect(lab, 1)?.pop().context("one connection was asked for")?;
    let Connection { client, server } = &connection;
    let mut trips = thread::scope(|scope| {
        let server = scope.spawn(|| answer(server).context("the server"));
        let client = scope.spawn(|| {
            let trips = ask(client).context("the client");
            // Also where it failed: the server must end.
            let _ = client.shutdown(Shutdown::Both);
            trips
        });
        let trips = join(client)?;
        join(server)?;
        anyhow::Ok(trips)
    })?;
    trips.sort_by(f64::total_cmp);
    Ok([50, 99].map(|percent| trips[trips.len() * percent / 100]))
}

/// Times round trips, one after the other.
fn ask(mut stream: &TcpStream) -> Result<Vec<f64>> {
    stay_on(Cpu::First)?;
    let mut message = [0; LEN];
    let mut trips = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < WARM_UP + MEASURE || trips.is_empty() {
        let started = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        if begin.elapsed() > WARM_UP {
            trips.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(trips)
}

/// Sends back what comes, until the other end is shut down.
fn answer(mut stream: &TcpStream) -> Result<()> {
    stay_on(Cpu::First)?;
    let mut message = [0; LEN];
    loop {
        match stream.read(&mut message)? {
            0 => return Ok(()),
            len => stream.write_all(&message[..len])?,
        }
    }
}
