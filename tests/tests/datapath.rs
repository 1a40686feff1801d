//! The program against the model, packet by packet, through `BPF_PROG_TEST_RUN`.

use std::net::Ipv4Addr;

use abi::{Counter, Reason};
use rand::Rng as _;
use tests::model::{self, Funnel, Packet, TCP, UDP};
use tests::random::{self, Checksum, PAIRS};
use tests::test_run::{Context, ETHERNET, OK, Runner, SHOT, UNSPEC};

/// Packets for each pair of protocols.
const PACKETS: usize = 10_000;

fn name(protocol: u8) -> &'static str {
    if protocol == TCP { "tcp" } else { "udp" }
}

#[test]
fn funnel_nat_unfunnel_equals_the_model() {
    let mut rng = random::rng(1);
    for (inner, through) in PAIRS {
        let (i, t) = (name(inner), name(through));
        let push = Runner::new(&format!("ip {i} actions funnel {t} sport 540 dport 80"));
        let pull = Runner::new(&format!("ip {t} actions unfunnel {i}"));
        let header = Funnel { through, sport: 540, dport: 80 };
        for _ in 0..PACKETS {
            let missing = inner == UDP && rng.random_bool(0.2);
            let checksum = if missing { Checksum::Missing } else { Checksum::Right };
            let len = rng.random_range(0..=1480);
            let sent = random::packet(&mut rng, inner, len, checksum);

            let funnelled = push.run(&sent.write());
            let expected = model::funnel(&sent, header);
            assert_eq!(funnelled.verdict, OK);
            assert_eq!(funnelled.packet(), expected.write(), "{i} in {t}: {sent:?}");
            assert_eq!(funnelled.frame[..14], ETHERNET);

            let (saddr, daddr) = match rng.random_range(0..3) {
                0 => (expected.saddr, expected.daddr),
                1 => (expected.saddr, random::address(&mut rng)),
                _ => (random::address(&mut rng), random::address(&mut rng)),
            };
            let routed = model::nat(&expected, saddr, daddr);
            let delivered = pull.run(&routed.write());
            let expected = model::unfunnel(&routed, inner);
            assert_eq!(delivered.verdict, OK);
            assert_eq!(delivered.packet(), expected.write(), "{i} out of {t}: {routed:?}");
            assert!(expected.check_is_right());
            assert_eq!(expected.segment.len(), sent.segment.len());
        }
        assert_eq!(push.rule(0).packets, PACKETS as u64);
        assert_eq!((push.all_reasons(), pull.all_reasons()), (0, 0));
    }
}

