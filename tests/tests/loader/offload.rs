//! `gso_max_segs` is lowered where TCP gets a header, and comes back.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use loader::attach::select;
use loader::netlink::{Hook, Interface, Netlink, Place};
use loader::object::{Link, Program};
use loader::offload::Limit;
use loader::settings::Offload;
use tests::binary;

use crate::all_or_nothing::CAUSES;
use crate::net::{
    FUNNEL, FUNNEL_TCP, Finish as _, Net, PATIENCE, Run, UNFUNNEL, clear, gso_max_segs, shown_at,
    state,
};

/// Unlike any interface's, so that what comes back is what was there.
const EARLIER: u64 = 77;

/// [`FUNNEL_TCP`] in place.
const IN_PLACE: &str =
    "tcp sport 32768-60999 dport 8080 actions funnel tcp sport 1024-29255 dport 80";

const LOWERED: &str = "sfunnel-loader: l0: gso_max_segs 77 -> 1, because a packet of several TCP segments can't get \
     a header; `clean` restores it, OFFLOAD=keep leaves it alone";
const RAISED: &str = "sfunnel-loader: l0: gso_max_segs 1 -> 77, as it was";
const KEPT: &str = "warning: l0: gso_max_segs stays 77, as OFFLOAD=keep asks; a packet of several TCP segments \
     can't get a header and goes on without, counted as `segmented`";

/// A namespace in which nothing is forwarded.
#[track_caller]
fn net(pairs: u8) -> Net {
    let net = Net::new(pairs);
    let off = [("net.ipv4.ip_forward", "0"), ("net.ipv6.conf.all.forwarding", "0")];
    net.left.sysctl(&off).unwrap_or_else(|e| panic!("{e:#}"));
    set(&net, EARLIER);
    net
}

/// What somebody does by hand.
#[track_caller]
fn set(net: &Net, segments: u64) {
    net.run(&format!("ip link set dev l0 gso_max_segs {segments}"));
}

#[track_caller]
fn segments(net: &Net) -> u64 {
    gso_max_segs(&net.left, "l0")
}

#[track_caller]
fn load(net: &Net, egress: &str) -> Run {
    net.load(&[("SFUNNEL_EGRESS_RULESET", egress), ("IFACES", "l0")])
}

#[track_caller]
fn clean(net: &Net) -> Run {
    net.loader().arg("clean").finish().done()
}

/// Lines on stderr about it.
fn said(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.contains("gso_max_segs")).collect()
}

#[test]
fn lowered_and_restored() {
    let net = net(2);
    assert_eq!(said(&load(&net, FUNNEL_TCP)), [LOWERED]);
    assert_eq!(segments(&net), 1);
    assert_ne!(gso_max_segs(&net.left, "l1"), 1);
    let filters = net.run("tc filter show dev l0 egress");
    assert!(filters.contains("handle 0x1 sfunnel gso_max_segs=77 direct-action"), "{filters}");

    assert_eq!(said(&clean(&net)), [RAISED]);
    assert_eq!(segments(&net), EARLIER);
    assert_eq!(said(&clean(&net)), [""; 0]);
}

#[test]
fn only_where_egress_rules_encapsulate_tcp() {
    let net = net(1);
    for (variable, ruleset) in [
        ("SFUNNEL_EGRESS_RULESET", FUNNEL),
        ("SFUNNEL_EGRESS_RULESET", IN_PLACE),
        ("SFUNNEL_EGRESS_RULESET", "tcp sport 540 dport 80 actions unfunnel tcp"),
        ("SFUNNEL_EGRESS_RULESET", "tcp dport 8080 actions accept"),
        ("SFUNNEL_RULESET", FUNNEL_TCP),
    ] {
        let run = net.load(&[(variable, ruleset)]);
        assert_eq!(said(&run), [""; 0], "{ruleset}");
        assert_eq!(segments(&net), EARLIER, "{ruleset}");
    }
    let several = format!("{FUNNEL}\n{IN_PLACE}\n{FUNNEL_TCP}");
    assert_eq!(said(&load(&net, &several)), [LOWERED]);
}

#[test]
fn a_replacement_remembers_what_was_first() {
    let net = net(1);
    load(&net, FUNNEL_TCP);
    for _ in 0..2 {
        assert_eq!(said(&load(&net, FUNNEL_TCP)), [""; 0]);
        assert_eq!(segments(&net), 1);
    }
    // A run for the other hook is not about it.
    assert_eq!(said(&net.load(&[("SFUNNEL_RULESET", UNFUNNEL)])), [""; 0]);
    assert_eq!(segments(&net), 1);
    assert_eq!(said(&clean(&net)), [RAISED]);
    assert_eq!(segments(&net), EARLIER);
}

#[test]
fn a_replacement_that_does_without_restores() {
    for ruleset in [IN_PLACE, FUNNEL] {
        let net = net(1);
        load(&net, FUNNEL_TCP);
        assert_eq!(said(&load(&net, ruleset)), [RAISED]);
        assert_eq!(segments(&net), EARLIER);
        assert_eq!(said(&clean(&net)), [""; 0]);
        assert_eq!(segments(&net), EARLIER);
    }
}

