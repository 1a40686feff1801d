//! The one layout that kernel and user space share, and the lookup that runs on it.
//!
//! The loader writes these structures into BPF maps, the tc program reads them. Every structure is
//! `repr(C)`, has no implicit padding and no `bool`; its size is asserted below. Numbers are in
//! host byte order unless a field says otherwise; both sides run on the same machine.
//!
//! This crate must never allocate, panic on data, or know about rule text.
#![no_std]
#![forbid(unsafe_code)]

mod lookup;
mod maps;
pub mod wire;

pub use lookup::{Key, Tables, bit, find_rule};
pub use maps::{
    Config, Counter, Family, MAX_NODES, MAX_ROWS, MAX_RULES, NODE_ENTRIES, Node, NodeEntry, ROW,
    Reason, Roots, Row, RuleAction, RuleEntry, SourceChunk, WORDS, action, flag, is_row, map_name,
    node_entries, node_entry, port_root, program_name,
};
