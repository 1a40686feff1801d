//! Why nothing was attached.

use std::io;

use crate::kernel::advice;
use crate::lock::LockError;
use crate::netlink::Hook;
use crate::object::ObjectError;
use crate::ours::Subject;

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
    /// Another run is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
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
        "{interface}: can't add the clsact qdisc: {error}{}{}",
        advice(.error), qdisc_hint(.interface, .error)
    )]
    Qdisc {
        /// The interface.
        interface: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// Somebody else's filter.
    #[error(
        "{interface} {hook}: priority {} belongs to a {kind} filter that is not ours; move it, as \
         listed by `tc filter show dev {interface} {hook}`, or name other interfaces with IFACES",
        .subject.place().priority
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// Where on it.
        hook: Hook,
        /// What ours would look at.
        subject: Subject,
        /// What kind of filter.
        kind: String,
    },
    /// The filter.
    #[error(
        "{interface} {hook}: can't attach the program: {error}{}{}",
        advice(.error), filter_hint(.interface, .error)
    )]
    Filter {
        /// The interface.
        interface: String,
        /// Where on it.
        hook: Hook,
        /// What the kernel said.
        error: io::Error,
    },
    /// A filter could not be removed.
    #[error("{interface} {hook}: can't remove the filter: {error}{}", advice(.error))]
    Remove {
        /// The interface.
        interface: String,
        /// Where on it.
        hook: Hook,
        /// What the kernel said.
        error: io::Error,
    },
    /// One of these, and then something could not be put back.
    #[error("{error}{left}")]
    Partly {
        /// What failed first.
        error: Box<Self>,
        /// What is no more as it was.
        left: String,
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
            Self::Partly { error, .. } => error.may_pass(),
            Self::LinkLayer(_) | Self::Lock(_) | Self::Occupied { .. } | Self::Remove { .. } => {
                false
            }
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
