//! The tc classifier: looks a packet up in the tables that the loader wrote, and does what the
//! rule says.
//!
//! ```text
//! packet.rs   frame -> Packet: headers checked, key for the lookup
//! lookup.rs   key -> rule, over the maps
//! funnel.rs   push the funnel header
//! unfunnel.rs remove it
//! dnat.rs     set the destination address
//! rewrite.rs  the order in which headers are pushed and removed
//! ```
//!
//! A packet leaves repaired, or untouched, or dropped and counted. Everything that can be refused is
//! refused before the first change; what fails after it is dropped.
//!
//! The program keeps offsets, never packet pointers, so no helper that moves the packet can leave
//! it with a stale one.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// One empty line of assembly keeps a bounds check that the verifier needs (`skb::bounded`).
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod checksum;
#[cfg(target_arch = "bpf")]
mod dnat;
#[cfg(target_arch = "bpf")]
mod funnel;
#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod program;
#[cfg(target_arch = "bpf")]
mod rewrite;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod unfunnel;
#[cfg(target_arch = "bpf")]
mod vlan;

/// The program is for the BPF target alone; elsewhere there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
