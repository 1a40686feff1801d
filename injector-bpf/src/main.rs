//! The tc classifier: looks a packet up in the tables that the loader wrote, and does what the
//! rule says.
//!
//! ```text
//! program.rs    the entry: parse, look up, act, count
//! ip.rs         frame -> IP header; what a rule changes in it
//! packet.rs     IP header -> Packet: lengths checked, key for the lookup
//! icmp.rs       ICMP error -> the packet that it quotes
//! lookup.rs     key -> rule, over the maps
//! funnel.rs     push the funnel header
//! mss.rs          what a SYN says fits in a segment
//! too_big.rs      what its sender is told of a packet that would not fit
//! unfunnel.rs   remove it
//! translate.rs  translate ports in place
//! dnat.rs       set the destination address
//! quote.rs      undo in an ICMP error what the funnel did to the packet that it quotes
//! rewrite.rs    the order in which headers are pushed and removed
//! verifier.rs   what kernels refuse, and the few lines that see to it
//! ```
//!
//! A packet leaves repaired, or untouched, or dropped and counted. Everything that can be refused
//! is refused before the first change; what fails after it is dropped.
//!
//! But for a first look, the program keeps offsets, never packet pointers, so no helper that moves
//! the packet can leave it with a stale one.
//!
//! It is for the BPF target alone; elsewhere there is nothing to run.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// Single instructions where the compiler's choice matters to the verifier (skb.rs, linear.rs).
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod bpf {
    mod checksum;
    mod dnat;
    mod funnel;
    mod icmp;
    mod ip;
    mod linear;
    mod lookup;
    mod maps;
    mod mss;
    mod packet;
    mod ports;
    mod program;
    mod quote;
    mod rewrite;
    mod skb;
    mod too_big;
    mod translate;
    mod unfunnel;
    mod verifier;
    mod vlan;
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
