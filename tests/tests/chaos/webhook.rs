//! The webhook under test: the program that runs in a pod, in a network namespace of its own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tests::binary;
use tests::netns::Netns;

use crate::precedence::before_all_else;

/// Connections, at the most. With the default, four times that, it would take four times as many bad
/// clients to leave no room: processors of a small machine would be busy with clients.
pub const CONNECTIONS: u64 = 1024;

/// A running webhook, ended with the test.
pub struct Webhook {
    child: Child,
    folder: TempDir,
}

/// How it is at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// Memory that it has, in KiB.
    pub resident: u64,
    /// The most that it has ever had, in KiB.
    pub peak: u64,
    /// Files that it has open, sockets among them.
    pub files: u64,
    /// Time on a processor so far.
    pub busy: Duration,
}

impl Webhook {
    /// Starts it with its default limits, but for one, and waits until it listens.
    pub fn start(netns: &Netns) -> Self {
        let folder = TempDir::new().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = netns.command(binary::webhook());
        command
            .env_clear()
            // For `ip`.
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(["--self-signed", "--listen=0.0.0.0:8443", "--health-listen=0.0.0.0:8080"])
            .arg(format!("--max-connections={CONNECTIONS}"))
            .args(["--loader-image", "registry.example/sfunnel-loader:test", "--ca-file"])
            .arg(folder.path().join("ca.pem"))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = before_all_else(|| command.spawn().unwrap());
        let mut webhook = Self { child, folder };
        let start = Instant::now();
        while !webhook.log().contains("listening") {
            let ended = webhook.child.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended ({ended:?}):\n{}", webhook.log());
            assert!(start.elapsed() < PATIENCE, "it doesn't listen:\n{}", webhook.log());
            sleep(Duration::from_millis(10));
        }
        // `ip netns exec` has become it.
        assert_eq!(webhook.proc("comm").trim_end(), "sfunnel-webhook");
        webhook
    }

    /// The certificate of its CA.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// How it is now.
    pub fn vitals(&self) -> Vitals {
        let status = self.proc("status");
        let kib = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or_else(|| panic!("no {field} in {status}"))
        };
        let files = fs::read_dir(self.path("fd")).unwrap().count() as u64;
        Vitals { resident: kib("VmRSS:"), peak: kib("VmHWM:"), files, busy: self.busy() }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it doesn't end:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// User and system time of all its threads (proc_pid_stat(5)).
    fn busy(&self) -> Duration {
        let stat = self.proc("stat");
        // The name before may hold anything.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // Linux shows hundredths of a second here, whatever its own ticks are.
        Duration::from_millis(10 * ticks)
    }

    fn proc(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Longest wait for what must come: for the end, more than `--drain-delay` and `--shutdown-timeout`.
const PATIENCE: Duration = Duration::from_secs(60);
