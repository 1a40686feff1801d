//! A second run takes the place of the first.

use std::sync::atomic::{AtomicBool, Ordering};

use tests::model::{self, Funnel, TCP};

use crate::net::{
    FUNNEL, FUNNEL_ANEW, Net, UNFUNNEL, eventually, is_loaded, places, rules, shown, shown_at,
};

#[test]
fn a_second_run_replaces_the_first() {
    let net = Net::new(1);
    let outlet = net.outlet(0);
    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL)]);
    for _ in 0..3 {
        assert_eq!(outlet.funnelled(), Some((540, 80)));
    }
    let old = shown_at(&net.left, "l0 egress");
    assert_eq!(old["rules"][0]["packets"], 3);

    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL_ANEW)]);
    let new = shown_at(&net.left, "l0 egress");
    assert_eq!(places(&net.left), ["l0 egress"]);
    assert_ne!(old["program"], new["program"]);
    assert_eq!(new["rules"][0]["packets"], 0);
    assert_eq!(rules(&net.left, "l0 egress"), FUNNEL_ANEW);
    assert_eq!(outlet.funnelled(), Some((541, 81)));

    // One line for the priority, one for the filter.
    let filters = net.run("tc filter show dev l0 egress");
    assert_eq!(filters.lines().count(), 2, "{filters}");
    let qdiscs = net.run("tc qdisc show dev l0");
    assert_eq!(qdiscs.matches("clsact").count(), 1, "{qdiscs}");
    let old = old["program"].as_u64().expect("a number");
    eventually("the first program goes", || !is_loaded(old));
}

#[test]
fn the_same_rules_again_are_a_new_program() {
    let net = Net::new(1);
    let mut programs = Vec::new();
    for _ in 0..3 {
        net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
        programs.push(shown(&net.left)[0]["program"].as_u64().expect("a number"));
    }
    assert!(programs[0] != programs[1] && programs[1] != programs[2], "{programs:?}");
    assert!(net.inlet(0).unfunnelled());
}

#[test]
fn a_run_for_one_hook_leaves_the_other() {
    let net = Net::new(2);
    net.load(&[("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", FUNNEL)]);
    let all = ["l0 ingress", "l0 egress", "l1 ingress", "l1 egress"];
    let shown = || all.map(|place| shown_at(&net.left, place));
    let before = shown();
    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL_ANEW), ("IFACES", "l1")]);
    let after = shown();
    assert_eq!(places(&net.left), all);
    assert_eq!(before[..3], after[..3]);
    assert_ne!(before[3], after[3]);
}

/// In flight at once, so that no queue overflows.
const WINDOW: u64 = 32;

#[test]
fn no_packet_slips_through_while_rules_are_replaced() {
    const RUNS: usize = 50;
    let net = Net::new(1);
    let outlet = net.outlet(0);
    net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL)]);
    let finished = AtomicBool::new(false);
    let (mut number, mut by_rules) = (0_u64, [0_u64; 2]);
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            // Even a panic ends the traffic.
            struct Finish<'a>(&'a AtomicBool);
            impl Drop for Finish<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Release);
                }
            }
            let _finish = Finish(&finished);
            for rules in [FUNNEL_ANEW, FUNNEL].iter().cycle().take(RUNS) {
                net.load(&[("SFUNNEL_EGRESS_RULESET", rules)]);
            }
        });
        while !finished.load(Ordering::Acquire) {
            let sent: Vec<_> =
                (number..number + WINDOW).map(|n| outlet.query(&n.to_be_bytes())).collect();
            number += WINDOW;
            sent.iter().for_each(|packet| outlet.send(packet));
            for packet in &sent {
                // In order: a lost one would be missed here.
                let arrived = outlet.arrival(&packet.segment[8..]);
                let rules = usize::from(arrived.ports() == (541, 81));
                let (sport, dport) = [(540, 80), (541, 81)][rules];
                assert_eq!(arrived, model::funnel(packet, Funnel::new(TCP, sport, dport)));
                by_rules[rules] += 1;
            }
        }
        replacing.join().expect("every run succeeds");
    });
    eprintln!("{number} packets, {by_rules:?} by the rules");
    assert_eq!(by_rules[0] + by_rules[1], number);
    assert!(by_rules.iter().all(|&packets| packets > WINDOW), "{by_rules:?}");
    assert_eq!(outlet.funnelled(), Some((540, 80)));
}
