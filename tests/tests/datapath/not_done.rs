//! What no rule wants, what a rule leaves alone, and what can't be done.

use std::net::{IpAddr, Ipv4Addr};

use abi::{Counter, Reason};
use tests::model::{self, Funnel, ICMPV6, Packet, TCP, UDP};
use tests::random::{self, Checksum};
use tests::test_run::{Context, ETHERNET, OK, Runner, SHOT, UNSPEC};

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
    let funnelled = model::funnel(&udp(&mut rng), Funnel::new(TCP, 540, 80));
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
    let to = IpAddr::from(Ipv4Addr::new(192, 0, 2, 7));
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
fn extension_headers_are_counted_and_passed() {
    let mut rng = random::rng(18);
    let runner = Runner::new("udp actions drop; tcp actions drop");
    // IANA, "IPv6 Extension Header Types", without those that end or encrypt the packet.
    let hiding = [0, 43, 44, 51, 60, 135, 139, 140];
    for protocol in 0..=255 {
        let mut sent = random::packet6(&mut rng, UDP, 64, Checksum::Right);
        // With the next header that an extension header begins with: anything but ICMPv6.
        sent.segment[0] = 17;
        let report = Packet { protocol, segment: vec![ICMPV6; 64], ..sent.clone() };
        let sent = Packet { protocol, ..sent }.write();
        let before = runner.reason(Reason::ExtensionHeader);
        let outcome = runner.run(&sent);
        let hidden = hiding.contains(&protocol);
        assert_eq!(
            runner.reason(Reason::ExtensionHeader) - before,
            u64::from(hidden),
            "{protocol}"
        );
        if protocol != TCP && protocol != UDP {
            assert_eq!((outcome.verdict, outcome.packet()), (UNSPEC, sent.as_slice()));
            // What a host says of the groups that it is in counts as nothing.
            runner.run(&report.write());
            assert_eq!(runner.all_reasons(), before + u64::from(hidden));
        }
    }
}
