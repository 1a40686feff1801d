//! ICMP errors: those that the program makes, and those that quote what it has made.

use std::net::IpAddr;

use abi::Reason;
use rand::Rng as _;
use rand::rngs::StdRng;
use tests::model::{self, Funnel, IcmpError, Packet, TCP, UDP};
use tests::random::{self, Checksum, PAIRS};
use tests::test_run::{Context, ETHERNET, REDIRECT, Runner, SHOT, UNSPEC};

use crate::family::{FAMILIES, Family, name};

const MTU: usize = 1500;

#[test]
fn the_sender_of_what_would_not_fit_is_told_how_much_does() {
    let mut rng = random::rng(40);
    for Family { name: family, packet, .. } in &FAMILIES {
        for (inner, through) in PAIRS {
            let (i, t) = (name(inner), name(through));
            let rules = format!("{family} {i} actions funnel {t} sport 540 dport 80");
            let runner = Runner::with_mtu(&rules, MTU as u32);
            let header = Funnel::new(through, 540, 80);
            let (mut fitted, mut answered) = (0, 0);
            for _ in 0..1_000 {
                let len = rng.random_range(1380..=1472);
                let sent = packet(&mut rng, inner, len, Checksum::Right);
                let most = MTU - usize::from(header.header_len());
                let outcome = runner.run(&sent.write());
                if sent.write().len() <= most {
                    fitted += 1;
                    assert_eq!(outcome.packet(), model::funnel(&sent, header).write());
                } else if !is_for_many(sent.daddr)
                    && !is_for_many(sent.saddr)
                    && !sent.saddr.is_unspecified()
                {
                    answered += 1;
                    let l4_header = if inner == TCP { 20 } else { 8 };
                    let quoted = sent.write().len() - sent.segment.len() + l4_header;
                    let error = IcmpError::too_big(sent.is_ipv6(), most as u16);
                    let expected = error.answer(&sent, quoted, sent.daddr);
                    assert_eq!(
                        (outcome.verdict, outcome.packet()),
                        (REDIRECT, &expected.write()[..])
                    );
                    let turned = [&[2, 0, 0, 0, 0, 2], &[2, 0, 0, 0, 0, 1_u8][..]].concat();
                    assert_eq!(outcome.frame[..12], turned, "its Ethernet header is turned round");
                }
            }
            assert!(fitted > 50 && answered > 50, "{fitted} fitted, {answered} did not");
            assert_eq!(runner.reason(Reason::TooBig), answered);
            assert_eq!(runner.rule(0).packets, fitted);
        }
    }
}

fn is_for_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] >= 224,
        IpAddr::V6(address) => address.is_multicast(),
    }
}

