//! Every filter of a run, or none of them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::loaded_programs;

use super::{AttachError, Rulesets, filters};
use crate::netlink::{ETH_P_ALL, Filter, Hook, Interface, Netlink, Place};
use crate::object::{Link, Program};
use crate::offload::{Limit, Notice};
use crate::ours::{self, Subject};
use crate::settings::Offload;

/// What a run does, and how far it has come.
///
/// Everything that can be refused is asked for before the first filter is touched: programs are
/// loaded, places are looked at, qdiscs are made. If the kernel then fails a filter all the same,
/// those before it are put back as they were.
pub(super) struct Transaction<'a> {
    interfaces: &'a [Interface],
    changes: Vec<Change<'a>>,
    /// Those that got a qdisc.
    made: Vec<&'a Interface>,
    /// Changes that are made.
    done: usize,
}

/// A filter that is to be set or removed.
struct Change<'a> {
    interface: &'a Interface,
    hook: Hook,
    subject: Subject,
    /// `None`: the filter goes.
    program: Option<Program>,
    /// What is to become of packets that the filter can't change.
    limit: Option<Limit<'a>>,
    previous: Option<Previous>,
}

/// A filter of ours that stands there.
struct Previous {
    name: String,
    /// `None`: only CAP_SYS_ADMIN may hold it.
    program: Option<OwnedFd>,
}

impl<'a> Transaction<'a> {
    pub(super) fn prepare(
        netlink: &mut Netlink,
        interfaces: &'a [Interface],
        rulesets: &Rulesets,
        offload: Offload,
    ) -> Result<Self, AttachError> {
        let mut planned = Vec::new();
        for interface in interfaces {
            for (hook, subject, compiled) in rulesets.filters() {
                let there = filters(netlink, interface, hook)?;
                let ours = subject.find(&there);
                let job = match compiled {
                    Some(compiled) => Some((compiled, link(interface, hook, subject, &there)?)),
                    None if ours.is_none() => continue,
                    None => None,
                };
                let limit = (subject == Subject::Packets && hook == Hook::Egress).then(|| {
                    let rules = compiled.map(|compiled| &compiled.ruleset);
                    Limit::new(interface, rules, offload, ours.and_then(|ours| ours.gso_max_segs))
                });
                let previous = ours.map(Previous::from);
                let change = Change { interface, hook, subject, program: None, limit, previous };
                planned.push((change, job));
            }
        }
        let jobs: Vec<_> = planned.iter().filter_map(|(_, job)| *job).collect();
        let mut programs = Program::load_all(&jobs)?.into_iter();
        let mut changes: Vec<_> = planned
            .into_iter()
            .map(|(change, job)| Change { program: job.and_then(|_| programs.next()), ..change })
            .collect();
        // What can't be undone comes last, and removing, which can hardly fail, behind it.
        changes.sort_by_key(|change| {
            let out_of_reach = change.previous.as_ref().is_some_and(|p| p.program.is_none());
            (change.program.is_none(), out_of_reach)
        });
        Ok(Self { interfaces, changes, made: Vec::new(), done: 0 })
    }

    pub(super) fn carry_out(&mut self, netlink: &mut Netlink) -> Result<(), AttachError> {
        for interface in self.interfaces {
            let made = netlink
                .ensure_clsact(interface.index)
                .map_err(|error| AttachError::Qdisc { interface: interface.name.clone(), error })?;
            if made {
                self.made.push(interface);
            }
        }
        for change in &self.changes {
            change.make(netlink)?;
            self.done += 1;
        }
        Ok(())
    }

    /// When all is attached: what became of offloading.
    pub(super) fn finish(self, netlink: &mut Netlink) -> Vec<Notice> {
        let limits = self.changes.into_iter().filter_map(|change| change.limit);
        limits.flat_map(|limit| limit.settle(netlink)).collect()
    }

    /// Puts back what was there, last first. Returns what could not be, for the error message.
    pub(super) fn undo(self, netlink: &mut Netlink) -> String {
        let mut left = String::new();
        for change in self.changes.into_iter().take(self.done).rev() {
            if let Err(error) = change.undo(netlink) {
                let name = &change.interface.name;
                left += &format!("; {name} {} keeps the new rules: {error}", change.hook);
                // And so it gets the limit that they need.
                for notice in change.limit.into_iter().flat_map(|limit| limit.settle(netlink)) {
                    left += &format!("; {notice}");
                }
            }
        }
        for &Interface { index, ref name, .. } in self.made {
            // It was made a moment ago; what somebody else has put on it since is theirs.
            let empty = Hook::BOTH
                .iter()
                .all(|&hook| netlink.filters(index, hook).is_ok_and(|filters| filters.is_empty()));
            if empty && let Err(error) = netlink.remove_clsact(index) {
                left += &format!("; an empty clsact qdisc stays on {name}: {error}");
            }
        }
        left
    }
}

impl Change<'_> {
    fn make(&self, netlink: &mut Netlink) -> Result<(), AttachError> {
        let Self { interface, hook, subject, .. } = *self;
        let index = interface.index;
        let interface = || interface.name.clone();
        match &self.program {
            Some(program) => {
                let name = ours::name(subject, self.limit.as_ref().and_then(|l| l.earlier));
                let place = Place { name: &name, ..subject.place() };
                netlink
                    .set_filter(index, hook, place, program.as_fd())
                    .map_err(|error| AttachError::Filter { interface: interface(), hook, error })
            }
            None => netlink
                .remove_filter(index, hook, subject.place())
                .map_err(|error| AttachError::Remove { interface: interface(), hook, error }),
        }
    }

    fn undo(&self, netlink: &mut Netlink) -> io::Result<()> {
        let Self { interface: &Interface { index, .. }, hook, subject, .. } = *self;
        let Some(Previous { name, program }) = &self.previous else {
            return netlink.remove_filter(index, hook, subject.place());
        };
        let program = program.as_ref().ok_or_else(|| {
            io::Error::other("the earlier program can't be had back without CAP_SYS_ADMIN")
        })?;
        netlink.set_filter(index, hook, Place { name, ..subject.place() }, program.as_fd())
    }
}

impl From<ours::Ours<'_>> for Previous {
    fn from(ours: ours::Ours<'_>) -> Self {
        Self { name: ours.name.to_owned(), program: ours.program.and_then(program_fd) }
    }
}

/// What a program on `hook` is told of the interface, if its filter can have its place.
fn link(
    interface: &Interface,
    hook: Hook,
    subject: Subject,
    there: &[Filter],
) -> Result<Link, AttachError> {
    let link_header =
        interface.link_header.ok_or_else(|| AttachError::LinkLayer(interface.name.clone()))?;
    let (place, ours) = (subject.place(), subject.find(there));
    // A priority is of one kind and one protocol.
    let mut same = there.iter().filter(|f| (f.chain, f.priority) == (0, place.priority));
    if let Some(other) = same.find(|filter| {
        filter.kind != "bpf"
            || filter.protocol != ETH_P_ALL
            || (filter.handle == place.handle && ours.is_none())
    }) {
        let (interface, kind) = (interface.name.clone(), other.kind.clone());
        return Err(AttachError::Occupied { interface, hook, subject, kind });
    }
    // What the stack sends it has sized for the interface; the header comes on top.
    let mtu = if hook == Hook::Egress { interface.mtu } else { 0 };
    Ok(Link { link_header, mtu })
}

/// A descriptor of the program with this number.
fn program_fd(id: u32) -> Option<OwnedFd> {
    let info = loaded_programs().flatten().find(|info| info.id() == id)?;
    info.fd().ok()?.as_fd().try_clone_to_owned().ok()
}
