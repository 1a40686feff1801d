//! Rules that funnel a port of a server through its port 80, for both hooks of both ends.

use std::fmt;
use std::net::IpAddr;

use tests::lab::family_name;

/// What the client asks for, and the server listens on.
pub const PORT: u16 = 8080;
/// Where two are needed.
pub const OTHER_PORT: u16 = 8443;
/// What the network sees in its place.
pub const FUNNEL_PORT: u16 = 80;
/// What the network sees in place of the client's port, where a header is pushed.
pub const FUNNEL_SPORT: u16 = 540;
/// Linux's ephemeral ports (`net.ipv4.ip_local_port_range`), and what they become in place.
const EPHEMERAL: &str = "32768-60999";
const SHIFTED: &str = "1024-29255";

/// How a protocol is funnelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// What the ends speak: `tcp` or `udp`.
    pub inner: &'static str,
    /// What the network sees.
    pub outer: &'static str,
    /// Without a header.
    pub in_place: bool,
}

impl Mode {
    pub const TCP_IN_PLACE: Self = Self { inner: "tcp", outer: "tcp", in_place: true };
    pub const TCP_IN_TCP: Self = Self { inner: "tcp", outer: "tcp", in_place: false };
    pub const TCP_IN_UDP: Self = Self { inner: "tcp", outer: "udp", in_place: false };
    pub const UDP_IN_PLACE: Self = Self { inner: "udp", outer: "udp", in_place: true };
    pub const UDP_IN_TCP: Self = Self { inner: "udp", outer: "tcp", in_place: false };
    pub const UDP_IN_UDP: Self = Self { inner: "udp", outer: "udp", in_place: false };

    /// Bytes that a packet grows by.
    pub fn header_len(self) -> usize {
        match (self.in_place, self.outer) {
            (true, _) => 0,
            (false, "tcp") => 20,
            (false, _) => 8,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { inner, in_place: true, .. } => write!(f, "{inner} in place"),
            Self { inner, outer, .. } => write!(f, "{inner} in {outer}"),
        }
    }
}

/// The rules of one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub ingress: String,
    pub egress: String,
}

impl Rules {
    /// The client's, for `port` of a server that it knows as `server`.
    pub fn client(mode: Mode, server: IpAddr, port: u16) -> Self {
        Self::new(mode, server, port, "dport", "sport")
    }

    /// The server's, for its `port` and a client that it knows as `client`.
    pub fn server(mode: Mode, client: IpAddr, port: u16) -> Self {
        Self::new(mode, client, port, "sport", "dport")
    }

    /// In packets to `peer`, `service` is what the server's port is called, and `other` the client's.
    /// In packets from it they have changed places.
    fn new(mode: Mode, peer: IpAddr, port: u16, service: &str, other: &str) -> Self {
        let Mode { inner, outer, in_place } = mode;
        let family = family_name(peer);
        let (mut bare, mut restored) = (format!("{service} {port}"), inner.to_owned());
        let mut shown = FUNNEL_SPORT.to_string();
        if in_place {
            bare += &format!(" {other} {EPHEMERAL}");
            restored += &format!(" {other} {port} {service} {EPHEMERAL}");
            shown = SHIFTED.to_owned();
        }
        let funnelled = format!("{service} {FUNNEL_PORT} {other} {shown}");
        let arriving = format!("{other} {FUNNEL_PORT} {service} {shown}");
        Self {
            ingress: format!(
                "{family} saddr {peer} {outer} {arriving} actions unfunnel {restored}"
            ),
            egress: format!(
                "{family} daddr {peer} {inner} {bare} actions funnel {outer} {funnelled}"
            ),
        }
    }
}
