//! A cluster, for those who use it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

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
        let mut cluster =
            Self { folder, programs: options.programs.clone(), supervisor: Some(child) };
        cluster.wait_until_ready(log)?;
        Ok(cluster)
    }

    fn wait_until_ready(&mut self, mut log: File) -> Result<()> {
        let start = Instant::now();
        let supervisor = self.supervisor.as_mut().expect("it was just started");
        while !self.folder.ready().exists() {
            if let Some(status) = supervisor.try_wait()? {
                use std::io::{Read as _, Seek as _};
                let mut text = String::new();
                log.rewind()?;
                log.read_to_string(&mut text)?;
                self.supervisor = None;
                bail!("the cluster could not be started ({status}):\n{text}");
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
        if let Some(pid) = running_supervisor(&folder) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
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
        self.kubectl().args(line.split_whitespace()).checked()
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

    /// Runs `task` on a thread of its own in the node's network.
    ///
    /// # Errors
    ///
    /// When the cluster is gone.
    ///
    /// # Panics
    ///
    /// If `task` does.
    pub fn enter<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T> {
        let netns = File::open(format!("/proc/{}/ns/net", self.pid()?))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<T> {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                Ok(task())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command line in the node's network and mount namespaces.
    ///
    /// # Errors
    ///
    /// What the command printed, if it failed.
    pub fn on_node(&self, line: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid()?.to_string(), "--net", "--mount", "--"]);
        command.args(line.split_whitespace()).checked()
    }

    /// Connects a namespace to the bridge outside the cluster. Its end is called `eth0`, has `address`
    /// (with a prefix length), and knows the way to pods and Services: the node.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn connect(&self, netns: &Netns, address: &str) -> Result<()> {
        let pid = self.pid()?;
        // As short as an interface's name has to be, and nobody else's.
        let port = format!("up{}", netns.name().split('-').skip(1).take(2).collect::<String>());
        let name = netns.name();
        crate::netns::run(
            "ip",
            &[
                "link",
                "add",
                "eth0",
                "netns",
                name,
                "type",
                "veth",
                "peer",
                "name",
                &port,
                "netns",
                &pid.to_string(),
            ],
        )?;
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
        // It sees the end of its standard input.
        drop(supervisor.stdin.take());
        let start = Instant::now();
        while start.elapsed() < STOP {
            if let Ok(Some(status)) = supervisor.try_wait() {
                if !status.success() {
                    eprintln!("the cluster ended badly: {status}");
                }
                return;
            }
            sleep(Duration::from_millis(20));
        }
        eprintln!("the supervisor of {} does not end; killing it", self.folder.path().display());
        let _ = supervisor.kill();
        let _ = supervisor.wait();
    }
}

/// The supervisor's process, if it still is the one that was recorded.
fn running_supervisor(folder: &Folder) -> Option<nix::unistd::Pid> {
    let pid = fs::read_to_string(folder.supervisor_pid()).ok()?.parse::<i32>().ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // Numbers are used again.
    let ours = command_line.split(|byte| *byte == 0).any(|word| word == b"supervise");
    ours.then(|| nix::unistd::Pid::from_raw(pid))
}
