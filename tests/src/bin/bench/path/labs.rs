//! Client, router and server, each time with other rules.

use anyhow::{Result, ensure};
use loader::netlink::Netlink;
use loader::ours::Subject;
use loader::show::show;
use tests::lab::{Lab, address, load};
use tests::netns::Netns;

/// Where servers listen. This port is funnelled.
pub const PORT: u16 = 8080;

/// Nothing is funnelled.
pub fn direct() -> Result<Lab> {
    Lab::new()
}

/// From now on connections use the congestion control that every kernel has, and that sends as fast
/// as the way is. What a machine is set to may pace (BBR), and hide what the way costs.
pub fn do_not_pace(lab: &Lab) -> Result<()> {
    for netns in [&lab.client, &lab.server] {
        netns.sysctl(&[("net.ipv4.tcp_congestion_control", "reno")])?;
    }
    Ok(())
}

/// Nothing is funnelled, but TCP sends segment by segment, as where it is encapsulated.
pub fn direct_by_segment() -> Result<Lab> {
    let lab = direct()?;
    lab.client.run("ip link set dev c0 gso_max_segs 1")?;
    lab.server.run("ip link set dev s0 gso_max_segs 1")?;
    Ok(lab)
}

/// TCP is funnelled in place: its ports are translated.
pub fn in_place() -> Result<Lab> {
    funnelled(
        "tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255",
        "tcp dport 80 sport 1024-29255 actions unfunnel tcp dport 8080 sport 32768-60999",
        "tcp sport 8080 dport 32768-60999 actions funnel tcp sport 80 dport 1024-29255",
        "tcp sport 80 dport 1024-29255 actions unfunnel tcp sport 8080 dport 32768-60999",
    )
}

/// TCP gets a TCP header in front.
pub fn tcp_in_tcp() -> Result<Lab> {
    funnelled(
        "tcp dport 8080 actions funnel tcp dport 80 sport 540",
        "tcp dport 80 sport 540 actions unfunnel tcp",
        "tcp sport 8080 actions funnel tcp sport 80 dport 540",
        "tcp sport 80 dport 540 actions unfunnel tcp",
    )
}

/// UDP to the server gets a TCP header in front.
pub fn udp_in_tcp() -> Result<Lab> {
    funnelled(
        "udp dport 8080 actions funnel tcp dport 80 sport 540",
        "tcp dport 80 sport 540 actions unfunnel udp",
        "",
        "",
    )
}

/// Loads a rule at the client and one at the server for what goes there, and for what comes back.
fn funnelled(funnel: &str, unfunnel: &str, back: &str, unfunnel_back: &str) -> Result<Lab> {
    let (client, server) = (address::CLIENT, address::SERVER);
    let rule = |peer, matches: &str| match matches {
        "" => String::new(),
        matches => format!("ip {peer} {matches}"),
    };
    let lab = direct()?;
    load(
        &lab.client,
        &rule(format!("saddr {server}"), unfunnel_back),
        &rule(format!("daddr {server}"), funnel),
    )?;
    load(
        &lab.server,
        &rule(format!("saddr {client}"), unfunnel),
        &rule(format!("daddr {client}"), back),
    )?;
    Ok(lab)
}

/// Makes sure that the rules of a lab have been carried out, so that what was measured is not the
/// direct way once more.
pub fn ensure_funnelled(lab: &Lab) -> Result<()> {
    for netns in [&lab.client, &lab.server] {
        ensure_carried_out(netns)?;
    }
    Ok(())
}

/// Every rule in `netns` has had packets, and was carried out on all of them.
fn ensure_carried_out(netns: &Netns) -> Result<()> {
    let attached = netns.enter(|| -> Result<_> {
        let mut netlink = Netlink::open()?;
        let interfaces = netlink.interfaces()?;
        Ok(show(&mut netlink, &interfaces)?)
    })?;
    ensure!(!attached.is_empty(), "no rules are attached in {}", netns.name());
    // There are no ICMP errors here.
    for place in attached.into_iter().filter(|place| place.subject == Subject::Packets) {
        let not_done = place.not_done.iter().any(|not_done| not_done.packets > 0);
        ensure!(
            place.rules.iter().all(|rule| rule.packets > 0) && !not_done,
            "not everything was funnelled in {}:\n{place}",
            netns.name()
        );
    }
    Ok(())
}
