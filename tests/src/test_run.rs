//! The program on one packet, through `BPF_PROG_TEST_RUN`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use abi::{Counter, Reason, map_name};
use aya::maps::{Map, MapData, PerCpuArray};
use aya_obj::generated::{bpf_attr, bpf_cmd};
use loader::object::{Access, Link, Program, Value};

/// `TC_ACT_UNSPEC`: ask the next filter.
pub const UNSPEC: i32 = -1;
/// `TC_ACT_OK`: go on.
pub const OK: i32 = 0;
/// `TC_ACT_SHOT`: dropped.
pub const SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`: to where the program has said.
pub const REDIRECT: i32 = 7;

/// An Ethernet header of an IPv4 packet.
pub const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
/// And of an IPv6 packet.
pub const ETHERNET6: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xDD];

/// The Ethernet header that goes with `packet`.
fn ethernet(packet: &[u8]) -> &'static [u8; 14] {
    match packet.first() {
        Some(byte) if byte >> 4 == 6 => &ETHERNET6,
        _ => &ETHERNET,
    }
}

/// A loaded ruleset that packets can be put through, in each form of the program: they must do the
/// same.
pub struct Runner {
    program: Program,
    by_helpers: Program,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned.
    pub verdict: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Outcome {
    /// The frame without its Ethernet header.
    pub fn packet(&self) -> &[u8] {
        &self.frame[ETHERNET.len()..]
    }
}

/// Fields of `__sk_buff` that a test may set. The kernel wants all others to be 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// Bytes a segment; not 0 makes the packet one that is segmented later.
    pub gso_size: u32,
    /// Number of segments.
    pub gso_segs: u32,
}

impl Runner {
    /// Loads `rules`.
    pub fn new(rules: &str) -> Self {
        Self::with_mtu(rules, 0)
    }

    /// Loads `rules` for an egress hook with that MTU.
    pub fn with_mtu(rules: &str, mtu: u32) -> Self {
        let compiled = ruleset::compile(rules).unwrap_or_else(|e| panic!("{e}"));
        Self::load(&compiled, mtu)
    }

    /// Loads the rules for errors about what `rules` have sent.
    pub fn for_quotes(rules: &str) -> Self {
        let compiled = ruleset::compile(rules).unwrap_or_else(|e| panic!("{e}"));
        let quotes = ruleset::quotes(&compiled.ruleset, None);
        Self::load(&quotes.unwrap_or_else(|| panic!("{rules}: nothing to undo")), 0)
    }

    fn load(compiled: &ruleset::Compiled, mtu: u32) -> Self {
        let load = |access| {
            Program::load_with(Some(access), compiled, Link { link_header: 14, mtu })
                .unwrap_or_else(|e| panic!("{e}\nthese tests need root"))
        };
        Self { program: load(Access::Direct), by_helpers: load(Access::ByHelpers) }
    }

    /// Runs the program on an IP packet in an Ethernet frame.
    pub fn run(&self, packet: &[u8]) -> Outcome {
        // The command itself refuses a frame that is shorter than its IP header (Linux 6.18), but not
        // one with a VLAN tag, behind which it does not look.
        let least = if ethernet(packet) == &ETHERNET6 { 40 } else { 20 };
        let tag: &[u8] = if packet.len() < least { &[0x81, 0x00, 0x00, 0x01] } else { &[] };
        let (macs, ethertype) = ethernet(packet).split_at(12);
        let frame = [macs, tag, ethertype, packet].concat();
        let mut outcome = self.run_frame(&frame, Context::default());
        outcome.frame.drain(12..12 + tag.len());
        outcome
    }

    /// Runs the program on a frame.
    pub fn run_frame(&self, frame: &[u8], context: Context) -> Outcome {
        self.try_run(frame, context)
            .unwrap_or_else(|e| panic!("BPF_PROG_TEST_RUN: {e}: {frame:02x?}"))
    }

    /// Runs the program on an IP packet whose sum the network card has delivered, and has the kernel
    /// check that the sum is right afterwards as well. Linux before 6.11 (commit a3cfe84cca28) can't:
    /// there the packet comes without a sum.
    pub fn run_summed(&self, packet: &[u8]) -> Outcome {
        const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 4;
        let frame = [ethernet(packet), packet].concat();
        match self.command(&frame, Context::default(), BPF_F_TEST_SKB_CHECKSUM_COMPLETE) {
            Ok(outcome) => outcome,
            Err(e) if e.raw_os_error() == Some(libc::EBADMSG) => {
                panic!("the card's sum is wrong: {packet:02x?}")
            }
            Err(_) if release() < (6, 11) => self.run_frame(&frame, Context::default()),
            Err(e) => panic!("BPF_PROG_TEST_RUN: {e}"),
        }
    }

    /// Mean time of one of `repeat` runs on an IP packet, see [`time`].
    pub fn time(&self, packet: &[u8], repeat: u32) -> Duration {
        time(self.program.as_fd(), packet, repeat)
    }

    fn try_run(&self, frame: &[u8], context: Context) -> io::Result<Outcome> {
        self.command(frame, context, 0)
    }

    fn command(&self, frame: &[u8], context: Context, flags: u32) -> io::Result<Outcome> {
        let run = |program: &Program| {
            test_run(program.as_fd(), frame, context, 1, flags).map(|(outcome, _)| outcome)
        };
        let (direct, by_helpers) = (run(&self.program)?, run(&self.by_helpers)?);
        assert_eq!(direct, by_helpers, "direct and by helpers: {frame:02x?}");
        Ok(direct)
    }

    /// A number of both forms, which have seen the same packets.
    fn of_both<T: PartialEq + fmt::Debug>(&self, number: impl Fn(&Program) -> T) -> T {
        let (direct, by_helpers) = (number(&self.program), number(&self.by_helpers));
        assert_eq!(direct, by_helpers, "direct and by helpers");
        direct
    }

    /// How often a rule was not carried out for `reason`.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.of_both(|program| {
            let map = PerCpuArray::<_, u64>::try_from(map(program, map_name::REASONS));
            let map = map.expect("REASONS");
            map.get(&(reason as u32), 0).expect("every reason is in the map").iter().sum()
        })
    }

    /// Packets that were not treated as their rule says, for whatever reason.
    pub fn all_reasons(&self) -> u64 {
        Reason::ALL.iter().map(|&reason| self.reason(reason)).sum()
    }

    /// What rule `number` was carried out on.
    pub fn rule(&self, number: u32) -> Counter {
        self.of_both(|program| {
            let map = map(program, map_name::RULE_COUNTERS);
            let map = PerCpuArray::<_, Value<Counter>>::try_from(map).expect("RULE_COUNTERS");
            let mut all = Counter::default();
            for Value(counter) in map.get(&number, 0).expect("every rule is in the map").iter() {
                all.packets += counter.packets;
                all.bytes += counter.bytes;
            }
            all
        })
    }
}

fn map(program: &Program, name: &str) -> Map {
    let map = program.map(name).expect("the object has it");
    let fd = map.fd().as_fd().try_clone_to_owned().expect("a descriptor is left");
    Map::PerCpuArray(MapData::from_fd(fd).expect("it is a map"))
}

/// Mean time of one of `repeat` runs of `program` on an IP packet that it leaves as it is.
///
/// # Panics
///
/// If the kernel does not run it.
pub fn time(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> Duration {
    let frame = [ethernet(packet), packet].concat();
    let (_, time) = test_run(program, &frame, Context::default(), repeat, 0)
        .unwrap_or_else(|e| panic!("BPF_PROG_TEST_RUN: {e}"));
    time
}

fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: Context,
    repeat: u32,
    flags: u32,
) -> io::Result<(Outcome, Duration)> {
    // Offsets in `struct __sk_buff`, include/uapi/linux/bpf.h.
    let mut skb = [0_u8; 192];
    skb[164..168].copy_from_slice(&context.gso_segs.to_ne_bytes());
    skb[176..180].copy_from_slice(&context.gso_size.to_ne_bytes());
    let mut out = vec![0; frame.len() + 256];
    // SAFETY: a union of integers, for which zero is a value.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.test.prog_fd = program.as_raw_fd() as u32;
    attr.test.data_in = frame.as_ptr() as u64;
    attr.test.data_size_in = frame.len() as u32;
    attr.test.data_out = out.as_mut_ptr() as u64;
    attr.test.data_size_out = out.len() as u32;
    attr.test.repeat = repeat;
    attr.test.flags = flags;
    if context.gso_size != 0 {
        attr.test.ctx_in = skb.as_ptr() as u64;
        attr.test.ctx_size_in = skb.len() as u32;
    }
    // SAFETY: the buffers outlive the call, and their sizes are right.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_TEST_RUN as libc::c_long,
            &raw mut attr,
            size_of::<bpf_attr>(),
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the command fills in this variant.
    let test = unsafe { attr.test };
    out.truncate(test.data_size_out as usize);
    let outcome = Outcome { verdict: test.retval as i32, frame: out };
    Ok((outcome, Duration::from_nanos(test.duration.into())))
}

/// Major and minor number of the kernel.
///
/// # Panics
///
/// If its release does not begin with them.
pub fn release() -> (u32, u32) {
    let uname = nix::sys::utsname::uname().expect("the kernel has a name");
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("{release} is no release"),
    }
}
