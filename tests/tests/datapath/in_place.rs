//! Ports translated in place.

use std::ops::RangeInclusive;

use abi::Reason;
use rand::Rng as _;
use rand::rngs::StdRng;
use tests::effort::part_of;
use tests::model::{self, Packet, TCP, UDP};
use tests::random::{self, Checksum};
use tests::test_run::{Context, ETHERNET, ETHERNET6, OK, Runner, UNSPEC};

use crate::family::{FAMILIES, Family, name};

/// Packets for each family and protocol.
const PACKETS: u64 = 10_000;

/// Rulesets that they are shared out among.
const RULESETS: u64 = 10;

/// Two ranges of ports of one size.
fn ranges(rng: &mut StdRng, most: u16) -> (RangeInclusive<u16>, RangeInclusive<u16>) {
    let len = rng.random_range(0..most);
    let mut range = || {
        let first = rng.random_range(1..=u16::MAX - len);
        first..=first + len
    };
    (range(), range())
}

/// A range as rules write it.
fn words(range: &RangeInclusive<u16>) -> String {
    format!("{}-{}", range.start(), range.end())
}

/// A rule in place and the one that undoes it, and what the first adds to both ports.
fn any_pair(rng: &mut StdRng, family: &str, protocol: u8) -> Pair {
    let p = name(protocol);
    let (sports, new_sports) = ranges(rng, 30_000);
    let (dports, new_dports) = ranges(rng, 3);
    let (sport, dport) = (words(&sports), words(&dports));
    let (new_sport, new_dport) = (words(&new_sports), words(&new_dports));
    Pair {
        there: format!(
            "{family} {p} sport {sport} dport {dport} \
             actions funnel {p} sport {new_sport} dport {new_dport}"
        ),
        back: format!(
            "{family} {p} sport {new_sport} dport {new_dport} \
             actions unfunnel {p} sport {sport} dport {dport}"
        ),
        by: (
            new_sports.start().wrapping_sub(*sports.start()),
            new_dports.start().wrapping_sub(*dports.start()),
        ),
        sports,
        dports,
    }
}

struct Pair {
    there: String,
    back: String,
    by: (u16, u16),
    sports: RangeInclusive<u16>,
    dports: RangeInclusive<u16>,
}

impl Pair {
    /// A packet that the first rule matches.
    fn packet(&self, rng: &mut StdRng, family: &Family, protocol: u8) -> Packet {
        let missing = protocol == UDP && rng.random_bool(0.2);
        let len = rng.random_range(0..=1480);
        let mut packet = (family.packet)(rng, protocol, len, Checksum::Right);
        let (sport, dport) =
            (rng.random_range(self.sports.clone()), rng.random_range(self.dports.clone()));
        packet.set_ports(Some(sport), Some(dport));
        let mut packet = packet.seal();
        if missing {
            packet.set_check(0);
        }
        packet
    }
}

#[test]
fn there_nat_and_back_equals_the_model() {
    let mut rng = random::rng(30);
    for family in &FAMILIES {
        for protocol in [TCP, UDP] {
            for _ in 0..part_of(RULESETS) {
                let pair = any_pair(&mut rng, family.name, protocol);
                let (there, back) = (Runner::new(&pair.there), Runner::new(&pair.back));
                let (sport, dport) = pair.by;
                for _ in 0..part_of(PACKETS / RULESETS) {
                    let sent = pair.packet(&mut rng, family, protocol);
                    let expected = model::translate(&sent, sport, dport);
                    let translated = there.run(&sent.write());
                    assert_eq!(translated.verdict, OK, "{}: {sent:?}", pair.there);
                    assert_eq!(translated.packet(), expected.write(), "{}: {sent:?}", pair.there);

                    let (saddr, daddr) = ((family.address)(&mut rng), (family.address)(&mut rng));
                    let routed = model::nat(&expected, saddr, daddr);
                    let delivered = back.run(&routed.write());
                    let expected = model::nat(&sent, saddr, daddr);
                    assert_eq!(delivered.packet(), expected.write(), "{}", pair.back);
                }
                assert_eq!(there.rule(0).packets, part_of(PACKETS / RULESETS));
                assert_eq!((there.all_reasons(), back.all_reasons()), (0, 0));
            }
        }
    }
}

#[test]
fn ports_beside_the_ranges_are_left_alone() {
    let rules = "tcp sport 1000-1999 dport 80 actions funnel tcp sport 3000-3999 dport 81";
    let runner = Runner::new(rules);
    let mut rng = random::rng(31);
    for (sport, dport, expected) in [
        (999, 80, None),
        (1000, 80, Some((3000, 81))),
        (1999, 80, Some((3999, 81))),
        (2000, 80, None),
        (1000, 79, None),
        (1000, 81, None),
    ] {
        let mut sent = random::packet(&mut rng, TCP, 10, Checksum::Right);
        sent.set_ports(Some(sport), Some(dport));
        let sent = sent.seal();
        let outcome = runner.run(&sent.write());
        match expected {
            None => assert_eq!((outcome.verdict, outcome.packet()), (UNSPEC, &sent.write()[..])),
            Some(ports) => {
                let translated = Packet::read(outcome.packet()).expect("a packet");
                assert_eq!((translated.ports(), translated.check_is_right()), (ports, true));
            }
        }
    }
}

