//! Namespaces to attach in, runs of the loader, and what they left.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use serde_json::Value;
use tests::binary;
use tests::link::{Link, Received};
use tests::model::{self, Funnel, Packet, TCP, UDP};
use tests::netns::{Checked as _, End, Netns, connect};

/// Sends datagrams to port 53 through TCP.
pub const FUNNEL: &str = "udp dport 53 actions funnel tcp sport 540 dport 80";
/// The same through other ports.
pub const FUNNEL_ANEW: &str = "udp dport 53 actions funnel tcp sport 541 dport 81";
/// Sends connections to port 8080 through port 80.
pub const FUNNEL_TCP: &str = "tcp dport 8080 actions funnel tcp sport 540 dport 80";
/// What [`FUNNEL`] sent becomes what it was.
pub const UNFUNNEL: &str = "tcp sport 540 dport 80 actions unfunnel udp";

/// Longest wait for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Every variable that the loader reads.
const VARIABLES: [&str; 10] = [
    "SFUNNEL_RULESET",
    "SFUNNEL_EGRESS_RULESET",
    "IFACES",
    "DIRECTION",
    "OFFLOAD",
    "NETNS",
    "CLEAN",
    "DEBUG",
    "N_ATTEMPTS",
    "RETRY_DELAY",
];

/// A namespace with the interfaces `l0`, `l1`..., each connected to `r0`, `r1`... in another one.
pub struct Net {
    pub left: Netns,
    pub right: Netns,
}

impl Net {
    #[track_caller]
    pub fn new(pairs: u8) -> Self {
        let netns = |role| Netns::new(role).unwrap_or_else(|e| panic!("{e:#}"));
        let net = Self { left: netns("left"), right: netns("right") };
        for n in 0..pairs {
            let names = [format!("l{n}"), format!("r{n}")];
            let addresses = [format!("{}/24", left_address(n)), format!("{}/24", right_address(n))];
            let macs =
                [left_mac(n), right_mac(n)].map(|mac| mac.map(|b| format!("{b:02x}")).join(":"));
            let end = |side: usize, netns| End {
                netns,
                interface: &names[side],
                address: &addresses[side],
                mac: &macs[side],
            };
            connect(end(0, &net.left), end(1, &net.right)).unwrap_or_else(|e| panic!("{e:#}"));
        }
        net
    }

    /// Runs a command in `left`.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.left.run(line).unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// The loader in `left`.
    pub fn loader(&self) -> Command {
        clear(self.left.command(binary::loader()))
    }

    /// Runs the loader in `left`, to success.
    #[track_caller]
    pub fn load(&self, variables: &[(&str, &str)]) -> Run {
        self.loader().envs(variables.iter().copied()).finish().done()
    }

    /// Where packets leave `left` through `l{n}`.
    pub fn outlet(&self, n: u8) -> Outlet {
        let open = |netns: &Netns, name: String| {
            netns.enter(|| Link::open(&name)).unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        Outlet {
            n,
            inside: open(&self.left, format!("l{n}")),
            outside: open(&self.right, format!("r{n}")),
        }
    }

    /// Where packets enter `left` through `l{n}`.
    pub fn inlet(&self, n: u8) -> Inlet {
        let outside = self.right.enter(|| Link::open(&format!("r{n}"))).expect("the link opens");
        let socket = self.left.enter(|| UdpSocket::bind((left_address(n), 0))).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Inlet { n, outside, socket }
    }
}

/// A command without the loader's variables; one attempt is enough where nothing is to change.
pub fn clear(mut command: Command) -> Command {
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command.env("N_ATTEMPTS", "1");
    command
}

fn left_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, n, 1)
}

fn right_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, n, 2)
}

fn left_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, n, 1]
}

fn right_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, n, 2]
}

fn frame(to: [u8; 6], from: [u8; 6], packet: &Packet) -> Vec<u8> {
    [&to[..], &from, &[8, 0], &packet.write()].concat()
}

