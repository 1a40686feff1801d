//! What the original sfunnel takes is taken here, with the same meaning, and what it does not have.

use std::net::{IpAddr, Ipv4Addr};

use abi::{RuleEntry, action, flag};
use ruleset::ast::{
    Action, Cidr, Family, InnerPorts, Match, Matches, Port, PortRange, Protocol, Rule, TcpFlags,
    Verb,
};
use ruleset::{Compiled, compile};

/// Compiles `input`, whose canonical text has to be the lines of `expect`.
#[track_caller]
fn check(input: &str, expect: &[&str]) -> Compiled {
    let compiled = compile(input).unwrap_or_else(|error| panic!("{input:?}\n{error}"));
    let canonical = compiled.ruleset.to_string();
    assert_eq!(canonical.lines().collect::<Vec<_>>(), expect, "{input:?}");
    let again = compile(&canonical).unwrap_or_else(|error| panic!("{canonical:?}\n{error}"));
    assert_eq!(again.ruleset, compiled.ruleset, "{input:?}");
    compiled
}

/// As [`check`], for one rule that is given without its action.
#[track_caller]
fn matches(input: &str, expect: &str) {
    check(&format!("{input} actions accept"), &[&format!("{expect} actions accept")]);
}

/// As [`check`], for the action of one rule.
#[track_caller]
fn action(input: &str, expect: &str) {
    check(&format!("tcp actions {input}"), &[&format!("tcp actions {expect}")]);
}

#[test]
fn ruleset_of_the_originals_unit_test() {
    let compiled = check(
        "##Funneling rules\n\
         \n\
         ip udp dport 2055 actions funnel tcp dport 179 sport 540 #Netflow\n\
         ip udp dport 4739 actions funnel tcp dport 179 sport 540 #IPFIX\n\
         ip udp dport 6343 actions funnel tcp dport 179 sport 540 #SFLOW\n\
         ip tcp dport 4739 actions funnel tcp dport 179 sport 541 #Fake IPFIX over TCP\n\
         \n\
         ##Unfunneling\n\
         ip tcp dport 179 sport 540 actions unfunnel udp\n\
         ip tcp dport 179 sport 541 actions unfunnel tcp\n",
        &[
            "ip udp dport 2055 actions funnel tcp sport 540 dport 179",
            "ip udp dport 4739 actions funnel tcp sport 540 dport 179",
            "ip udp dport 6343 actions funnel tcp sport 540 dport 179",
            "ip tcp dport 4739 actions funnel tcp sport 541 dport 179",
            "ip tcp sport 540 dport 179 actions unfunnel udp",
            "ip tcp sport 541 dport 179 actions unfunnel tcp",
        ],
    );
    assert!(compiled.warnings.is_empty());
}

/// Newer originals name the mode behind `funnel` and `unfunnel`.
#[test]
fn ruleset_of_a_newer_original() {
    check(
        "##Matching funneling and unfunneling rules 1:1\n\
         ip udp dport 2055 actions funnel encap tcp dport 179 sport 540\n\
         ip tcp dport 179 sport 540 actions unfunnel decap udp\n\
         \n\
         ip tcp dport 2056 actions funnel encap udp sport 541 dport 179\n\
         ip udp dport 179 sport 541 actions unfunnel decap tcp\n",
        &[
            "ip udp dport 2055 actions funnel tcp sport 540 dport 179",
            "ip tcp sport 540 dport 179 actions unfunnel udp",
            "ip tcp dport 2056 actions funnel udp sport 541 dport 179",
            "ip udp sport 541 dport 179 actions unfunnel tcp",
        ],
    );
}

