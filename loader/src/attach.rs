//! Programs -> interfaces: all or none.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::loaded_programs;
use ruleset::Compiled;

use crate::netlink::{ETH_P_ALL, Filter, Hook, Interface, Netlink, Place};
use crate::object::{Link, ObjectError, Program, hint};

/// Our place on every hook. `tc filter show` lists it as `pref 540 bpf ... handle 0x1 sfunnel`.
///
/// A filter that is added without a priority gets one from 49152 down, so we are asked before most,
/// but after Cilium's.
pub const PLACE: Place<'static> = Place { priority: 540, handle: 1, name: "sfunnel" };

/// Whether a filter is ours.
pub fn is_ours(filter: &Filter) -> bool {
    filter.priority == PLACE.priority
        && filter.handle == PLACE.handle
        && filter.kind == "bpf"
        && filter.name.as_deref() == Some(PLACE.name)
}

/// What is attached where.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rulesets<'a> {
    /// For what the interfaces receive.
    pub ingress: Option<&'a Compiled>,
    /// For what they send.
    pub egress: Option<&'a Compiled>,
}

/// Why nothing was attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No interface of that name.
    #[error("there is no interface {0} here; `ip link` lists those that are")]
    UnknownInterface(String),
    /// None at all.
    #[error("no interface is up but lo; name one with IFACES")]
    NoInterface,
    /// A link layer that the program can't parse.
    #[error("{0} is neither an Ethernet nor an IP device; name others with IFACES")]
    LinkLayer(String),
    /// The rules did not get into the kernel.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The kernel could not tell.
    #[error("can't read {what} from the kernel: {error}")]
    Read {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// Another qdisc, such as the older `ingress`.
    #[error(
        "{interface}: can't add the clsact qdisc: {error}{}{}{undone}",
        hint(.error), qdisc_hint(.interface, .error)
    )]
    Qdisc {
        /// The interface.
        interface: String,
        /// What the kernel said.
        error: io::Error,
        /// What could not be put back, if anything.
        undone: String,
    },
    /// Somebody else's filter.
    #[error(
        "{interface} {hook}: priority {} belongs to a {kind} filter that is not ours; move it, as \
         listed by `tc filter show dev {interface} {hook}`, or name other interfaces with IFACES",
        PLACE.priority
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// Where on it.
        hook: Hook,
        /// What kind of filter.
        kind: String,
    },
    /// The filter.
    #[error(
        "{interface} {hook}: can't attach the program: {error}{}{}{undone}",
        hint(.error), filter_hint(.interface, .error)
    )]
    Filter {
        /// The interface.
        interface: String,
        /// Where on it.
        hook: Hook,
        /// What the kernel said.
        error: io::Error,
        /// What could not be put back, if anything.
        undone: String,
    },
    /// A filter could not be removed.
    #[error("{interface} {hook}: can't remove the filter: {error}{}", hint(.error))]
    Remove {
        /// The interface.
        interface: String,
        /// Where on it.
        hook: Hook,
        /// What the kernel said.
        error: io::Error,
    },
}

impl AttachError {
    /// Whether it may be otherwise in a few seconds.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::UnknownInterface(_) | Self::NoInterface => true,
            Self::Object(error) => error.io_error().is_some_and(passes),
            Self::Read { error, .. } | Self::Filter { error, .. } | Self::Qdisc { error, .. } => {
                passes(error)
            }
            Self::LinkLayer(_) | Self::Occupied { .. } | Self::Remove { .. } => false,
        }
    }

    /// Whether the user named something that is not there, as opposed to a machine that refuses.
    pub fn is_users(&self) -> bool {
        matches!(self, Self::UnknownInterface(_) | Self::LinkLayer(_))
    }
}

fn passes(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENODEV | libc::ENOMEM)
    )
}

fn qdisc_hint(interface: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EEXIST | libc::EBUSY | libc::EINVAL) => format!(
            "; another qdisc has its place: remove it, as listed by `tc qdisc show dev {interface}`, \
             or name other interfaces with IFACES"
        ),
        _ => String::new(),
    }
}

fn filter_hint(interface: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        // A qdisc whose filters belong to several interfaces takes none for one of them.
        Some(libc::EOPNOTSUPP) => format!(
            "; its clsact qdisc shares its filters with other interfaces: make it anew without \
             `ingress_block` and `egress_block`, as listed by `tc qdisc show dev {interface}`, or \
             name other interfaces with IFACES"
        ),
        _ => String::new(),
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

/// A program that is to be attached, and what is there before.
struct Attachment<'a> {
    interface: &'a Interface,
    hook: Hook,
    program: Program,
    previous: Previous,
}

enum Previous {
    Nothing,
    Program(OwnedFd),
    /// There is one, but only CAP_SYS_ADMIN may hold it.
    OutOfReach,
}