/// A UDP packet.
pub fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Packet {
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend((8 + payload.len() as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    Packet {
        tos: 0,
        id: 0,
        fragment: 0,
        flow: 0,
        ttl: 64,
        protocol: UDP,
        saddr: from.0.into(),
        daddr: to.0.into(),
        options: Vec::new(),
        segment,
    }
    .seal()
}

/// Eight bytes that no other packet has.
fn token() -> [u8; 8] {
    static NEXT: AtomicU64 = AtomicU64::new(0x5F00_0000_0000_0000);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}

/// See [`Net::outlet`].
pub struct Outlet {
    n: u8,
    inside: Link,
    outside: Link,
}

impl Outlet {
    /// A datagram to port 53 of a host that is not there, so that nothing answers.
    pub fn query(&self, payload: &[u8]) -> Packet {
        let [a, b, c, _] = left_address(self.n).octets();
        datagram((left_address(self.n), 5000), (Ipv4Addr::new(a, b, c, 9), 53), payload)
    }

    /// Sends a packet.
    pub fn send(&self, packet: &Packet) {
        let frame = frame(right_mac(self.n), left_mac(self.n), packet);
        self.inside.send(&frame, None).expect("the frame leaves");
    }

    /// The next packet that arrived with `token` at its end.
    #[track_caller]
    pub fn arrival(&self, token: &[u8]) -> Packet {
        loop {
            let Received { frame, .. } = self
                .outside
                .receive(PATIENCE)
                .unwrap_or_else(|e| panic!("{e}"))
                .expect("the packet arrives");
            if frame.ends_with(token) {
                return Packet::read(&frame[14..]).unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
            }
        }
    }

    /// Sends a query; through which ports it arrived, or `None` if it was left as it is.
    #[track_caller]
    pub fn funnelled(&self) -> Option<(u16, u16)> {
        let token = token();
        let sent = self.query(&token);
        self.send(&sent);
        let arrived = self.arrival(&token);
        if arrived == sent {
            return None;
        }
        let (sport, dport) = arrived.ports();
        assert_eq!(arrived, model::funnel(&sent, Funnel::new(TCP, sport, dport)));
        Some((sport, dport))
    }
}

/// See [`Net::inlet`].
pub struct Inlet {
    n: u8,
    outside: Link,
    socket: UdpSocket,
}

impl Inlet {
    /// Sends a packet.
    pub fn send(&self, packet: &Packet) {
        let frame = frame(left_mac(self.n), right_mac(self.n), packet);
        self.outside.send(&frame, None).expect("the frame leaves");
    }

    /// A datagram for the socket on this side.
    pub fn datagram(&self, payload: &[u8]) -> Packet {
        let port = self.socket.local_addr().expect("it is bound").port();
        datagram((right_address(self.n), 53), (left_address(self.n), port), payload)
    }

    /// Sends a funnelled datagram and a plain one; whether the socket got the first as well.
    #[track_caller]
    pub fn unfunnelled(&self) -> bool {
        let (funnelled, plain) = (token(), token());
        let header = Funnel::new(TCP, 540, 80);
        self.send(&model::funnel(&self.datagram(&funnelled), header));
        self.send(&self.datagram(&plain));
        let mut bytes = [0; 64];
        let mut seen = false;
        loop {
            let len = self.socket.recv(&mut bytes).expect("the plain datagram is delivered");
            match &bytes[..len] {
                payload if payload == plain => return seen,
                payload => {
                    assert_eq!(payload, funnelled);
                    seen = true;
                }
            }
        }
    }
}

/// What a run of the loader left behind.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// It succeeded.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// It failed with `code`, and the last line on stderr is `reason`.
    #[track_caller]
    pub fn refused(self, code: i32, reason: &str) -> Self {
        assert_eq!(self.last_line(), reason, "{}", self.stderr);
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        self
    }

    pub fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

/// Commands that may fail.
pub trait Finish {
    /// Runs the command to its end.
    fn finish(&mut self) -> Run;
}

impl Finish for Command {
    #[track_caller]
    fn finish(&mut self) -> Run {
        let output = self.output().unwrap_or_else(|e| panic!("can't run {self:?}: {e}"));
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// All qdiscs and filters in a namespace, as `tc` lists them, with the numbers of BPF programs.
#[track_caller]
pub fn state(netns: &Netns) -> String {
    const SCRIPT: &str = "tc qdisc show || exit
        for interface in $(ls /sys/class/net); do
            for hook in ingress egress; do
                echo $interface $hook
                tc filter show dev $interface $hook 2>&1
            done
        done
        exit 0";
    netns.command("sh").args(["-c", SCRIPT]).checked().unwrap_or_else(|e| panic!("{e:#}"))
}

/// What `show --json` says in a namespace.
#[track_caller]
pub fn shown(netns: &Netns) -> Vec<Value> {
    let run = clear(netns.command(binary::loader())).args(["show", "--json"]).finish().done();
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
}

/// Interface and hook of every filter for `subject`, such as `l0 ingress`.
#[track_caller]
fn places_for(netns: &Netns, subject: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    shown(netns)
        .iter()
        .filter(|attached| attached["for"] == subject)
        .map(|attached| format!("{} {}", text(&attached["interface"]), text(&attached["hook"])))
        .collect()
}

/// Interface and hook of every ruleset that is attached, such as `l0 ingress`.
#[track_caller]
pub fn places(netns: &Netns) -> Vec<String> {
    places_for(netns, "packets")
}

/// Interface and hook of every filter for ICMP errors.
#[track_caller]
pub fn icmp_places(netns: &Netns) -> Vec<String> {
    places_for(netns, "icmp-errors")
}

/// The ruleset that is attached at a place.
#[track_caller]
pub fn shown_at(netns: &Netns, place: &str) -> Value {
    let (interface, hook) = place.split_once(' ').expect("an interface and a hook");
    let all = shown(netns);
    all.iter()
        .filter(|attached| attached["for"] == "packets")
        .find(|attached| attached["interface"] == interface && attached["hook"] == hook)
        .unwrap_or_else(|| panic!("nothing at {place}: {all:?}"))
        .clone()
}

/// The rules at a place, one a line.
#[track_caller]
pub fn rules(netns: &Netns, place: &str) -> String {
    let attached = shown_at(netns, place);
    let rules = attached["rules"].as_array().expect("a list");
    rules.iter().map(|rule| rule["rule"].as_str().expect("a string")).collect::<Vec<_>>().join("\n")
}

/// An interface's `gso_max_segs`.
#[track_caller]
pub fn gso_max_segs(netns: &Netns, interface: &str) -> u64 {
    let links = netns.run(&format!("ip -d -j link show dev {interface}"));
    let links = links.unwrap_or_else(|e| panic!("{e:#}"));
    let links: Value = serde_json::from_str(&links).unwrap_or_else(|e| panic!("{e}: {links}"));
    links[0]["gso_max_segs"].as_u64().unwrap_or_else(|| panic!("no gso_max_segs: {links}"))
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the kernel has a BPF program of this number.
pub fn is_loaded(program: u64) -> bool {
    loaded_programs().flatten().any(|info| u64::from(info.id()) == program)
}

/// Adds a filter that is not ours: classic BPF that takes every packet as it is.
#[track_caller]
pub fn add_bpf(netns: &Netns, place: &str) {
    let mut tc = netns.command("tc");
    tc.args(["filter", "add"]).args(place.split(' '));
    tc.args(["bpf", "bytecode", "1,6 0 0 0", "flowid", "1:1"]);
    tc.checked().unwrap_or_else(|e| panic!("{e:#}"));
}
