//! A header pushed, a header removed, an address set.

use abi::Reason;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tests::effort::part_of;
use tests::model::{self, Funnel, TCP, UDP};
use tests::random::{self, Checksum, PAIRS};
use tests::test_run::{Context, ETHERNET, ETHERNET6, OK, Runner, UNSPEC};

use crate::family::{FAMILIES, Family, name};

/// Packets for each family and pair of protocols.
const PACKETS: u64 = 10_000;

/// Rulesets that they are shared out among.
const RULESETS: u64 = 10;

/// A funnel's words in a rule, and what they mean.
fn any_funnel(rng: &mut StdRng, through: u8) -> (String, Funnel) {
    let mut header = Funnel::new(through, rng.random_range(1..=65535), rng.random_range(1..=65535));
    let mut words = format!("{} sport {} dport {}", name(through), header.sport, header.dport);
    if through == TCP && rng.random() {
        const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
        header.flags = rng.random_range(1..=255);
        let set: Vec<&str> =
            (0..8).filter(|bit| header.flags >> bit & 1 != 0).map(|bit| FLAGS[bit]).collect();
        words += &format!(" flags {{ {} }}", set.join(", "));
    }
    header.inner_sport = rng.random_bool(0.3).then(|| rng.random_range(1..=65535));
    header.inner_dport = rng.random_bool(0.3).then(|| rng.random_range(1..=65535));
    if header.inner_sport.or(header.inner_dport).is_some() {
        words += " inner";
    }
    for (word, port) in [("sport", header.inner_sport), ("dport", header.inner_dport)] {
        words += &port.map_or_else(String::new, |port| format!(" {word} {port}"));
    }
    (words, header)
}

/// Ports that an `unfunnel` sets.
fn any_ports(rng: &mut StdRng) -> (String, Option<u16>, Option<u16>) {
    let sport = rng.random_bool(0.3).then(|| rng.random_range(1..=65535_u16));
    let dport = rng.random_bool(0.3).then(|| rng.random_range(1..=65535_u16));
    let words: String = [("sport", sport), ("dport", dport)]
        .iter()
        .filter_map(|(word, port)| port.map(|port| format!(" {word} {port}")))
        .collect();
    (words, sport, dport)
}

#[test]
fn funnel_nat_unfunnel_equals_the_model() {
    let mut rng = random::rng(1);
    for Family { name: family, packet, address } in FAMILIES {
        for (inner, through) in PAIRS {
            let (i, t) = (name(inner), name(through));
            for _ in 0..part_of(RULESETS) {
                let (words, header) = any_funnel(&mut rng, through);
                let push = Runner::new(&format!("{family} {i} actions funnel {words}"));
                let (words, sport, dport) = any_ports(&mut rng);
                let pull = Runner::new(&format!("{family} {t} actions unfunnel {i}{words}"));
                for _ in 0..part_of(PACKETS / RULESETS) {
                    let missing = inner == UDP && rng.random_bool(0.2);
                    let checksum = if missing { Checksum::Missing } else { Checksum::Right };
                    let len = rng.random_range(0..=1480);
                    let sent = packet(&mut rng, inner, len, checksum);

                    let funnelled = push.run(&sent.write());
                    let expected = model::funnel(&sent, header);
                    assert_eq!(funnelled.verdict, OK);
                    assert_eq!(funnelled.packet(), expected.write(), "{header:?}: {sent:?}");
                    let ethernet = if sent.is_ipv6() { ETHERNET6 } else { ETHERNET };
                    assert_eq!(funnelled.frame[..14], ethernet);

                    // The other end may be the original.
                    let window =
                        *[header.window, Funnel::ORIGINALS_WINDOW].choose(&mut rng).unwrap();
                    let expected = model::funnel(&sent, Funnel { window, ..header });
                    let (saddr, daddr) = match rng.random_range(0..3) {
                        0 => (expected.saddr, expected.daddr),
                        1 => (expected.saddr, address(&mut rng)),
                        _ => (address(&mut rng), address(&mut rng)),
                    };
                    let routed = model::nat(&expected, saddr, daddr);
                    let delivered = pull.run(&routed.write());
                    let mut expected = model::unfunnel(&routed, inner);
                    expected.set_ports(sport, dport);
                    let expected = expected.seal();
                    assert_eq!(delivered.verdict, OK);
                    assert_eq!(delivered.packet(), expected.write(), "{i} out of {t}: {routed:?}");
                    assert_eq!(expected.segment.len(), sent.segment.len());
                }
                assert_eq!(push.rule(0).packets, part_of(PACKETS / RULESETS));
                assert_eq!((push.all_reasons(), pull.all_reasons()), (0, 0));
            }
        }
    }
}

