//! What passes a router, counted by nftables, in the form in which it passes.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::netns::Netns;

use crate::rules::{FUNNEL_PORT, OTHER_PORT, PORT};

/// Packets, and their bytes from the IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Starts to count in `router`.
pub fn watch(router: &Netns) -> Result<()> {
    router.nft(&format!(
        "table inet watch {{
            counter bare {{}}
            counter funnelled {{}}
            chain forward {{
                type filter hook forward priority filter
                meta l4proto {{ tcp, udp }} th dport {{ {PORT}, {OTHER_PORT} }} counter name bare
                meta l4proto {{ tcp, udp }} th sport {{ {PORT}, {OTHER_PORT} }} counter name bare
                meta l4proto {{ tcp, udp }} th dport {FUNNEL_PORT} counter name funnelled
                meta l4proto {{ tcp, udp }} th sport {FUNNEL_PORT} counter name funnelled
            }}
        }}"
    ))
}

/// With a funnelled port as it is behind the funnel: there should be none.
pub fn bare(router: &Netns) -> Result<Count> {
    counter(router, "watch", "bare")
}

/// With the funnel's port, in both directions.
pub fn funnelled(router: &Netns) -> Result<Count> {
    counter(router, "watch", "funnelled")
}

/// The counter `name` in the inet table `table`.
pub fn counter(netns: &Netns, table: &str, name: &str) -> Result<Count> {
    let text = netns.run(&format!("nft -j list counter inet {table} {name}"))?;
    let json: Value = serde_json::from_str(&text)?;
    let counter = json["nftables"]
        .as_array()
        .and_then(|all| all.iter().find_map(|object| object.get("counter")))
        .with_context(|| format!("no counter {name}: {text}"))?;
    let number = |field: &str| {
        counter[field].as_u64().with_context(|| format!("counter {name} without {field}: {text}"))
    };
    Ok(Count { packets: number("packets")?, bytes: number("bytes")? })
}
