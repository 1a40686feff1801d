//! The loader and the program in real namespaces: client, router with NAT, server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use rand::Rng as _;
use rand::rngs::StdRng;
use tests::binary;
use tests::lab::{Lab, address};
use tests::link::{Link, Pending, Received, finish};
use tests::model::{self, Funnel, Packet, TCP, UDP};
use tests::netns::{Checked as _, Netns};
use tests::random::{self, Checksum, PAIRS};

/// The ends of a flow in one family, and how the router translates them.
#[derive(Clone, Copy)]
struct Ends {
    /// What rules call the family.
    family: &'static str,
    client: IpAddr,
    /// What the client calls the server.
    service: IpAddr,
    server: IpAddr,
    /// What the router shows the server in place of the client.
    masqueraded: IpAddr,
    packet: fn(&mut StdRng, u8, usize, Checksum) -> Packet,
}

const IPV4: Ends = Ends {
    family: "ip",
    client: IpAddr::V4(address::CLIENT),
    service: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    server: IpAddr::V4(address::SERVER),
    masqueraded: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)),
    packet: random::packet,
};

const IPV6: Ends = Ends {
    family: "ip6",
    client: IpAddr::V6(address::CLIENT6),
    service: IpAddr::V6(Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1)),
    server: IpAddr::V6(address::SERVER6),
    masqueraded: IpAddr::V6(Ipv6Addr::new(0xFD02, 0, 0, 0, 0, 0, 0, 1)),
    packet: random::packet6,
};

/// Client and server with a router between them that translates addresses.
struct Net {
    lab: Lab,
    /// Destination and source of what the client sends.
    macs: [u8; 12],
}

impl std::ops::Deref for Net {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Net {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        // The largest payload, 40 bytes of options on both layers, and the funnel header.
        for (netns, interface) in
            [(&lab.client, "c0"), (&lab.router, "r1"), (&lab.router, "r2"), (&lab.server, "s0")]
        {
            netns.run(&format!("ip link set {interface} mtu 2000"))?;
        }
        for Ends { family, service, server, .. } in [IPV4, IPV6] {
            lab.router.nft(&format!(
                "table {family} nat {{
                    chain prerouting {{
                        type nat hook prerouting priority dstnat;
                        {family} daddr {service} dnat to {server}
                    }}
                    chain postrouting {{
                        type nat hook postrouting priority srcnat;
                        oifname r2 masquerade
                    }}
                }}"
            ))?;
        }
        // What the server thinks of the packets is of no interest.
        lab.server.nft(
            "table inet quiet {
                chain output {
                    type filter hook output priority 0; policy drop;
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                }
            }",
        )?;
        let macs = [mac(&lab.router, "r1")?, mac(&lab.client, "c0")?].concat();
        let macs = macs.try_into().expect("two of six bytes");
        Ok(Self { lab, macs })
    }

    /// A frame of the client's.
    fn frame(&self, packet: &Packet) -> Vec<u8> {
        let ethertype = if packet.is_ipv6() { [0x86, 0xDD] } else { [8, 0] };
        [&self.macs[..], &ethertype, &packet.write()].concat()
    }
}

fn mac(netns: &Netns, interface: &str) -> Result<[u8; 6]> {
    // Unlike `Netns::run`, this has the namespace's own /sys.
    let text = netns.command("cat").arg(format!("/sys/class/net/{interface}/address")).checked()?;
    let bytes: Vec<u8> = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{text:?} is no hardware address"))
}

fn load(netns: &Netns, direction: &str, rules: &str) -> Result<String> {
    let mut loader = netns.command(binary::loader());
    loader.args(["--direction", direction, "--attempts", "1", "--ruleset", rules]);
    loader.checked()
}

/// IP packets that reach the transport layer.
struct RawSocket(OwnedFd);

impl RawSocket {
    fn open(ends: &Ends, protocol: u8) -> Result<Self> {
        let family = if ends.server.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        // SAFETY: no pointers.
        let fd =
            unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        // SAFETY: a descriptor that was just made.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20))?;
        let timeout = nix::sys::time::TimeVal::new(5, 0);
        setsockopt(&fd, sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self(fd))
    }

    /// Checks that the next packet is this one. Of IPv6, these sockets show what is behind the
    /// header.
    fn expect(&self, packet: &Packet) {
        let expected = if packet.is_ipv6() { packet.segment.clone() } else { packet.write() };
        assert_eq!(self.receive(), expected, "{packet:?}");
    }

    fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let len = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())
            .unwrap_or_else(|e| panic!("a packet did not arrive within 5 s: {e}"));
        bytes.truncate(len);
        bytes
    }
}

/// A packet of the client's, how it is sent, and whether its checksum is pending.
fn packet(rng: &mut StdRng, ends: &Ends, protocol: u8) -> (Packet, Packet, Option<Pending>) {
    let missing = protocol == UDP && rng.random_bool(0.2);
    let checksum = if missing { Checksum::Missing } else { Checksum::Right };
    let len = rng.random_range(0..=1480);
    let packet = (ends.packet)(rng, protocol, len, checksum);
    let packet = Packet { saddr: ends.client, daddr: ends.service, ..packet };
    let packet = if missing { packet } else { packet.seal() };
    let (sent, pending) = as_sent(rng, &packet);
    (packet, sent, pending)
}

/// `packet` as it is sent: in half of the cases with a pending checksum.
fn as_sent(rng: &mut StdRng, packet: &Packet) -> (Packet, Option<Pending>) {
    let mut sent = packet.clone();
    if packet.lacks_check() || rng.random() {
        return (sent, None);
    }
    // Pending: the field holds the sum of the pseudo-header, not complemented.
    sent.set_check(packet.pending_check(packet.saddr, packet.daddr));
    let header = packet.write().len() - packet.segment.len();
    let offset = if packet.protocol == UDP { 6 } else { 16 };
    (sent, Some(Pending { start: (14 + header) as u16, offset }))
}

/// The next packet on a link for which `wanted` holds, and whether its checksum was pending; others
/// are the kernel's own.
fn next(link: &Link, wanted: impl Fn(&Packet) -> bool) -> (Packet, bool) {
    loop {
        let Received { frame, pending } = link
            .receive(Duration::from_secs(5))
            .unwrap_or_else(|e| panic!("{e}"))
            .expect("a packet arrives within 5 s");
        if ![[8, 0], [0x86, 0xDD]].iter().any(|ip| frame[12..14] == *ip) {
            continue;
        }
        let packet = Packet::read(&frame[14..]).unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
        if wanted(&packet) {
            assert_eq!(frame.len(), 14 + packet.write().len(), "nothing behind the packet");
            return (packet, pending);
        }
    }
}

/// For each family and pair of protocols.
const PACKETS: usize = 10_000;

/// In flight at once, so that no queue overflows.
const WINDOW: usize = 100;

/// Where packets are looked at.
struct Watch {
    from_client: Link,
    on_wire: Link,
    behind_nat: Link,
}

/// What the client's rules do to a packet.
#[derive(Clone, Copy)]
enum Disguise {
    Header(Funnel),
    /// What is added to source and destination port.
    InPlace(u16, u16),
}

impl Watch {
    fn new(net: &Net) -> Self {
        Self {
            from_client: net.client.enter(|| Link::open("c0")).expect("c0 opens"),
            on_wire: net.router.enter(|| Link::open("r1")).expect("r1 opens"),
            behind_nat: net.server.enter(|| Link::open("s0")).expect("s0 opens"),
        }
    }

    /// Sends packets of `protocol`, and follows each to the server.
    fn follow(
        &self,
        net: &Net,
        ends: &Ends,
        protocol: u8,
        disguise: Disguise,
        mut make: impl FnMut() -> (Packet, Packet, Option<Pending>),
    ) {
        let delivered =
            net.server.enter(|| RawSocket::open(ends, protocol)).expect("a raw socket opens");
        let (through, in_place) = match disguise {
            Disguise::Header(header) => (header.through, false),
            Disguise::InPlace(..) => (protocol, true),
        };
        let mut pendings = 0;
        for _ in 0..PACKETS / WINDOW {
            let batch: Vec<_> = (0..WINDOW).map(|_| make()).collect();
            for (_, sent, pending) in &batch {
                pendings += usize::from(pending.is_some());
                self.from_client.send(&net.frame(sent), *pending).expect("the frame leaves");
            }
            for (packet, _, pending) in &batch {
                // What goes through a header is finished there and then.
                let pending = pending.is_some() && in_place;
                let expected = match disguise {
                    Disguise::Header(header) => model::funnel(packet, header),
                    Disguise::InPlace(sport, dport) => model::translate(packet, sport, dport),
                };
                let ours = |packet: &Packet| {
                    packet.protocol == through
                        && packet.is_ipv6() == expected.is_ipv6()
                        && packet.ports().1 == 80
                };
                let on_wire = next(&self.on_wire, ours);
                assert_eq!(on_wire, (expected.clone(), pending), "on the wire");
                let expected = model::nat(&expected, ends.masqueraded, ends.server);
                let behind_nat = next(&self.behind_nat, ours);
                assert_eq!(behind_nat, (expected.clone(), pending), "behind NAT");
                let mut expected = match disguise {
                    Disguise::Header(_) => model::unfunnel(&expected, protocol),
                    Disguise::InPlace(sport, dport) => {
                        model::translate(&expected, sport.wrapping_neg(), dport.wrapping_neg())
                    }
                };
                if pending {
                    expected.set_check(expected.pending_check(expected.saddr, expected.daddr));
                }
                delivered.expect(&expected);
            }
        }
        assert!(pendings > PACKETS / 4, "{pendings} checksums were pending");
    }
}