#[test]
fn nobody_is_told_about_a_packet_to_many_or_from_nobody() {
    let mut rng = random::rng(41);
    let rules = "udp actions funnel tcp sport 540 dport 80";
    let runner = Runner::with_mtu(rules, MTU as u32);
    let (ip, ip6) = (["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]);
    let mut counted = 0;
    // Source, destination, first byte of the Ethernet destination.
    for (from, to, ethernet) in [
        (ip[0], "224.0.0.9", 2),
        (ip[0], "255.255.255.255", 2),
        (ip[0], ip[1], 0xFF),
        ("0.0.0.0", ip[1], 2),
        ("239.1.1.1", ip[1], 2),
        (ip6[0], "ff02::9", 2),
        (ip6[0], ip6[1], 0x33),
        ("::", ip6[1], 2),
        ("ff02::9", ip6[1], 2),
    ] {
        let [saddr, daddr]: [IpAddr; 2] = [from, to].map(|a| a.parse().expect("an address"));
        let Family { packet, .. } = &FAMILIES[usize::from(saddr.is_ipv6())];
        let sent = packet(&mut rng, UDP, 1472, Checksum::Right);
        let sent = Packet { saddr, daddr, ..sent }.seal().write();
        let macs = [&[ethernet, 0, 0, 0, 0, 1], &ETHERNET[6..12]].concat();
        let ethertype: [u8; 2] = if saddr.is_ipv6() { [0x86, 0xDD] } else { [8, 0] };
        let frame = [&macs[..], &ethertype, &sent].concat();
        let outcome = runner.run_frame(&frame, Context::default());
        counted += 1;
        assert_eq!((outcome.verdict, &outcome.frame), (UNSPEC, &frame), "{from} > {to}");
        assert_eq!(runner.reason(Reason::NoRoom), counted, "{from} > {to}");
    }
}

/// Any error of a kind that quotes a packet.
fn any_error(rng: &mut StdRng, ipv6: bool) -> IcmpError {
    if rng.random() {
        return IcmpError::too_big(ipv6, rng.random_range(576..=9000));
    }
    let kinds: &[u8] = if ipv6 { &[1, 3, 4] } else { &[3, 11, 12] };
    let kind = kinds[rng.random_range(0..kinds.len())];
    // A pointer into the packet, where there is one.
    let rest = match (kind, ipv6) {
        (4, true) => rng.random_range(0..1280),
        (12, false) => rng.random_range(0..64) << 24,
        _ => 0,
    };
    // "Fragmentation needed" is a case of its own.
    let code = [0, 1, 2, 3, 13][rng.random_range(0..5)];
    IcmpError { kind, code, rest }
}

/// A packet without IPv4 options, as errors quote it.
fn plain(rng: &mut StdRng, family: &Family, protocol: u8) -> Packet {
    let len = rng.random_range(0..1200);
    let packet = (family.packet)(rng, protocol, len, Checksum::Right);
    Packet { options: Vec::new(), ..packet }
}

/// On the way, by a router's hands.
fn error(
    rng: &mut StdRng,
    family: &Family,
    error: IcmpError,
    about: &Packet,
    quoted: usize,
) -> Packet {
    let mut error = error.answer(about, quoted, (family.address)(rng));
    if !error.is_ipv6() && rng.random_bool(0.2) {
        error.options = vec![1; 8];
    }
    error
}

#[test]
fn an_error_about_a_funnelled_packet_finds_the_one_that_was_sent() {
    let mut rng = random::rng(42);
    for family in &FAMILIES {
        for (inner, through) in PAIRS {
            let (i, t, f) = (name(inner), name(through), family.name);
            let header = Funnel::new(through, 540, 80);
            // What a client has for the answers; and what the loader derives from its rule.
            let rule = format!("{f} {t} sport 80 dport 540 actions unfunnel {i}");
            let rules = format!("{f} {i} actions funnel {t} sport 540 dport 80");
            for runner in [Runner::new(&rule), Runner::for_quotes(&rules)] {
                for n in 1..=2_000 {
                    let funnelled = model::funnel(&plain(&mut rng, family, inner), header);
                    let back = model::unfunnel(&funnelled, inner);
                    let base = funnelled.write().len() - funnelled.segment.len();
                    let least = base + usize::from(header.header_len()) + 8;
                    let quoted = match rng.random_range(0..3) {
                        0 => least,
                        1 => usize::MAX,
                        _ => rng.random_range(least / 2..300) * 2,
                    };
                    let quoted = quoted.min(funnelled.write().len());
                    let told = any_error(&mut rng, family.name == "ip6");
                    let arrived = error(&mut rng, family, told, &funnelled, quoted);
                    let mut expected = told;
                    if (told.kind, told.code) == (3, 4) || (family.name == "ip6" && told.kind == 2)
                    {
                        expected.rest -= u32::from(header.header_len());
                    }
                    let mut expected = expected.answer(
                        &back,
                        quoted - usize::from(header.header_len()),
                        arrived.saddr,
                    );
                    expected.options = arrived.options.clone();
                    let outcome = runner.run_summed(&arrived.write());
                    assert_eq!(outcome.packet(), expected.write(), "{told:?}, {quoted} bytes");
                    assert_eq!((runner.rule(0).packets, runner.all_reasons()), (n, 0));
                }
            }
        }
    }
}

#[test]
fn an_error_about_a_translated_packet_finds_the_one_that_was_sent() {
    let mut rng = random::rng(43);
    for family in &FAMILIES {
        for protocol in [TCP, UDP] {
            let (p, f) = (name(protocol), family.name);
            let rule = format!(
                "{f} {p} sport 80 dport 1024-29255 actions unfunnel {p} sport 8080 dport 32768-60999"
            );
            let rules = format!(
                "{f} {p} dport 8080 sport 32768-60999 actions funnel {p} dport 80 sport 1024-29255"
            );
            for runner in [Runner::new(&rule), Runner::for_quotes(&rules)] {
                for n in 1..=2_000 {
                    let mut sent = plain(&mut rng, family, protocol);
                    sent.set_ports(Some(rng.random_range(32768..=60999)), Some(8080));
                    let mut sent = sent.seal();
                    if protocol == UDP && rng.random_bool(0.2) {
                        sent.set_check(0);
                    }
                    let translated = model::translate(
                        &sent,
                        1024_u16.wrapping_sub(32768),
                        80_u16.wrapping_sub(8080),
                    );
                    let base = sent.write().len() - sent.segment.len();
                    let quoted = (rng.random_range(base / 2 + 4..300) * 2).min(sent.write().len());
                    let told = any_error(&mut rng, family.name == "ip6");
                    let arrived = error(&mut rng, family, told, &translated, quoted);
                    let mut expected = told.answer(&sent, quoted, arrived.saddr);
                    expected.options = arrived.options.clone();
                    let outcome = runner.run_summed(&arrived.write());
                    assert_eq!(outcome.packet(), expected.write(), "{told:?}, {quoted} bytes");
                    assert_eq!((runner.rule(0).packets, runner.all_reasons()), (n, 0));
                }
            }
        }
    }
}

#[test]
fn other_messages_are_left_alone() {
    let mut rng = random::rng(44);
    let rules = "tcp sport 80 dport 540 actions unfunnel udp; \
                 tcp sport 81 actions drop; \
                 tcp sport 82 actions funnel udp sport 1 dport 2";
    let runner = Runner::new(rules);
    for family in &FAMILIES {
        let ipv6 = family.name == "ip6";
        let funnelled = model::funnel(&plain(&mut rng, family, UDP), Funnel::new(TCP, 540, 80));
        let whole = funnelled.write().len();
        let too_big = IcmpError::too_big(ipv6, 1400);
        let mut left = Vec::new();
        // Neither echo nor redirect; an error about somebody else's packet; one that no rule is for.
        for kind in if ipv6 { [0, 5, 128, 137] } else { [0, 5, 8, 9] } {
            left.push(error(&mut rng, family, IcmpError { kind, ..too_big }, &funnelled, whole));
        }
        for dport in [79, 81, 82] {
            let mut other = funnelled.clone();
            other.set_ports(None, Some(dport));
            left.push(error(&mut rng, family, too_big, &other.seal(), whole));
        }
        // A quote that ends within the ports.
        let base = whole - funnelled.segment.len();
        left.push(error(&mut rng, family, too_big, &funnelled, base + 7));
        if !ipv6 {
            let later = Packet { fragment: 5, ..funnelled.clone() };
            left.push(error(&mut rng, family, too_big, &later, whole));
            let mut wrong_version = error(&mut rng, family, too_big, &funnelled, whole);
            wrong_version.segment[8] = 0x55;
            left.push(wrong_version.seal());
            let optional = Packet { options: vec![1; 4], ..funnelled.clone() };
            left.push(error(&mut rng, family, too_big, &optional, whole));
            let piece = error(&mut rng, family, too_big, &funnelled, whole);
            left.push(Packet { fragment: 0x2000, ..piece });
        }
        for packet in left {
            let outcome = runner.run(&packet.write());
            assert_eq!((outcome.verdict, outcome.packet()), (UNSPEC, &packet.write()[..]));
            assert_ne!(outcome.verdict, SHOT);
        }
        assert_eq!(runner.all_reasons(), 0);
    }
}

#[test]
fn a_quote_that_does_not_say_enough_is_counted() {
    let mut rng = random::rng(45);
    for family in &FAMILIES {
        let ipv6 = family.name == "ip6";
        let funnelled = model::funnel(&plain(&mut rng, family, UDP), Funnel::new(TCP, 540, 80));
        let base = funnelled.write().len() - funnelled.segment.len();
        let too_big = IcmpError::too_big(ipv6, 1400);
        let unreachable = |len: u32| IcmpError {
            kind: if ipv6 { 1 } else { 3 },
            code: 1,
            rest: len << if ipv6 { 24 } else { 16 },
        };
        let mut lookalike = funnelled.clone();
        lookalike.segment[12] = 0x60;
        for (packet, reason) in [
            (error(&mut rng, family, too_big, &funnelled, base + 8), Reason::QuoteTooShort),
            (error(&mut rng, family, too_big, &funnelled, base + 27), Reason::QuoteTooShort),
            (error(&mut rng, family, unreachable(32), &funnelled, 128), Reason::QuoteTooShort),
            (error(&mut rng, family, too_big, &lookalike, base + 28), Reason::NotFunnelled),
        ] {
            let runner = Runner::new("tcp sport 80 dport 540 actions unfunnel udp");
            let outcome = runner.run(&packet.write());
            assert_eq!((outcome.verdict, outcome.packet()), (UNSPEC, &packet.write()[..]));
            assert_eq!((runner.reason(reason), runner.all_reasons()), (1, 1));
        }
    }
}

#[test]
fn rules_for_quotes_are_for_nothing_else() {
    let mut rng = random::rng(46);
    let runner = Runner::for_quotes("udp actions funnel tcp sport 540 dport 80");
    for Family { packet, .. } in &FAMILIES {
        let answer = packet(&mut rng, UDP, 100, Checksum::Right);
        let answer = model::funnel(&answer, Funnel::new(TCP, 80, 540)).write();
        let outcome = runner.run(&answer);
        assert_eq!((outcome.verdict, outcome.packet()), (UNSPEC, &answer[..]));
    }
    // What could not be parsed is for the other rules of the hook to count.
    let packet = random::packet6(&mut rng, UDP, 100, Checksum::Right);
    runner.run(&Packet { protocol: 44, ..packet.clone() }.write());
    runner.run(&packet.write()[..60]);
    assert_eq!((runner.rule(0).packets, runner.all_reasons()), (0, 0));
}
