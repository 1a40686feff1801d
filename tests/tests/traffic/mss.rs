//! The largest segment that a SYN allows is reduced by the header that is pushed on the answers.

use std::time::{Duration, Instant};

use abi::Family;
use anyhow::{Context as _, Result};
use tests::lab::{FAMILIES, Lab};
use tests::link::Link;
use tests::model::Packet;

use crate::funnel::{Funnelled, max_segment};
use crate::rules::{FUNNEL_PORT, Mode};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[test]
fn both_ends_learn_what_fits() -> Result<()> {
    for mode in [Mode::TCP_IN_PLACE, Mode::TCP_IN_TCP, Mode::TCP_IN_UDP] {
        for family in FAMILIES {
            learn(mode, family).with_context(|| format!("{mode} {family:?}"))?;
        }
    }
    Ok(())
}

fn learn(mode: Mode, family: Family) -> Result<()> {
    let net = Funnelled::new(Lab::new()?, mode, family)?;
    let open = |name| net.lab.router.enter(|| Link::open(name));
    let (from_client, from_server) = (open("r1")?, open("r2")?);
    let connection = net.connect(&net.listen()?)?;

    // 1500 bytes, less IP and TCP headers, less the funnel header.
    let room = match family {
        Family::Ip => 1500 - 40,
        Family::Ip6 => 1500 - 60,
    };
    let expected = room - mode.header_len();
    assert_eq!(offered(&from_client, mode, SYN)?, expected, "in the SYN");
    assert_eq!(offered(&from_server, mode, SYN | ACK)?, expected, "in the SYN-ACK");
    for end in [&connection.client, &connection.server] {
        // Of what is offered, timestamps take 12 bytes.
        assert_eq!(max_segment(end)?, expected - 12);
    }
    Ok(())
}

/// The MSS in the first segment that passes with these flags, header or not.
fn offered(link: &Link, mode: Mode, flags: u8) -> Result<usize> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let frame = link.receive(left)?.context("no such segment within 5 s")?.frame;
        let Ok(packet) = Packet::read(&frame[14..]) else { continue };
        let segment = &packet.segment;
        let behind = 20 + mode.header_len();
        if segment.len() < behind || ![packet.ports().0, packet.ports().1].contains(&FUNNEL_PORT) {
            continue;
        }
        let tcp = &segment[mode.header_len()..];
        if tcp[13] == flags {
            // Linux writes this option first.
            assert_eq!(tcp[20..22], [2, 4], "{packet:?}");
            return Ok(u16::from_be_bytes([tcp[22], tcp[23]]).into());
        }
    }
}