#[test]
fn the_largest_segment_size_is_found_among_the_first_options_and_only_in_a_syn() {
    let mut rng = random::rng(17);
    let push = Runner::new("tcp actions funnel tcp sport 540 dport 80");
    let header = Funnel::new(TCP, 540, 80);
    let mut clamped = 0;
    for no_operations in 0..=36 {
        for flags in [0x02, 0x12, 0x10, 0xFF, 0x00] {
            for value in [1460_u16, 536, 21, 20, 0, 65535] {
                let Family { packet, .. } = FAMILIES.choose(&mut rng).expect("two");
                let mut sent = packet(&mut rng, TCP, 0, Checksum::Right);
                sent.segment.truncate(20);
                sent.segment[12..14].copy_from_slice(&[0xF0, flags]);
                sent.segment.extend(vec![1; no_operations]);
                sent.segment.extend([2, 4]);
                sent.segment.extend(value.to_be_bytes());
                sent.segment.resize(60, 0);
                let sent = sent.seal();
                let expected = model::funnel(&sent, header);
                let unclamped = expected.segment[20 + 20..] == sent.segment[20..];
                assert_eq!(unclamped, flags & 2 == 0 || value <= 20 || no_operations >= 8);
                clamped += usize::from(!unclamped);
                assert_eq!(push.run(&sent.write()).packet(), expected.write(), "{sent:?}");
            }
        }
    }
    assert_eq!(clamped, 8 * 3 * 4);
}

#[test]
fn a_wrong_checksum_arrives_as_wrong_as_it_left() {
    let mut rng = random::rng(2);
    for (inner, through) in PAIRS {
        let (i, t) = (name(inner), name(through));
        let push = Runner::new(&format!("{i} actions funnel {t} sport 540 dport 80"));
        let pull = Runner::new(&format!("{t} actions unfunnel {i}"));
        for n in 0..1_000 {
            let len = rng.random_range(0..200);
            let Family { packet, .. } = FAMILIES[n % 2];
            let mut sent = packet(&mut rng, inner, len, Checksum::Right);
            // No SYN: what it says of the largest segment would not come back.
            if inner == TCP {
                sent.segment[13] &= !2;
                sent = sent.seal();
            }
            let wrong = sent.check() ^ (1 << rng.random_range(0..16));
            // 0 and all ones are the same sum, and with UDP the one is the other.
            if wrong == 0 || wrong == 0xFFFF {
                continue;
            }
            sent.set_check(wrong);
            let arrived = pull.run(push.run(&sent.write()).packet());
            assert_eq!(arrived.packet(), sent.write());
        }
    }
}

#[test]
fn a_checksum_that_equals_the_pseudo_headers_sum_by_chance_is_a_finished_one() {
    let mut rng = random::rng(3);
    let push = Runner::new("ip udp actions funnel tcp sport 540 dport 80");
    let mut found = 0;
    for _ in 0..200 {
        // The last two bytes of the payload are free to make the checksum what it has to be.
        let sent = random::packet(&mut rng, UDP, 64, Checksum::Right);
        let wanted = sent.pending_check(sent.saddr, sent.daddr);
        let Some(sent) = (0..=u16::MAX).find_map(|filler| {
            let mut candidate = sent.clone();
            let end = candidate.segment.len();
            candidate.segment[end - 2..].copy_from_slice(&filler.to_be_bytes());
            let candidate = candidate.seal();
            (candidate.check() == wanted).then_some(candidate)
        }) else {
            continue;
        };
        found += 1;
        let funnelled = push.run(&sent.write());
        let header = Funnel::new(TCP, 540, 80);
        assert_eq!(funnelled.packet(), model::funnel(&sent, header).write());
        if found == 20 {
            return;
        }
    }
    panic!("only {found} packets could be made");
}

#[test]
fn dnat_alone_and_behind_the_others_equals_the_model() {
    let mut rng = random::rng(4);
    for Family { name: family, packet, address } in FAMILIES {
        for protocol in [TCP, UDP] {
            let p = name(protocol);
            let to = random::host(&mut rng, address);
            let alone = Runner::new(&format!("{family} {p} actions dnat {to}"));
            let push =
                Runner::new(&format!("{family} {p} actions funnel udp sport 1 dport 2 dnat {to}"));
            let pull = Runner::new(&format!("{family} udp actions unfunnel {p} dnat {to}"));
            for _ in 0..2_000 {
                let checksum = match protocol {
                    UDP if rng.random_bool(0.2) => Checksum::Missing,
                    _ => Checksum::Right,
                };
                let len = rng.random_range(0..=1400);
                let sent = packet(&mut rng, protocol, len, checksum);
                assert_eq!(alone.run(&sent.write()).packet(), model::dnat(&sent, to).write());

                let funnelled = model::funnel(&sent, Funnel::new(UDP, 1, 2));
                let expected = model::dnat(&funnelled, to);
                assert_eq!(push.run(&sent.write()).packet(), expected.write());

                let expected = model::unfunnel(&expected, protocol);
                assert_eq!(pull.run(&funnelled.write()).packet(), expected.write());
            }
        }
    }
}

