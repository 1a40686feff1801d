//! UDP to the server, as fast as one CPU can send.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tests::lab::{Lab, address};

use super::cpu::{Cpu, stay_on};
use super::join;
use super::labs::{self, PORT};
use super::meter::per_second;
use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, median, note, section};

/// Room for what arrives while the receiver does not run, in bytes.
const BUFFER: usize = 8 << 20;

/// The receiver has everything when nothing has come for so long.
const SILENCE: Duration = Duration::from_millis(20);

/// What became of the datagrams.
struct Delivery {
    /// Datagrams that arrive in a second.
    rate: f64,
    /// Part of all sent that did not arrive.
    lost: f64,
}

/// Compares datagrams in a TCP funnel header with direct ones.
pub fn compare(rounds: usize) -> Result<()> {
    section("UDP to server, packets that arrive in a second");
    let labs = [&labs::udp_in_tcp()?, &labs::direct()?];
    for len in [200, 1300] {
        let series = in_turn(rounds, labs.map(|lab| move || deliver(lab, len)))?;
        let [ours, theirs] = series
            .each_ref()
            .map(|series| series.iter().map(|delivery| delivery.rate).collect::<Vec<_>>());
        let lost = series.map(|series| {
            let lost: Vec<_> = series.iter().map(|delivery| 100.0 * delivery.lost).collect();
            median(&lost)
        });
        let what = format!("{len} B, encapsulated : direct");
        let (unit, target) = (Unit::PacketsPerSecond, Target::AtLeast(0.92));
        Row { what: &what, ours: &ours, theirs: &theirs, unit, target }.print();
        note(&format!("{len} B, lost"), &format!("{:.2} / {:.2} %", lost[0], lost[1]));
    }
    labs::ensure_funnelled(labs[0])
}

/// Sends datagrams with `len` bytes of data.
fn deliver(lab: &Lab, len: usize) -> Result<Delivery> {
    let receiver = lab.server.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    receiver.set_nonblocking(true)?;
    setsockopt(&receiver, RcvBufForce, &BUFFER)?;
    let sender = lab.client.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    sender.connect((address::SERVER, PORT))?;

    let received = AtomicU64::new(0);
    let (enough, all_sent) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = send(&sender, len, &enough);
            all_sent.store(true, Ordering::Relaxed);
            sent.context("the sender")
        });
        let receiving =
            scope.spawn(|| receive(&receiver, &received, &all_sent).context("the receiver"));
        let rate = per_second(&received);
        enough.store(true, Ordering::Relaxed);
        let sent = join(sending)?;
        join(receiving)?;
        let lost = 1.0 - received.load(Ordering::Relaxed) as f64 / sent as f64;
        Ok(Delivery { rate: rate?, lost })
    })
}

/// Sends until it is enough, and returns how many.
fn send(socket: &UdpSocket, len: usize, enough: &AtomicBool) -> Result<u64> {
    stay_on(Cpu::First)?;
    let data = vec![0; len];
    let mut sent = 0;
    while !enough.load(Ordering::Relaxed) {
        socket.send(&data)?;
        sent += 1;
    }
    Ok(sent)
}

/// Counts what arrives, until all is sent and nothing comes any more.
///
/// It never sleeps: to wake it would cost the sender more than the rest of the way.
fn receive(socket: &UdpSocket, received: &AtomicU64, all_sent: &AtomicBool) -> Result<()> {
    stay_on(Cpu::Second)?;
    // The kernel throws away what there is no room for.
    let mut data = [0; 1];
    let mut last = Instant::now();
    loop {
        match socket.recv(&mut data) {
            Ok(_) => {
                received.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if all_sent.load(Ordering::Relaxed) && last.elapsed() > SILENCE {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