#[test]
fn kept_where_that_is_asked_for() {
    let net = net(1);
    let variable = [("OFFLOAD", "keep"), ("SFUNNEL_EGRESS_RULESET", FUNNEL_TCP)];
    assert_eq!(said(&net.load(&variable)), [KEPT]);
    assert_eq!(segments(&net), EARLIER);

    assert_eq!(said(&load(&net, FUNNEL_TCP)), [LOWERED]);
    let flag = ["--offload", "keep", "--egress-ruleset", FUNNEL_TCP];
    let run = net.loader().env("OFFLOAD", "limit").args(flag).finish().done();
    assert_eq!(said(&run), [KEPT, RAISED]);
    assert_eq!(segments(&net), EARLIER);

    // Where there is nothing to be said about it, nothing is.
    let variable = [("OFFLOAD", "keep"), ("SFUNNEL_EGRESS_RULESET", FUNNEL)];
    assert_eq!(said(&net.load(&variable)), [""; 0]);
    set(&net, 1);
    let variable = [("OFFLOAD", "keep"), ("SFUNNEL_EGRESS_RULESET", FUNNEL_TCP)];
    assert_eq!(said(&net.load(&variable)), [""; 0]);
}

#[test]
fn what_was_changed_by_hand_is_left_alone() {
    const STAYS: &str = "sfunnel-loader: l0: gso_max_segs stays 7: somebody has changed it since \
                         it was set to 1";
    let net = net(1);
    load(&net, FUNNEL_TCP);
    set(&net, 7);
    assert_eq!(said(&load(&net, FUNNEL)), [STAYS]);
    assert_eq!(segments(&net), 7);

    set(&net, EARLIER);
    load(&net, FUNNEL_TCP);
    set(&net, 7);
    assert_eq!(said(&clean(&net)), [STAYS]);
    assert_eq!(segments(&net), 7);

    // It is also what comes back.
    load(&net, FUNNEL_TCP);
    set(&net, EARLIER);
    assert_eq!(said(&load(&net, FUNNEL_TCP)), [LOWERED]);
    assert_eq!(said(&clean(&net)), [RAISED]);
    assert_eq!(segments(&net), EARLIER);
}

#[test]
fn what_was_one_before_stays_one() {
    const ALREADY: &str = "sfunnel-loader: l0: gso_max_segs is 1 already, and no filter remembers \
                           another value; `clean` will leave it so";
    let net = net(1);
    set(&net, 1);
    assert_eq!(said(&load(&net, FUNNEL_TCP)), [ALREADY]);
    assert_eq!(said(&load(&net, FUNNEL)), [""; 0]);
    assert_eq!(said(&clean(&net)), [""; 0]);
    assert_eq!(segments(&net), 1);
}

#[test]
fn killed_before_it_is_lowered() {
    // The filter comes first: it is there, and remembers what is there still.
    let net = net(1);
    for _ in 0..2 {
        load(&net, FUNNEL_TCP);
        set(&net, EARLIER);
        assert_eq!(said(&load(&net, FUNNEL_TCP)), [LOWERED]);
        set(&net, EARLIER);
        assert_eq!(said(&clean(&net)), [""; 0]);
        assert_eq!(segments(&net), EARLIER);
    }
}

#[test]
fn a_run_that_fails_later_restores() {
    for cause in &CAUSES {
        let net = net(3);
        (cause.prepare)(&net);
        let fail = |egress: &str| {
            let before = (state(&net.left), segments(&net));
            net.loader()
                .envs([("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", egress)])
                .env("IFACES", format!("l0 {}", cause.interface))
                .finish()
                .refused(cause.code, cause.reason);
            assert_eq!((state(&net.left), segments(&net)), before, "{}", cause.what);
        };
        fail(FUNNEL_TCP);
        assert_eq!(segments(&net), EARLIER);
        load(&net, FUNNEL_TCP);
        fail(FUNNEL_TCP);
        fail(FUNNEL);
        // With what it was in the filter's name again.
        assert_eq!(said(&clean(&net)), [RAISED]);
        assert_eq!(segments(&net), EARLIER);
    }
}

/// The interface `l0`, and a socket beside it.
#[track_caller]
fn on_l0<T: Send>(net: &Net, task: impl FnOnce(&mut Netlink, Interface) -> T + Send) -> T {
    net.left.enter(|| {
        let mut netlink = Netlink::open().expect("a socket");
        let l0 = select(&mut netlink, &["l0".to_owned()]).expect("it is there").remove(0);
        task(&mut netlink, l0)
    })
}