/// Attaches the rulesets to every one of `interfaces`, in place of what an earlier run attached.
///
/// Everything that can be refused is asked for before the first filter is touched: programs are
/// loaded, places are looked at, qdiscs are made. If the kernel then fails a filter all the same,
/// those before it are put back as they were.
///
/// # Errors
///
/// See [`AttachError`]; the interfaces are as they were, or the error names what is not.
pub fn attach(
    netlink: &mut Netlink,
    interfaces: &[Interface],
    rulesets: Rulesets<'_>,
) -> Result<(), AttachError> {
    let mut attachments = Vec::new();
    for interface in interfaces {
        let hooks = [(Hook::Ingress, rulesets.ingress), (Hook::Egress, rulesets.egress)];
        for (hook, compiled) in hooks {
            if let Some(compiled) = compiled {
                attachments.push(prepare(netlink, interface, hook, compiled)?);
            }
        }
    }

    // What can't be undone comes last: where a filter of ours stands, another takes its place.
    attachments.sort_by_key(|attachment| matches!(attachment.previous, Previous::OutOfReach));

    let mut made = Vec::new();
    for interface in interfaces {
        match netlink.ensure_clsact(interface.index) {
            Ok(true) => made.push(interface),
            Ok(false) => {}
            Err(error) => {
                let undone = undo(netlink, &[], &made);
                let interface = interface.name.clone();
                return Err(AttachError::Qdisc { interface, error, undone });
            }
        }
    }
    for (number, attachment) in attachments.iter().enumerate() {
        let Attachment { interface, hook, program, .. } = attachment;
        if let Err(error) = netlink.set_filter(interface.index, *hook, PLACE, program.as_fd()) {
            let undone = undo(netlink, &attachments[..number], &made);
            let interface = interface.name.clone();
            return Err(AttachError::Filter { interface, hook: *hook, error, undone });
        }
    }
    Ok(())
}

fn prepare<'a>(
    netlink: &mut Netlink,
    interface: &'a Interface,
    hook: Hook,
    compiled: &Compiled,
) -> Result<Attachment<'a>, AttachError> {
    let link_header =
        interface.link_header.ok_or_else(|| AttachError::LinkLayer(interface.name.clone()))?;
    let filters = netlink
        .filters(interface.index, hook)
        .map_err(|error| AttachError::Read { what: "the list of filters", error })?;
    let there = filters.iter().filter(|filter| filter.priority == PLACE.priority);
    // A priority is of one kind and one protocol.
    if let Some(other) = there.clone().find(|filter| {
        filter.kind != "bpf"
            || filter.protocol != ETH_P_ALL
            || (filter.handle == PLACE.handle && !is_ours(filter))
    }) {
        let (interface, kind) = (interface.name.clone(), other.kind.clone());
        return Err(AttachError::Occupied { interface, hook, kind });
    }
    let previous = match there.clone().find(|filter| is_ours(filter)).and_then(|ours| ours.program)
    {
        None => Previous::Nothing,
        Some(id) => program_fd(id).map_or(Previous::OutOfReach, Previous::Program),
    };
    // What the stack sends it has sized for the interface; the header comes on top.
    let mtu = if hook == Hook::Egress { interface.mtu } else { 0 };
    let program = Program::load(compiled, Link { link_header, mtu })?;
    Ok(Attachment { interface, hook, program, previous })
}

/// A descriptor of the program with this number.
fn program_fd(id: u32) -> Option<OwnedFd> {
    let info = loaded_programs().flatten().find(|info| info.id() == id)?;
    info.fd().ok()?.as_fd().try_clone_to_owned().ok()
}

/// Puts back what was there, last first. Returns what could not be, for the error message.
fn undo(netlink: &mut Netlink, attached: &[Attachment<'_>], qdiscs: &[&Interface]) -> String {
    let mut left = String::new();
    for Attachment { interface, hook, previous, .. } in attached.iter().rev() {
        let result = match previous {
            Previous::Nothing => netlink.remove_filter(interface.index, *hook, PLACE),
            Previous::Program(fd) => netlink.set_filter(interface.index, *hook, PLACE, fd.as_fd()),
            Previous::OutOfReach => {
                Err(io::Error::other("the earlier program can't be had back without CAP_SYS_ADMIN"))
            }
        };
        if let Err(error) = result {
            left += &format!("; {} {hook} keeps the new rules: {error}", interface.name);
        }
    }
    for &Interface { index, ref name, .. } in qdiscs.iter().copied() {
        // It was made a moment ago; what somebody else has put on it since is theirs.
        let empty = [Hook::Ingress, Hook::Egress]
            .iter()
            .all(|&hook| netlink.filters(index, hook).is_ok_and(|filters| filters.is_empty()));
        if empty && let Err(error) = netlink.remove_clsact(index) {
            left += &format!("; an empty clsact qdisc stays on {name}: {error}");
        }
    }
    left
}

/// Removes our filters from `interfaces`. Returns where there were any.
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
) -> Result<Vec<(&'a str, Hook)>, AttachError> {
    let mut removed = Vec::new();
    for interface in interfaces {
        for hook in [Hook::Ingress, Hook::Egress] {
            let filters = netlink
                .filters(interface.index, hook)
                .map_err(|error| AttachError::Read { what: "the list of filters", error })?;
            if !filters.iter().any(is_ours) {
                continue;
            }
            netlink.remove_filter(interface.index, hook, PLACE).map_err(|error| {
                AttachError::Remove { interface: interface.name.clone(), hook, error }
            })?;
            removed.push((interface.name.as_str(), hook));
        }
    }
    Ok(removed)
}