#[test]
fn vlan_tags_in_the_frame_are_kept() {
    let mut rng = random::rng(11);
    let push = Runner::new("ip udp actions funnel tcp sport 540 dport 80");
    let pull = Runner::new("ip tcp actions unfunnel udp");
    let header = Funnel::new(TCP, 540, 80);
    let one: &[u8] = &[0x81, 0x00, 0x20, 0x05];
    let two: &[u8] = &[0x88, 0xA8, 0x00, 0x07, 0x81, 0x00, 0x20, 0x05];
    let three: &[u8] = &[0x88, 0xA8, 0x00, 0x07, 0x81, 0x00, 0x20, 0x05, 0x81, 0x00, 0x00, 0x09];
    let tagged =
        |tags: &[u8], packet: &[u8]| [&ETHERNET[..12], tags, &ETHERNET[12..], packet].concat();
    for _ in 0..200 {
        let missing = rng.random_bool(0.2);
        let checksum = if missing { Checksum::Missing } else { Checksum::Right };
        let sent = random::packet(&mut rng, UDP, 300, checksum);
        let funnelled = model::funnel(&sent, header);
        let back = model::unfunnel(&funnelled, UDP);
        // The kernel holds the tag apart from the frame afterwards, where this command does not show
        // it.
        let outcome = push.run_frame(&tagged(one, &sent.write()), Context::default());
        assert_eq!((outcome.verdict, outcome.packet()), (OK, funnelled.write().as_slice()));
        let outcome = pull.run_frame(&tagged(one, &funnelled.write()), Context::default());
        assert_eq!((outcome.verdict, outcome.packet()), (OK, back.write().as_slice()));
        for tags in [two, three] {
            let frame = tagged(tags, &sent.write());
            let outcome = push.run_frame(&frame, Context::default());
            assert_eq!((outcome.verdict, outcome.frame), (UNSPEC, frame));
        }
    }
    assert_eq!(push.reason(Reason::VlanDepth), 200);
}

#[test]
fn the_sum_that_a_network_card_delivers_stays_right() {
    let mut rng = random::rng(15);
    for Family { name: family, packet, address } in FAMILIES {
        for (inner, through) in PAIRS {
            let (i, t) = (name(inner), name(through));
            let to = random::host(&mut rng, address);
            let (words, _) = any_funnel(&mut rng, through);
            let push = Runner::new(&format!("{family} {i} actions funnel {words} dnat {to}"));
            let pull = Runner::new(&format!("{family} {t} actions unfunnel {i} sport 7 dnat {to}"));
            let dnat = Runner::new(&format!("{family} {i} actions dnat {to}"));
            for _ in 0..500 {
                let missing = inner == UDP && rng.random_bool(0.3);
                let checksum = if missing { Checksum::Missing } else { Checksum::Right };
                // The card sums up 16-bit words, as the kernel does.
                let len = rng.random_range(0..=1480);
                let sent = packet(&mut rng, inner, len, checksum);
                let funnelled = push.run_summed(&sent.write());
                assert_eq!((funnelled.verdict, push.all_reasons()), (OK, 0));
                assert_eq!(pull.run_summed(funnelled.packet()).verdict, OK);
                assert_eq!(dnat.run_summed(&sent.write()).verdict, OK);
            }
            assert_eq!(pull.all_reasons(), 0);
        }
    }
}

#[test]
fn padding_behind_the_packet_is_kept() {
    let mut rng = random::rng(14);
    let push = Runner::new("ip udp actions funnel tcp sport 540 dport 80");
    let pull = Runner::new("ip tcp actions unfunnel udp");
    let header = Funnel::new(TCP, 540, 80);
    for checksum in [Checksum::Right, Checksum::Missing] {
        let sent = random::packet(&mut rng, UDP, 3, checksum);
        let padded = [sent.write(), vec![0xEE; 15]].concat();
        let funnelled = model::funnel(&sent, header);
        let expected = [funnelled.write(), vec![0xEE; 15]].concat();
        let outcome = push.run(&padded);
        assert_eq!(outcome.packet(), expected);
        let back = [model::unfunnel(&funnelled, UDP).write(), vec![0xEE; 15]].concat();
        assert_eq!(pull.run(outcome.packet()).packet(), back);
    }
}
