//! Removing what was attached, and nothing else.

use loader::attach::select;
use loader::netlink::{Hook, Netlink, Place};
use loader::object::{Link, Program};
use std::os::fd::AsFd as _;

use crate::net::{
    FUNNEL, Finish as _, Net, UNFUNNEL, add_bpf, eventually, is_loaded, places, shown, state,
};

/// Attaches a program that is not the loader's, on both sides of its priorities.
fn attach_others(net: &Net, interface: &str) {
    let compiled = ruleset::compile("udp dport 7 actions accept").expect("it compiles");
    net.left.enter(|| {
        let mut netlink = Netlink::open().expect("a socket");
        let interfaces = select(&mut netlink, &[interface.to_owned()]).expect("it is there");
        let program = Program::load(&compiled, Link { link_header: 14, mtu: 0 })
            .unwrap_or_else(|e| panic!("{e}"));
        for hook in [Hook::Ingress, Hook::Egress] {
            for priority in [100, 542] {
                let place = Place { priority, handle: 1, name: "other" };
                netlink
                    .set_filter(interfaces[0].index, hook, place, program.as_fd())
                    .unwrap_or_else(|e| panic!("{e}"));
            }
        }
    });
}

#[test]
fn every_way_of_cleaning_leaves_what_is_not_ours() {
    for way in ["command", "flag", "variable"] {
        let net = Net::new(2);
        let outlet = net.outlet(0);
        net.run("tc qdisc add dev l0 root tbf rate 1gbit burst 1mb latency 50ms");
        net.run("tc qdisc add dev l0 clsact");
        for hook in ["ingress", "egress"] {
            let u32 = format!("dev l0 {hook} pref 200 protocol all u32 match u32 0 0 flowid 1:1");
            net.run(&format!("tc filter add {u32}"));
            // Beside ours, in the same priority.
            add_bpf(&net.left, &format!("dev l0 {hook} pref 540 handle 2 protocol all"));
        }
        attach_others(&net, "l0");
        let before = state(&net.left);

        net.load(&[
            ("SFUNNEL_RULESET", UNFUNNEL),
            ("SFUNNEL_EGRESS_RULESET", FUNNEL),
            ("IFACES", "l0"),
        ]);
        assert_eq!(places(&net.left), ["l0 ingress", "l0 egress"]);
        assert_ne!(state(&net.left), before);

        let mut loader = net.loader();
        let run = match way {
            "command" => loader.arg("clean"),
            // Rules may stay in the environment.
            "flag" => loader.arg("--clean").env("SFUNNEL_RULESET", UNFUNNEL),
            _ => loader.env("CLEAN", "1").env("SFUNNEL_RULESET", UNFUNNEL),
        }
        .finish()
        .done();
        assert_eq!(
            run.stderr,
            "sfunnel-loader: removed from l0 ingress\n\
             sfunnel-loader: removed from l0 ingress for ICMP errors\n\
             sfunnel-loader: removed from l0 egress\n",
            "{way}"
        );
        assert_eq!(state(&net.left), before, "{way}");
        assert_eq!(outlet.funnelled(), None);
        assert!(!net.inlet(0).unfunnelled());
    }
}

#[test]
fn filters_of_other_chains_are_in_nobodys_way() {
    let net = Net::new(1);
    net.run("tc qdisc add dev l0 clsact");
    let u32 = "pref 541 protocol ip u32 match u32 0 0 flowid 1:1";
    net.run(&format!("tc filter add dev l0 ingress chain 7 {u32}"));
    add_bpf(&net.left, "dev l0 egress chain 7 pref 540 handle 1 protocol all");
    let before = state(&net.left);
    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL)]);
    assert_eq!(places(&net.left), ["l0 egress"]);
    assert_eq!(net.outlet(0).funnelled(), Some((540, 80)));
    net.loader().arg("clean").finish().done();
    assert_eq!(state(&net.left), before);
}

#[test]
fn the_program_goes_with_its_filter() {
    let net = Net::new(1);
    net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
    let program = shown(&net.left)[0]["program"].as_u64().expect("a number");
    assert!(is_loaded(program));
    net.loader().arg("clean").finish().done();
    eventually("the program goes", || !is_loaded(program));
    assert_eq!(shown(&net.left), [""; 0]);
}

#[test]
fn nothing_to_clean() {
    let net = Net::new(1);
    let before = state(&net.left);
    for _ in 0..2 {
        let run = net.loader().arg("clean").finish().done();
        assert_eq!(run.stderr, "sfunnel-loader: nothing was attached\n");
        assert_eq!(run.stdout, "");
        assert_eq!(state(&net.left), before);
    }
}

#[test]
fn an_interface_that_is_down_by_now() {
    let net = Net::new(2);
    net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
    net.run("ip link set l1 down");
    let run = net.loader().arg("clean").finish().done();
    assert_eq!(
        run.stderr,
        "sfunnel-loader: removed from l0 ingress\nsfunnel-loader: removed from l1 ingress\n"
    );
    assert_eq!(places(&net.left), [""; 0]);
}

#[test]
fn only_the_interfaces_named() {
    let net = Net::new(3);
    net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
    net.loader().args(["clean", "--ifaces", "l2 l0"]).finish().done();
    assert_eq!(places(&net.left), ["l1 ingress"]);
    net.loader().args(["clean", "--ifaces", "l1 nosuch0"]).finish().refused(
        2,
        "sfunnel-loader: there is no interface nosuch0 here; `ip link` lists those that are",
    );
    assert_eq!(places(&net.left), ["l1 ingress"]);
}
