//! Real traffic through the funnel: TCP in bulk, HTTP, QUIC, NAT on the way, links too narrow for it.
//!
//! Client and server are configured by nothing but the loader. Every test has namespaces of its own;
//! those that need the whole machine take turns. They need root and the commands `ip` and `nft`.

#[path = "traffic/bulk.rs"]
mod bulk;
#[path = "traffic/funnel.rs"]
mod funnel;
#[path = "traffic/http.rs"]
mod http;
#[path = "traffic/mss.rs"]
mod mss;
#[path = "traffic/nat.rs"]
mod nat;
#[path = "traffic/quic.rs"]
mod quic;
#[path = "traffic/replace.rs"]
mod replace;
#[path = "traffic/rules.rs"]
mod rules;
#[path = "traffic/too_big.rs"]
mod too_big;
#[path = "traffic/watch.rs"]
mod watch;
