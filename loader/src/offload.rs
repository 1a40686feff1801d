//! Packets of several segments: a header that is pushed on one would be on its first segment only.
//!
//! TCP makes them whatever the interface's features say; only `gso_max_segs` limits it. So where
//! egress rules encapsulate TCP it is lowered to 1, and raised again for rules that do without or
//! when they go. What it was is remembered in the name of their filter (see [`crate::ours`]).
//!
//! The filter comes first: a run that is killed between the two, or undone, leaves no interface
//! lowered of which nobody knows what it was. A connection that begins between the two is like one
//! that is older than the rules.

use std::fmt;
use std::fs;
use std::io;

use ruleset::Ruleset;
use ruleset::ast::{Action, Protocol};

use crate::netlink::{Hook, Interface, Netlink};
use crate::settings::Offload;

/// Segments in a packet that can get a header.
const LIMIT: u32 = 1;

/// Whether a rule pushes a header on TCP packets.
pub fn encapsulates_tcp(ruleset: &Ruleset) -> bool {
    ruleset.rules.iter().any(|rule| {
        rule.matches.protocol == Protocol::Tcp && matches!(rule.action, Action::Funnel { .. })
    })
}

/// What a run makes of an interface's `gso_max_segs`.
#[derive(Debug)]
pub struct Limit<'a> {
    interface: &'a Interface,
    step: Step,
    /// What it was before it was lowered, for the filter's name.
    pub earlier: Option<u32>,
    notices: Vec<Notice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Leave,
    Lower,
    Raise { to: u32 },
}

impl<'a> Limit<'a> {
    /// What egress rules ask for that take the place of those for which `gso_max_segs` was lowered,
    /// where it was, from `earlier`.
    pub fn new(
        interface: &'a Interface,
        rules: Option<&Ruleset>,
        offload: Offload,
        earlier: Option<u32>,
    ) -> Self {
        let mut limit = Self { interface, step: Step::Leave, earlier: None, notices: Vec::new() };
        let value = interface.gso_max_segs;
        let needed = rules.is_some_and(encapsulates_tcp);
        if needed && offload == Offload::Limit {
            if value > LIMIT {
                limit.step = Step::Lower;
                limit.earlier = Some(value);
            } else if value == LIMIT {
                limit.earlier = earlier;
                if earlier.is_none() {
                    limit.notices.push(Notice::lowered_already(interface));
                }
            }
            return limit;
        }
        let mut stays = value;
        if let Some(to) = earlier {
            if value == LIMIT {
                limit.step = Step::Raise { to };
                stays = to;
            } else if !needed && value != to {
                limit.notices.push(Notice::changed(interface, value));
            }
        }
        if needed && stays > LIMIT {
            limit.notices.push(Notice::kept(interface, stays));
        }
        limit
    }

    /// Does it, and returns what the user should know. Where the kernel refuses, all the rest of the
    /// rules can be had all the same.
    pub fn settle(mut self, netlink: &mut Netlink) -> Vec<Notice> {
        let interface = self.interface;
        let mut set = |segments| netlink.set_gso_max_segs(interface.index, segments);
        match self.step {
            Step::Leave => {}
            Step::Lower => self.notices.push(Notice::lowered(interface, set(LIMIT))),
            Step::Raise { to } => self.notices.push(Notice::raised(interface, to, set(to))),
        }
        self.notices
    }
}

/// What the user should know of offloading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// There is something to do about it.
    pub warning: bool,
    text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Notice {
    fn lowered(Interface { name, gso_max_segs, .. }: &Interface, result: io::Result<()>) -> Self {
        match result {
            Ok(()) => {
                let text = format!(
                    "{name}: gso_max_segs {gso_max_segs} -> {LIMIT}, because a packet of several \
                     TCP segments can't get a header; `clean` restores it, OFFLOAD=keep leaves it \
                     alone"
                );
                Self { warning: false, text }
            }
            Err(error) => {
                let text = format!(
                    "{name}: can't set gso_max_segs from {gso_max_segs} to {LIMIT}: {error}; a \
                     packet of several TCP segments can't get a header and goes on without, \
                     counted as `segmented`; try `ip link set dev {name} gso_max_segs {LIMIT}`"
                );
                Self { warning: true, text }
            }
        }
    }

    fn lowered_already(Interface { name, .. }: &Interface) -> Self {
        let text = format!(
            "{name}: gso_max_segs is {LIMIT} already, and no filter remembers another value; \
             `clean` will leave it so"
        );
        Self { warning: false, text }
    }

    fn kept(Interface { name, .. }: &Interface, value: u32) -> Self {
        let text = format!(
            "{name}: gso_max_segs stays {value}, as OFFLOAD=keep asks; a packet of several TCP \
             segments can't get a header and goes on without, counted as `segmented`"
        );
        Self { warning: true, text }
    }

    fn raised(Interface { name, .. }: &Interface, to: u32, result: io::Result<()>) -> Self {
        match result {
            Ok(()) => {
                let text = format!("{name}: gso_max_segs {LIMIT} -> {to}, as it was");
                Self { warning: false, text }
            }
            Err(error) => {
                let text = format!(
                    "{name}: can't set gso_max_segs back to {to}: {error}; try `ip link set dev \
                     {name} gso_max_segs {to}`"
                );
                Self { warning: true, text }
            }
        }
    }

    fn changed(Interface { name, .. }: &Interface, value: u32) -> Self {
        let text = format!(
            "{name}: gso_max_segs stays {value}: somebody has changed it since it was set to {LIMIT}"
        );
        Self { warning: false, text }
    }

    fn gro_on_arrival(Interface { name, .. }: &Interface) -> Self {
        let text = format!(
            "{name} ingress: packets that GRO has merged on arrival can't get a header and go on \
             without, counted as `segmented`; where it is on, `ethtool -K {name} gro off`"
        );
        Self { warning: true, text }
    }

    fn gro_before_forwarding(Interface { name, .. }: &Interface) -> Self {
        let text = format!(
            "{name} egress: this host forwards, and what GRO has merged on another interface can't \
             get a header; where it is on, `ethtool -K IFACE gro off`"
        );
        Self { warning: true, text }
    }
}