#[test]
fn encapsulated_packets_of_every_kind_cross_a_router_with_nat() {
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(20);
    let watch = Watch::new(&net);
    for ends in [IPV4, IPV6] {
        let Ends { family, service, .. } = ends;
        for (inner, through) in PAIRS {
            let name = |protocol| if protocol == TCP { "tcp" } else { "udp" };
            let (i, t) = (name(inner), name(through));
            // Each turn replaces the rules of the one before.
            let rules =
                format!("{family} daddr {service} {i} actions funnel {t} sport 540 dport 80");
            load(&net.client, "egress", &rules).unwrap_or_else(|e| panic!("{e:#}"));
            let rules = format!("{family} {t} sport 540 dport 80 actions unfunnel {i}");
            load(&net.server, "ingress", &rules).unwrap_or_else(|e| panic!("{e:#}"));
            let disguise = Disguise::Header(Funnel::new(through, 540, 80));
            watch.follow(&net, &ends, inner, disguise, || packet(&mut rng, &ends, inner));
        }
    }
}

#[test]
fn packets_translated_in_place_cross_a_router_with_nat() {
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(26);
    let watch = Watch::new(&net);
    let there = Disguise::InPlace(1024_u16.wrapping_sub(32768), 80_u16.wrapping_sub(8080));
    for ends in [IPV4, IPV6] {
        let Ends { family, service, .. } = ends;
        for protocol in [TCP, UDP] {
            let p = if protocol == TCP { "tcp" } else { "udp" };
            let (ours, funnels) = ("dport 8080 sport 32768-60999", "dport 80 sport 1024-29255");
            let rules = format!("{family} daddr {service} {p} {ours} actions funnel {p} {funnels}");
            load(&net.client, "egress", &rules).unwrap_or_else(|e| panic!("{e:#}"));
            let rules = format!(
                "{family} saddr {} {p} {funnels} actions unfunnel {p} {ours}",
                ends.masqueraded
            );
            load(&net.server, "ingress", &rules).unwrap_or_else(|e| panic!("{e:#}"));
            let make = || {
                let (mut packet, ..) = packet(&mut rng, &ends, protocol);
                let lacks_check = packet.lacks_check();
                packet.set_ports(Some(rng.random_range(32768..=60999)), Some(8080));
                if protocol == TCP {
                    // What the router takes for the start of a connection.
                    packet.segment[13] = 2;
                }
                if !lacks_check {
                    packet = packet.seal();
                }
                let (sent, pending) = as_sent(&mut rng, &packet);
                (packet, sent, pending)
            };
            watch.follow(&net, &ends, protocol, there, make);
        }
    }
}

#[test]
fn what_another_funneler_left_pending_is_repaired() {
    // The original leaves a pending checksum pending, with the real addresses in it, when its packet
    // stays on the machine. NAT has changed the addresses since.
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(21);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    load(&net.server, "ingress", "tcp sport 540 dport 80 actions unfunnel udp")
        .unwrap_or_else(|e| panic!("{e:#}"));
    let delivered = net.server.enter(|| RawSocket::open(&IPV4, UDP)).expect("a raw socket opens");
    for _ in 0..200 {
        let len = rng.random_range(0..1000);
        let packet = random::packet(&mut rng, UDP, len, Checksum::Right);
        let packet =
            Packet { saddr: IPV4.client, daddr: IPV4.service, options: Vec::new(), ..packet }
                .seal();
        let mut funnelled = model::funnel(&packet, Funnel::new(TCP, 540, 80));
        let pseudo = packet.pending_check(IPV4.client, IPV4.service);
        funnelled.segment[20 + 6..20 + 8].copy_from_slice(&pseudo.to_be_bytes());
        let frame = net.frame(&funnelled);
        from_client
            .send(&frame, Some(Pending { start: 14 + 20 + 20, offset: 6 }))
            .expect("the frame leaves");

        let arrived = Packet::read(&delivered.receive()).expect("a packet");
        // Still pending on the way up, so the field is to hold the sum of the pseudo-header, with
        // the addresses of now.
        assert_eq!(arrived.check(), arrived.pending_check(IPV4.masqueraded, IPV4.server));
        assert_eq!(arrived.segment[8..], packet.segment[8..]);
    }
}

