//! A file of 1 GiB through every mode in both directions, with nothing configured by hand; on a way
//! where every link has an MTU of 1500, and on one with a narrower link in the middle.

use abi::Family;
use anyhow::{Context as _, Result};
use tests::effort::part_of;
use tests::lab::{Lab, families};
use tests::transfer::{Direction, transfer};

use crate::funnel::{Funnelled, max_segment, whole_machine};
use crate::rules::Mode;

const FILE: u64 = 1 << 30;

/// Sends the file in each direction and family, on a way of its own whose narrowest link has this
/// `mtu`.
fn arrives(mode: Mode, mtu: usize, lab: fn() -> Result<Lab>) -> Result<()> {
    let file = part_of(FILE);
    for (number, direction) in Direction::BOTH.into_iter().enumerate() {
        for family in families(number) {
            let case = format!("{mode} {family:?} {direction:?}, MTU {mtu}");
            let _alone = whole_machine();
            let net = Funnelled::new(lab()?, mode, family)?;
            let connection = net.connect(&net.listen()?)?;
            let (from, to) = connection.ends(direction);
            let transfer =
                transfer((from, to), number as u64, |sent| sent < file).context(case.clone())?;
            eprintln!("{case}: {transfer}");
            assert!(transfer.bytes >= file, "{case}");
            assert_eq!(max_segment(from)?, payload(mtu, mode, family), "{case}");
            net.check(file, &[]).context(case)?;
        }
    }
    Ok(())
}

/// Bytes of payload in a full segment: of the MTU, what the headers leave.
fn payload(mtu: usize, mode: Mode, family: Family) -> usize {
    let ip = match family {
        Family::Ip => 20,
        Family::Ip6 => 40,
    };
    // 12 bytes of options: Linux sends timestamps (RFC 7323).
    mtu - ip - mode.header_len() - 20 - 12
}

#[test]
fn in_place() -> Result<()> {
    arrives(Mode::TCP_IN_PLACE, 1500, Lab::new)
}

#[test]
fn tcp_in_tcp() -> Result<()> {
    arrives(Mode::TCP_IN_TCP, 1500, Lab::new)
}

#[test]
fn tcp_in_udp() -> Result<()> {
    arrives(Mode::TCP_IN_UDP, 1500, Lab::new)
}

fn narrow() -> Result<Lab> {
    Lab::with_narrow_link(1400)
}

#[test]
fn in_place_over_a_narrow_link() -> Result<()> {
    arrives(Mode::TCP_IN_PLACE, 1400, narrow)
}

#[test]
fn tcp_in_tcp_over_a_narrow_link() -> Result<()> {
    arrives(Mode::TCP_IN_TCP, 1400, narrow)
}

#[test]
fn tcp_in_udp_over_a_narrow_link() -> Result<()> {
    arrives(Mode::TCP_IN_UDP, 1400, narrow)
}

/// IPv6 packets of more than 64 KiB name their length in a hop-by-hop header until they are
/// segmented (BIG TCP, Linux 5.19).
#[test]
fn packets_of_more_than_64_kib_in_place() -> Result<()> {
    let lab = Lab::new()?;
    for (netns, interface) in
        [(&lab.client, "c0"), (&lab.router, "r1"), (&lab.router, "r2"), (&lab.server, "s0")]
    {
        netns
            .run(&format!("ip link set dev {interface} gso_max_size 150000 gro_max_size 150000"))?;
    }
    let _alone = whole_machine();
    let net = Funnelled::new(lab, Mode::TCP_IN_PLACE, Family::Ip6)?;
    let connection = net.connect(&net.listen()?)?;
    let ends = connection.ends(Direction::BOTH[0]);
    let file = part_of(FILE);
    let transfer = transfer(ends, 9, |sent| sent < file)?;
    eprintln!("packets of up to 150,000 bytes in place: {transfer}");
    net.check(file, &[])
}