#[test]
fn rules_in_the_originals_documentation() {
    check(
        "ip tcp dport 80 sport 540 actions unfunnel tcp",
        &["ip tcp sport 540 dport 80 actions unfunnel tcp"],
    );
    check(
        "udp dport 4739 actions funnel tcp dport 179 sport 540",
        &["udp dport 4739 actions funnel tcp sport 540 dport 179"],
    );
    check(
        "tcp dport 179 sport 540 actions unfunnel udp",
        &["tcp sport 540 dport 179 actions unfunnel udp"],
    );
    check(
        "ip daddr 1.1.1.1 tcp dport 443 actions funnel tcp dport 80 sport 540;  \
         ip daddr 1.1.1.1 tcp dport 8080 actions funnel tcp dport 80 sport 540",
        &[
            "ip daddr 1.1.1.1 tcp dport 443 actions funnel tcp sport 540 dport 80",
            "ip daddr 1.1.1.1 tcp dport 8080 actions funnel tcp sport 540 dport 80",
        ],
    );
    check(
        "ip saddr 1.1.1.1 tcp sport 80 dport 540 actions unfunnel tcp",
        &["ip saddr 1.1.1.1 tcp sport 80 dport 540 actions unfunnel tcp"],
    );
    matches("ip saddr 127.0.0.1 tcp", "ip saddr 127.0.0.1 tcp");
    matches("ip daddr 10.0.0.0/24 tcp", "ip daddr 10.0.0.0/24 tcp");
    matches(
        "ip saddr != 127.0.0.1 daddr 10.0.0.0/8 tcp",
        "ip saddr != 127.0.0.1 daddr 10.0.0.0/8 tcp",
    );
    matches("udp dport 1000 sport != 1000", "udp sport != 1000 dport 1000");
    matches(
        "ip saddr 127.0.0.1 daddr != 127.0.0.0/24 udp sport != 65000 dport 2055",
        "ip saddr 127.0.0.1 daddr != 127.0.0.0/24 udp sport != 65000 dport 2055",
    );
    action("funnel tcp sport 650 dport 179", "funnel tcp sport 650 dport 179");
    action("unfunnel udp", "unfunnel udp");
    action("accept", "accept");
    action("drop", "drop");
}

#[test]
fn comments_end_at_a_semicolon_or_a_line_end() {
    check(
        "tcp actions accept # one; udp actions drop # two ## \n#;# three\n udp actions accept ;#",
        &["tcp actions accept", "udp actions drop", "udp actions accept"],
    );
}

#[test]
fn comments_hold_any_text() {
    check(
        "# \u{dc}berall \u{2014} \u{4f60}\u{597d}, !\"$%&/()=\\ <b>, { } actions\ntcp actions drop # \u{1f34e}",
        &["tcp actions drop"],
    );
}

#[test]
fn white_space_is_free() {
    let expect = ["ip saddr != 10.0.0.1 tcp dport 80 actions drop", "udp actions accept"];
    for input in [
        "ip saddr != 10.0.0.1 tcp dport 80 actions drop\r\nudp actions accept\r\n",
        "ip saddr != 10.0.0.1 tcp dport 80 actions drop;udp actions accept\r",
        "\tip\tsaddr\t!=\t10.0.0.1\ttcp\tdport\t80\tactions\tdrop\t\n\tudp\tactions\taccept\t",
        "ip saddr!=10.0.0.1 tcp dport 80 actions drop;;\n\n;  udp actions accept  ",
        "ip saddr !=10.0.0.1 tcp dport 80 actions drop ; udp actions accept;",
        "ip saddr!= 10.0.0.1 tcp dport 80 actions drop#\n# \r\n#\nudp actions accept",
    ] {
        check(input, &expect);
    }
}

#[test]
fn matches_come_in_any_order() {
    for input in [
        "dport 80 tcp ip saddr 10.0.0.1",
        "saddr 10.0.0.1 ip dport 80 tcp",
        "tcp saddr 10.0.0.1 dport 80 ip",
        "ip tcp dport 80 saddr 10.0.0.1",
    ] {
        matches(input, "ip saddr 10.0.0.1 tcp dport 80");
    }
}

