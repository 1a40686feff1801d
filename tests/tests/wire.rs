//! The loader and the program in real namespaces: client, router with NAT, server.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use rand::Rng as _;
use rand::rngs::StdRng;
use tests::binary;
use tests::link::{Link, Pending};
use tests::model::{self, Funnel, Packet, TCP, UDP};
use tests::netns::{Checked as _, End, Netns, connect};
use tests::random::{self, Checksum, PAIRS};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// What the router shows the server in place of the client.
const MASQUERADED: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// Client and server with a router between them that translates addresses.
struct Net {
    client: Netns,
    router: Netns,
    server: Netns,
}

impl Net {
    fn new() -> Result<Self> {
        let net = Self {
            client: Netns::new("client")?,
            router: Netns::new("router")?,
            server: Netns::new("server")?,
        };
        connect(
            End::new(&net.client, "c0", "10.1.0.2/24", "02:00:00:00:01:02"),
            End::new(&net.router, "r1", "10.1.0.1/24", "02:00:00:00:01:01"),
        )?;
        connect(
            End::new(&net.router, "r2", "10.2.0.1/24", "02:00:00:00:02:01"),
            End::new(&net.server, "s0", "10.2.0.2/24", "02:00:00:00:02:02"),
        )?;
        // The largest payload, 40 bytes of options on both layers, and the funnel header.
        for (netns, interface) in
            [(&net.client, "c0"), (&net.router, "r1"), (&net.router, "r2"), (&net.server, "s0")]
        {
            netns.run(&format!("ip link set {interface} mtu 2000"))?;
        }
        net.client.run("ip route add default via 10.1.0.1")?;
        net.server.run("ip route add default via 10.2.0.1")?;
        net.router.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        net.router.nft(&format!(
            "table ip nat {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {SERVICE} dnat to {SERVER}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    oifname r2 masquerade
                }}
            }}"
        ))?;
        // What the server thinks of the packets is of no interest.
        net.server.nft(
            "table ip quiet {
                chain output {
                    type filter hook output priority 0; policy drop;
                }
            }",
        )?;
        Ok(net)
    }
}

fn load(netns: &Netns, direction: &str, rules: &str) -> Result<String> {
    let mut loader = netns.command(binary::loader());
    loader.args(["--direction", direction, "--attempts", "1", "--ruleset", rules]);
    loader.checked()
}

/// IP packets that reach the transport layer.
struct RawSocket(OwnedFd);

impl RawSocket {
    fn open(protocol: u8) -> Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into())
        };
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

    fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let len = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())
            .unwrap_or_else(|e| panic!("a packet did not arrive within 5 s: {e}"));
        bytes.truncate(len);
        bytes
    }
}

/// A frame as the client sends it, and the packet that it means.
fn frame(rng: &mut StdRng, protocol: u8) -> (Packet, Vec<u8>, Option<Pending>) {
    let missing = protocol == UDP && rng.random_bool(0.2);
    let checksum = if missing { Checksum::Missing } else { Checksum::Right };
    let len = rng.random_range(0..=1480);
    let packet = random::packet(rng, protocol, len, checksum);
    let packet = Packet { saddr: CLIENT, daddr: SERVICE, ..packet };
    let packet = if missing { packet } else { packet.seal() };

    let mut sent = packet.clone();
    let mut pending = None;
    if !missing && rng.random() {
        // Pending: the field holds the sum of the pseudo-header, not complemented.
        sent.set_check(packet.pending_check(CLIENT, SERVICE));
        pending = Some(Pending {
            start: (14 + 20 + packet.options.len()) as u16,
            offset: if protocol == UDP { 6 } else { 16 },
        });
    }
    let frame = [&ROUTER_MAC[..], &CLIENT_MAC, &[8, 0], &sent.write()].concat();
    (packet, frame, pending)
}

