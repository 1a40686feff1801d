//! The program on one packet, in `BPF_PROG_TEST_RUN`: what the number of rules costs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Result, ensure};
use aya_obj::generated::bpf_insn;
use loader::sys::{LogLevel, load_classifier};
use tests::model::{Packet, TCP, UDP};
use tests::test_run::{self, Runner, SHOT, UNSPEC};

use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, section};

/// Runs in one measurement.
const REPEAT: u32 = 200_000;

/// Rules in a ruleset.
const COUNTS: [u32; 4] = [1, 64, 1024, 4096];

/// What a packet may cost that nothing is done with: one rule, and any number of them.
const NO_MATCH: [Target; 4] = [
    Target::Within(Duration::from_nanos(40)),
    Target::Within(Duration::from_nanos(60)),
    Target::Within(Duration::from_nanos(60)),
    Target::Within(Duration::from_nanos(60)),
];

/// The addresses of a ruleset and of its packets.
#[derive(Clone, Copy)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The address of rule `number`.
    fn address(self, number: u32) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits(0x0A00_0000 + number).into(),
            Self::V6 => Ipv6Addr::from_bits(0x2001_0DB8 << 96 | u128::from(number)).into(),
        }
    }

    /// `count` rules, each with an address and a port of its own.
    pub fn rules(self, count: u32, action: &str) -> String {
        let keyword = match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        };
        let rule = |n| {
            let (address, port) = (self.address(n), port(n));
            format!("{keyword} daddr {address} tcp dport {port} actions {action}\n")
        };
        (0..count).map(rule).collect()
    }

    /// A packet from nobody in the rules to the address of one of them and the port of one of them.
    fn packet(self, protocol: u8, address: u32, port_of: u32) -> Vec<u8> {
        let mut segment = match protocol {
            UDP => vec![0, 0, 0, 0, 0, 8, 0, 0],
            _ => vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0],
        };
        segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
        segment[2..4].copy_from_slice(&port(port_of).to_be_bytes());
        let packet = Packet {
            tos: 0,
            id: 0,
            fragment: 0,
            flow: 0,
            ttl: 64,
            protocol,
            saddr: self.address(NOBODY),
            daddr: self.address(address),
            options: Vec::new(),
            segment,
        };
        packet.seal().write()
    }
}

/// Number of an address that no rule has.
const NOBODY: u32 = 1 << 20;

/// The port of rule `number`.
fn port(number: u32) -> u16 {
    1024 + number as u16
}

/// Compares rulesets of several sizes with one rule, and that with a program that does nothing.
pub fn compare(rounds: usize) -> Result<()> {
    section("Lookup, time per packet");
    let empty = empty_program()?;
    let time = |runner: Option<&Runner>, packet: &[u8]| match runner {
        Some(runner) => runner.time(packet, REPEAT).as_secs_f64(),
        None => test_run::time(empty.as_fd(), packet, REPEAT).as_secs_f64(),
    };

    let v4 = COUNTS.map(|count| Runner::new(&Family::V4.rules(count, "drop")));
    let v6 = COUNTS.map(|count| Runner::new(&Family::V6.rules(count, "drop")));
    let other_protocol = Family::V4.packet(UDP, NOBODY, 0);
    let known_port = Family::V4.packet(TCP, NOBODY, 0);
    let known_port6 = Family::V6.packet(TCP, NOBODY, 0);
    for (what, runners, packet, targets) in [
        ("other protocol", &v4, &other_protocol, NO_MATCH),
        ("port of a rule", &v4, &known_port, NO_MATCH),
        ("IPv6, port of a rule", &v6, &known_port6, [Target::None; 4]),
    ] {
        let [a, b, c, d] = runners;
        for runner in runners {
            ensure!(runner.run(packet).verdict == UNSPEC, "{what}: a rule matches");
        }
        let [nothing, one, some, many, most] = in_turn(
            rounds,
            [None, Some(a), Some(b), Some(c), Some(d)]
                .map(|runner| move || Ok(time(runner, packet))),
        )?;
        let pairs = [(&one, &nothing), (&some, &one), (&many, &one), (&most, &one)];
        for (((ours, theirs), target), count) in pairs.into_iter().zip(targets).zip(COUNTS) {
            let (rules, reference) = match count {
                1 => ("rule", "empty program"),
                _ => ("rules", "1 rule"),
            };
            row(&format!("{what}, {count} {rules} : {reference}"), ours, theirs, target);
        }
    }

    let [one, .., most] = &v4;
    let (near_miss, last) = (Family::V4.packet(TCP, 1, 0), Family::V4.packet(TCP, 4095, 4095));
    ensure!(most.run(&near_miss).verdict == UNSPEC, "the near miss is a match");
    ensure!(most.run(&last).verdict == SHOT, "the last rule does not match");
    let cases = [(one, &known_port), (most, &near_miss), (most, &last)];
    let [miss, near, matched] =
        in_turn(rounds, cases.map(|(runner, packet)| move || Ok(time(Some(runner), packet))))?;
    row("port of one, address of next, 4096 : 1 rule", &near, &miss, Target::None);
    row("match on the last of 4096 : no match, 1 rule", &matched, &miss, Target::None);
    Ok(())
}

fn row(what: &str, ours: &[f64], theirs: &[f64], target: Target) {
    Row { what, ours, theirs, unit: Unit::Seconds, target }.print();
}

/// A program that only says `TC_ACT_UNSPEC`: what its time is is the measurement's own.
fn empty_program() -> Result<OwnedFd> {
    // BPF_ALU64 | BPF_MOV | BPF_K: r0 = imm; BPF_JMP | BPF_EXIT (RFC 9669).
    let instruction = |code, imm| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm,
    };
    let instructions = [instruction(0xB7, UNSPEC), instruction(0x95, 0)];
    Ok(load_classifier(c"empty", &instructions, c"GPL", LogLevel::Summary, &mut [0; 4096])?)
}
