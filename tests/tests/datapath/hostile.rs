//! Bytes that nobody meant, and packets that end anywhere.

use rand::Rng as _;
use tests::model::{self, Funnel, IcmpError, Packet, TCP, UDP};
use tests::random::{self, Checksum, PAIRS};
use tests::test_run::{Runner, SHOT, UNSPEC};

use crate::family::{FAMILIES, Family};

/// Whether `after` is `before`, or a packet whose lengths and checksums agree.
fn is_sound(before: &[u8], after: &[u8]) -> bool {
    if before == after {
        return true;
    }
    let Ok(packet) = Packet::read(after) else {
        return false;
    };
    // In place, a length that was wrong stays so.
    let udp_len_fits = packet.protocol != UDP
        || before.len() == after.len()
        || usize::from(u16::from_be_bytes([packet.segment[4], packet.segment[5]]))
            == packet.segment.len();
    udp_len_fits && packet.write() == after[..packet.write().len()]
}

/// Rules that rewrite everything that they can.
const GREEDY: [&str; 5] = [
    "tcp actions funnel tcp sport 540 dport 80; udp actions funnel tcp sport 540 dport 80",
    "tcp actions funnel udp sport 540 dport 80; udp actions funnel udp sport 540 dport 80",
    "tcp actions unfunnel udp; udp actions unfunnel udp",
    "tcp actions unfunnel tcp; udp actions unfunnel tcp",
    "tcp sport 1-60000 dport 1-65535 actions funnel tcp sport 5000-64999 dport 1-65535; \
     udp sport 1-60000 dport 1-65535 actions funnel udp sport 5000-64999 dport 1-65535",
];

#[test]
fn random_bytes_are_left_alone_or_counted() {
    let mut rng = random::rng(12);
    for rules in GREEDY {
        let runner = Runner::new(rules);
        let (mut ours, mut changed) = (0, 0);
        for _ in 0..25_000 {
            let len = rng.random_range(0..200);
            let mut packet: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            // Half of it gets as far as the IP header, half of that to the transport header.
            if rng.random() && len >= 40 {
                let protocol = if rng.random() { TCP } else { UDP };
                let (version, at, len_at, len) = match rng.random() {
                    true => (0x40 | rng.random_range(4..8), 9, 2, len),
                    false => (0x60, 6, 4, len - 40),
                };
                packet[0] = version;
                packet[at] = protocol;
                if rng.random() {
                    packet[len_at..len_at + 2].copy_from_slice(&(len as u16).to_be_bytes());
                    if at == 9 {
                        packet[6..8].fill(0);
                    }
                }
            }
            let before = runner.all_reasons() + runner.rule(0).packets + runner.rule(1).packets;
            let outcome = runner.run(&packet);
            let after = runner.all_reasons() + runner.rule(0).packets + runner.rule(1).packets;
            // What has no version of its own is put on the wire as IPv4.
            let (header, protocol_at) = match packet.first() {
                Some(byte) if byte >> 4 == 6 => (40, 6),
                _ => (20, 9),
            };
            if len >= header && [TCP, UDP].contains(&packet[protocol_at]) {
                ours += 1;
                // Rules with ports are not for all.
                let most = before + 1;
                let least = if rules.contains(" sport 1-") { before } else { most };
                assert!((least..=most).contains(&after), "counted once: {packet:02x?}");
            }
            if outcome.packet() != packet {
                changed += 1;
                // Its header checksum was random, and stays as wrong as it was: make it right on
                // both sides before the comparison.
                let mut fixed = packet.clone();
                if header == 20 {
                    let header = usize::from(fixed[0] & 15) * 4;
                    fix_header(&mut fixed, header);
                }
                let again = runner.run(&fixed);
                assert!(
                    is_sound(&fixed, again.packet()),
                    "{fixed:02x?} -> {:02x?}",
                    again.packet()
                );
            }
            assert_ne!(outcome.verdict, SHOT);
        }
        assert!(ours > 5_000, "{ours} packets were TCP or UDP");
        eprintln!("{rules}: {ours} of 25000 were ours, {changed} were rewritten");
    }
}

fn fix_header(packet: &mut [u8], len: usize) {
    packet[10..12].fill(0);
    let mut sum: u32 =
        packet[..len].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn errors_with_wrong_bytes_in_them_leave_sound() {
    let mut rng = random::rng(19);
    let rules = "tcp sport 80 dport 540 actions unfunnel udp; \
                 udp sport 80 dport 540 actions unfunnel tcp; \
                 udp sport 1-60000 dport 1-65535 \
                 actions unfunnel udp sport 5000-64999 dport 1-65535";
    let runner = Runner::new(rules);
    let mut changed = 0;
    for n in 0..50_000 {
        let Family { packet, address, .. } = &FAMILIES[n % 2];
        let (inner, through) = PAIRS[rng.random_range(0..4)];
        let len = rng.random_range(0..100);
        let mut about = packet(&mut rng, inner, len, Checksum::Right);
        about.options = Vec::new();
        let about = match rng.random() {
            true => model::funnel(&about, Funnel::new(through, 540, 80)),
            false => about,
        };
        let quoted = rng.random_range(20..about.write().len() + 1);
        let told = IcmpError::too_big(about.is_ipv6(), rng.random());
        let mut error = told.answer(&about, quoted, address(&mut rng));
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..error.segment.len());
            error.segment[at] = rng.random();
        }
        let error = error.seal().write();
        let outcome = runner.run(&error);
        assert_ne!(outcome.verdict, SHOT);
        if outcome.packet() != error {
            changed += 1;
            let after = Packet::read(outcome.packet()).expect("a packet");
            assert_eq!(after.write(), outcome.packet(), "nothing behind it");
            assert!(after.check_is_right(), "{error:02x?} -> {:02x?}", outcome.packet());
        }
    }
    eprintln!("{changed} of 50000 errors were rewritten");
    assert!(changed > 5_000, "{changed} errors were rewritten");
}

#[test]
fn every_truncation_is_left_alone_and_counted() {
    let mut rng = random::rng(13);
    for rules in GREEDY {
        let runner = Runner::new(rules);
        for ((inner, through), Family { packet, .. }) in
            PAIRS.iter().flat_map(|&pair| FAMILIES.iter().map(move |family| (pair, family)))
        {
            let sent = packet(&mut rng, inner, 40, Checksum::Right);
            let funnelled = model::funnel(&sent, Funnel::new(through, 540, 80));
            for packet in [sent.write(), funnelled.write()] {
                for len in 0..packet.len() {
                    let before = runner.all_reasons();
                    let outcome = runner.run(&packet[..len]);
                    assert_eq!(outcome.packet(), &packet[..len]);
                    assert_eq!(outcome.verdict, UNSPEC);
                    assert_eq!(runner.all_reasons(), before + 1, "{len} of {}", packet.len());
                }
            }
        }
    }
}
