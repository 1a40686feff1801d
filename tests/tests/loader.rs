//! `sfunnel-loader` as a process: what it leaves in a namespace when it has ended.
//!
//! Every test makes namespaces of its own, so all of them run at once. They need root and the
//! commands `ip`, `tc`, `unshare`, `setpriv` and `prlimit`.

#[path = "loader/all_or_nothing.rs"]
mod all_or_nothing;
#[path = "loader/attach.rs"]
mod attach;
#[path = "loader/clean.rs"]
mod clean;
#[path = "loader/icmp.rs"]
mod icmp;
#[path = "loader/lock.rs"]
mod lock;
#[path = "loader/net.rs"]
mod net;
#[path = "loader/offload.rs"]
mod offload;
#[path = "loader/privileges.rs"]
mod privileges;
#[path = "loader/refusals.rs"]
mod refusals;
#[path = "loader/replace.rs"]
mod replace;
#[path = "loader/show.rs"]
mod show;
#[path = "loader/verifier.rs"]
mod verifier;
