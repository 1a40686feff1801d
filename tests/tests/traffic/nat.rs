//! A Service on the way: its address and port 80 are translated to the server's, the client's address
//! to the router's. Nothing but the funnel brings port 8080 there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use abi::Family;
use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tests::effort::part_of;
use tests::lab::{Lab, address, families};
use tests::transfer::{Connection, Direction, PATIENCE, listen, transfer};

use crate::funnel::Funnelled;
use crate::rules::{FUNNEL_PORT, Mode, PORT};
use crate::watch::counter;

const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVICE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1);
/// What the router shows the server in place of the client.
const MASQUERADED: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const MASQUERADED6: Ipv6Addr = Ipv6Addr::new(0xFD02, 0, 0, 0, 0, 0, 0, 1);

/// Bytes over each connection in each direction.
const LEN: u64 = 16 << 20;

#[test]
fn tcp() -> Result<()> {
    for (number, mode) in
        [Mode::TCP_IN_TCP, Mode::TCP_IN_PLACE, Mode::TCP_IN_UDP].into_iter().enumerate()
    {
        for family in families(number) {
            connections(mode, family).with_context(|| format!("{mode} {family:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn udp() -> Result<()> {
    for (number, mode) in
        [Mode::UDP_IN_PLACE, Mode::UDP_IN_TCP, Mode::UDP_IN_UDP].into_iter().enumerate()
    {
        for family in families(number) {
            datagrams(mode, family).with_context(|| format!("{mode} {family:?}"))?;
        }
    }
    Ok(())
}

/// A connection to port 80, and at the same time one to port 8080.
fn connections(mode: Mode, family: Family) -> Result<()> {
    let net = service(mode, family)?;
    let any = SocketAddr::new(net.any(), FUNNEL_PORT);
    let direct = listen(&net.lab.server, any)?;
    let to = SocketAddr::new(net.server, FUNNEL_PORT);
    let direct = Connection::open(&net.lab.client, to, &direct)?;
    let funnelled = net.connect(&net.listen()?)?;
    let len = part_of(LEN);
    let both_ways = |connection: &Connection, seed| -> Result<()> {
        for direction in Direction::BOTH {
            let transfer = transfer(connection.ends(direction), seed, |sent| sent < len)?;
            ensure!(transfer.bytes >= len, "{transfer:?}");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let direct = scope.spawn(|| both_ways(&direct, 1).context("direct"));
        both_ways(&funnelled, 2).context("funnelled")?;
        direct.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    net.check(2 * len, &[])?;
    tracked(&net, mode, 2 * len)
}

/// Datagrams to port 80 and to port 8080 in turn, and their answers.
fn datagrams(mode: Mode, family: Family) -> Result<()> {
    const ROUNDS: u64 = 200;
    let net = service(mode, family)?;
    let mut rng = StdRng::seed_from_u64(3);
    let sockets = |port| -> Result<(UdpSocket, UdpSocket)> {
        let server = net.lab.server.enter(|| UdpSocket::bind((net.any(), port)))?;
        let client = net.lab.client.enter(|| UdpSocket::bind((net.any(), 0)))?;
        client.connect((net.server, port))?;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        Ok((client, server))
    };
    let pairs = [(FUNNEL_PORT, sockets(FUNNEL_PORT)?), (PORT, sockets(PORT)?)];
    let mut sent = 0;
    let mut arrived = vec![0; 1 << 16];
    for round in 0..part_of(ROUNDS).max(20) {
        for (port, (client, server)) in &pairs {
            let len = rng.random_range(0..=1400);
            let mut datagram = vec![0; len];
            rng.fill_bytes(&mut datagram);
            client.send(&datagram)?;
            sent += u64::from(*port == PORT) * 2 * len as u64;
            let (len, from) = server.recv_from(&mut arrived).context("a datagram")?;
            ensure!(arrived[..len] == datagram, "round {round}");
            datagram.reverse();
            server.send_to(&datagram, from)?;
            let len = client.recv(&mut arrived).context("an answer")?;
            ensure!(arrived[..len] == datagram, "round {round}");
        }
    }
    net.check(sent, &[])?;
    tracked(&net, mode, sent)
}

/// Client, router and server, and what the router makes of them.
fn service(mode: Mode, family: Family) -> Result<Funnelled> {
    let lab = Lab::new()?;
    let (server, server6) = (address::SERVER, address::SERVER6);
    lab.router.nft(&format!(
        "table inet nat {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                ip daddr {SERVICE} meta l4proto {{ tcp, udp }} th dport {FUNNEL_PORT} dnat ip to {server}
                ip6 daddr {SERVICE6} meta l4proto {{ tcp, udp }} th dport {FUNNEL_PORT} dnat ip6 to {server6}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oifname r2 masquerade
            }}
        }}
        table inet track {{
            counter invalid {{}}
            counter established {{}}
            counter assured {{}}
            chain forward {{
                type filter hook forward priority filter
                ct state invalid counter name invalid
                meta l4proto {{ tcp, udp }} th sport 1024-29255 th dport {FUNNEL_PORT} jump shifted
                meta l4proto {{ tcp, udp }} th dport 1024-29255 th sport {FUNNEL_PORT} jump shifted
            }}
            chain shifted {{
                ct state established counter name established
                ct status assured counter name assured
            }}
        }}"
    ))?;
    let (client, service): (IpAddr, IpAddr) = match family {
        Family::Ip => (MASQUERADED.into(), SERVICE.into()),
        Family::Ip6 => (MASQUERADED6.into(), SERVICE6.into()),
    };
    Funnelled::known_as(lab, mode, client, service)
}

/// Makes sure that the router has made sense of every packet; and in place, that it has taken what it
/// saw, so many bytes of payload, for an ordinary flow.
fn tracked(net: &Funnelled, mode: Mode, bytes: u64) -> Result<()> {
    let counter = |name| counter(&net.lab.router, "track", name);
    let invalid = counter("invalid")?;
    ensure!(invalid.packets == 0, "invalid: {invalid:?}");
    if mode.in_place {
        // TCP is assured once its handshake is complete, UDP when it has lasted two seconds.
        let name = if mode.inner == "tcp" { "assured" } else { "established" };
        let count = counter(name)?;
        ensure!(count.packets > 0 && count.bytes >= bytes, "{name}: {count:?}");
    }
    Ok(())
}
