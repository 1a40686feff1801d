//! A Kubernetes node in namespaces of its own: API server, etcd, controller-manager, scheduler,
//! kubelet, kube-proxy, containerd and the CNI bridge, as plain processes.
//!
//! ```text
//! make cluster, tests
//!    │  mod          Cluster: starts the supervisor, waits for it, ends it
//!    ▼
//! supervisor         outside: the folder, the cgroups, a port of 127.0.0.1 that leads in
//!    │  unshare      network, mount, PID, UTS and IPC namespaces
//!    ▼
//! node               inside, as PID 1: mounts, network, the programs (programs, config, pki)
//!    │
//!    ▼
//! containers         images (image): imported from files, nothing is ever pulled
//! ```
//!
//! The node has no route to anywhere. Whatever happens, ending PID 1 of the PID namespace ends every
//! process, and with the last of them go the network and the mounts; what is left is a folder and a
//! cgroup, which the supervisor removes.

mod cgroup;
mod config;
mod forward;
mod handle;
mod image;
mod node;
mod pki;
mod programs;
mod supervisor;

pub use handle::{Cluster, Options};
pub use node::run as run_node;
pub use programs::folder as programs;
pub use supervisor::run as run_supervisor;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};

/// The node's address, on the bridge [`UPLINK`].
pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
/// The bridge in the node's network to which the world outside the cluster is connected.
pub const UPLINK: &str = "uplink";
/// The node's name.
pub const NODE_NAME: &str = "node";
/// Addresses of pods.
pub const POD_CIDR: &str = "10.244.0.0/22";
/// Addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The Service `kubernetes`: the first address of [`SERVICE_CIDR`].
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The API server's port on the node.
const API_PORT: u16 = 6443;

/// How kube-proxy sends packets to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Rules of iptables.
    Iptables,
    /// Rules of nftables.
    Nftables,
}

/// As kube-proxy's configuration has it.
impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

impl FromStr for ProxyMode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "iptables" => Ok(Self::Iptables),
            "nftables" => Ok(Self::Nftables),
            _ => bail!("the proxy mode `{text}` is neither iptables nor nftables"),
        }
    }
}

/// How names of folders and cgroups begin.
const PREFIX: &str = "sfunnel-cluster-";

/// The folder of one cluster, and what is where in it.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of the cluster of this name.
    pub fn named(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("{PREFIX}{name}")))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The administrator's kubeconfig; its server is a port of 127.0.0.1.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// There once the node is ready, seen from inside.
    fn node_ready(&self) -> PathBuf {
        self.0.join("node.ready")
    }

    /// There once the cluster is ready for those outside.
    fn ready(&self) -> PathBuf {
        self.0.join("ready")
    }

    /// The supervisor's process id.
    fn supervisor_pid(&self) -> PathBuf {
        self.0.join("supervisor.pid")
    }

    /// The process id of the node's PID 1, as it is outside.
    fn node_pid(&self) -> PathBuf {
        self.0.join("node.pid")
    }

    fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    fn config(&self) -> PathBuf {
        self.0.join("config")
    }

    fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The cgroup of all pods, under the root of each hierarchy.
    fn cgroup(&self) -> String {
        format!("{PREFIX}{}", self.name())
    }

    /// The cluster's name.
    fn name(&self) -> &str {
        let name = self.0.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix(PREFIX)).expect("named() has put it there")
    }
}
