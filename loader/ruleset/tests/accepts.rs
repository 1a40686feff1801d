//! What the original sfunnel takes is taken here, with the same meaning.

use std::net::Ipv4Addr;

use ruleset::ast::{Action, Cidr, Match, Matches, Port, PortRange, Protocol, Rule};
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
    action("funnel encap udp sport 540 dport 179-179", expect);
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
            ip: true,
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
            dnat: Some(Ipv4Addr::new(10, 9, 9, 9)),
        },
    };
    assert_eq!(compiled.ruleset.rules, [rule]);
}

#[test]
fn actions_land_in_their_place() {
    let address = Ipv4Addr::new(10, 9, 9, 9);
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    for (input, expect) in [
        ("accept", Action::Accept),
        ("drop", Action::Drop),
        ("dnat 10.9.9.9", Action::Dnat(address)),
        ("unfunnel tcp", Action::Unfunnel { protocol: tcp, dnat: None }),
        ("unfunnel udp dnat 10.9.9.9", Action::Unfunnel { protocol: udp, dnat: Some(address) }),
        (
            "funnel udp sport 1 dport 2",
            Action::Funnel {
                through: udp,
                sport: Port::new(1).unwrap(),
                dport: Port::new(2).unwrap(),
                dnat: None,
            },
        ),
    ] {
        let compiled = compile(&format!("tcp actions {input}")).unwrap();
        assert_eq!(compiled.ruleset.rules[0].action, expect, "{input}");
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
