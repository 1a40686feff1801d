//! UDP that does not fit with a funnel header: the sender is told, as any router would tell it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use abi::Family;
use anyhow::{Context as _, Result, ensure};
use tests::lab::{Lab, address, families, load};

use crate::funnel::Counted;
use crate::rules::{Mode, PORT, Rules};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn the_interface_is_too_narrow() -> Result<()> {
    for (number, mode) in [Mode::UDP_IN_TCP, Mode::UDP_IN_UDP].into_iter().enumerate() {
        for family in families(number) {
            told(&Lab::new()?, mode, family, 1500, Hooks::Both)
                .with_context(|| format!("{mode} {family:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_link_on_the_way_is_too_narrow() -> Result<()> {
    let modes = [Mode::UDP_IN_PLACE, Mode::UDP_IN_TCP, Mode::UDP_IN_UDP];
    for (number, mode) in modes.into_iter().enumerate() {
        for family in families(number) {
            // With no rules for ingress the loader sees to the errors by itself.
            for hooks in [Hooks::Both, Hooks::EgressAlone] {
                told(&Lab::with_narrow_link(1400)?, mode, family, 1400, hooks)
                    .with_context(|| format!("{mode} {family:?} {hooks:?}"))?;
            }
        }
    }
    Ok(())
}

/// Where the client has rules.
#[derive(Clone, Copy, Debug)]
enum Hooks {
    Both,
    EgressAlone,
}

/// On a way whose narrowest link has this `mtu`, sends a datagram that fits no more once it has the
/// header, and then one that does.
fn told(lab: &Lab, mode: Mode, family: Family, mtu: usize, hooks: Hooks) -> Result<()> {
    let (client, server) = (address::client(family), address::server(family));
    let rules = Rules::client(mode, server, PORT);
    match hooks {
        Hooks::Both => load(&lab.client, &rules.ingress, &rules.egress)?,
        Hooks::EgressAlone => load(&lab.client, "", &rules.egress)?,
    };
    let rules = Rules::server(mode, client, PORT);
    load(&lab.server, &rules.ingress, &rules.egress)?;

    let receiver = lab.server.enter(|| UdpSocket::bind((server, PORT)))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let sender = lab.client.enter(|| Sender::connect(client, (server, PORT).into()))?;

    let headers = match family {
        Family::Ip => 20 + 8,
        Family::Ip6 => 40 + 8,
    };
    let fits = mtu - mode.header_len();
    let too_long = vec![1; fits + 1 - headers];
    // Until the answer is here, there is no harm in it.
    sender.0.send(&too_long)?;
    sender.learns(fits)?;
    let error = sender.0.send(&too_long).expect_err("a datagram that is known not to fit");
    ensure!(error.raw_os_error() == Some(libc::EMSGSIZE), "{error}");

    let longest = vec![2; fits - headers];
    ensure!(sender.0.send(&longest)? == longest.len());
    let mut bytes = vec![0; 1 << 16];
    let len = receiver.recv(&mut bytes).context("the longest that fits did not arrive")?;
    ensure!(bytes[..len] == longest, "{len} bytes arrived");

    let mut counted = Counted::of(&lab.client)?;
    let answered = counted.not_done.remove("too-big").unwrap_or(0);
    let by_the_program = mtu == 1500;
    ensure!(answered == u64::from(by_the_program), "{answered} answered; {counted:?}");
    ensure!(counted.not_done.is_empty(), "{counted:?}");
    Ok(())
}

/// A connected socket that lets nobody fragment its datagrams.
struct Sender(UdpSocket);

impl Sender {
    fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let sender = Self(UdpSocket::bind((from, 0))?);
        let (level, name, value) = match from {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
        };
        // SAFETY: the value is one, of that size.
        let rc = unsafe {
            libc::setsockopt(
                sender.0.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of_val(&value) as u32,
            )
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        sender.0.connect(to)?;
        Ok(sender)
    }

    /// Waits until the socket has got an error that says so, and knows the path's MTU.
    fn learns(&self, expected: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            if let Some(error) = self.0.take_error()? {
                break error;
            }
            ensure!(Instant::now() < deadline, "no error within {PATIENCE:?}; MTU {}", self.mtu()?);
            std::thread::sleep(Duration::from_millis(1));
        };
        ensure!(error.raw_os_error() == Some(libc::EMSGSIZE), "{error}");
        ensure!(self.mtu()? == expected, "MTU {} and not {expected}", self.mtu()?);
        Ok(())
    }

    /// What the kernel takes for the path's MTU, in bytes.
    fn mtu(&self) -> io::Result<usize> {
        let (level, name) = match self.0.local_addr()? {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        let (mut value, mut len) = (0_i32, size_of::<i32>() as u32);
        let fd = self.0.as_fd().as_raw_fd();
        // SAFETY: the value is one, of that size.
        let rc =
            unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(value as usize) }
    }
}
