//! A cluster, for those who use it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Folder, ProxyMode, UPLINK};
use crate::netns::{Checked as _, Netns};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells it from others on the machine.
    pub name: String,
    /// How kube-proxy works.
    pub proxy_mode: ProxyMode,
    /// The folder of [`programs`](super::programs).
    pub programs: PathBuf,
    /// Images to import: docker-archives or OCI layouts in tar files.
    pub images: Vec<PathBuf>,
}

/// How long a cluster may take until it is ready; usually it takes seconds.
const START: Duration = Duration::from_secs(180);
/// How long a supervisor may take to remove everything.
const STOP: Duration = Duration::from_secs(30);

/// A running cluster. Dropped, it ends, unless it was started [detached](Self::start_detached).
#[derive(Debug)]
pub struct Cluster {
    folder: Folder,
    programs: PathBuf,
    supervisor: Option<Child>,
    /// What the supervisor prints.
    log: File,
}

impl Cluster {
    /// Starts a supervisor, `command` with its arguments, and waits until pods can be made. The
    /// cluster ends with this value, or with the process.
    ///
    /// # Errors
    ///
    /// What of the node failed, with its log.
    pub fn start(options: &Options, supervisor: &Path) -> Result<Self> {
        Self::spawn(options, supervisor, true)
    }

    /// The same, but the cluster goes on without this process.
    ///
    /// # Errors
    ///
    /// What of the node failed, with its log.
    pub fn start_detached(options: &Options, supervisor: &Path) -> Result<Self> {
        let mut cluster = Self::spawn(options, supervisor, false)?;
        cluster.supervisor = None;
        Ok(cluster)
    }

