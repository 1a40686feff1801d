//! What stands outside the node: it makes the folder and the cgroup, starts PID 1 of the node in new
//! namespaces, lets the API server be reached, and takes everything away at the end.

use std::fs::{self, DirBuilder, File};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::{API_PORT, Folder, NODE, Options, cgroup, config, forward, image, pki};
use crate::netns::Checked as _;

/// Makes the cluster, serves until SIGTERM or SIGINT (with `until_stdin_closes`, also until standard
/// input ends), and removes every trace.
///
/// # Errors
///
/// What could not be made, or which program of the node ended by itself.
pub fn run(options: &Options, until_stdin_closes: bool) -> Result<()> {
    // Before any other thread exists, so that all of them leave the signals to the one that waits.
    let signals =
        SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT]);
    signals.thread_block()?;
    let (send, events) = channel();
    listen_for_end(signals, until_stdin_closes, &send);

    let folder = Folder::named(&options.name);
    // Keys are in it.
    DirBuilder::new().mode(0o700).create(folder.path()).with_context(|| {
        format!(
            "making {}; if a cluster of that name is left behind, `make cluster-down` removes it",
            folder.path().display()
        )
    })?;
    fs::write(folder.supervisor_pid(), std::process::id().to_string())?;
    let result = serve(&folder, options, &send, &events);
    match (result, remove(&folder)) {
        (result, Ok(())) => result,
        (Ok(()), Err(left)) => Err(left),
        (Err(error), Err(left)) => Err(error.context(format!("{left:#}"))),
    }
}

/// Why the supervisor stops waiting.
enum Event {
    /// It is asked to end.
    Stop,
    /// PID 1 of the node has ended.
    NodeEnded(ExitStatus),
}

fn listen_for_end(signals: SigSet, until_stdin_closes: bool, events: &Sender<Event>) {
    let stop = events.clone();
    thread::spawn(move || {
        let _ = signals.wait();
        let _ = stop.send(Event::Stop);
    });
    if until_stdin_closes {
        let stop = events.clone();
        thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = stop.send(Event::Stop);
        });
    }
}

fn serve(
    folder: &Folder,
    options: &Options,
    send: &Sender<Event>,
    events: &Receiver<Event>,
) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("opening a port of 127.0.0.1")?;
    let programs = options.programs.to_str().context("the programs' path is not UTF-8")?;
    fs::create_dir_all(folder.logs())?;
    pki::write(folder, listener.local_addr()?.port())?;
    config::write(folder, programs, options.proxy_mode)?;
    image::write_pause(&folder.path().join("pause.tar"))?;
    cgroup::make(&folder.cgroup())?;

    let mut node = start_node(folder, options)?;
    let pid = node.id();
    let ended = send.clone();
    let status = thread::spawn(move || {
        let status = node.wait();
        if let Ok(status) = status {
            let _ = ended.send(Event::NodeEnded(status));
        }
    });

    let result = wait(folder, pid, listener, events);
    if !status.is_finished() {
        // PID 1 itself: its end, for which unshare waits, is that of every process in the namespace.
        let target = child_of(pid).unwrap_or(pid);
        let _ = kill(Pid::from_raw(target.try_into()?), Signal::SIGKILL);
    }
    let _ = status.join();
    result
}

fn start_node(folder: &Folder, options: &Options) -> Result<Child> {
    let log = File::create(folder.logs().join("node.log"))?;
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"])
        .args(["--propagation", "private"])
        .arg(std::env::current_exe()?)
        .args(["node", "--name", &options.name, "--programs"])
        .arg(&options.programs)
        .args(options.images.iter().flat_map(|image| [PathBuf::from("--image"), image.clone()]))
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            // The node must not outlive the supervisor, whatever ends it.
            set_pdeathsig(Signal::SIGKILL)?;
            // Signals stay blocked across exec, and unshare and the node want theirs.
            SigSet::all().thread_unblock()?;
            Ok(())
        });
    }
    command.spawn().context("starting unshare")
}

/// From one look for the node to the next.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until the node is ready, then until the end.
fn wait(
    folder: &Folder,
    unshare: u32,
    listener: TcpListener,
    events: &Receiver<Event>,
) -> Result<()> {
    let mut listener = Some(listener);
    loop {
        // Nobody says when the node is ready; after that there is nothing to look for.
        let patience = if listener.is_some() { LOOK } else { Duration::MAX };
        match events.recv_timeout(patience) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(Event::NodeEnded(status)) => {
                let log = fs::read_to_string(folder.logs().join("node.log")).unwrap_or_default();
                bail!("the node ended ({status}):\n{log}");
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if listener.is_some()
            && folder.node_ready().exists()
            && let Some(pid) = child_of(unshare)
            && let Some(listener) = listener.take()
        {
            fs::write(folder.node_pid(), pid.to_string())?;
            let netns = File::open(format!("/proc/{pid}/ns/net"))?;
            forward::serve(listener, netns, SocketAddr::from((NODE, API_PORT)))?;
            fs::write(folder.ready(), "")?;
        }
    }
}

/// The first child of a process: of unshare it is PID 1 of the namespace.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Removes the folder and the cgroup. Nothing of the node may run any more.
pub(super) fn remove(folder: &Folder) -> Result<()> {
    // Each is tried, whatever became of the one before.
    let kept = keep_logs(folder);
    let cgroup = cgroup::remove(&folder.cgroup());
    let removed = fs::remove_dir_all(folder.path())
        .with_context(|| format!("removing {}", folder.path().display()));
    kept.and(cgroup).and(removed)
}

/// Copies the logs to where somebody wants them.
fn keep_logs(folder: &Folder) -> Result<()> {
    let Some(kept) = std::env::var_os("SFUNNEL_CLUSTER_LOGS").map(PathBuf::from) else {
        return Ok(());
    };
    if !folder.logs().exists() {
        return Ok(());
    }
    fs::create_dir_all(&kept).with_context(|| format!("making {}", kept.display()))?;
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(folder.logs()).arg(kept.join(folder.cgroup())).checked().map(drop)
}
