//! Counters, as text and as JSON.

use serde_json::json;
use tests::model::{Packet, TCP};

use crate::net::{FUNNEL, Finish as _, Net, UNFUNNEL, eventually, shown, state};

#[test]
fn counters_and_reasons() {
    let net = Net::new(2);
    let ingress = "tcp sport 540 dport 80 actions unfunnel udp\n\
                   ip saddr 10.9.0.2 udp dport { 7, 9 } actions drop";
    let egress = "udp dport 53 actions funnel tcp sport 540 dport 80\n\
                  udp dport 54 actions accept";
    let ifaces = ("IFACES", "l0");
    net.load(&[("SFUNNEL_RULESET", ingress), ("SFUNNEL_EGRESS_RULESET", egress), ifaces]);

    let outlet = net.outlet(0);
    for _ in 0..3 {
        outlet.send(&outlet.query(&[0; 12]));
    }
    // With the header it would be longer than the MTU of 1500 bytes; its sender is told so.
    outlet.send(&outlet.query(&[0; 1472]));
    for _ in 0..2 {
        let more_fragments = 0x2000;
        outlet.send(&Packet { fragment: more_fragments, ..outlet.query(&[0; 12]) });
    }
    let inlet = net.inlet(0);
    for port in [7, 9, 9, 9, 10] {
        let mut packet = inlet.datagram(&[0; 100]);
        packet.segment[2..4].copy_from_slice(&u16::to_be_bytes(port));
        inlet.send(&packet.seal());
    }
    for _ in 0..4 {
        // A header of the funnel's ports, and nothing in it.
        let mut segment = vec![2, 28, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 4, 0, 0, 0, 0, 0];
        segment.extend([0; 4]);
        inlet.send(&Packet { protocol: TCP, segment, ..inlet.datagram(&[]) }.seal());
    }
    assert!(inlet.unfunnelled());

    let attached = |hook, subject, program: &serde_json::Value, rules, counted: &[(&str, u64)]| {
        let reasons = [
            "fragment",
            "too-short",
            "bad-length",
            "segmented",
            "no-room",
            "not-funnelled",
            "vlan-depth",
            "helper-error",
            "dropped",
            "unfinished",
            "too-big",
            "extension-header",
            "quote-too-short",
        ];
        let not_done: Vec<_> = reasons
            .iter()
            .map(|reason| {
                let packets = counted.iter().find(|(name, _)| name == reason).map_or(0, |c| c.1);
                json!({ "reason": reason, "packets": packets })
            })
            .collect();
        json!({
            "interface": "l0",
            "hook": hook,
            "for": subject,
            "program": program,
            "rules": rules,
            "not_done": not_done,
        })
    };
    let rule = |rule: &str, packets: u64, bytes: u64| json!({ "rule": rule, "packets": packets, "bytes": bytes });
    let programs: Vec<_> = shown(&net.left).iter().map(|a| a["program"].clone()).collect();
    let expected = [
        attached(
            "ingress",
            "packets",
            &programs[0],
            json!([
                // IP, TCP and UDP headers, and eight bytes.
                rule("tcp sport 540 dport 80 actions unfunnel udp", 1, 20 + 20 + 8 + 8),
                rule("ip saddr 10.9.0.2 udp dport { 7, 9 } actions drop", 4, 4 * (20 + 8 + 100)),
            ]),
            &[("not-funnelled", 4)],
        ),
        attached(
            "ingress",
            "icmp-errors",
            &programs[1],
            json!([rule("tcp sport 80 dport 540 actions unfunnel udp", 0, 0)]),
            &[],
        ),
        attached(
            "egress",
            "packets",
            &programs[2],
            json!([
                rule("udp dport 53 actions funnel tcp sport 540 dport 80", 3, 3 * (20 + 8 + 12)),
                rule("udp dport 54 actions accept", 0, 0),
            ]),
            &[("too-big", 1), ("fragment", 2)],
        ),
    ];
    // What an interface receives may be dealt with a little later.
    eventually("every packet is counted", || shown(&net.left) == expected);

    let text = net.loader().arg("show").finish().done();
    assert_eq!(
        text.stdout,
        format!(
            "\
l0 ingress (BPF program {})
       packets          bytes  rule
             1             56  tcp sport 540 dport 80 actions unfunnel udp
             4            512  ip saddr 10.9.0.2 udp dport {{ 7, 9 }} actions drop
             4                 not done: not-funnelled
l0 ingress for ICMP errors (BPF program {})
       packets          bytes  rule
             0              0  tcp sport 80 dport 540 actions unfunnel udp
l0 egress (BPF program {})
       packets          bytes  rule
             3            120  udp dport 53 actions funnel tcp sport 540 dport 80
             0              0  udp dport 54 actions accept
             2                 not done: fragment
             1                 not done: too-big
",
            programs[0], programs[1], programs[2]
        )
    );
    assert_eq!(text.stderr, "");
}

#[test]
fn several_interfaces_or_those_named() {
    let net = Net::new(3);
    net.load(&[("SFUNNEL_RULESET", UNFUNNEL), ("IFACES", "l1")]);
    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL), ("IFACES", "l2 l0")]);
    for n in [0, 2, 2] {
        assert_eq!(net.outlet(n).funnelled(), Some((540, 80)));
    }
    let places = |arguments: &[&str]| -> Vec<(String, u64)> {
        let run = net.loader().args(["show", "--json"]).args(arguments).finish().done();
        let all: Vec<serde_json::Value> = serde_json::from_str(&run.stdout).expect("JSON");
        all.iter()
            .filter(|attached| attached["for"] == "packets")
            .map(|attached| {
                let place = format!("{} {}", attached["interface"], attached["hook"]);
                let packets = attached["rules"][0]["packets"].as_u64().expect("a number");
                (place.replace('"', ""), packets)
            })
            .collect()
    };
    let [l0, l1, l2] = [("l0 egress", 1), ("l1 ingress", 0), ("l2 egress", 2)]
        .map(|(place, packets)| (place.to_owned(), packets));
    assert_eq!(places(&[]), [l0.clone(), l1.clone(), l2.clone()]);
    assert_eq!(places(&["--ifaces", "l2 l1"]), [l2, l1]);
    assert_eq!(places(&["--ifaces", "lo"]), []);
    let before = state(&net.left);
    net.loader().args(["show", "--ifaces", "l0 nosuch0"]).finish().refused(
        2,
        "sfunnel-loader: there is no interface nosuch0 here; `ip link` lists those that are",
    );
    assert_eq!(state(&net.left), before);
}

#[test]
fn nothing_is_attached() {
    let net = Net::new(1);
    let before = state(&net.left);
    assert_eq!(net.loader().arg("show").finish().done().stdout, "nothing is attached\n");
    assert_eq!(net.loader().args(["show", "--json"]).finish().done().stdout, "[]\n");
    assert_eq!(state(&net.left), before);
}
