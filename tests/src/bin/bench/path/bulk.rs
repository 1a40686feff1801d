//! Bulk TCP: as many bytes as there is room for.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use tests::lab::Lab;

use super::connection::{Connection, connect};
use super::cpu::{Cpu, stay_on};
use super::join;
use super::labs;
use super::meter::per_second;
use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, section};

/// Bytes of a write, and of a read at the most.
const BLOCK: usize = 256 << 10;

/// Which way the bytes go. The client connects in either case.
#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

/// Compares both ways of funnelling with the direct way: with the congestion control that the
/// machine is set to, and with one that does not pace.
pub fn compare(rounds: usize) -> Result<()> {
    // Neighbours in this order are compared.
    let labs =
        [&labs::in_place()?, &labs::direct()?, &labs::tcp_in_tcp()?, &labs::direct_by_segment()?];
    let set = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    compare_under(set.trim(), labs, rounds)?;
    for lab in labs {
        labs::do_not_pace(lab)?;
    }
    compare_under("reno", labs, rounds)?;
    let [in_place, _, encapsulated, _] = labs;
    labs::ensure_funnelled(in_place)?;
    labs::ensure_funnelled(encapsulated)
}

fn compare_under(control: &str, labs: [&Lab; 4], rounds: usize) -> Result<()> {
    section(&format!(
        "Bulk TCP, {control}; `direct` with default offloads, `by segment` with gso_max_segs 1"
    ));
    for (direction, to) in [(Direction::ToServer, "to server"), (Direction::ToClient, "to client")]
    {
        for (streams, number) in [(1, "1 stream"), (8, "8 streams")] {
            let [in_place, direct, encapsulated, by_segment] =
                in_turn(rounds, labs.map(|lab| move || bit_rate(lab, streams, direction)))?;
            let row = |what, ours, theirs, target| {
                let what = format!("{to}, {number}, {what}");
                Row { what: &what, ours, theirs, unit: Unit::BitsPerSecond, target }.print();
            };
            let target = Target::AtLeast(0.95);
            row("in place : direct", &in_place, &direct, target);
            row("encapsulated : by segment", &encapsulated, &by_segment, target);
            row("encapsulated : direct", &encapsulated, &direct, Target::None);
        }
    }
    Ok(())
}

/// Bits that programs receive in a second, over so many connections at once.
fn bit_rate(lab: &Lab, streams: usize, direction: Direction) -> Result<f64> {
    let ends: Vec<(TcpStream, TcpStream)> = connect(lab, streams)?
        .into_iter()
        .map(|Connection { client, server }| match direction {
            Direction::ToServer => (client, server),
            Direction::ToClient => (server, client),
        })
        .collect();
    let received = AtomicU64::new(0);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (sender, receiver) in &ends {
            threads.push(scope.spawn(|| send(sender).context("the sender")));
            threads.push(scope.spawn(|| receive(receiver, &received).context("the receiver")));
        }
        let bytes = per_second(&received);
        for (sender, _) in &ends {
            // Where the connection has broken, the threads have ended and say why.
            let _ = sender.shutdown(Shutdown::Both);
        }
        for thread in threads {
            join(thread)?;
        }
        Ok(8.0 * bytes?)
    })
}

/// Writes until this end is shut down.
fn send(mut stream: &TcpStream) -> Result<()> {
    stay_on(Cpu::First)?;
    let block = vec![0; BLOCK];
    loop {
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads until the other end is shut down.
fn receive(mut stream: &TcpStream, received: &AtomicU64) -> Result<()> {
    stay_on(Cpu::First)?;
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(()),
            len => received.fetch_add(len as u64, Ordering::Relaxed),
        };
    }
}
