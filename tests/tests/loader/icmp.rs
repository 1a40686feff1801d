//! The second filter: rules for ICMP errors, on the hook where those about a ruleset's packets pass.

use std::io::ErrorKind;
use std::net::UdpSocket;

use tests::model::IcmpError;

use crate::net::{
    FUNNEL, FUNNEL_ANEW, Finish as _, Net, PATIENCE, UNFUNNEL, add_bpf, eventually, icmp_places,
    is_loaded, places, shown, state,
};

/// Gives connections to port 80 back their own port 8080.
const IN_PLACE: &str = "ip saddr 10.9.0.2 tcp sport 1024-29255 dport 80 actions unfunnel tcp \
                        sport 32768-60999 dport 8080";

/// A pod's rules, of which each hook's deal with errors about the other's packets.
const MIRRORED: [(&str, &str); 2] = [
    ("SFUNNEL_RULESET", "tcp sport 540 dport 80 actions unfunnel tcp"),
    ("SFUNNEL_EGRESS_RULESET", "tcp sport 8080 actions funnel tcp sport 80 dport 540"),
];

#[test]
fn it_stands_on_the_opposite_hook() {
    for (variable, ruleset, hook, opposite) in [
        ("SFUNNEL_EGRESS_RULESET", FUNNEL, "egress", "ingress"),
        ("SFUNNEL_RULESET", IN_PLACE, "ingress", "egress"),
    ] {
        let net = Net::new(1);
        let run = net.load(&[(variable, ruleset)]);
        assert_eq!(
            run.stderr,
            format!(
                "sfunnel-loader: attached to l0 {hook}, rules: 1\n\
                 sfunnel-loader: attached to l0 {opposite} for ICMP errors, rules: 1\n"
            )
        );
        assert_eq!(places(&net.left), [format!("l0 {hook}")]);
        assert_eq!(icmp_places(&net.left), [format!("l0 {opposite}")]);

        let filters = net.run(&format!("tc filter show dev l0 {opposite}"));
        let [all, ours] = filters.lines().collect::<Vec<_>>()[..] else { panic!("{filters}") };
        assert_eq!(all.trim_end(), "filter protocol all pref 541 bpf chain 0");
        let expected = "filter protocol all pref 541 bpf chain 0 handle 0x1 sfunnel-icmp ";
        assert!(ours.starts_with(expected), "{ours}");

        let text = net.loader().arg("show").finish().done().stdout;
        let heading = format!("l0 {opposite} for ICMP errors (BPF program ");
        assert!(text.lines().any(|line| line.starts_with(&heading)), "{text}");

        let run = net.loader().arg("clean").finish().done();
        for removed in [hook.to_owned(), format!("{opposite} for ICMP errors")] {
            let line = format!("sfunnel-loader: removed from l0 {removed}");
            assert!(run.stderr.lines().any(|said| said == line), "{}", run.stderr);
        }
        assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
        assert_eq!(shown(&net.left), [""; 0]);
    }
}

#[test]
fn not_where_the_opposite_rules_do_as_well() {
    let net = Net::new(1);
    let run = net.load(&MIRRORED);
    assert_eq!(
        run.stderr.lines().filter(|line| line.contains("attached")).collect::<Vec<_>>(),
        [
            "sfunnel-loader: attached to l0 ingress, rules: 1",
            "sfunnel-loader: attached to l0 egress, rules: 1"
        ]
    );
    assert_eq!(places(&net.left), ["l0 ingress", "l0 egress"]);
    assert_eq!(icmp_places(&net.left), [""; 0]);
}

#[test]
fn not_where_there_is_nothing_to_undo() {
    let net = Net::new(1);
    for ruleset in ["tcp actions accept", UNFUNNEL] {
        net.load(&[("SFUNNEL_RULESET", ruleset), ("DIRECTION", "both")]);
        assert_eq!(places(&net.left), ["l0 ingress", "l0 egress"]);
        assert_eq!(icmp_places(&net.left), [""; 0]);
    }
}

#[test]
fn it_is_replaced_with_the_rules_it_belongs_to() {
    let net = Net::new(1);
    let program = || {
        let all = shown(&net.left);
        let found = all.iter().find(|a| a["for"] == "icmp-errors" && a["hook"] == "ingress");
        found.expect("it is attached")["program"].as_u64().expect("a number")
    };
    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL)]);
    let first = program();
    net.load(&[("SFUNNEL_RULESET", IN_PLACE)]);
    assert_eq!(program(), first, "a run for the other hook leaves it");
    assert_eq!(icmp_places(&net.left), ["l0 ingress", "l0 egress"]);

    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL_ANEW)]);
    assert_ne!(program(), first);
    assert_eq!(icmp_places(&net.left), ["l0 ingress", "l0 egress"]);
    eventually("the first program goes", || !is_loaded(first));

    net.load(&[("SFUNNEL_EGRESS_RULESET", "udp dport 53 actions accept")]);
    assert_eq!(icmp_places(&net.left), ["l0 egress"]);
    net.load(&MIRRORED);
    assert_eq!(icmp_places(&net.left), [""; 0]);
    assert_eq!(places(&net.left), ["l0 ingress", "l0 egress"]);
}

#[test]
fn somebody_elses_filter_in_its_place() {
    let net = Net::new(1);
    net.run("tc qdisc add dev l0 clsact");
    add_bpf(&net.left, "dev l0 ingress pref 541 handle 1 protocol all");
    let before = state(&net.left);
    net.loader().env("SFUNNEL_EGRESS_RULESET", FUNNEL).finish().refused(
        1,
        "sfunnel-loader: l0 ingress: priority 541 belongs to a bpf filter that is not ours; move \
         it, as listed by `tc filter show dev l0 ingress`, or name other interfaces with IFACES",
    );
    assert_eq!(state(&net.left), before);

    // Where the place is not needed, whoever has it keeps it.
    net.load(&MIRRORED);
    net.loader().arg("clean").finish().done();
    assert_eq!(state(&net.left), before);
}

#[test]
fn an_error_about_a_funnelled_packet_finds_the_socket() {
    let net = Net::new(1);
    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL)]);
    let (inlet, outlet) = (net.inlet(0), net.outlet(0));
    let socket = net.left.enter(|| {
        let socket = UdpSocket::bind("10.9.0.1:0").expect("a socket");
        socket.connect("10.9.0.2:53").expect("a route");
        socket
    });
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    socket.send(b"a question").expect("it is sent");
    let funnelled = outlet.arrival(b"a question");
    assert_eq!(funnelled.ports(), (540, 80));

    // "Port unreachable". Nobody in `left` knows of TCP port 540.
    let error = IcmpError { kind: 3, code: 3, rest: 0 };
    inlet.send(&error.answer(&funnelled, 576, funnelled.daddr));
    let refused = socket.recv(&mut [0; 64]).expect_err("there is no answer");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