/// The next frame on a link with the funnel's ports; others are the kernel's own.
fn next_funnelled(link: &Link, through: u8) -> Packet {
    loop {
        let frame = link
            .receive(Duration::from_secs(5))
            .unwrap_or_else(|e| panic!("{e}"))
            .expect("a packet arrives within 5 s");
        if frame[12..14] != [8, 0] {
            continue;
        }
        let packet = Packet::read(&frame[14..]).unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
        if packet.protocol == through && packet.ports() == (540, 80) {
            assert_eq!(frame.len(), 14 + packet.write().len(), "nothing behind the packet");
            return packet;
        }
    }
}

#[test]
fn packets_of_every_kind_cross_a_router_with_nat() {
    /// For each pair of protocols.
    const PACKETS: usize = 10_000;
    /// In flight at once, so that no queue overflows.
    const WINDOW: usize = 100;
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(20);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    let on_wire = net.router.enter(|| Link::open("r1")).expect("r1 opens");
    let behind_nat = net.server.enter(|| Link::open("s0")).expect("s0 opens");

    for (inner, through) in PAIRS {
        let name = |protocol| if protocol == TCP { "tcp" } else { "udp" };
        let (i, t) = (name(inner), name(through));
        // Each turn replaces the rules of the one before.
        let rules = format!("ip daddr {SERVICE} {i} actions funnel {t} sport 540 dport 80");
        load(&net.client, "egress", &rules).unwrap_or_else(|e| panic!("{e:#}"));
        let rules = format!("{t} sport 540 dport 80 actions unfunnel {i}");
        load(&net.server, "ingress", &rules).unwrap_or_else(|e| panic!("{e:#}"));
        let delivered = net.server.enter(|| RawSocket::open(inner)).expect("a raw socket opens");

        let mut pendings = 0;
        for _ in 0..PACKETS / WINDOW {
            let batch: Vec<_> = (0..WINDOW).map(|_| frame(&mut rng, inner)).collect();
            for (_, frame, pending) in &batch {
                pendings += usize::from(pending.is_some());
                from_client.send(frame, *pending).expect("the frame leaves");
            }
            for (packet, ..) in &batch {
                let expected = model::funnel(packet, Funnel { through, sport: 540, dport: 80 });
                assert_eq!(next_funnelled(&on_wire, through), expected, "{i} in {t} on the wire");
                let expected = model::nat(&expected, MASQUERADED, SERVER);
                assert_eq!(next_funnelled(&behind_nat, through), expected, "{i} in {t} behind NAT");
                let expected = model::unfunnel(&expected, inner);
                assert_eq!(delivered.receive(), expected.write(), "{i} in {t} delivered");
            }
        }
        eprintln!("{i} in {t}: {PACKETS} packets, {pendings} with a pending checksum");
        assert!(pendings > PACKETS / 4);
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
    let delivered = net.server.enter(|| RawSocket::open(UDP)).expect("a raw socket opens");
    for _ in 0..200 {
        let len = rng.random_range(0..1000);
        let packet = random::packet(&mut rng, UDP, len, Checksum::Right);
        let packet = Packet { saddr: CLIENT, daddr: SERVICE, options: Vec::new(), ..packet }.seal();
        let mut funnelled = model::funnel(&packet, Funnel { through: TCP, sport: 540, dport: 80 });
        let pseudo = packet.pending_check(CLIENT, SERVICE);
        funnelled.segment[20 + 6..20 + 8].copy_from_slice(&pseudo.to_be_bytes());
        let frame = [&ROUTER_MAC[..], &CLIENT_MAC, &[8, 0], &funnelled.write()].concat();
        from_client
            .send(&frame, Some(Pending { start: 14 + 20 + 20, offset: 6 }))
            .expect("the frame leaves");

        let arrived = Packet::read(&delivered.receive()).expect("a packet");
        // Still pending on the way up, so the field is to hold the sum of the pseudo-header, with
        // the addresses of now.
        assert_eq!(arrived.check(), arrived.pending_check(MASQUERADED, SERVER));
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
    let macs = [ROUTER_MAC, CLIENT_MAC].concat();
    let tagged = |packet: &Packet| [&macs, &TAG[..], &[8, 0], &packet.write()].concat();
    for _ in 0..200 {
        let (packet, ..) = frame(&mut rng, UDP);
        let funnelled = model::funnel(&packet, Funnel { through: TCP, sport: 540, dport: 80 });
        let back = model::unfunnel(&funnelled, UDP);
        for (sent, expected) in [(&packet, &funnelled), (&funnelled, &back)] {
            from_client.send(&tagged(sent), None).expect("the frame leaves");
            let arrived = loop {
                let arrived = on_wire.receive(Duration::from_secs(5)).expect("no pending checksum");
                let arrived = arrived.expect("the frame arrives within 5 s");
                if arrived[..12] == macs {
                    break arrived;
                }
            };
            assert_eq!(arrived, tagged(expected));
        }
    }
}

#[test]
fn a_tunnel_packet_with_an_unfinished_one_inside_is_left_alone() {
    // What VXLAN sends in a UDP packet without a checksum, while the kernel or the network card has
    // yet to finish the checksum of the packet inside.
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(23);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    load(&net.client, "egress", "udp actions funnel tcp sport 540 dport 80")
        .unwrap_or_else(|e| panic!("{e:#}"));
    for _ in 0..20 {
        let packet = random::packet(&mut rng, UDP, 100, Checksum::Missing);
        let packet = Packet { saddr: CLIENT, daddr: SERVICE, options: Vec::new(), ..packet };
        let frame = [&ROUTER_MAC[..], &CLIENT_MAC, &[8, 0], &packet.write()].concat();
        let inside = Pending { start: 14 + 20 + 8 + 30, offset: 16 };
        from_client.send(&frame, Some(inside)).expect("the frame leaves");
    }
    let shown = shown(&net.client);
    assert_eq!(shown["rules"][0]["packets"], 0, "{shown:#}");
    let unfinished = serde_json::json!({ "reason": "unfinished", "packets": 20 });
    assert!(shown["not_done"].as_array().expect("a list").contains(&unfinished), "{shown:#}");
}

/// What `show` says of the one hook that is attached.
fn shown(netns: &Netns) -> serde_json::Value {
    let shown = netns.command(binary::loader()).args(["show", "--json"]).checked();
    let shown = shown.unwrap_or_else(|e| panic!("{e:#}"));
    let mut shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    shown[0].take()
}

#[test]
fn what_looks_funnelled_but_is_the_machines_own_is_left_alone() {
    let net = Net::new().unwrap_or_else(|e| panic!("{e:#}"));
    let mut rng = random::rng(24);
    let from_client = net.client.enter(|| Link::open("c0")).expect("c0 opens");
    load(&net.client, "egress", "udp sport 540 dport 80 actions unfunnel tcp")
        .unwrap_or_else(|e| panic!("{e:#}"));
    for _ in 0..20 {
        let (packet, ..) = frame(&mut rng, TCP);
        let packet = Packet { options: Vec::new(), ..packet }.seal();
        let mut lookalike = model::funnel(&packet, Funnel { through: UDP, sport: 540, dport: 80 });
        lookalike.set_check(lookalike.pending_check(CLIENT, SERVICE));
        let frame = [&ROUTER_MAC[..], &CLIENT_MAC, &[8, 0], &lookalike.write()].concat();
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
            assert_eq!(
                inner.check(),
                inner.right_check(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)
            );
            assert_eq!(inner.ports(), (5000, 53));
            assert_eq!(inner.segment[8..], payload);

            // And back: the same with the ends exchanged.
            let mut segment = inner.segment.clone();
            segment[..4].copy_from_slice(&[0, 53, 0x13, 0x88]);
            let answer = Packet { saddr: out.daddr, daddr: out.saddr, segment, ..inner }.seal();
            let answer = model::funnel(&answer, Funnel { through: TCP, sport: 540, dport: 80 });
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
    let frame = [&ROUTER_MAC[..], &CLIENT_MAC, &[8, 0], &packet.write()].concat();
    for len in 14..frame.len() {
        from_client.send(&frame[..len], None).expect("the frame leaves");
        let arrived = loop {
            let arrived = on_wire.receive(Duration::from_secs(5)).expect("no pending checksum");
            let arrived = arrived.expect("the frame arrives within 5 s");
            if arrived[..12] == frame[..12] {
                break arrived;
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