#[test]
fn a_kernel_that_does_not_restore_it() {
    let net = net(1);
    set(&net, 1);
    net.run("tc qdisc add dev l0 clsact");
    let compiled = ruleset::compile(FUNNEL_TCP).expect("it compiles");
    on_l0(&net, |netlink, l0| {
        let link = Link { link_header: 14, mtu: 1500 };
        let program = Program::load(&compiled, link).unwrap_or_else(|e| panic!("{e}"));
        // More than any interface takes (GSO_MAX_SEGS, include/linux/netdevice.h).
        let place = Place { priority: 540, handle: 1, name: "sfunnel gso_max_segs=65536" };
        netlink.set_filter(l0.index, Hook::Egress, place, program.as_fd()).expect("it is set");
    });
    let run = clean(&net);
    assert_eq!(
        run.stderr,
        "sfunnel-loader: removed from l0 egress\n\
         warning: l0: can't set gso_max_segs back to 65536: Invalid argument (os error 22); try `ip \
         link set dev l0 gso_max_segs 65536`\n"
    );
    assert_eq!(segments(&net), 1);
    assert_eq!(clean(&net).stderr, "sfunnel-loader: nothing was attached\n");
}

#[test]
fn a_kernel_that_does_not_lower_it() {
    let net = net(1);
    let rules = ruleset::compile(FUNNEL_TCP).expect("it compiles").ruleset;
    on_l0(&net, |netlink, l0| {
        // No interface has this number.
        let gone = Interface { index: i32::MAX, ..l0 };
        let notices = Limit::new(&gone, Some(&rules), Offload::Limit, None).settle(netlink);
        assert_eq!(
            notices.iter().map(|n| (n.warning, n.to_string())).collect::<Vec<_>>(),
            [(
                true,
                "l0: can't set gso_max_segs from 77 to 1: No such device (os error 19); a packet of \
                 several TCP segments can't get a header and goes on without, counted as \
                 `segmented`; try `ip link set dev l0 gso_max_segs 1`"
                    .to_owned()
            )]
        );
    });
    assert_eq!(segments(&net), EARLIER);
}

/// Sends this many bytes from `left` to port 8080 of `right`.
#[track_caller]
fn send(net: &Net, bytes: usize) {
    let address = "10.9.0.2:8080".parse().expect("an address");
    let listener = net.right.enter(|| TcpListener::bind(address)).expect("a listener");
    let mut sender =
        net.left.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).expect("a connection");
    let (mut receiver, _) = listener.accept().expect("the connection");
    sender.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    receiver.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let received = std::thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&vec![0; bytes]).expect("it is sent"));
        io::copy(&mut receiver, &mut io::sink()).expect("it arrives")
    });
    assert_eq!(received, bytes as u64);
}

#[test]
fn every_packet_of_a_connection_is_funnelled() {
    const BYTES: usize = 4 << 20;
    for (offload, all) in [("limit", true), ("keep", false)] {
        let net = net(1);
        let unfunnel = ["--ruleset", "tcp sport 540 dport 80 actions unfunnel tcp"];
        clear(net.right.command(binary::loader())).args(unfunnel).finish().done();
        net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL_TCP), ("OFFLOAD", offload)]);
        send(&net, BYTES);
        let shown = shown_at(&net.left, "l0 egress");
        let not_done = shown["not_done"].as_array().expect("a list");
        let segmented = not_done.iter().find(|n| n["reason"] == "segmented").expect("a reason");
        assert_eq!(segmented["packets"] == 0, all, "{offload}: {shown}");
        // What was sent, in packets of the MTU at the most.
        let bytes = shown["rules"][0]["bytes"].as_u64().expect("a number");
        assert_eq!(bytes > BYTES as u64, all, "{offload}: {shown}");
    }
}

/// Warnings about GRO.
fn gro(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.contains("GRO")).collect()
}

#[test]
fn merged_on_arrival() {
    let net = net(2);
    for ruleset in [FUNNEL, IN_PLACE, UNFUNNEL] {
        assert_eq!(gro(&net.load(&[("SFUNNEL_RULESET", ruleset)])), [""; 0], "{ruleset}");
    }
    let warning = |n| {
        format!(
            "warning: l{n} ingress: packets that GRO has merged on arrival can't get a header and \
             go on without, counted as `segmented`; where it is on, `ethtool -K l{n} gro off`"
        )
    };
    assert_eq!(gro(&net.load(&[("SFUNNEL_RULESET", FUNNEL_TCP)])), [warning(0), warning(1)]);
}

#[test]
fn merged_before_it_is_forwarded() {
    const WARNING: &str = "warning: l0 egress: this host forwards, and what GRO has merged on \
                           another interface can't get a header; where it is on, `ethtool -K IFACE \
                           gro off`";
    for (setting, pairs, ruleset, expected) in [
        ("net.ipv4.ip_forward", 2, FUNNEL_TCP, &[WARNING][..]),
        ("net.ipv6.conf.all.forwarding", 2, FUNNEL_TCP, &[WARNING]),
        ("net.ipv4.ip_forward", 2, IN_PLACE, &[]),
        // Where nothing else arrives, nothing is forwarded.
        ("net.ipv4.ip_forward", 1, FUNNEL_TCP, &[]),
    ] {
        let net = net(pairs);
        assert_eq!(gro(&load(&net, ruleset)), [""; 0]);
        net.left.sysctl(&[(setting, "1")]).unwrap_or_else(|e| panic!("{e:#}"));
        assert_eq!(gro(&load(&net, ruleset)), expected, "{setting} {pairs} {ruleset}");
    }
}
