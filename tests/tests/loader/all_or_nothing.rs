//! A run that fails on its second interface leaves the first as it was.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd as _;

use crate::net::{FUNNEL, FUNNEL_ANEW, Finish as _, Net, UNFUNNEL, add_bpf, rules, state};

/// Why the second interface can't be attached to.
pub struct Cause {
    pub what: &'static str,
    /// Makes it so.
    pub prepare: fn(&Net),
    /// Name of that interface.
    pub interface: &'static str,
    pub code: i32,
    /// Last line on stderr.
    pub reason: &'static str,
}

pub const CAUSES: [Cause; 7] = [
    Cause {
        what: "there is none",
        prepare: |_| {},
        interface: "nosuch0",
        code: 2,
        reason: "sfunnel-loader: there is no interface nosuch0 here; `ip link` lists those that are",
    },
    Cause {
        what: "the older ingress qdisc",
        prepare: |net| drop(net.run("tc qdisc add dev l1 ingress")),
        interface: "l1",
        code: 1,
        reason: "sfunnel-loader: l1: can't add the clsact qdisc: File exists (os error 17); another \
                 qdisc has its place: remove it, as listed by `tc qdisc show dev l1`, or name other \
                 interfaces with IFACES",
    },
    Cause {
        what: "a BPF filter of our priority and handle",
        prepare: |net| {
            net.run("tc qdisc add dev l1 clsact");
            add_bpf(&net.left, "dev l1 ingress pref 540 handle 1 protocol all");
        },
        interface: "l1",
        code: 1,
        reason: "sfunnel-loader: l1 ingress: priority 540 belongs to a bpf filter that is not ours; \
                 move it, as listed by `tc filter show dev l1 ingress`, or name other interfaces \
                 with IFACES",
    },
    Cause {
        what: "a BPF filter of our priority for another protocol",
        prepare: |net| {
            net.run("tc qdisc add dev l1 clsact");
            add_bpf(&net.left, "dev l1 egress pref 540 handle 2 protocol ip");
        },
        interface: "l1",
        code: 1,
        reason: "sfunnel-loader: l1 egress: priority 540 belongs to a bpf filter that is not ours; \
                 move it, as listed by `tc filter show dev l1 egress`, or name other interfaces \
                 with IFACES",
    },
    Cause {
        what: "a filter of another kind of our priority",
        prepare: |net| {
            net.run("tc qdisc add dev l1 clsact");
            net.run(
                "tc filter add dev l1 egress pref 540 protocol all u32 match u32 0 0 flowid 1:1 \
                 action mirred egress redirect dev l2",
            );
        },
        interface: "l1",
        code: 1,
        reason: "sfunnel-loader: l1 egress: priority 540 belongs to a u32 filter that is not ours; \
                 move it, as listed by `tc filter show dev l1 egress`, or name other interfaces \
                 with IFACES",
    },
    Cause {
        what: "a link layer that the program can't parse",
        prepare: |net| {
            net.run("ip tuntap add dev odd0 mode tun");
            net.left.enter(|| set_link_layer("odd0", libc::ARPHRD_INFINIBAND)).expect("TUNSETLINK");
        },
        interface: "odd0",
        code: 2,
        reason: "sfunnel-loader: odd0 is neither an Ethernet nor an IP device; name others with \
                 IFACES",
    },
    Cause {
        // The one that shows only when the first interface's filters are in place.
        what: "filters shared with other interfaces",
        prepare: |net| drop(net.run("tc qdisc add dev l1 ingress_block 22 clsact")),
        interface: "l1",
        code: 1,
        reason: "sfunnel-loader: l1 ingress: can't attach the program: Operation not supported (os \
                 error 95); its clsact qdisc shares its filters with other interfaces: make it anew \
                 without `ingress_block` and `egress_block`, as listed by `tc qdisc show dev l1`, \
                 or name other interfaces with IFACES",
    },
];

/// Makes a tun device that is down one of another link layer.
fn set_link_layer(name: &str, kind: u16) -> io::Result<()> {
    /// `_IOW('T', 205, int)`, include/uapi/linux/if_tun.h.
    const TUNSETLINK: libc::Ioctl = 0x4004_54CD_u32 as libc::Ioctl;
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: zero is a value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the request is one, and outlives the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: the argument is the number itself.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETLINK, libc::c_int::from(kind)) })
}

fn check(rc: i32) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A run on `l0` and the cause's interface, with new rules for both hooks.
fn fail(net: &Net, cause: &Cause) {
    let before = state(&net.left);
    net.loader()
        .envs([("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", FUNNEL_ANEW)])
        .env("IFACES", format!("l0 {}", cause.interface))
        .finish()
        .refused(cause.code, cause.reason);
    assert_eq!(state(&net.left), before, "{}", cause.what);
}

#[test]
fn a_first_interface_that_was_fresh() {
    for cause in &CAUSES {
        let net = Net::new(3);
        (cause.prepare)(&net);
        fail(&net, cause);
        assert!(!net.run("tc qdisc show dev l0").contains("clsact"), "{}", cause.what);
        assert_eq!(net.outlet(0).funnelled(), None, "{}", cause.what);
    }
}

#[test]
fn a_first_interface_with_earlier_rules() {
    for cause in &CAUSES {
        let net = Net::new(3);
        (cause.prepare)(&net);
        let earlier = format!("{UNFUNNEL}\n{FUNNEL}");
        net.load(&[("SFUNNEL_RULESET", &earlier), ("DIRECTION", "both"), ("IFACES", "l0")]);
        // The state that is compared has the numbers of the programs.
        fail(&net, cause);
        for place in ["l0 ingress", "l0 egress"] {
            assert_eq!(rules(&net.left, place), earlier, "{}", cause.what);
        }
        assert_eq!(net.outlet(0).funnelled(), Some((540, 80)), "{}", cause.what);
        assert!(net.inlet(0).unfunnelled(), "{}", cause.what);
    }
}

#[test]
fn a_first_interface_with_somebody_elses_filters() {
    for cause in &CAUSES {
        let net = Net::new(3);
        net.run("tc qdisc add dev l0 clsact");
        add_bpf(&net.left, "dev l0 egress pref 540 handle 2 protocol all");
        (cause.prepare)(&net);
        fail(&net, cause);
    }
}