#[test]
fn a_tagged_frame_keeps_its_tag() {
    const TAG: [u8; 4] = [0x81, 0x00, 0x20, 0x05];
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(25);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    let on_wire = net.router.enter(|| Link::open("r1")).expect("r1 opens");
    let rules = "udp actions funnel tcp sport 540 dport 80; tcp actions unfunnel udp";
    load(&net.client, "egress", rules).unwrap_or_else(|e| panic!("{e:#}"));
    let macs = net.macs;
    let tagged = |packet: &Packet| [&macs[..], &TAG, &[8, 0], &packet.write()].concat();
    for _ in 0..200 {
        let (packet, ..) = packet(&mut rng, &IPV4, UDP);
        let funnelled = model::funnel(&packet, Funnel::new(TCP, 540, 80));
        let back = model::unfunnel(&funnelled, UDP);
        for (sent, expected) in [(&packet, &funnelled), (&funnelled, &back)] {
            from_client.send(&tagged(sent), None).expect("the frame leaves");
            let arrived = loop {
                let arrived = on_wire.receive(Duration::from_secs(5)).expect("the link is there");
                let arrived = arrived.expect("the frame arrives within 5 s");
                if arrived.frame[..12] == macs {
                    break arrived.frame;
                }
            };
            assert_eq!(arrived, tagged(expected));
        }
    }
}

/// A tunnel's packet that carries one whose checksum is yet to be finished: as it is sent, and as a
/// wire would carry it. Its own checksum, if it has one, is finished (`udp_set_csum` in
/// net/ipv4/udp.c: local checksum offload).
fn tunnel_packet(net: &Net, rng: &mut StdRng, checksum: Checksum) -> (Packet, Vec<u8>, Pending) {
    let packet = random::packet(rng, UDP, 100, checksum);
    let mut packet =
        Packet { saddr: IPV4.client, daddr: IPV4.service, options: Vec::new(), ..packet };
    packet.set_ports(Some(40000), Some(4789));
    let inside = Pending { start: 14 + 20 + 8 + 30, offset: 16 };
    let unfinished = packet.segment[8..].to_vec();
    let mut frame = net.frame(&packet);
    finish(&mut frame, inside.start.into(), inside.offset.into());
    packet.segment[8..].copy_from_slice(&frame[14 + 20 + 8..]);
    if checksum == Checksum::Right {
        packet = packet.seal();
    }
    let mut sent = net.frame(&packet);
    sent[14 + 20 + 8..].copy_from_slice(&unfinished);
    (packet, sent, inside)
}

#[test]
fn a_tunnel_packet_with_an_unfinished_one_inside_gets_no_header() {
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(23);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    load(&net.client, "egress", "udp actions funnel tcp sport 540 dport 80")
        .unwrap_or_else(|e| panic!("{e:#}"));
    for n in 0..20 {
        let checksum = if n % 2 == 0 { Checksum::Missing } else { Checksum::Right };
        let (_, sent, inside) = tunnel_packet(&net, &mut rng, checksum);
        from_client.send(&sent, Some(inside)).expect("the frame leaves");
    }
    let shown = shown(&net.client);
    assert_eq!(shown["rules"][0]["packets"], 0, "{shown:#}");
    let unfinished = serde_json::json!({ "reason": "unfinished", "packets": 20 });
    assert!(shown["not_done"].as_array().expect("a list").contains(&unfinished), "{shown:#}");
}

