//! A lab with rules at both ends, and the evidence that traffic took the funnel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use abi::Family;
use anyhow::{Context as _, Result, ensure};
use socket2::SockRef;
use tests::lab::{Lab, address, load, show};
use tests::netns::Netns;
use tests::transfer::{Connection, listen};

use crate::rules::{Mode, PORT, Rules};
use crate::watch;

/// Waits until no other test that needs the whole machine runs, and holds them up.
pub fn whole_machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed has left nothing behind.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Client and server with port 8080 funnelled between them.
pub struct Funnelled {
    pub lab: Lab,
    /// What the client calls the server.
    pub server: IpAddr,
}

impl Funnelled {
    /// Both ends know each other by their own addresses.
    pub fn new(lab: Lab, mode: Mode, family: Family) -> Result<Self> {
        Self::known_as(lab, mode, address::client(family), address::server(family))
    }

    /// The server knows the client as `client`, and the client the server as `server`.
    pub fn known_as(lab: Lab, mode: Mode, client: IpAddr, server: IpAddr) -> Result<Self> {
        let rules = Rules::client(mode, server, PORT);
        load(&lab.client, &rules.ingress, &rules.egress)?;
        let rules = Rules::server(mode, client, PORT);
        load(&lab.server, &rules.ingress, &rules.egress)?;
        watch::watch(&lab.router)?;
        Ok(Self { lab, server })
    }

    /// The address of the family that stands for all.
    pub fn any(&self) -> IpAddr {
        match self.server {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The server's socket for funnelled connections.
    pub fn listen(&self) -> Result<TcpListener> {
        listen(&self.lab.server, (self.any(), PORT).into())
    }

    /// A connection from the client to `listener`.
    pub fn connect(&self, listener: &TcpListener) -> Result<Connection> {
        let server = SocketAddr::new(self.server, PORT);
        Connection::open(&self.lab.client, server, listener)
    }

    /// Makes sure that all four rules have had their part in what passed, which were `bytes` at
    /// least; that the network has seen no packet as it is behind the funnel; and that none was left
    /// alone for another reason than those `expected`.
    pub fn check(&self, bytes: u64, expected: &[&str]) -> Result<()> {
        let bare = watch::bare(&self.lab.router)?;
        ensure!(bare.packets == 0, "not funnelled on the wire: {bare:?}");
        let funnelled = watch::funnelled(&self.lab.router)?;
        ensure!(funnelled.bytes >= bytes, "funnelled on the wire: {funnelled:?} of {bytes}");
        for netns in [&self.lab.client, &self.lab.server] {
            let counted = Counted::of(netns)?;
            let name = netns.name();
            ensure!(counted.rules.len() == 2, "{name}: {counted:?}");
            ensure!(counted.rules.iter().all(|&(packets, _)| packets > 0), "{name}: {counted:?}");
            let through: u64 = counted.rules.iter().map(|&(_, bytes)| bytes).sum();
            ensure!(through >= bytes, "{name}: {counted:?} of {bytes}");
            let refused =
                counted.not_done.keys().find(|reason| !expected.contains(&reason.as_str()));
            ensure!(refused.is_none(), "{name}: {counted:?}");
        }
        Ok(())
    }
}

/// Bytes of payload that the kernel puts in a segment of this connection, at the most.
pub fn max_segment(stream: &TcpStream) -> Result<usize> {
    Ok(SockRef::from(stream).tcp_mss()? as usize)
}

/// What the programs in a namespace have counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted {
    /// Packets and bytes of every rule for packets: those of ingress, then those of egress.
    pub rules: Vec<(u64, u64)>,
    /// Packets for every reason that was met.
    pub not_done: BTreeMap<String, u64>,
}

impl Counted {
    pub fn of(netns: &Netns) -> Result<Self> {
        let mut counted = Self { rules: Vec::new(), not_done: BTreeMap::new() };
        for attached in show(netns)? {
            let number = |object: &serde_json::Value, field: &str| {
                object[field].as_u64().with_context(|| format!("no {field} in {attached:#}"))
            };
            let list = |field: &str| {
                attached[field].as_array().with_context(|| format!("no {field} in {attached:#}"))
            };
            if attached["for"] == "packets" {
                for rule in list("rules")? {
                    counted.rules.push((number(rule, "packets")?, number(rule, "bytes")?));
                }
            }
            for not_done in list("not_done")? {
                let packets = number(not_done, "packets")?;
                if packets > 0 {
                    let reason = not_done["reason"].as_str().context("a reason without name")?;
                    *counted.not_done.entry(reason.to_owned()).or_default() += packets;
                }
            }
        }
        Ok(counted)
    }
}