    fn spawn(options: &Options, supervisor: &Path, attached: bool) -> Result<Self> {
        let folder = Folder::named(&options.name);
        if folder.path().exists() {
            bail!("{} is there already; `cluster down` removes it", folder.path().display());
        }
        let log = tempfile::tempfile()?;
        let mut command = Command::new(supervisor);
        command
            .args(["supervise", "--name", &options.name])
            .args(["--proxy-mode", &options.proxy_mode.to_string(), "--programs"])
            .arg(&options.programs)
            .args(options.images.iter().flat_map(|image| [OsStr::new("--image"), image.as_ref()]))
            .stdout(Stdio::null())
            .stderr(log.try_clone()?);
        if attached {
            command.arg("--until-stdin-closes").stdin(Stdio::piped());
        } else {
            // Away from the terminal, whose Ctrl-C is not meant for it.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.stdin(Stdio::null());
        }
        let child = command.spawn().with_context(|| format!("{}", supervisor.display()))?;
        let programs = options.programs.clone();
        let mut cluster = Self { folder, programs, supervisor: Some(child), log };
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        let supervisor = self.supervisor.as_mut().expect("it was just started");
        while !self.folder.ready().exists() {
            if let Some(status) = supervisor.try_wait()? {
                self.supervisor = None;
                bail!("the cluster could not be started ({status}):\n{}", self.last_words());
            }
            if start.elapsed() > START {
                let log = fs::read_to_string(self.folder.logs().join("node.log"));
                bail!(
                    "the cluster is not ready after {} s:\n{}",
                    START.as_secs(),
                    log.unwrap_or_default()
                );
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What the supervisor has printed so far.
    fn last_words(&self) -> String {
        let mut text = Vec::new();
        let mut part = [0; 4096];
        // Its position is the supervisor's too: it is left where it is.
        while let Ok(count @ 1..) = self.log.read_at(&mut part, text.len() as u64) {
            text.extend_from_slice(&part[..count]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The error, and why the cluster is gone if it is.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if self.folder.path().exists() {
            return error;
        }
        error.context(format!("the cluster has ended: {}", self.last_words()))
    }

    /// Whether a cluster of that name is up.
    pub fn is_up(name: &str) -> bool {
        let folder = Folder::named(name);
        folder.ready().exists() && running_supervisor(&folder).is_some()
    }

    /// Ends the cluster of that name, whoever started it, and removes what it left. True if there was
    /// one.
    ///
    /// # Errors
    ///
    /// When something is left behind.
    pub fn stop(name: &str) -> Result<bool> {
        let folder = Folder::named(name);
        if !folder.path().exists() {
            return Ok(false);
        }
        if !is_ours(&folder) {
            bail!("{} belongs to another user", folder.path().display());
        }
        if let Some(pid) = running_supervisor(&folder) {
            kill(pid, Signal::SIGTERM)?;
            let start = Instant::now();
            while running_supervisor(&folder).is_some() {
                if start.elapsed() > STOP {
                    bail!(
                        "the supervisor, process {pid}, has not ended {} s after SIGTERM",
                        STOP.as_secs()
                    );
                }
                sleep(Duration::from_millis(50));
            }
        }
        if folder.path().exists() {
            // The supervisor was killed; its node went with it.
            super::supervisor::remove(&folder)?;
        }
        Ok(true)
    }

    /// Its files.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.folder.kubeconfig());
        // It would keep what it learns about the API in the user's home.
        command.arg("--cache-dir").arg(self.folder.path().join("kubectl"));
        command
    }

    /// Runs kubectl, its words separated by blanks, and returns what it prints.
    ///
    /// # Errors
    ///
    /// What kubectl says.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut kubectl = self.kubectl();
        kubectl.args(line.split_whitespace()).checked().map_err(|error| self.explain(error))
    }

    /// The same with a flag whose value is a path: `-k` and a folder, `-f` and a file.
    ///
    /// # Errors
    ///
    /// What kubectl says.
    pub fn run_with(&self, line: &str, flag: &str, path: &Path) -> Result<String> {
        let mut kubectl = self.kubectl();
        kubectl.args(line.split_whitespace()).arg(flag).arg(path);
        kubectl.checked().map_err(|error| self.explain(error))
    }

    /// Applies manifests.
    ///
    /// # Errors
    ///
    /// What kubectl says.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let mut command = self.kubectl();
        command.args(["apply", "-f", "-"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().expect("it is piped").write_all(manifests.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The node's PID 1, seen from outside: its namespaces are the node's.
    ///
    /// # Errors
    ///
    /// When the cluster is gone.
    pub fn pid(&self) -> Result<u32> {
        Ok(fs::read_to_string(self.folder.node_pid())?.parse()?)
    }

    /// Runs a command line in the node's network and mount namespaces.
    ///
    /// # Errors
    ///
    /// What the command printed, if it failed.
    pub fn on_node(&self, line: &str) -> Result<String> {
        self.at_node()?.args(line.split_whitespace()).checked()
    }

    /// What runs a command in the node's network and mount namespaces.
    fn at_node(&self) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid()?.to_string(), "--net", "--mount", "--"]);
        Ok(command)
    }

    /// Imports an image: a docker-archive or an OCI layout in a tar file.
    ///
    /// # Errors
    ///
    /// What containerd says.
    pub fn import(&self, image: &Path) -> Result<()> {
        let mut command = self.at_node()?;
        command.arg(self.programs.join("ctr")).args(super::programs::CTR);
        command.args(["images", "import", "--local"]).arg(image).checked()?;
        Ok(())
    }

    /// Connects a namespace to the bridge outside the cluster. Its end is called `eth0`, has `address`
    /// (with a prefix length), and knows the way to pods and Services: the node.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn connect(&self, netns: &Netns, address: &str) -> Result<()> {
        let pid = self.pid()?;
        // The node's namespace is its own: a number is enough.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let port = format!("outside{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = netns.name();
        let line = format!("link add eth0 netns {name} type veth peer name {port} netns {pid}");
        crate::netns::run("ip", &line.split_whitespace().collect::<Vec<_>>())?;
        self.on_node(&format!("ip link set {port} master {UPLINK} up"))?;
        netns.run(&format!("ip addr add {address} dev eth0"))?;
        netns.run("ip link set eth0 up")?;
        netns.run(&format!("ip route add default via {}", super::NODE))?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut supervisor) = self.supervisor.take() else { return };
        let number = i32::try_from(supervisor.id()).expect("the kernel's numbers are smaller");
        // Not waited for yet, so the number is still its own.
        let _ = kill(Pid::from_raw(number), Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < STOP {
            if let Ok(Some(status)) = supervisor.try_wait() {
                if !status.success() {
                    eprintln!("the cluster ended badly ({status}): {}", self.last_words());
                }
                return;
            }
            sleep(Duration::from_millis(20));
        }
        eprintln!("the supervisor of {} does not end; killing it", self.folder.path().display());
        let _ = supervisor.kill();
        let _ = supervisor.wait();
        if let Err(error) = super::supervisor::remove(&self.folder) {
            eprintln!("{error:#}");
        }
    }
}

/// Whether the folder was made by the user who asks. Everybody may make folders beside it.
fn is_ours(folder: &Folder) -> bool {
    fs::metadata(folder.path()).is_ok_and(|found| found.uid() == nix::unistd::geteuid().as_raw())
}

/// The supervisor's process, if it still is the one that was recorded.
fn running_supervisor(folder: &Folder) -> Option<Pid> {
    if !is_ours(folder) {
        return None;
    }
    let pid = fs::read_to_string(folder.supervisor_pid()).ok()?.parse::<i32>().ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // Numbers are used again.
    let words: Vec<_> = command_line.split(|byte| *byte == 0).collect();
    let ours = words.starts_with(&[words[0], b"supervise", b"--name", folder.name().as_bytes()]);
    ours.then(|| Pid::from_raw(pid))
}
