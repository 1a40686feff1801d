//! Both servers, each a process.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::binary;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::certificate::Certificate;
use super::on;
use crate::path::cpu::Cpu;

/// What a server runs on.
#[derive(Clone, Copy)]
pub enum Cores {
    One,
    All,
}

/// A server that is ready. It ends with this value.
pub struct Server {
    process: Child,
    log: Option<JoinHandle<String>>,
    /// Where it answers reviews.
    pub url: String,
    agent: Agent,
}

impl Server {
    /// The webhook with a certificate from files, as from a mounted Secret.
    pub fn ours(certificate: &Certificate, cores: Cores) -> Result<Self> {
        let mut command = Command::new(binary::webhook());
        command.arg("--tls-cert").arg(certificate.certificate());
        command.arg("--tls-key").arg(certificate.key());
        Self::webhook(command, certificate, cores)
    }

    /// The webhook with a certificate that it makes itself. Nobody trusts it, but it is ready.
    pub fn self_signed(certificate: &Certificate, cores: Cores) -> Result<Self> {
        let mut command = Command::new(binary::webhook());
        command.arg("--self-signed");
        Self::webhook(command, certificate, cores)
    }

    fn webhook(mut command: Command, certificate: &Certificate, cores: Cores) -> Result<Self> {
        command.args(["--listen=127.0.0.1:8443", "--health-listen=127.0.0.1:8080"]);
        command.arg("--loader-image=registry.example/sfunnel-loader:1");
        let (url, ready) = ("https://127.0.0.1:8443/mutate", "http://127.0.0.1:8080/readyz");
        Self::start(command, cores, url, ready, agent(certificate)?)
    }

    /// The admission webhook that Kubernetes' own end-to-end tests call. It is written with
    /// Kubernetes' libraries, as most are, adds an init container too, and needs no API server, which
    /// would take its part of the core.
    pub fn agnhost(certificate: &Certificate, programs: &Path, cores: Cores) -> Result<Self> {
        let mut command = Command::new(programs.join("agnhost"));
        command.args(["webhook", "--port=9443", "--tls-cert-file"]).arg(certificate.certificate());
        command.arg("--tls-private-key-file").arg(certificate.key());
        let (url, ready) =
            ("https://127.0.0.1:9443/mutating-pods", "https://127.0.0.1:9443/readyz");
        Self::start(command, cores, url, ready, agent(certificate)?)
    }

    fn start(
        mut command: Command,
        cores: Cores,
        url: &str,
        ready: &str,
        agent: Agent,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut spawn = || {
            let program = command.get_program().display().to_string();
            command.spawn().with_context(|| format!("can't run {program}"))
        };
        let mut process = match cores {
            Cores::One => on(Cpu::Second, &mut spawn),
            Cores::All => spawn(),
        }?;
        let stderr = process.stderr.take();
        let mut server = Self { process, log: None, url: url.into(), agent };
        server.log = Some(thread::spawn(move || take_in(stderr)));
        server.wait_until_ready(ready)?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, url: &str) -> Result<()> {
        let started = Instant::now();
        while self.agent.get(url).call().is_err() {
            let ended = self.process.try_wait()?;
            if ended.is_some() || started.elapsed() > Duration::from_secs(10) {
                let _ = self.process.kill();
                let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
                bail!("{url} is not answered; its server said:\n{log}");
            }
            sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Asks once, and makes sure that the answer has a patch.
    pub fn review(&self, review: &str) -> Result<()> {
        ask(&self.agent, &self.url, review)
    }

    /// Bytes of memory that it has now.
    pub fn resident(&self) -> Result<f64> {
        self.memory("VmRSS:")
    }

    /// Bytes of memory that it had at the most.
    pub fn peak(&self) -> Result<f64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<f64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: f64 =
            kibibytes.with_context(|| format!("no {field} in {status}"))?.parse()?;
        Ok(kibibytes * 1024.0)
    }

    /// Seconds of a core that it has used.
    pub fn used(&self) -> Result<f64> {
        let stat = fs::read_to_string(self.proc("stat"))?;
        // The second field, the name in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(')').with_context(|| format!("unexpected: {stat}"))?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        let ticks: f64 = ticks.sum::<Result<f64, _>>()?;
        // The kernel shows hundredths of a second on every machine.
        Ok(ticks / 100.0)
    }

    /// Seconds in which it could have gone on, but something else had its core.
    pub fn delayed(&self) -> Result<f64> {
        let mut nanoseconds = 0.0;
        for thread in fs::read_dir(self.proc("task"))? {
            let path = thread?.path().join("schedstat");
            // Threads end.
            let Ok(stat) = fs::read_to_string(&path) else { continue };
            let field = stat.split_whitespace().nth(1);
            nanoseconds += field.with_context(|| format!("unexpected: {stat}"))?.parse::<f64>()?;
        }
        Ok(nanoseconds / 1e9)
    }

    /// Its open sockets.
    pub fn sockets(&self) -> Result<usize> {
        let mut sockets = 0;
        for entry in fs::read_dir(self.proc("fd"))? {
            let target = fs::read_link(entry?.path())?;
            sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
        }
        Ok(sockets)
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// A client that trusts the servers, and keeps its connections.
pub fn agent(certificate: &Certificate) -> Result<Agent> {
    let ca = ureq::tls::Certificate::from_pem(&fs::read(certificate.ca())?)?;
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
    let config = Agent::config_builder().tls_config(tls);
    Ok(config.timeout_global(Some(Duration::from_secs(10))).build().into())
}

/// Asks once, and makes sure that the answer has a patch.
pub fn ask(agent: &Agent, url: &str, review: &str) -> Result<()> {
    let request = agent.post(url).content_type("application/json");
    let answer =
        request.send(review).with_context(|| url.to_owned())?.body_mut().read_to_string()?;
    let response = &serde_json::from_str::<Value>(&answer)?["response"];
    let patched = response["allowed"] == true && response["patch"].is_string();
    ensure!(patched, "{url} answers without a patch: {answer}");
    Ok(())
}

/// Bytes of a log that are kept, to show what was wrong at the start.
const KEPT: usize = 4096;

/// Takes in a log until its end: a full pipe would stop the server.
fn take_in(log: Option<ChildStderr>) -> String {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let Some(mut log) = log else { return String::new() };
    loop {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => kept.extend(&buffer[..len.min(KEPT.saturating_sub(kept.len()))]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}
