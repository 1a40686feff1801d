//! Map names and the structures in them.

/// Rules in one ruleset, at the most.
///
/// One 64-bit summary word has a bit for each of at most 64 words of 64 rules.
pub const MAX_RULES: usize = 4096;

/// Nodes in the `NODES` map, at the most (16 MiB).
pub const MAX_NODES: usize = 1 << 14;

/// Rows in the `ROWS` map, at the most (8.5 MiB).
pub const MAX_ROWS: usize = 1 << 14;

/// Names of the maps in the BPF object, as user space looks them up (15 bytes at most, the kernel's
/// `BPF_OBJ_NAME_LEN` less its NUL).
pub mod map_name {
    /// `Array<Config>`, one entry.
    pub const CONFIG: &str = "CONFIG";
    /// `Array<NodeEntry>`: the tries of all axes.
    pub const NODES: &str = "NODES";
    /// `Array<Row>`: what the tries lead to.
    pub const ROWS: &str = "ROWS";
    /// `Array<RuleEntry>`, one for each rule.
    pub const RULES: &str = "RULES";
    /// `PerCpuArray<Counter>`, one for each rule.
    pub const RULE_COUNTERS: &str = "RULE_COUNTERS";
    /// `PerCpuArray<u64>`, one for each [`Reason`](super::Reason).
    pub const REASONS: &str = "REASONS";
    /// `Array<SourceChunk>`: the ruleset in canonical text, for `show`.
    pub const SOURCE: &str = "SOURCE";
}

/// Names of the classifiers in the BPF object.
pub mod program_name {
    /// Reads the headers of most packets where they lie.
    pub const DIRECT: &str = "sfunnel";
    /// Does the same, but reads all headers by helpers.
    pub const BY_HELPERS: &str = "sfunnel_helpers";
    /// Does nothing. A kernel that loads it loads [`DIRECT`] as well.
    pub const PROBE: &str = "sfunnel_probe";
}

/// A node of a trie: what follows for each value of the next byte of the key, see [`is_row`].
pub type Node = [u32; 256];

/// Entries of the `NODES` map that a node takes: two values of the byte share one.
///
/// The program looks each of them up by index. If it took a pointer to a node and added the byte,
/// the verifier would, without CAP_PERFMON, stop to join paths from there on
/// (`env->explore_alu_limits` in kernel/bpf/verifier.c), and take a hundred times as long.
pub const NODE_ENTRIES: usize = 128;

/// What follows for an even value of the byte in the lower half, for the odd one behind it in the
/// upper.
pub type NodeEntry = u64;

/// The entries of a node.
pub fn node_entries(node: &Node) -> impl Iterator<Item = NodeEntry> + '_ {
    node.chunks_exact(2).map(|pair| (pair[1] as u64) << 32 | pair[0] as u64)
}

/// Where the `NODES` map has what follows for `byte`: the entry's index, and the bit at which its
/// half begins.
pub const fn node_entry(node: u32, byte: u8) -> (u32, u32) {
    (node * NODE_ENTRIES as u32 + byte as u32 / 2, (byte as u32 % 2) * 32)
}

/// Words of rule bits in a row.
pub const WORDS: usize = MAX_RULES / 64;

/// The rules that hold for a value of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Row {
    /// A bit for each of `words` that is not 0.
    pub summary: u64,
    /// A bit for each rule, see [`bit`](crate::bit).
    pub words: [u64; WORDS],
}

/// The one entry of the `CONFIG` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Where each axis begins.
    pub roots: Roots,
    /// Bytes in front of the network header: 14 for Ethernet, 0 for devices such as tun.
    pub link_header: u32,
    /// Largest IP packet in bytes that may leave through this hook; 0 where the program need not
    /// look, because the stack checks the MTU after it (ingress).
    pub mtu: u32,
    /// What the rules do: a bit, `1 << action`, for each [`action`] of theirs. The map is frozen, so
    /// the verifier knows what is not among them and need not look at it.
    pub actions: u32,
    /// What they do with packets that ICMP errors quote, likewise.
    pub quoted_actions: u32,
    /// Words of a row that have bits of rules in them.
    pub words: u32,
}

/// Where the axes' tries begin: see [`is_row`] for what the numbers mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Roots {
    /// Source address, one for each [`Family`]: up to 4 or 16 bytes deep.
    pub saddr: [u32; 2],
    /// Destination address, likewise.
    pub daddr: [u32; 2],
    /// Source port, one for each [`port_root`]: up to two bytes deep.
    pub sport: [u32; 4],
    /// Destination port, likewise.
    pub dport: [u32; 4],
}

/// The family of addresses: index into [`Roots::saddr`] and [`Roots::daddr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Family {
    /// IPv4.
    Ip = 0,
    /// IPv6.
    Ip6 = 1,
}

/// Set in a number that leads to a row; what is left is the row's index. Without it, the number is
/// the index of a node. A trie ends as soon as all that is left of a key leads to one row.
pub const ROW: u32 = 1 << 31;

/// Whether `next`, out of a node or a root, is a row.
pub const fn is_row(next: u32) -> bool {
    next & ROW != 0
}

