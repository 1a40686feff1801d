//! Client, router, server: namespaces in a line, both families, everything at its default.

use std::net::IpAddr;
use std::process::Command;

use abi::Family;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::binary;
use crate::effort::part_of;
use crate::netns::{Netns, run};

/// Addresses in a [`Lab`]. The router has `.1` and `::1` on the links to both.
pub mod address {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use abi::Family;

    /// The client's, on its interface `c0`.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
    /// The server's, on its interface `s0`.
    pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
    /// The client's in IPv6.
    pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xFD01, 0, 0, 0, 0, 0, 0, 2);
    /// The server's in IPv6.
    pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0xFD02, 0, 0, 0, 0, 0, 0, 2);

    /// The client's of this family.
    pub const fn client(family: Family) -> IpAddr {
        match family {
            Family::Ip => IpAddr::V4(CLIENT),
            Family::Ip6 => IpAddr::V6(CLIENT6),
        }
    }

    /// The server's of this family.
    pub const fn server(family: Family) -> IpAddr {
        match family {
            Family::Ip => IpAddr::V4(SERVER),
            Family::Ip6 => IpAddr::V6(SERVER6),
        }
    }
}

/// The namespaces. They are deleted with this value.
#[derive(Debug)]
pub struct Lab {
    /// Has `c0`.
    pub client: Netns,
    /// Has `r1` to the client and forwards; `r2` to the server, or `m1` to `far_router`.
    pub router: Netns,
    /// Where there are two: the one with `m2` to `router` and `r2` to the server.
    pub far_router: Option<Netns>,
    /// Has `s0`.
    pub server: Netns,
}

impl Lab {
    /// One router, and an MTU of 1500 everywhere.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn new() -> Result<Self> {
        let lab = Self {
            client: host("client")?,
            router: router("router")?,
            far_router: None,
            server: host("server")?,
        };
        link(&lab.client, "c0", &lab.router, "r1", 1)?;
        link(&lab.server, "s0", &lab.router, "r2", 2)?;
        Ok(lab)
    }

    /// Two routers, and between them a link of this MTU in bytes. On both sides of them it is 1500:
    /// a host learns of the narrow link by ICMP errors alone.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn with_narrow_link(mtu: u32) -> Result<Self> {
        let (near, far) = (router("router")?, router("far-router")?);
        let (client, server) = (host("client")?, host("server")?);
        link(&client, "c0", &near, "r1", 1)?;
        link(&server, "s0", &far, "r2", 2)?;
        join(&near, "m1", &far, "m2", 3)?;
        for (router, interface) in [(&near, "m1"), (&far, "m2")] {
            router.run(&format!("ip link set {interface} mtu {mtu}"))?;
        }
        near.run("ip route add 10.2.0.0/24 via 10.3.0.1")?;
        near.run("ip -6 route add fd02::/64 via fd03::1")?;
        far.run("ip route add 10.1.0.0/24 via 10.3.0.2")?;
        far.run("ip -6 route add fd01::/64 via fd03::2")?;
        Ok(Self { client, router: near, far_router: Some(far), server })
    }
}

fn host(role: &str) -> Result<Netns> {
    let netns = Netns::new(role)?;
    // No two have the same address here; there is no need to wait and find out.
    netns.sysctl(&[("net.ipv6.conf.default.accept_dad", "0")])?;
    Ok(netns)
}

fn router(role: &str) -> Result<Netns> {
    let netns = host(role)?;
    netns.sysctl(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    Ok(netns)
}

/// Connects `host` to `router`, its way to everywhere, by network `number`.
fn link(host: &Netns, interface: &str, router: &Netns, routers: &str, number: u8) -> Result<()> {
    join(host, interface, router, routers, number)?;
    host.run(&format!("ip route add default via 10.{number}.0.1"))?;
    host.run(&format!("ip -6 route add default via fd0{number}::1"))?;
    Ok(())
}

/// Connects two namespaces by network `number`, where `b` has the first address and `a` the second.
fn join(a: &Netns, as_own: &str, b: &Netns, bs_own: &str, number: u8) -> Result<()> {
    let (an, bn) = (a.name(), b.name());
    let line = format!("link add {as_own} netns {an} type veth peer name {bs_own} netns {bn}");
    run("ip", &line.split_whitespace().collect::<Vec<_>>())?;
    for (netns, interface, last) in [(a, as_own, 2), (b, bs_own, 1)] {
        netns.run(&format!("ip addr add 10.{number}.0.{last}/24 dev {interface}"))?;
        netns.run(&format!("ip addr add fd0{number}::{last}/64 dev {interface}"))?;
        netns.run(&format!("ip link set {interface} up"))?;
    }
    Ok(())
}

/// Runs the loader in `netns` with these rulesets, an empty one meaning none. Returns what it says.
///
/// # Errors
///
/// What the loader says if it fails.
pub fn load(netns: &Netns, ingress: &str, egress: &str) -> Result<String> {
    let mut loader = Command::new(binary::loader());
    loader.args(["--attempts", "1"]);
    for (flag, rules) in [("--ruleset", ingress), ("--egress-ruleset", egress)] {
        if !rules.is_empty() {
            loader.args([flag, rules]);
        }
    }
    let output = netns.enter(|| loader.output()).context("can't run the loader")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "the loader failed: {said}");
    Ok(said)
}

/// What `sfunnel-loader show --json` says in `netns`: one object for each attached program.
///
/// # Errors
///
/// What the loader says if it fails.
pub fn show(netns: &Netns) -> Result<Vec<Value>> {
    let text = netns.checked(Command::new(binary::loader()).args(["show", "--json"]))?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

/// `ip` or `ip6`, as rules and nftables call the family of `address`.
pub const fn family_name(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

/// Both.
pub const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];

/// The families that case `number` of a test is for: both, or where only a part of each test is done
/// ([`part_of`]), one in turn.
pub fn families(number: usize) -> impl Iterator<Item = Family> {
    FAMILIES.into_iter().cycle().skip(number % 2).take(part_of(2) as usize)
}