#[test]
fn a_tunnel_packet_is_translated_in_place_whatever_is_inside() {
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(27);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    let on_wire = net.router.enter(|| Link::open("r1")).expect("r1 opens");
    let rules = "udp dport 4789 sport 32768-60999 actions funnel udp dport 80 sport 1024-29255";
    load(&net.client, "egress", rules).unwrap_or_else(|e| panic!("{e:#}"));
    for n in 0..200 {
        let checksum = if n % 2 == 0 { Checksum::Missing } else { Checksum::Right };
        let (packet, sent, inside) = tunnel_packet(&net, &mut rng, checksum);
        from_client.send(&sent, Some(inside)).expect("the frame leaves");
        let expected =
            model::translate(&packet, 1024_u16.wrapping_sub(32768), 80_u16.wrapping_sub(4789));
        let (arrived, pending) = next(&on_wire, |packet| packet.protocol == UDP);
        assert_eq!((arrived, pending), (expected, true));
    }
}

#[test]
fn a_frame_that_the_kernel_takes_for_another_family_is_left_alone() {
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(28);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    let on_wire = net.router.enter(|| Link::open("r1")).expect("r1 opens");
    load(&net.client, "egress", "udp actions funnel tcp sport 540 dport 80")
        .unwrap_or_else(|e| panic!("{e:#}"));
    for n in 0..20 {
        let (ends, taken_for) =
            if n % 2 == 0 { (IPV4, libc::ETH_P_IPV6) } else { (IPV6, libc::ETH_P_IP) };
        let (packet, ..) = packet(&mut rng, &ends, UDP);
        let frame = net.frame(&packet);
        from_client.send_as(&frame, None, taken_for as u16).expect("the frame leaves");
        let (arrived, _) = next(&on_wire, |packet| [TCP, UDP].contains(&packet.protocol));
        assert_eq!(arrived, packet);
    }
    let shown = shown(&net.client);
    let refused = serde_json::json!({ "reason": "helper-error", "packets": 20 });
    assert!(shown["not_done"].as_array().expect("a list").contains(&refused), "{shown:#}");
}

#[test]
fn no_packet_grows_beyond_64_kib() {
    let netns = Netns::new("lo").unwrap_or_else(|e| panic!("{e:#}"));
    let rules = "udp actions funnel tcp sport 540 dport 80";
    let mut loader = netns.command(binary::loader());
    loader.args(["--ifaces", "lo", "--direction", "egress", "--ruleset", rules]);
    loader.checked().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(29);
    let lo = netns.enter(|| Link::open("lo")).expect("lo opens");
    // 19 less than the most that an IPv4 packet may have. The kernel itself makes no room in packets
    // of this size, and one byte less is up to it.
    for (len, reason) in [(65_516 - 28, "no-room"), (65_515 - 28, "helper-error")] {
        let packet = random::packet(&mut rng, UDP, len, Checksum::Right);
        let packet = Packet { options: Vec::new(), ..packet };
        let frame = [&[0; 12], &[8, 0][..], &packet.write()].concat();
        lo.send(&frame, None).expect("the frame leaves");
        let shown = shown(&netns);
        assert_eq!(shown["rules"][0]["packets"], 0, "{shown:#}");
        let counted = serde_json::json!({ "reason": reason, "packets": 1 });
        assert!(shown["not_done"].as_array().expect("a list").contains(&counted), "{shown:#}");
    }
}

/// What `show` says of the one ruleset that is attached.
fn shown(netns: &Netns) -> serde_json::Value {
    let shown = netns.command(binary::loader()).args(["show", "--json"]).checked();
    let shown = shown.unwrap_or_else(|e| panic!("{e:#}"));
    let mut shown: Vec<serde_json::Value> = serde_json::from_str(&shown).expect("JSON");
    shown.retain(|attached| attached["for"] == "packets");
    assert_eq!(shown.len(), 1, "{shown:#?}");
    shown.remove(0)
}

#[test]
fn what_looks_funnelled_but_is_the_machines_own_is_left_alone() {
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(24);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    load(&net.client, "egress", "udp sport 540 dport 80 actions unfunnel tcp")
        .unwrap_or_else(|e| panic!("{e:#}"));
    for _ in 0..20 {
        let (packet, ..) = packet(&mut rng, &IPV4, TCP);
        let packet = Packet { options: Vec::new(), ..packet }.seal();
        let mut lookalike = model::funnel(&packet, Funnel::new(UDP, 540, 80));
        lookalike.set_check(lookalike.pending_check(IPV4.client, IPV4.service));
        let frame = net.frame(&lookalike);
        let pending = Pending { start: 14 + 20, offset: 6 };
        from_client.send(&frame, Some(pending)).expect("the frame leaves");
    }
    let shown = shown(&net.client);
    assert_eq!(shown["rules"][0]["packets"], 0, "{shown:#}");
    let left = serde_json::json!({ "reason": "not-funnelled", "packets": 20 });
    assert!(shown["not_done"].as_array().expect("a list").contains(&left), "{shown:#}");
}