#[test]
fn what_is_to_be_segmented_is_translated_as_well_but_for_lists_of_datagrams() {
    let mut rng = random::rng(32);
    for family in &FAMILIES {
        for protocol in [TCP, UDP] {
            let pair = any_pair(&mut rng, family.name, protocol);
            let runner = Runner::new(&pair.there);
            for n in 1..=200 {
                let sent = pair.packet(&mut rng, family, protocol);
                let ethernet = if sent.is_ipv6() { ETHERNET6 } else { ETHERNET };
                let frame = [ethernet.as_slice(), &sent.write()].concat();
                let context = Context { gso_size: 500, gso_segs: 3 };
                let outcome = runner.run_frame(&frame, context);
                if protocol == TCP || sent.lacks_check() {
                    let expected = model::translate(&sent, pair.by.0, pair.by.1);
                    assert_eq!((outcome.verdict, outcome.packet()), (OK, &expected.write()[..]));
                } else {
                    // With a finished checksum it is a list of whole datagrams.
                    assert_eq!((outcome.verdict, outcome.frame), (UNSPEC, frame));
                }
                let done = runner.rule(0).packets + runner.reason(Reason::Segmented);
                assert_eq!((done, runner.all_reasons()), (n, runner.reason(Reason::Segmented)));
            }
        }
    }
}

/// `packet` as the kernel has it before segmentation if it is longer than 64 KiB: the length is 0,
/// and a hop-by-hop header in front of TCP says it (RFC 2675, 2; BIG TCP, Linux 5.19).
fn jumbo(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.write();
    let len = (8 + packet.segment.len()) as u32;
    bytes[4..7].copy_from_slice(&[0, 0, 0]);
    bytes.splice(40..40, [&[TCP, 0, 0xC2, 4], &len.to_be_bytes()[..]].concat());
    bytes
}

#[test]
fn a_packet_of_more_than_64_kib_keeps_the_header_that_says_so() {
    let mut rng = random::rng(35);
    let [_, ipv6] = &FAMILIES;
    let pair = any_pair(&mut rng, "ip6", TCP);
    let to = random::host(&mut rng, ipv6.address);
    let in_place = Runner::new(&pair.there);
    let dnat = Runner::new(&format!("ip6 tcp actions dnat {to}"));
    let push = Runner::new("ip6 tcp actions funnel tcp sport 540 dport 80");
    for n in 1..=200 {
        let sent = pair.packet(&mut rng, ipv6, TCP);
        let frame = [ETHERNET6.as_slice(), &jumbo(&sent)].concat();
        let context = Context { gso_size: 500, gso_segs: 3 };
        let outcome = in_place.run_frame(&frame, context);
        let expected = model::translate(&sent, pair.by.0, pair.by.1);
        assert_eq!((outcome.verdict, outcome.packet()), (OK, &jumbo(&expected)[..]));
        let outcome = dnat.run_frame(&frame, context);
        let expected = model::dnat(&sent, to);
        assert_eq!((outcome.verdict, outcome.packet()), (OK, &jumbo(&expected)[..]));
        let outcome = push.run_frame(&frame, context);
        assert_eq!((outcome.verdict, outcome.frame), (UNSPEC, frame));
        assert_eq!(push.reason(Reason::Segmented), n);
    }
}

#[test]
fn the_first_piece_of_a_datagram_is_translated_for_all() {
    let mut rng = random::rng(33);
    let [ipv4, _] = &FAMILIES;
    let pair = any_pair(&mut rng, "ip", UDP);
    let runner = Runner::new(&pair.there);
    for _ in 0..200 {
        let whole = pair.packet(&mut rng, ipv4, UDP);
        let translated = model::translate(&whole, pair.by.0, pair.by.1);
        let cut = 8 + (whole.segment.len() - 8) / 16 * 8;
        for (fragment, bytes) in [(0x2000, 0..cut), ((cut / 8) as u16, cut..whole.segment.len())] {
            let piece = |packet: &Packet| {
                let segment = packet.segment[bytes.clone()].to_vec();
                Packet { fragment, segment, ..packet.clone() }.write()
            };
            assert_eq!(runner.run(&piece(&whole)).packet(), piece(&translated));
        }
    }
    assert_eq!(runner.all_reasons(), 0);

    // A first piece that ends before the checksum.
    let whole = pair.packet(&mut rng, ipv4, UDP);
    let segment = whole.segment[..4].to_vec();
    let piece = Packet { fragment: 0x2000, segment, ..whole }.write();
    assert_eq!(runner.run(&piece).packet(), piece);
    assert_eq!(runner.reason(Reason::TooShort), 1);
}

#[test]
fn a_new_address_comes_with_the_new_ports() {
    let mut rng = random::rng(34);
    for family in &FAMILIES {
        for protocol in [TCP, UDP] {
            let pair = any_pair(&mut rng, family.name, protocol);
            let from = (family.address)(&mut rng);
            let to = random::host(&mut rng, family.address);
            let runner = Runner::new(&format!("daddr {from} {} dnat {to}", pair.there));
            for _ in 0..500 {
                let sent = model::dnat(&pair.packet(&mut rng, family, protocol), from);
                let expected = model::dnat(&model::translate(&sent, pair.by.0, pair.by.1), to);
                assert_eq!(runner.run(&sent.write()).packet(), expected.write());
                assert_eq!(runner.run_summed(&sent.write()).packet(), expected.write());
            }
        }
    }
}
