//! The filters that are ours: where they stand, and how they are known again.

use serde::Serialize;

use crate::netlink::{Filter, Hook, Place};

/// What a filter of ours looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Packets that the hook's rules are for.
    Packets,
    /// ICMP errors about packets that the opposite hook has changed.
    IcmpErrors,
}

impl Subject {
    /// Every one, in the order of priority.
    pub const ALL: [Self; 2] = [Self::Packets, Self::IcmpErrors];

    /// Where the filter stands, on whatever hook. `tc filter show` lists the first one as
    /// `pref 540 bpf ... handle 0x1 sfunnel`.
    ///
    /// A filter that is added without a priority gets one from 49152 down, so we are asked before
    /// most, but after Cilium's.
    pub const fn place(self) -> Place<'static> {
        match self {
            Self::Packets => Place { priority: 540, handle: 1, name: "sfunnel" },
            Self::IcmpErrors => Place { priority: 541, handle: 1, name: "sfunnel-icmp" },
        }
    }

    /// How messages call the filter on a hook.
    pub fn on(self, hook: Hook) -> String {
        match self {
            Self::Packets => hook.to_string(),
            Self::IcmpErrors => format!("{hook} for ICMP errors"),
        }
    }

    /// The filter at this place among `filters`, if it is ours, and what its name remembers.
    pub fn find(self, filters: &[Filter]) -> Option<Ours<'_>> {
        filters.iter().find_map(|filter| self.recognise(filter))
    }

    fn recognise(self, filter: &Filter) -> Option<Ours<'_>> {
        let place = self.place();
        if (filter.chain, filter.priority, filter.handle) != (0, place.priority, place.handle)
            || filter.kind != "bpf"
        {
            return None;
        }
        let name = filter.name.as_deref()?;
        let note = match name.strip_prefix(place.name)? {
            "" => None,
            note => Some(note.strip_prefix(NOTE)?.parse().ok()?),
        };
        Some(Ours { name, gso_max_segs: note, program: filter.program })
    }
}

/// A filter that an earlier run attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours<'a> {
    /// Its whole name.
    pub name: &'a str,
    /// The interface's `gso_max_segs` before it was lowered for this filter.
    pub gso_max_segs: Option<u32>,
    /// Number of the BPF program.
    pub program: Option<u32>,
}

/// The earlier `gso_max_segs` stands in the filter's name: it stays when the process ends, goes with
/// the filter, and can be read without CAP_SYS_ADMIN, which a map of the program could not.
const NOTE: &str = " gso_max_segs=";

/// The name of a filter that remembers `gso_max_segs`.
pub fn name(subject: Subject, gso_max_segs: Option<u32>) -> String {
    let name = subject.place().name;
    gso_max_segs.map_or_else(|| name.to_owned(), |earlier| format!("{name}{NOTE}{earlier}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::ETH_P_ALL;

    fn filter(priority: u16, handle: u32, kind: &str, name: &str) -> Filter {
        Filter {
            index: 2,
            hook: Hook::Egress,
            chain: 0,
            priority,
            protocol: ETH_P_ALL,
            handle,
            kind: kind.into(),
            name: Some(name.into()),
            program: Some(7),
        }
    }

    #[test]
    fn a_name_remembers() {
        for (subject, note) in
            [(Subject::Packets, None), (Subject::Packets, Some(65535)), (Subject::IcmpErrors, None)]
        {
            let Place { priority, handle, .. } = subject.place();
            let filter = filter(priority, handle, "bpf", &name(subject, note));
            let found = subject.find(std::slice::from_ref(&filter)).expect("it is ours");
            assert_eq!((found.gso_max_segs, found.program), (note, Some(7)));
        }
        assert_eq!(name(Subject::Packets, None), "sfunnel");
        assert_eq!(name(Subject::Packets, Some(64)), "sfunnel gso_max_segs=64");
    }

    #[test]
    fn nothing_else_is_ours() {
        let others = [
            filter(541, 1, "bpf", "sfunnel"),
            filter(540, 2, "bpf", "sfunnel"),
            filter(540, 1, "flower", "sfunnel"),
            filter(540, 1, "bpf", "sfunnel-icmp"),
            filter(540, 1, "bpf", "sfunnel2"),
            filter(540, 1, "bpf", "sfunnel gso_max_segs="),
            filter(540, 1, "bpf", "sfunnel gso_max_segs=many"),
            filter(540, 1, "bpf", "sfunnel gso_max_segs=64 mtu=1500"),
            Filter { name: None, ..filter(540, 1, "bpf", "") },
            Filter { chain: 7, ..filter(540, 1, "bpf", "sfunnel") },
        ];
        for subject in Subject::ALL {
            assert_eq!(subject.find(&others), None);
        }
    }
}