#[test]
fn a_wrong_checksum_arrives_as_wrong_as_it_left() {
    let mut rng = random::rng(2);
    for (inner, through) in PAIRS {
        let (i, t) = (name(inner), name(through));
        let push = Runner::new(&format!("ip {i} actions funnel {t} sport 540 dport 80"));
        let pull = Runner::new(&format!("ip {t} actions unfunnel {i}"));
        for _ in 0..500 {
            let len = rng.random_range(0..200);
            let mut sent = random::packet(&mut rng, inner, len, Checksum::Right);
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
        let header = Funnel { through: TCP, sport: 540, dport: 80 };
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
    let to = Ipv4Addr::new(192, 0, 2, 7);
    for protocol in [TCP, UDP] {
        let p = name(protocol);
        let alone = Runner::new(&format!("ip {p} actions dnat {to}"));
        let push = Runner::new(&format!("ip {p} actions funnel udp sport 1 dport 2 dnat {to}"));
        let pull = Runner::new(&format!("ip udp actions unfunnel {p} dnat {to}"));
        for _ in 0..2_000 {
            let checksum = match protocol {
                UDP if rng.random_bool(0.2) => Checksum::Missing,
                _ => Checksum::Right,
            };
            let len = rng.random_range(0..=1400);
            let sent = random::packet(&mut rng, protocol, len, checksum);
            let moved = Packet { daddr: to, ..sent.clone() };

            let expected = if checksum == Checksum::Missing { moved.clone() } else { moved.seal() };
            assert_eq!(alone.run(&sent.write()).packet(), expected.write());

            let header = Funnel { through: UDP, sport: 1, dport: 2 };
            let funnelled = model::funnel(&sent, header);
            let expected = Packet { daddr: to, ..funnelled.clone() }.seal();
            assert_eq!(push.run(&sent.write()).packet(), expected.write());

            let expected = model::unfunnel(&Packet { daddr: to, ..funnelled.clone() }, protocol);
            assert_eq!(pull.run(&funnelled.write()).packet(), expected.write());
        }
    }
}

#[test]
fn what_no_rule_matches_goes_on_to_the_next_filter_untouched() {
    let mut rng = random::rng(5);
    let runner = Runner::new("ip daddr 192.0.2.1 tcp dport 80 actions drop");
    for protocol in [TCP, UDP] {
        for _ in 0..200 {
            let sent = random::packet(&mut rng, protocol, 100, Checksum::Right).write();
            let outcome = runner.run(&sent);
            assert_eq!((outcome.verdict, outcome.packet()), (UNSPEC, sent.as_slice()));
        }
    }
    // Neither TCP nor UDP, and not IP at all.
    let icmp = Packet { protocol: 1, ..random::packet(&mut rng, UDP, 64, Checksum::Right) }.write();
    assert_eq!(runner.run(&icmp).verdict, UNSPEC);
    let mut arp = [ETHERNET.as_slice(), &[0; 46]].concat();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(runner.run_frame(&arp, Context::default()).frame, arp);
    assert_eq!(runner.all_reasons(), 0);
}

#[test]
fn accept_and_drop_leave_the_packet_as_it_is() {
    let mut rng = random::rng(6);
    let runner = Runner::new("tcp dport 80 actions accept; tcp actions drop");
    let mut accepted = random::packet(&mut rng, TCP, 10, Checksum::Right);
    accepted.segment[2..4].copy_from_slice(&80_u16.to_be_bytes());
    let accepted = accepted.seal().write();
    let outcome = runner.run(&accepted);
    assert_eq!((outcome.verdict, outcome.packet()), (OK, accepted.as_slice()));

    let mut dropped = random::packet(&mut rng, TCP, 10, Checksum::Right);
    dropped.segment[2..4].copy_from_slice(&81_u16.to_be_bytes());
    let dropped = dropped.seal().write();
    assert_eq!(runner.run(&dropped).verdict, SHOT);
    let bytes = accepted.len() as u64;
    assert_eq!(runner.rule(0), Counter { packets: 1, bytes });
    assert_eq!(runner.rule(1), Counter { packets: 1, bytes: dropped.len() as u64 });
}

/// A packet that must come out as it went in, and the reason that is counted.
struct NotDone {
    what: &'static str,
    rules: &'static str,
    packet: Vec<u8>,
    context: Context,
    reason: Reason,
}

#[test]
fn what_cant_be_done_is_counted_and_passed_untouched() {
    let mut rng = random::rng(7);
    let push = "ip udp actions funnel tcp sport 540 dport 80";
    let push_port = "ip udp dport 53 actions funnel tcp sport 540 dport 80";
    let pull = "ip tcp actions unfunnel udp";
    let udp = |rng: &mut _| {
        let mut packet = random::packet(rng, UDP, 100, Checksum::Right);
        packet.options = Vec::new();
        packet.segment[2..4].copy_from_slice(&53_u16.to_be_bytes());
        packet.seal()
    };
    let first = Packet { fragment: 0x2000, ..udp(&mut rng) };
    let later = Packet { fragment: 0x2000 | 13, ..udp(&mut rng) };
    let last = Packet { fragment: 13, ..udp(&mut rng) };
    let funnelled = model::funnel(&udp(&mut rng), Funnel { through: TCP, sport: 540, dport: 80 });
    let with_bytes = |packet: &Packet, at: usize, bytes: &[u8]| {
        let mut packet = packet.clone();
        packet.segment[at..at + bytes.len()].copy_from_slice(bytes);
        packet.write()
    };
    let whole = udp(&mut rng).write();
    let with_header = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        bytes
    };
    let none = Context::default();
    let cases = [
        NotDone {
            what: "first fragment",
            rules: push_port,
            packet: first.write(),
            context: none,
            reason: Reason::Fragment,
        },
        NotDone {
            what: "later fragment, rule without ports",
            rules: push,
            packet: later.write(),
            context: none,
            reason: Reason::Fragment,
        },
        NotDone {
            what: "last fragment, rule without ports",
            rules: push,
            packet: last.write(),
            context: none,
            reason: Reason::Fragment,
        },
        NotDone {
            what: "fragment of a funnelled packet",
            rules: pull,
            packet: Packet { fragment: 0x2000, ..funnelled.clone() }.write(),
            context: none,
            reason: Reason::Fragment,
        },
        NotDone {
            what: "first fragment, dnat by port",
            rules: "ip udp dport 53 actions dnat 192.0.2.7",
            packet: first.write(),
            context: none,
            reason: Reason::Fragment,
        },
        NotDone {
            what: "to be segmented",
            rules: push,
            packet: udp(&mut rng).write(),
            context: Context { gso_size: 50, gso_segs: 3 },
            reason: Reason::Segmented,
        },
        NotDone {
            what: "IP header cut off",
            rules: push,
            packet: whole[..19].to_vec(),
            context: none,
            reason: Reason::TooShort,
        },
        NotDone {
            what: "total length over the frame",
            rules: push,
            packet: with_header(2, 1),
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "total length under the header",
            rules: push,
            packet: {
                let mut p = whole.clone();
                p[2..4].copy_from_slice(&[0, 19]);
                p
            },
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "total length leaves half a UDP header",
            rules: push,
            packet: {
                let mut p = whole.clone();
                p[2..4].copy_from_slice(&[0, 24]);
                p
            },
            context: none,
            reason: Reason::TooShort,
        },
        NotDone {
            what: "header of four words",
            rules: push,
            packet: with_header(0, 0x44),
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "version 5",
            rules: push,
            packet: with_header(0, 0x55),
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "UDP length over the packet",
            rules: push,
            packet: with_bytes(&udp(&mut rng), 4, &[1, 0]),
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "UDP length 0",
            rules: push,
            packet: with_bytes(&udp(&mut rng), 4, &[0, 0]),
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "TCP offset over the packet",
            rules: "ip tcp actions funnel udp sport 1 dport 2",
            packet: with_bytes(
                &Packet { segment: vec![0; 24], protocol: TCP, ..udp(&mut rng) },
                12,
                &[0xF0],
            ),
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "TCP offset of four words",
            rules: "ip tcp actions funnel udp sport 1 dport 2",
            packet: with_bytes(
                &Packet { segment: vec![0; 24], protocol: TCP, ..udp(&mut rng) },
                12,
                &[0x40],
            ),
            context: none,
            reason: Reason::BadLength,
        },
        NotDone {
            what: "funnel header with TCP options",
            rules: pull,
            packet: with_bytes(&funnelled, 12, &[0x60]),
            context: none,
            reason: Reason::NotFunnelled,
        },
        NotDone {
            what: "inner UDP length wrong",
            rules: pull,
            packet: with_bytes(&funnelled, 24, &[0, 9]),
            context: none,
            reason: Reason::NotFunnelled,
        },
        NotDone {
            what: "inner TCP offset wrong",
            rules: "ip tcp actions unfunnel tcp",
            packet: with_bytes(&funnelled, 32, &[0x10]),
            context: none,
            reason: Reason::NotFunnelled,
        },
        NotDone {
            what: "nothing behind the funnel header",
            rules: pull,
            packet: Packet { segment: funnelled.segment[..20].to_vec(), ..funnelled.clone() }
                .write(),
            context: none,
            reason: Reason::NotFunnelled,
        },
        NotDone {
            what: "outer UDP length wrong",
            rules: "ip udp actions unfunnel udp",
            packet: with_bytes(&udp(&mut rng), 4, &[0, 60]),
            context: none,
            reason: Reason::NotFunnelled,
        },
    ];
    for NotDone { what, rules, packet, context, reason } in cases {
        let runner = Runner::new(rules);
        let outcome = if context.gso_size == 0 {
            runner.run(&packet)
        } else {
            runner.run_frame(&[ETHERNET.as_slice(), &packet].concat(), context)
        };
        assert_eq!(outcome.verdict, UNSPEC, "{what}");
        assert_eq!(outcome.packet(), packet, "{what}");
        for &other in Reason::ALL {
            assert_eq!(runner.reason(other), u64::from(other == reason), "{what}: {other:?}");
        }
        assert_eq!(runner.rule(0), Counter::default(), "{what}");
    }
}

#[test]
fn a_later_fragment_matches_no_rule_with_ports() {
    let mut rng = random::rng(8);
    let packet = random::packet(&mut rng, UDP, 64, Checksum::Right);
    let later = Packet { fragment: 5, ..packet }.write();
    for rules in ["udp dport 1-65535 actions drop", "udp sport != 1 actions drop"] {
        let runner = Runner::new(rules);
        assert_eq!(runner.run(&later).verdict, UNSPEC, "{rules}");
        assert_eq!(runner.all_reasons(), 0, "{rules}");
    }
    assert_eq!(Runner::new("udp actions drop").run(&later).verdict, SHOT);
}

#[test]
fn the_smallest_first_fragment_still_has_its_ports() {
    let mut rng = random::rng(16);
    let whole = random::packet(&mut rng, TCP, 64, Checksum::Right);
    let (_, dport) = whole.ports();
    let first = |len| {
        let segment = whole.segment[..len].to_vec();
        Packet { fragment: 0x2000, segment, ..whole.clone() }.write()
    };
    let drop = Runner::new(&format!("tcp dport {dport} actions drop"));
    assert_eq!(drop.run(&first(8)).verdict, SHOT);
    assert_eq!((drop.run(&first(0)).verdict, drop.reason(Reason::TooShort)), (UNSPEC, 1));

    // Its checksum is in another piece, where a new address can't be added to it.
    let dnat = Runner::new("tcp actions dnat 192.0.2.7");
    assert_eq!(dnat.run(&first(8)).packet(), first(8));
    assert_eq!(dnat.reason(Reason::TooShort), 1);
}

#[test]
fn dnat_without_ports_moves_every_fragment() {
    let mut rng = random::rng(9);
    let to = Ipv4Addr::new(192, 0, 2, 7);
    let runner = Runner::new(&format!("udp actions dnat {to}"));
    let whole = random::packet(&mut rng, UDP, 200, Checksum::Right);
    let moved = Packet { daddr: to, ..whole.clone() }.seal();
    for (fragment, bytes) in [(0x2000, 0..104), (13, 104..208)] {
        let piece = |packet: &Packet| {
            let segment = packet.segment[bytes.clone()].to_vec();
            Packet { fragment, segment, ..packet.clone() }.write()
        };
        assert_eq!(runner.run(&piece(&whole)).packet(), piece(&moved));
    }
    assert_eq!(runner.all_reasons(), 0);
}

#[test]
fn no_packet_grows_beyond_the_mtu_or_64_kib() {
    let mut rng = random::rng(10);
    let rules = "ip udp actions funnel tcp sport 540 dport 80";
    let runner = Runner::with_mtu(rules, 1500);
    let sized = |rng: &mut _, total: usize| {
        let packet = random::packet(rng, UDP, total - 28, Checksum::Right);
        Packet { options: Vec::new(), ..packet }.write()
    };
    let fits = sized(&mut rng, 1480);
    assert_eq!(runner.run(&fits).packet().len(), 1500);
    let too_long = sized(&mut rng, 1481);
    assert_eq!(runner.run(&too_long).packet(), too_long);
    assert_eq!((runner.reason(Reason::NoRoom), runner.rule(0).packets), (1, 1));
}

#[test]
fn vlan_tags_in_the_frame_are_kept() {
    let mut rng = random::rng(11);
    let push = Runner::new("ip udp actions funnel tcp sport 540 dport 80");
    let pull = Runner::new("ip tcp actions unfunnel udp");
    let header = Funnel { through: TCP, sport: 540, dport: 80 };
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

/// Whether `after` is `before`, or a packet whose lengths and checksums agree.
fn is_sound(before: &[u8], after: &[u8]) -> bool {
    if before == after {
        return true;
    }
    let Ok(packet) = Packet::read(after) else {
        return false;
    };
    let udp_len_fits = packet.protocol != UDP
        || usize::from(u16::from_be_bytes([packet.segment[4], packet.segment[5]]))
            == packet.segment.len();
    udp_len_fits && packet.write() == after[..packet.write().len()]
}

#[test]
fn the_sum_that_a_network_card_delivers_stays_right() {
    let mut rng = random::rng(15);
    let to = Ipv4Addr::new(192, 0, 2, 7);
    for (inner, through) in PAIRS {
        let (i, t) = (name(inner), name(through));
        let push = Runner::new(&format!("ip {i} actions funnel {t} sport 540 dport 80"));
        let pull = Runner::new(&format!("ip {t} actions unfunnel {i}"));
        let dnat = Runner::new(&format!("ip {i} actions dnat {to}"));
        for _ in 0..500 {
            let missing = inner == UDP && rng.random_bool(0.3);
            let checksum = if missing { Checksum::Missing } else { Checksum::Right };
            // The card sums up 16-bit words, as the kernel does.
            let len = rng.random_range(0..=1480);
            let sent = random::packet(&mut rng, inner, len, checksum);
            let funnelled = push.run_summed(&sent.write());
            assert_eq!((funnelled.verdict, push.all_reasons()), (OK, 0));
            assert_eq!(pull.run_summed(funnelled.packet()).verdict, OK);
            assert_eq!(dnat.run_summed(&sent.write()).verdict, OK);
        }
        assert_eq!(pull.all_reasons(), 0);
    }
}

/// Rules that rewrite everything that they can.
const GREEDY: [&str; 4] = [
    "tcp actions funnel tcp sport 540 dport 80; udp actions funnel tcp sport 540 dport 80",
    "tcp actions funnel udp sport 540 dport 80; udp actions funnel udp sport 540 dport 80",
    "tcp actions unfunnel udp; udp actions unfunnel udp",
    "tcp actions unfunnel tcp; udp actions unfunnel tcp",
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
            if rng.random() && len >= 20 {
                packet[0] = 0x40 | rng.random_range(4..8);
                packet[9] = if rng.random() { TCP } else { UDP };
                if rng.random() {
                    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                    packet[6..8].fill(0);
                }
            }
            let before = runner.all_reasons() + runner.rule(0).packets + runner.rule(1).packets;
            let outcome = runner.run(&packet);
            let after = runner.all_reasons() + runner.rule(0).packets + runner.rule(1).packets;
            if len >= 20 && (packet[9] == TCP || packet[9] == UDP) {
                ours += 1;
                assert_eq!(after, before + 1, "every packet is counted once: {packet:02x?}");
            }
            if outcome.packet() != packet {
                changed += 1;
                // Its header checksum was random, and stays as wrong as it was: make it right on
                // both sides before the comparison.
                let mut fixed = packet.clone();
                let header = usize::from(fixed[0] & 15) * 4;
                fix_header(&mut fixed, header);
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
fn every_truncation_is_left_alone_and_counted() {
    let mut rng = random::rng(13);
    for rules in GREEDY {
        let runner = Runner::new(rules);
        for (inner, through) in PAIRS {
            let sent = random::packet(&mut rng, inner, 40, Checksum::Right);
            let funnelled = model::funnel(&sent, Funnel { through, sport: 540, dport: 80 });
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

#[test]
fn padding_behind_the_packet_is_kept() {
    let mut rng = random::rng(14);
    let push = Runner::new("ip udp actions funnel tcp sport 540 dport 80");
    let pull = Runner::new("ip tcp actions unfunnel udp");
    let header = Funnel { through: TCP, sport: 540, dport: 80 };
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
