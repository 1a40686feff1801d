//! Networks of namespaces that vanish with their guard.

use std::fs::File;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

/// A network namespace. It is deleted with this value, and with it every interface in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up. No two have the same name, in any process.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn new(role: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sfunnel-{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let netns = Self { name };
        netns.run("ip link set lo up")?;
        Ok(netns)
    }

    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command line in the namespace, its words separated by blanks, and returns its
    /// standard output.
    ///
    /// # Errors
    ///
    /// What the command printed, if it failed.
    pub fn run(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.checked(Command::new(words[0]).args(&words[1..]))
    }

    /// Runs a command in the namespace, and returns its standard output. Unlike `ip netns exec`, this mounts
    /// no /sys for it.
    ///
    /// # Errors
    ///
    /// What the command printed, if it failed.
    pub fn checked(&self, command: &mut Command) -> Result<String> {
        self.enter(|| command.checked())
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Sets kernel parameters of the namespace's network stack.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that looks.
        self.enter(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                std::fs::write(&path, value).with_context(|| format!("{path}: {value}"))?;
            }
            Ok(())
        })
    }

    /// Runs `task` on a thread of its own in the namespace.
    ///
    /// # Panics
    ///
    /// If `task` does.
    pub fn enter<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let path = format!("/var/run/netns/{}", self.name);
                let file = File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                setns(file, CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("{path}: {e}"));
                task()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs an nftables script in the namespace.
    ///
    /// # Errors
    ///
    /// What `nft` says.
    pub fn nft(&self, script: &str) -> Result<()> {
        let file = std::env::temp_dir().join(format!("{}.nft", self.name));
        std::fs::write(&file, script)?;
        let result = self.checked(Command::new("nft").arg("-f").arg(&file));
        std::fs::remove_file(&file)?;
        result.map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["netns", "del", &self.name]) {
            eprintln!("{} is left behind: {error}", self.name);
        }
    }
}

/// One end of a veth pair.
pub struct End<'a> {
    /// Where it is.
    pub netns: &'a Netns,
    /// Its name there.
    pub interface: &'a str,
    /// Address with prefix length.
    pub address: &'a str,
    /// Hardware address, so that tests can write frames.
    pub mac: &'a str,
}

impl<'a> End<'a> {
    /// An end, its fields in order.
    pub fn new(netns: &'a Netns, interface: &'a str, address: &'a str, mac: &'a str) -> Self {
        Self { netns, interface, address, mac }
    }
}

/// Connects two namespaces by a veth pair, up and with addresses.
///
/// # Errors
///
/// What `ip` says.
pub fn connect(a: End<'_>, b: End<'_>) -> Result<()> {
    let (an, bn) = (a.netns.name(), b.netns.name());
    let line = format!(
        "link add {} netns {an} address {} type veth peer name {} netns {bn} address {}",
        a.interface, a.mac, b.interface, b.mac
    );
    run("ip", &line.split_whitespace().collect::<Vec<_>>())?;
    for End { netns, interface, address, .. } in [a, b] {
        netns.sysctl(&[(&format!("net.ipv6.conf.{interface}.disable_ipv6"), "1")])?;
        netns.run(&format!("ip addr add {address} dev {interface}"))?;
        netns.run(&format!("ip link set {interface} up"))?;
    }
    Ok(())
}

/// Runs a program and returns its standard output.
///
/// # Errors
///
/// What it printed, if it failed, or that it is not installed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    Command::new(program).args(arguments).checked()
}

/// Commands whose failure is an error.
pub trait Checked {
    /// Runs the command and returns its standard output.
    ///
    /// # Errors
    ///
    /// What it printed, if it failed, or that it is not installed.
    fn checked(&mut self) -> Result<String>;
}

impl Checked for Command {
    fn checked(&mut self) -> Result<String> {
        let Output { status, stdout, stderr } = self
            .output()
            .with_context(|| format!("can't run {self:?}; `make setup` installs it"))?;
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        if !status.success() {
            bail!("{self:?}: {status}\n{stdout}{}", String::from_utf8_lossy(&stderr));
        }
        Ok(stdout)
    }
}
