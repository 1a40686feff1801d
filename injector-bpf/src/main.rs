//! The tc classifier: looks a packet up in the tables that the loader wrote, and does what the
//! rule says.
//!
//! ```text
//! program.rs  the entry: parse, look up, act, count
//! packet.rs   frame -> Packet: headers checked, key for the lookup
//! lookup.rs   key -> rule, over the maps
//! funnel.rs   push the funnel header
//! unfunnel.rs remove it
//! dnat.rs     set the destination address
//! rewrite.rs  the order in which headers are pushed and removed
//! ```
//!
//! A packet leaves repaired, or untouched, or dropped and counted. Everything that can be refused
//! is refused before the first change; what fails after it is dropped.
//!
//! The program keeps offsets, never packet pointers, so no helper that moves the packet can leave
//! it with a stale one.
//!
//! It is for the BPF target alone; elsewhere there is nothing to run.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// One line of assembly hides a number from the verifier, another keeps a test that it needs
// (`Skb::forget` and `visible` in skb.rs).
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod bpf {
    mod checksum;
    mod dnat;
    mod funnel;
    mod lookup;
    mod maps;
    mod packet;
    mod program;
    mod rewrite;
    mod skb;
    mod unfunnel;
    mod vlan;
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
