//! Where the node's programs are, and how each is called.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{API_PORT, Folder, NODE, NODE_NAME, POD_CIDR, SERVICE_CIDR};
use crate::netns::Checked as _;

/// What Debian has of a node: program and package.
const FROM_DEBIAN: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// The folder with the programs of Kubernetes, etcd, containerd and the CNI plugins. They are built if
/// they are not there yet, which takes minutes.
///
/// # Errors
///
/// Which part can't be had, and why.
pub fn folder() -> Result<PathBuf> {
    for (program, package) in FROM_DEBIAN {
        which(program).with_context(|| {
            format!(
                "`{program}` is missing; apt-get install {package}, or `tests/setup.sh cluster`"
            )
        })?;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/programs.sh");
    let folder = Command::new(script).checked()?;
    Ok(folder.trim_end().into())
}

/// A program on the path.
fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A program of the node, with all its arguments.
pub struct Program {
    /// Its name, for people and for its log.
    pub name: &'static str,
    /// What runs it.
    pub command: Command,
}

/// Calls of the node's programs.
pub struct Programs<'a> {
    folder: &'a Folder,
    programs: &'a Path,
}

/// Where kubelet's containers and images are, for `ctr`.
pub const CTR: [&str; 2] = ["--address=/run/containerd/containerd.sock", "--namespace=k8s.io"];

impl<'a> Programs<'a> {
    /// Those in `programs`, for the cluster in `folder`.
    pub fn new(folder: &'a Folder, programs: &'a Path) -> Self {
        Self { folder, programs }
    }

    fn program(&self, name: &'static str, arguments: &[String]) -> Program {
        let mut command = Command::new(self.programs.join(name));
        command.args(arguments);
        Program { name, command }
    }

    fn pki(&self, file: &str) -> String {
        self.folder.pki().join(file).display().to_string()
    }

    fn config(&self, file: &str) -> String {
        self.folder.config().join(file).display().to_string()
    }

    /// The store of the API server. The machine may lose power: nobody needs what it held.
    pub fn etcd(&self) -> Program {
        self.program(
            "etcd",
            &[
                format!("--data-dir={}", self.folder.path().join("etcd").display()),
                "--listen-client-urls=http://127.0.0.1:2379".into(),
                "--advertise-client-urls=http://127.0.0.1:2379".into(),
                "--listen-peer-urls=http://127.0.0.1:2380".into(),
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
            ],
        )
    }

    /// What runs containers.
    pub fn containerd(&self) -> Program {
        let mut program =
            self.program("containerd", &[format!("--config={}", self.config("containerd.toml"))]);
        // It finds its shim, and the shim runc, on the path.
        let path = std::env::var("PATH").unwrap_or_default();
        program.command.env("PATH", format!("{}:{path}", self.programs.display()));
        program
    }

    /// The API server.
    pub fn api_server(&self) -> Program {
        self.program(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379".into(),
                format!("--advertise-address={NODE}"),
                format!("--secure-port={API_PORT}"),
                format!("--tls-cert-file={}", self.pki("apiserver.crt")),
                format!("--tls-private-key-file={}", self.pki("apiserver.key")),
                format!("--client-ca-file={}", self.pki("ca.crt")),
                format!("--kubelet-client-certificate={}", self.pki("kubelet-client.crt")),
                format!("--kubelet-client-key={}", self.pki("kubelet-client.key")),
                "--kubelet-preferred-address-types=InternalIP".into(),
                format!("--service-account-key-file={}", self.pki("service-accounts.pub")),
                format!("--service-account-signing-key-file={}", self.pki("service-accounts.key")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-cluster-ip-range={SERVICE_CIDR}"),
                "--authorization-mode=Node,RBAC".into(),
                // For the GKE overlay's loader. Whether a pod may be privileged, Pod Security decides.
                "--allow-privileged=true".into(),
                "--profiling=false".into(),
            ],
        )
    }

    /// The controllers. Their default limits on requests would add seconds to every start.
    pub fn controller_manager(&self) -> Program {
        self.program(
            "kube-controller-manager",
            &[
                format!("--kubeconfig={}", self.pki("controller-manager.kubeconfig")),
                format!("--root-ca-file={}", self.pki("ca.crt")),
                format!("--service-account-private-key-file={}", self.pki("service-accounts.key")),
                "--use-service-account-credentials=true".into(),
                format!("--cluster-cidr={POD_CIDR}"),
                "--leader-elect=false".into(),
                "--kube-api-qps=500".into(),
                "--kube-api-burst=1000".into(),
                "--profiling=false".into(),
            ],
        )
    }

    /// The scheduler.
    pub fn scheduler(&self) -> Program {
        self.program(
            "kube-scheduler",
            &[
                format!("--kubeconfig={}", self.pki("scheduler.kubeconfig")),
                "--leader-elect=false".into(),
                "--profiling=false".into(),
            ],
        )
    }

    /// What starts pods.
    pub fn kubelet(&self) -> Program {
        self.program(
            "kubelet",
            &[
                format!("--config={}", self.config("kubelet.yaml")),
                format!("--kubeconfig={}", self.pki("kubelet.kubeconfig")),
                format!("--root-dir={}", self.folder.path().join("kubelet").display()),
                format!("--hostname-override={NODE_NAME}"),
                format!("--node-ip={NODE}"),
            ],
        )
    }

    /// What sends packets for Services to pods.
    pub fn proxy(&self) -> Program {
        self.program("kube-proxy", &[format!("--config={}", self.config("proxy.yaml"))])
    }

    /// kubectl as the administrator, inside the node.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg(format!("--kubeconfig={}", self.pki("admin.kubeconfig")));
        command
    }

    /// containerd's own client, for the images that the kubelet sees.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new(self.programs.join("ctr"));
        command.args(CTR);
        command
    }
}