/// As Python's `ipaddress.IPv4Network(text, strict=False)`, which the original asks.
#[test]
fn networks_are_read_as_the_original_reads_them() {
    for (input, expect) in [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("10.0.0.1/08", "10.0.0.0/8"),
        ("255.255.255.255/1", "128.0.0.0/1"),
        ("10.0.0.1/0", "0.0.0.0/0"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("10.1.2.3/255.255.254.0", "10.1.2.0/23"),
        ("10.1.2.3/255.255.255.255", "10.1.2.3"),
        ("10.1.2.3/0.0.0.0", "0.0.0.0/0"),
        ("10.1.2.3/0.255.255.255", "10.0.0.0/8"),
        ("10.1.2.3/0.0.0.1", "10.1.2.2/31"),
        ("10.1.2.3/127.255.255.255", "0.0.0.0/1"),
        ("10.1.2.3/128.0.0.0", "0.0.0.0/1"),
    ] {
        matches(&format!("ip saddr {input} tcp"), &format!("ip saddr {expect} tcp"));
        matches(&format!("ip daddr != {input} udp"), &format!("ip daddr != {expect} udp"));
    }
}

#[test]
fn funnels_take_their_ports_in_either_order() {
    let expect = "funnel udp sport 540 dport 179";
    action("funnel udp dport 179 sport 540", expect);
    action("funnel udp sport 540 dport 179", expect);
    action("funnel encap udp sport 540 dport 179", expect);
}

/// What the original does not have.
#[test]
fn sets_ranges_and_dnat() {
    matches("tcp dport { 443, 80 }", "tcp dport { 443, 80 }");
    matches("tcp dport{443,80,}", "tcp dport { 443, 80 }");
    matches("tcp dport != { 80 }", "tcp dport != 80");
    matches("tcp sport 32768-60999 dport 80-80", "tcp sport 32768-60999 dport 80");
    matches("tcp sport != { 1-1023, 65535 }", "tcp sport != { 1-1023, 65535 }");
    matches(
        "ip saddr { 10.0.0.1/8, 192.0.2.1 } daddr != { 10.0.0.1, 10.0.0.2 } udp",
        "ip saddr { 10.0.0.0/8, 192.0.2.1 } daddr != { 10.0.0.1, 10.0.0.2 } udp",
    );
    action("dnat 192.0.2.1", "dnat 192.0.2.1");
    action("unfunnel decap udp dnat 192.0.2.1", "unfunnel udp dnat 192.0.2.1");
    action(
        "funnel tcp dport 80 sport 540 dnat 192.0.2.1",
        "funnel tcp sport 540 dport 80 dnat 192.0.2.1",
    );
}

#[test]
fn bounds_of_ports() {
    matches("tcp sport 1 dport 65535", "tcp sport 1 dport 65535");
    matches("tcp dport 1-65535", "tcp dport 1-65535");
    matches("tcp dport 00080", "tcp dport 80");
    action("funnel tcp dport 65535 sport 1", "funnel tcp sport 1 dport 65535");
}

#[test]
fn every_part_of_a_rule_lands_in_its_place() {
    let compiled = check(
        "dport { 443, 8000-8999 } daddr != 192.0.2.77/24 ip udp sport != 53 saddr 10.0.0.1 \
         actions funnel tcp dport 80 sport 540 dnat 10.9.9.9",
        &["ip saddr 10.0.0.1 daddr != 192.0.2.0/24 udp sport != 53 dport { 443, 8000-8999 } \
           actions funnel tcp sport 540 dport 80 dnat 10.9.9.9"],
    );
    let port = |port| Port::new(port).unwrap();
    let range = |first, last| PortRange { first: port(first), last: port(last) };
    let cidr = |address: [u8; 4], prefix| Cidr::new(address.into(), prefix).unwrap();
    let rule = Rule {
        matches: Matches {
            family: Some(Family::Ip),
            saddr: Some(Match { negated: false, values: vec![cidr([10, 0, 0, 1], 32)] }),
            daddr: Some(Match { negated: true, values: vec![cidr([192, 0, 2, 0], 24)] }),
            protocol: Protocol::Udp,
            sport: Some(Match { negated: true, values: vec![range(53, 53)] }),
            dport: Some(Match { negated: false, values: vec![range(443, 443), range(8000, 8999)] }),
        },
        action: Action::Funnel {
            through: Protocol::Tcp,
            sport: port(540),
            dport: port(80),
            flags: TcpFlags::default(),
            inner: InnerPorts::default(),
            dnat: Some(Ipv4Addr::new(10, 9, 9, 9).into()),
        },
    };
    assert_eq!(compiled.ruleset.rules, [rule]);
}

#[test]
fn actions_land_in_their_place() {
    let (ip, ip6): (IpAddr, IpAddr) = ([10, 9, 9, 9].into(), "2001:db8::9".parse().unwrap());
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let port = |port| Port::new(port).unwrap();
    let inner = InnerPorts::default();
    let unfunnel = |protocol, dnat| Action::Unfunnel { protocol, inner, dnat };
    let funnel = |through, flags, inner| Action::Funnel {
        through,
        sport: port(1),
        dport: port(2),
        flags,
        inner,
        dnat: None,
    };
    let syn = TcpFlags::default();
    for (input, expect) in [
        ("accept", Action::Accept),
        ("drop", Action::Drop),
        ("dnat 10.9.9.9", Action::Dnat(ip)),
        ("dnat 2001:db8::9", Action::Dnat(ip6)),
        ("unfunnel tcp", unfunnel(tcp, None)),
        ("unfunnel udp dnat 10.9.9.9", unfunnel(udp, Some(ip))),
        ("unfunnel udp dnat 2001:db8::9", unfunnel(udp, Some(ip6))),
        ("funnel udp sport 1 dport 2", funnel(udp, syn, inner)),
        ("funnel tcp sport 1 dport 2", funnel(tcp, syn, inner)),
        ("funnel tcp sport 1 dport 2 flags { cwr, fin, cwr }", funnel(tcp, TcpFlags(0x81), inner)),
        (
            "funnel tcp sport 1 dport 2 inner sport 3 dport 4",
            funnel(tcp, syn, InnerPorts { sport: Some(port(3)), dport: Some(port(4)) }),
        ),
        (
            "unfunnel udp dport 9995",
            Action::Unfunnel {
                protocol: udp,
                inner: InnerPorts { sport: None, dport: Some(port(9995)) },
                dnat: None,
            },
        ),
    ] {
        let compiled = compile(&format!("tcp actions {input}")).unwrap();
        assert_eq!(compiled.ruleset.rules[0].action, expect, "{input}");
    }
}

#[test]
fn ipv6() {
    for (input, expect) in [
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("2001:db8::1/0", "::/0"),
        ("::", "::"),
        ("::1/127", "::/127"),
        ("ffff::/1", "8000::/1"),
        // An IPv4 address in an IPv6 packet is an IPv6 address.
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ("::ffff:1.2.3.4/120", "::ffff:1.2.3.0/120"),
    ] {
        matches(&format!("ip6 saddr {input} tcp"), &format!("ip6 saddr {expect} tcp"));
        matches(&format!("udp daddr != {input} ip6"), &format!("ip6 daddr != {expect} udp"));
    }
    check(
        "ip6 saddr { 2001:db8::/32, ::1 } tcp dport 80 actions drop; ip saddr 10.0.0.1 tcp actions accept",
        &[
            "ip6 saddr { 2001:db8::/32, ::1 } tcp dport 80 actions drop",
            "ip saddr 10.0.0.1 tcp actions accept",
        ],
    );
}

/// Without `ip` and `ip6`, a rule is for both.
#[test]
fn families_that_a_rule_holds_for() {
    for (input, expect) in [
        ("tcp actions drop", None),
        ("ip tcp actions drop", Some(Family::Ip)),
        ("ip6 tcp actions drop", Some(Family::Ip6)),
        ("tcp actions dnat 10.0.0.1", Some(Family::Ip)),
        ("tcp actions unfunnel tcp dnat ::1", Some(Family::Ip6)),
        ("ip6 tcp actions funnel tcp dport 80 sport 540 dnat ::1", Some(Family::Ip6)),
    ] {
        let compiled = check(input, &[&input.replace("dport 80 sport 540", "sport 540 dport 80")]);
        assert_eq!(compiled.ruleset.rules[0].family(), expect, "{input}");
        let key = |family: Family| abi::Key {
            family: family as u32,
            saddr: &[0; 16],
            daddr: &[0xFF; 16],
            port_root: 0,
            sport: [0, 1],
            dport: [0, 2],
        };
        for family in [Family::Ip, Family::Ip6] {
            let found = abi::find_rule(&compiled.tables, &key(family)).is_some();
            assert_eq!(found, expect.is_none_or(|only| only == family), "{input}");
        }
    }
}

#[test]
fn what_follows_funnel_and_unfunnel() {
    let expect = "funnel tcp sport 540 dport 80 flags { syn, ack } inner sport 2055";
    action("funnel tcp dport 80 sport 540 flags { syn, ack } inner sport 2055", expect);
    action("funnel tcp flags { ack, syn } sport 540 dport 80 inner sport 2055", expect);
    action("funnel tcp sport 540 flags {syn,ack,} dport 80 inner sport 2055", expect);
    action("funnel encap tcp sport 540 dport 80 inner sport 2055 flags { ack, syn, ack }", expect);
    action("funnel tcp dport 80 sport 540 flags syn", "funnel tcp sport 540 dport 80");
    action("funnel tcp dport 80 sport 540 flags ack", "funnel tcp sport 540 dport 80 flags ack");
    action(
        "funnel udp dport 80 sport 540 inner dport 7 sport 8 dnat ::1",
        "funnel udp sport 540 dport 80 inner sport 8 dport 7 dnat ::1",
    );
    action("unfunnel decap tcp dport 9090", "unfunnel tcp dport 9090");
    action(
        "unfunnel udp dport 1 sport 2 dnat 10.0.0.1",
        "unfunnel udp sport 2 dport 1 dnat 10.0.0.1",
    );
}

/// A dash, and be it in a range of one, is what tells that there is no header.
#[test]
fn in_place() {
    let rule = "tcp sport 32768-60999 dport 8080 actions funnel tcp sport 1024-29255 dport 80";
    let compiled = check(rule, &[rule]);
    let port = |port| Port::new(port).unwrap();
    assert_eq!(
        compiled.ruleset.rules[0].action,
        Action::Translate {
            verb: Verb::Funnel,
            protocol: Protocol::Tcp,
            sport: PortRange { first: port(1024), last: port(29255) },
            dport: port(80).into(),
            dnat: None,
        }
    );
    let canonical =
        "ip6 daddr ::2 udp sport 1 dport 2 actions unfunnel udp sport 3-3 dport 4 dnat ::1";
    for input in [
        canonical,
        "ip6 daddr ::2/128 udp sport 1-1 dport { 2 } actions unfunnel udp sport 3 dport 4-4 dnat ::1",
        "ip6 daddr {::2} udp sport {1,} dport 2-2 actions unfunnel udp dport 4-4 sport 3-3 dnat ::1",
    ] {
        check(input, &[canonical]);
    }
}

/// What the program gets to read.
#[test]
fn entries() {
    let entry = |text: &str| compile(text).unwrap_or_else(|e| panic!("{e}")).tables.rules[0];
    let plain = RuleEntry { tcp_flags: 0x02, ..RuleEntry::default() };
    assert_eq!(entry("tcp actions drop"), RuleEntry { action: action::DROP, ..plain });
    assert_eq!(
        entry("ip udp dport 9995 actions funnel tcp sport 540 dport 80 flags ack inner dport 7"),
        RuleEntry {
            action: action::FUNNEL,
            protocol: 6,
            flags: flag::PORTS,
            tcp_flags: 0x10,
            sport: 540,
            dport: 80,
            inner_dport: 7,
            ..plain
        }
    );
    assert_eq!(
        entry("tcp actions unfunnel udp sport 7 dport 9 dnat 10.0.0.9"),
        RuleEntry {
            action: action::UNFUNNEL,
            protocol: 17,
            flags: flag::DNAT,
            inner_sport: 7,
            inner_dport: 9,
            dnat: [0, 0, 0, u32::from_ne_bytes([10, 0, 0, 9])],
            ..plain
        }
    );
    let shift = RuleEntry { action: action::TRANSLATE, protocol: 6, flags: flag::PORTS, ..plain };
    assert_eq!(
        entry("tcp dport 80-89 sport 1-9 actions funnel tcp dport 8080-8089 sport 65527-65535"),
        RuleEntry { sport: 65526, dport: 8000, ..shift }
    );
    // Modulo 2^16.
    assert_eq!(
        entry("ip6 saddr ::1 tcp dport 8080 sport 9 actions unfunnel tcp dport 80 sport 2-2"),
        RuleEntry { sport: 65529, dport: 57536, ..shift }
    );
    let [a, b, c, d] = entry("tcp actions dnat 2001:db8::a:b").dnat.map(u32::to_ne_bytes);
    assert_eq!((a, b), ([0x20, 1, 0x0d, 0xb8], [0; 4]));
    assert_eq!((c, d), ([0; 4], [0, 0xa, 0, 0xb]));
}

/// Pairs of rules in place that keep every flow apart.
#[test]
fn translations_that_stay_one_to_one() {
    for text in [
        // Other ports come out.
        "tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 20-28",
        // Another protocol, other addresses, another family.
        "tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         udp dport 82 sport 1-9 actions funnel udp dport 80 sport 11-19",
        "ip saddr 10.0.0.1 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         ip saddr != 10.0.0.1 tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 11-19",
        "ip daddr 10.0.0.0/31 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         ip daddr 10.0.0.2 tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 11-19",
        "ip tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         ip6 tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 11-19",
        // The same shift.
        "ip tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         tcp dport 81-82 sport 5-20 actions funnel tcp dport 80-81 sport 15-30",
        // Two destinations become different ones.
        "ip daddr 10.0.0.3 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.1
         ip daddr 10.0.0.3 tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.2",
        // The same shift, and the same destination for the same.
        "ip daddr 10.0.0.1 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.9
         ip daddr 10.0.0.1 tcp dport 81-82 sport 5-20 actions funnel tcp dport 80-81 sport 15-30 dnat 10.0.0.9",
        // Two addresses change places.
        "ip daddr 10.0.0.1 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.2
         ip daddr 10.0.0.2 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.1",
        // A rule that never matches.
        "ip daddr != 0.0.0.0/0 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 11-19",
        // The first takes all that the second would bring there.
        "tcp dport 81 sport 1-99 actions funnel tcp dport 80 sport 101-199
         tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 111-119",
        // What would meet never gets to the second, or never to the first.
        "tcp dport 82 sport 5-9 actions accept
         tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         tcp dport 82 sport 5-14 actions funnel tcp dport 80 sport 15-24",
        "tcp dport 81 sport 5-7 actions accept; tcp dport 81 sport 8-9 actions accept
         tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         tcp dport 82 sport 5-14 actions funnel tcp dport 80 sport 15-24",
    ] {
        compile(text).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn translations_that_make_one_flow_of_two() {
    for text in [
        "tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         ip6 saddr ::1 tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 19-27",
        "ip saddr 10.0.0.1 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         ip saddr 10.0.0.0/8 tcp dport 82 sport 1-9 actions unfunnel tcp dport 80 sport 11-19",
        // A destination that becomes the other's.
        "ip daddr 10.0.0.1 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.2
         ip daddr 10.0.0.2 tcp dport 82 sport 1-9 actions funnel tcp dport 80 sport 11-19",
        // The same shift, but two destinations become one, or one becomes the other.
        "ip daddr 10.0.0.1 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.9
         ip daddr 10.0.0.2 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.9",
        "ip daddr 10.0.0.1 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.9
         ip daddr 10.0.0.9 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19",
        "ip6 daddr ::1:0/112 tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         ip6 daddr ::2 tcp dport 81 sport 9-17 actions funnel tcp dport 80 sport 19-27 dnat ::1:7",
        // Only a part of what would meet is taken.
        "tcp dport 82 sport 6-9 actions accept
         tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19
         tcp dport 82 sport 5-14 actions funnel tcp dport 80 sport 15-24",
    ] {
        let error = compile(text).expect_err(text);
        let line = text.lines().count();
        assert_eq!((error.kind, error.line), (ruleset::Kind::Collision(line - 1), line), "{text}");
    }
}

/// As many bytes as are allowed, and as many rules.
#[test]
fn the_largest_rulesets() {
    let rule = "tcp actions drop #";
    let text = format!("{rule}{}", "x".repeat(ruleset::MAX_TEXT - rule.len()));
    check(&text, &["tcp actions drop"]);

    let rules: Vec<_> = (1..=4096).map(|port| format!("tcp dport {port} actions drop")).collect();
    let expect: Vec<_> = rules.iter().map(String::as_str).collect();
    let compiled = check(&rules.join(";"), &expect);
    assert!(compiled.warnings.is_empty());
}
