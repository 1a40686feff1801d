//! Programs -> interfaces: all or none.

mod error;
mod transaction;

use ruleset::{Compiled, quotes};

pub use self::error::AttachError;
use self::transaction::Transaction;
use crate::netlink::{Filter, Hook, Interface, Netlink};
use crate::offload::{Limit, Notice};
use crate::ours::Subject;
use crate::settings::Offload;

/// What is to be attached where.
#[derive(Clone, Debug, Default)]
pub struct Rulesets {
    /// For what the interfaces receive.
    pub ingress: Option<HookRules>,
    /// For what they send.
    pub egress: Option<HookRules>,
}

/// The rules of a hook.
#[derive(Clone, Debug)]
pub struct HookRules {
    /// For packets.
    pub packets: Compiled,
    /// For ICMP errors about them, which pass the opposite hook. `None`: they ask for nothing there.
    pub icmp_errors: Option<Compiled>,
}

impl Rulesets {
    /// These, and what they ask for where ICMP errors about them pass.
    pub fn new(ingress: Option<Compiled>, egress: Option<Compiled>) -> Self {
        let icmp_errors = |of: &Option<Compiled>, opposite: &Option<Compiled>| {
            let opposite = opposite.as_ref().map(|compiled| &compiled.ruleset);
            of.as_ref().and_then(|compiled| quotes(&compiled.ruleset, opposite))
        };
        let at_egress = icmp_errors(&ingress, &egress);
        let at_ingress = icmp_errors(&egress, &ingress);
        Self {
            ingress: ingress.map(|packets| HookRules { packets, icmp_errors: at_egress }),
            egress: egress.map(|packets| HookRules { packets, icmp_errors: at_ingress }),
        }
    }

    /// Those that there are.
    pub fn by_hook(&self) -> impl Iterator<Item = (Hook, &HookRules)> {
        let both = [(Hook::Ingress, &self.ingress), (Hook::Egress, &self.egress)];
        both.into_iter().filter_map(|(hook, rules)| Some((hook, rules.as_ref()?)))
    }

    /// What is to become of each filter that is not to be left as it is. `None`: it goes.
    pub fn filters(&self) -> impl Iterator<Item = (Hook, Subject, Option<&Compiled>)> {
        self.by_hook().flat_map(|(hook, rules)| {
            [
                (hook, Subject::Packets, Some(&rules.packets)),
                (hook.opposite(), Subject::IcmpErrors, rules.icmp_errors.as_ref()),
            ]
        })
    }
}

/// The interfaces of these names, or with none named every one that is up and not the loopback.
///
/// # Errors
///
/// A name without an interface, or no interface at all.
pub fn select(netlink: &mut Netlink, names: &[String]) -> Result<Vec<Interface>, AttachError> {
    let all = netlink
        .interfaces()
        .map_err(|error| AttachError::Read { what: "the list of interfaces", error })?;
    if names.is_empty() {
        let up: Vec<_> = all
            .into_iter()
            .filter(|interface| interface.up && !interface.loopback)
            .filter(|interface| interface.link_header.is_some())
            .collect();
        return if up.is_empty() { Err(AttachError::NoInterface) } else { Ok(up) };
    }
    let mut selected: Vec<Interface> = Vec::with_capacity(names.len());
    for name in names {
        let interface = all
            .iter()
            .find(|interface| interface.name == *name)
            .ok_or_else(|| AttachError::UnknownInterface(name.clone()))?;
        if !selected.contains(interface) {
            selected.push(interface.clone());
        }
    }
    Ok(selected)
}

/// Attaches the rulesets to every one of `interfaces`, in place of what an earlier run attached.
/// Returns what became of offloading.
///
/// # Errors
///
/// See [`AttachError`]; the interfaces are as they were, or the error names what is not.
pub fn attach(
    netlink: &mut Netlink,
    interfaces: &[Interface],
    rulesets: &Rulesets,
    offload: Offload,
) -> Result<Vec<Notice>, AttachError> {
    let mut transaction = Transaction::prepare(netlink, interfaces, rulesets, offload)?;
    match transaction.carry_out(netlink) {
        Ok(()) => Ok(transaction.finish(netlink)),
        Err(error) => Err(match transaction.undo(netlink) {
            left if left.is_empty() => error,
            left => AttachError::Partly { error: Box::new(error), left },
        }),
    }
}

/// What [`clean`] did.
#[derive(Debug, Default)]
pub struct Cleaned<'a> {
    /// Where our filters were.
    pub removed: Vec<(&'a str, Hook, Subject)>,
    /// What became of offloading.
    pub notices: Vec<Notice>,
}

/// Removes our filters from `interfaces`, and what was done for their sake.
///
/// The clsact qdisc stays: without filters it does nothing, and whoever else uses it may be about
/// to.
///
/// # Errors
///
/// The kernel's.
pub fn clean<'a>(
    netlink: &mut Netlink,
    interfaces: &'a [Interface],
) -> Result<Cleaned<'a>, AttachError> {
    let mut cleaned = Cleaned::default();
    for interface in interfaces {
        let name = interface.name.as_str();
        for hook in Hook::BOTH {
            let filters = filters(netlink, interface, hook)?;
            for subject in Subject::ALL {
                let Some(ours) = subject.find(&filters) else { continue };
                // First, for a run that is killed in between: the filter's name has what it was.
                let limit = Limit::new(interface, None, Offload::Keep, ours.gso_max_segs);
                cleaned.notices.extend(limit.settle(netlink));
                netlink.remove_filter(interface.index, hook, subject.place()).map_err(|error| {
                    AttachError::Remove { interface: name.to_owned(), hook, error }
                })?;
                cleaned.removed.push((name, hook, subject));
            }
        }
    }
    Ok(cleaned)
}

fn filters(
    netlink: &mut Netlink,
    interface: &Interface,
    hook: Hook,
) -> Result<Vec<Filter>, AttachError> {
    netlink
        .filters(interface.index, hook)
        .map_err(|error| AttachError::Read { what: "the list of filters", error })
}