/// What `rules` for `hook` will not be carried out on where GRO is on, whatever `gso_max_segs` is.
pub fn gro_notices(
    netlink: &mut Netlink,
    interfaces: &[Interface],
    hook: Hook,
    rules: &Ruleset,
) -> Vec<Notice> {
    if !encapsulates_tcp(rules) {
        return Vec::new();
    }
    match hook {
        Hook::Ingress => interfaces.iter().map(Notice::gro_on_arrival).collect(),
        Hook::Egress if forwards() => {
            // For want of a hint no run fails.
            let all = netlink.interfaces().unwrap_or_default();
            let fed = |to: &&Interface| {
                all.iter().any(|from| from.up && !from.loopback && from.index != to.index)
            };
            interfaces.iter().filter(fed).map(Notice::gro_before_forwarding).collect()
        }
        Hook::Egress => Vec::new(),
    }
}

/// Whether the network namespace of this thread forwards packets of either family. One that can't
/// be asked has no such family.
fn forwards() -> bool {
    ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|value| value.trim() != "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(gso_max_segs: u32) -> Interface {
        Interface {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            gso_max_segs,
            up: true,
            loopback: false,
            link_header: Some(14),
        }
    }

    fn rules(text: &str) -> Ruleset {
        ruleset::compile(text).unwrap_or_else(|e| panic!("{e}")).ruleset
    }

    const NEEDED: &str = "tcp dport 8080 actions funnel tcp sport 540 dport 80";
    const NOT_NEEDED: &str = "udp dport 53 actions funnel tcp sport 540 dport 80";

    #[test]
    fn every_case_there_is() {
        use Offload::{Keep, Limit as Lower};
        let raise = Step::Raise { to: 9 };
        // Rules, OFFLOAD, what the interface has, what the earlier filter remembers; what is done,
        // what the new filter remembers, what is said before anything is done.
        for (text, offload, value, earlier, step, remembered, said) in [
            (NEEDED, Lower, 9, None, Step::Lower, Some(9), ""),
            (NEEDED, Lower, 1, Some(9), Step::Leave, Some(9), ""),
            (NEEDED, Lower, 1, None, Step::Leave, None, "1 already"),
            // Changed by hand: that is what is to come back.
            (NEEDED, Lower, 5, Some(9), Step::Lower, Some(5), ""),
            (NEEDED, Keep, 9, None, Step::Leave, None, "stays 9, as"),
            (NEEDED, Keep, 1, None, Step::Leave, None, ""),
            (NEEDED, Keep, 1, Some(9), raise, None, "stays 9, as"),
            (NOT_NEEDED, Lower, 9, None, Step::Leave, None, ""),
            (NOT_NEEDED, Lower, 1, None, Step::Leave, None, ""),
            (NOT_NEEDED, Lower, 1, Some(9), raise, None, ""),
            (NOT_NEEDED, Keep, 1, Some(9), raise, None, ""),
            (NOT_NEEDED, Lower, 5, Some(9), Step::Leave, None, "stays 5: somebody"),
            // Killed before it was lowered.
            (NEEDED, Lower, 9, Some(9), Step::Lower, Some(9), ""),
            (NOT_NEEDED, Lower, 9, Some(9), Step::Leave, None, ""),
        ] {
            let case = format!("{text} {offload:?} {value} {earlier:?}");
            let interface = interface(value);
            let limit = Limit::new(&interface, Some(&rules(text)), offload, earlier);
            assert_eq!((limit.step, limit.earlier), (step, remembered), "{case}");
            let all: String = limit.notices.iter().map(Notice::to_string).collect();
            assert_eq!(all.is_empty(), said.is_empty(), "{case}: {all}");
            assert!(all.contains(said), "{case}: {all}");
        }
    }
}
