//! PID 1 of the node: mounts, network, the programs in their order, and an eye on them.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::wait::{WaitStatus, waitpid};

use super::programs::{Program, Programs};
use super::{API_PORT, Folder, NODE, NODE_NAME, SERVICE_CIDR, UPLINK};
use crate::netns::{Checked as _, run as command};

/// How long one step of the start may take.
const STEP: Duration = Duration::from_secs(60);

/// Kernel parameters that the kubelet and its like insist on, and that are not the namespace's but the
/// machine's: they see and write files instead.
const MACHINE_WIDE: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Brings the node up and stays until one of its programs ends.
///
/// # Errors
///
/// Which step failed, or which program ended, and the end of its log.
pub fn run(name: &str, programs: &Path, images: &[PathBuf]) -> Result<()> {
    let folder = Folder::named(name);
    visible([folder.path(), programs].into_iter().chain(images.iter().map(PathBuf::as_path)))?;
    mounts(&folder)?;
    network()?;

    let programs = Programs::new(&folder, programs);
    let mut node = Node { folder: &folder, children: Vec::new() };
    node.start(programs.etcd())?;
    node.start(programs.containerd())?;
    node.wait_for("etcd to listen", || listens(([127, 0, 0, 1], 2379).into()))?;
    node.start(programs.api_server())?;
    node.wait_for("the API server to listen", || listens((NODE, API_PORT).into()))?;
    node.wait_for("the API server to be ready", || {
        succeeds(programs.kubectl().args(["get", "--raw=/readyz"]))
    })?;
    // Earlier, they would wait for their next try.
    node.start(programs.controller_manager())?;
    node.start(programs.scheduler())?;
    node.wait_for("containerd", || succeeds(programs.ctr().arg("version")))?;
    for image in [&folder.path().join("pause.tar")].into_iter().chain(images) {
        programs
            .ctr()
            .args(["images", "import", "--local"])
            .arg(image)
            .checked()
            .with_context(|| format!("importing the image {}", image.display()))?;
    }
    node.start(programs.kubelet())?;
    node.start(programs.proxy())?;
    node.wait_for("the node to be ready", || {
        let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        programs
            .kubectl()
            .args(["get", "node", NODE_NAME, "-o", condition])
            .checked()
            .is_ok_and(|status| status == "True")
    })?;
    node.wait_for("the namespace `default` to have its service account", || {
        succeeds(programs.kubectl().args(["get", "serviceaccount", "default"]))
    })?;
    fs::write(folder.node_ready(), "")?;
    node.watch()
}

/// Folders in whose place the node has its own.
const HIDDEN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Fails for what the node can't see.
fn visible<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    for path in paths {
        let real =
            path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
        if HIDDEN.iter().any(|hidden| real.starts_with(hidden)) {
            bail!(
                "{} is below one of {}, where the node has folders of its own; set TMPDIR or \
                 SFUNNEL_CACHE to another place, or move the clone",
                path.display(),
                HIDDEN.join(", ")
            );
        }
    }
    Ok(())
}

fn mounts(folder: &Folder) -> Result<()> {
    mount(&["-t", "proc", "proc", "/proc"])?;
    // Sockets, network namespaces and locks of the node, not of the machine.
    let [run, fixed @ ..] = HIDDEN;
    mount(&["-t", "tmpfs", "tmpfs", run])?;
    // Paths that are fixed in the kubelet.
    for path in fixed {
        let ours = folder.path().join(path.trim_start_matches('/').replace('/', "-"));
        fs::create_dir(&ours)?;
        mount(&["--bind", text(&ours)?, path])?;
    }
    let parameters = folder.path().join("parameters");
    fs::create_dir(&parameters)?;
    for (parameter, value) in MACHINE_WIDE {
        let ours = parameters.join(parameter.replace('/', "."));
        fs::write(&ours, value)?;
        mount(&["--bind", text(&ours)?, &format!("/proc/sys/{parameter}")])?;
    }
    // The kubelet's mounts must reach containers that are there already.
    mount(&["--make-rshared", "/"])
}

fn mount(arguments: &[&str]) -> Result<()> {
    command("mount", arguments).map(drop)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

fn network() -> Result<()> {
    let ip = |line: &str| command("ip", &line.split_whitespace().collect::<Vec<_>>()).map(drop);
    ip("link set lo up")?;
    ip(&format!("link add {UPLINK} type bridge"))?;
    ip(&format!("addr add {NODE}/16 dev {UPLINK}"))?;
    ip(&format!("link set {UPLINK} up"))?;
    // kube-proxy rewrites a packet to a Service only after a route for it was found.
    ip(&format!("route add {SERVICE_CIDR} dev {UPLINK}"))?;
    for (parameter, value) in [
        ("net/ipv4/ip_forward", "1"),
        // Answers between two pods of the bridge have to pass the Service's translation.
        ("net/bridge/bridge-nf-call-iptables", "1"),
    ] {
        fs::write(Path::new("/proc/sys").join(parameter), value).with_context(|| {
            format!("setting {parameter}; for bridges the kernel needs br_netfilter")
        })?;
    }
    Ok(())
}

struct Node<'a> {
    folder: &'a Folder,
    children: Vec<(&'static str, Child)>,
}

impl Node<'_> {
    fn start(&mut self, program: Program) -> Result<()> {
        let Program { name, mut command } = program;
        let log = File::create(self.log(name))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        self.children.push((name, child));
        Ok(())
    }

    fn wait_for(&mut self, what: &str, is_there: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while !is_there() {
            for (name, child) in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended ({status}):\n{}", tail(&self.folder.logs(), name));
                }
            }
            if start.elapsed() > STEP {
                let logs: Vec<_> = self
                    .children
                    .iter()
                    .map(|(name, _)| format!("{name}:\n{}", tail(&self.folder.logs(), name)))
                    .collect();
                bail!("waited {} s for {what}\n{}", STEP.as_secs(), logs.join("\n"));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Takes leave of orphans, as PID 1 has to, until one of the programs ends.
    fn watch(&self) -> Result<()> {
        loop {
            let (pid, how) = match waitpid(None, None)? {
                WaitStatus::Exited(pid, status) => (pid, format!("exit status {status}")),
                WaitStatus::Signaled(pid, signal, _) => (pid, signal.to_string()),
                _ => continue,
            };
            let ended = self.children.iter().find(|(_, child)| child.id() == pid.as_raw() as u32);
            if let Some((name, _)) = ended {
                bail!("{name} ended ({how}):\n{}", tail(&self.folder.logs(), name));
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.logs().join(format!("{name}.log"))
    }
}

/// The last lines of a program's log.
fn tail(logs: &Path, name: &str) -> String {
    let log = fs::read_to_string(logs.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn succeeds(command: &mut Command) -> bool {
    command.checked().is_ok()
}