/// Which trie the ports of a packet are looked up in.
///
/// `protocol` is TCP or UDP. `portless` is 1 for a packet without ports, such as a fragment that is
/// not the first, and else 0. Numbers and no branch, so that the verifier has one path to follow.
pub const fn port_root(protocol: u8, portless: u32) -> u32 {
    crate::wire::udp_bit(protocol) << 1 | portless
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RuleAction {
    /// Leave the packet as it is, ask no later filter (`TC_ACT_OK`).
    Accept = action::ACCEPT,
    /// Drop it (`TC_ACT_SHOT`).
    Drop = action::DROP,
    /// Push a funnel header.
    Funnel = action::FUNNEL,
    /// Remove a funnel header.
    Unfunnel = action::UNFUNNEL,
    /// Set the destination address.
    Dnat = action::DNAT,
    /// Translate ports in place.
    Translate = action::TRANSLATE,
}

/// The values of [`RuleAction`] as the program reads them: a byte out of a map is no enum until it
/// has been looked at.
pub mod action {
    /// See [`RuleAction::Accept`](super::RuleAction::Accept).
    pub const ACCEPT: u8 = 0;
    /// See [`RuleAction::Drop`](super::RuleAction::Drop).
    pub const DROP: u8 = 1;
    /// See [`RuleAction::Funnel`](super::RuleAction::Funnel).
    pub const FUNNEL: u8 = 2;
    /// See [`RuleAction::Unfunnel`](super::RuleAction::Unfunnel).
    pub const UNFUNNEL: u8 = 3;
    /// See [`RuleAction::Dnat`](super::RuleAction::Dnat).
    pub const DNAT: u8 = 4;
    /// See [`RuleAction::Translate`](super::RuleAction::Translate).
    pub const TRANSLATE: u8 = 5;
}

/// Bits of [`RuleEntry::flags`].
pub mod flag {
    /// [`RuleEntry::dnat`](super::RuleEntry::dnat) holds an address to set.
    pub const DNAT: u8 = 1;
    /// The rule matches a port: of a fragmented datagram it would see the first piece alone.
    pub const PORTS: u8 = 2;
    /// The rule is for packets that ICMP errors quote, and for no others.
    pub const QUOTES: u8 = 4;
}

/// One entry of the `RULES` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleEntry {
    /// One of [`action`].
    pub action: u8,
    /// IP protocol: the funnel header's for `funnel`, the inner one's for `unfunnel`, the packet's
    /// own for [`RuleAction::Translate`].
    pub protocol: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Flags of a TCP funnel header, as its byte 13 has them (RFC 9293, 3.1).
    pub tcp_flags: u8,
    /// Source port of the funnel header. For [`RuleAction::Translate`] what is added, modulo 2^16,
    /// to the source port.
    pub sport: u16,
    /// Destination port, likewise.
    pub dport: u16,
    /// For `funnel` and `unfunnel`: the inner header's new source port; 0 leaves it.
    pub inner_sport: u16,
    /// The inner header's new destination port; 0 leaves it.
    pub inner_dport: u16,
    /// The new destination address in network byte order, where [`flag::DNAT`] is set. An IPv4
    /// address is in the last four bytes.
    pub dnat: [u32; 4],
}

/// Packets that a rule was carried out on, and their IP lengths as they arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
}

/// A piece of the ruleset's canonical text; the last one is filled up with NUL.
pub type SourceChunk = [u8; 256];

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $label:literal;)+) => {
        /// Why a packet was not treated as a rule says: index into the `REASONS` map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Reason { $($(#[$doc])* $name = $value,)+ }

        impl Reason {
            /// Every reason, in the order of the map.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name that `show` prints.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    /// A rule that rewrites matched a piece of a fragmented datagram. Passed untouched.
    Fragment = 0, "fragment";
    /// The packet ends before its IPv4, TCP or UDP header does. Passed untouched.
    TooShort = 1, "too-short";
    /// A length field disagrees with the packet or with another one. Passed untouched.
    BadLength = 2, "bad-length";
    /// The packet is to be segmented after this hook, or was merged before it (GSO, GRO), so that
    /// one header can't be added or removed. Passed untouched.
    Segmented = 3, "segmented";
    /// With the funnel header it would exceed 65,535 bytes, or the interface's MTU where nobody can
    /// be told (multicast, a VLAN tag in the frame); or it is longer than 10 KiB, as only the
    /// loopback carries them, and has no finished checksum. Passed untouched.
    NoRoom = 4, "no-room";
    /// An `unfunnel` rule matched what carries no funnel header. Passed untouched.
    NotFunnelled = 5, "not-funnelled";
    /// More than one VLAN tag, which not every kernel can be trusted to put back. Passed untouched.
    VlanDepth = 6, "vlan-depth";
    /// A kernel helper refused before anything was changed. Passed untouched.
    HelperError = 7, "helper-error";
    /// A kernel helper refused after the first change. Dropped, because the packet is no longer
    /// what anybody sent.
    Dropped = 8, "dropped";
    /// A UDP packet within which the kernel is yet to finish another checksum, as in a VXLAN or Geneve
    /// packet of this machine. Passed untouched.
    Unfinished = 9, "unfinished";
    /// With the funnel header it would exceed the interface's MTU. Its sender got an ICMP error
    /// that says how long a packet may be; the packet itself is gone.
    TooBig = 10, "too-big";
    /// IPv6 extension headers stand between the IPv6 header and what a rule could match. Passed
    /// untouched.
    ExtensionHeader = 11, "extension-header";
    /// An ICMP error quotes a funnelled packet, but too little of it to tell what was in it, or
    /// with objects behind it (RFC 4884). Passed untouched.
    QuoteTooShort = 12, "quote-too-short";
}

const _: () = {
    assert!(size_of::<Node>() == 1024);
    assert!(size_of::<Row>() == 520);
    assert!(size_of::<Config>() == 68);
    assert!(size_of::<RuleEntry>() == 28);
    assert!(size_of::<Counter>() == 16);
    assert!(MAX_RULES == 64 * 64);
};