#[test]
fn a_device_without_ethernet_headers() {
    let netns = Netns::new("tun").unwrap_or_else(|e| panic!("{e:#}"));
    netns.sysctl(&[("net.ipv4.conf.all.rp_filter", "0")]).expect("rp_filter");
    netns.run("ip tuntap add dev tun0 mode tun").unwrap_or_else(|e| panic!("{e:#}"));
    let tun = netns.enter(|| open_tun("tun0")).unwrap_or_else(|e| panic!("{e:#}"));
    netns.run("ip addr add 10.3.0.1/24 dev tun0").expect("an address");
    netns.run("ip link set tun0 up").expect("up");
    let rules = "ip daddr 10.3.0.2 udp actions funnel tcp sport 540 dport 80";
    load(&netns, "egress", rules).unwrap_or_else(|e| panic!("{e:#}"));
    let rules = "tcp sport 540 dport 80 actions unfunnel udp";
    load(&netns, "ingress", rules).unwrap_or_else(|e| panic!("{e:#}"));

    netns.enter(|| {
        let socket = std::net::UdpSocket::bind("10.3.0.1:5000").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        for len in [0_usize, 1, 30, 31, 500, 1400] {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            socket.send_to(&payload, "10.3.0.2:53").expect("the datagram leaves");
            let out = loop {
                let mut bytes = vec![0; 2048];
                let len = nix::unistd::read(&tun, &mut bytes).expect("a packet leaves");
                let packet = Packet::read(&bytes[..len]);
                // The kernel may say something of its own.
                if let Ok(packet) = packet
                    && packet.protocol == TCP
                {
                    break packet;
                }
            };
            assert_eq!(out.ports(), (540, 80));
            assert!(out.check_is_right(), "the funnel header's checksum");
            let inner =
                Packet { protocol: UDP, segment: out.segment[20..].to_vec(), ..out.clone() };
            let zero = Ipv4Addr::UNSPECIFIED.into();
            assert_eq!(inner.check(), inner.right_check(zero, zero));
            assert_eq!(inner.ports(), (5000, 53));
            assert_eq!(inner.segment[8..], payload);

            // And back: the same with the ends exchanged.
            let mut segment = inner.segment.clone();
            segment[..4].copy_from_slice(&[0, 53, 0x13, 0x88]);
            let answer = Packet { saddr: out.daddr, daddr: out.saddr, segment, ..inner }.seal();
            let answer = model::funnel(&answer, Funnel::new(TCP, 540, 80));
            nix::unistd::write(&tun, &answer.write()).expect("a packet arrives");
            let mut bytes = [0; 2048];
            let (len, from) = socket.recv_from(&mut bytes).expect("the answer is delivered");
            assert_eq!(from.to_string(), "10.3.0.2:53");
            assert_eq!(bytes[..len], payload);
        }
    });
}

fn open_tun(name: &str) -> Result<OwnedFd> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: zero is a value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the request is one, and outlives the call.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if rc < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(file.into())
}

#[test]
fn truncated_frames_on_a_real_interface() {
    // BPF_PROG_TEST_RUN refuses the shortest; an interface does not.
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(22);
    let rules = "udp actions funnel tcp sport 540 dport 80; tcp actions unfunnel udp";
    load(&net.client, "egress", rules).unwrap_or_else(|e| panic!("{e:#}"));
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    let on_wire = net.router.enter(|| Link::open("r1")).expect("r1 opens");
    let packet = random::packet(&mut rng, UDP, 20, Checksum::Right);
    let frame = net.frame(&packet);
    for len in 14..frame.len() {
        from_client.send(&frame[..len], None).expect("the frame leaves");
        let arrived = loop {
            let arrived = on_wire.receive(Duration::from_secs(5)).expect("the link is there");
            let arrived = arrived.expect("the frame arrives within 5 s");
            if arrived.frame[..12] == frame[..12] {
                break arrived.frame;
            }
        };
        assert_eq!(arrived, frame[..len]);
    }
    let shown = shown(&net.client);
    let reasons = shown["not_done"].as_array().expect("a list");
    let counted: u64 = reasons.iter().filter_map(|reason| reason["packets"].as_u64()).sum();
    assert_eq!(counted, (frame.len() - 14) as u64, "{shown:#}");
    assert_eq!(shown["rules"][0]["packets"], 0);
}
