//! Ten routers with customers behind them, and the gateway between them and the cluster.
//!
//! Their programs are real: BIRD speaks BGP, pmacctd exports flows. They come from `target/images/router`,
//! a Debian of their own, so that the machine's own has no routing daemon installed and started.

use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::binary;
use tests::netns::{Checked as _, Netns, run};

use crate::lab::{Lab, repository, wait_for};

/// How many there are.
pub const ROUTERS: u8 = 10;
/// The Service's address.
pub const COLLECTOR: &str = "203.0.113.10";
/// Packets of one conversation.
pub const PACKETS: u64 = 3;

/// The files of the use case.
pub fn files() -> PathBuf {
    repository("deploy/use-cases/nfacctd")
}

/// A program that ends with this value.
struct Running {
    child: Child,
    log: PathBuf,
}

/// The gateway, with the network in which the routers are.
pub struct Gateway {
    // Ends before its namespace does.
    funnel: Option<Running>,
    /// Where it is. `eth0` leads to the cluster.
    pub netns: Netns,
}

/// A router with its customers.
pub struct Router {
    /// From 1.
    pub number: u8,
    /// Where it is. `eth0` leads to the gateway.
    pub netns: Netns,
    customers: Netns,
    folder: PathBuf,
    bird: Option<Running>,
    exporters: Option<Running>,
}

impl Gateway {
    /// Connects one to the cluster.
    pub fn new(lab: &Lab) -> Result<Self> {
        let netns = Netns::new("gateway")?;
        netns.run("ip link add lan type bridge")?;
        netns.run("ip addr add 198.51.100.254/24 dev lan")?;
        netns.run("ip link set lan up")?;
        netns.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        lab.cluster().connect(&netns, "172.31.0.3/16")?;
        lab.cluster().on_node("ip route add 198.51.100.0/24 via 172.31.0.3")?;
        Ok(Self { netns, funnel: None })
    }

    /// Starts what the use case has for gateways.
    pub fn funnel(&mut self) -> Result<()> {
        let mut command = in_netns(&self.netns);
        command.arg(files().join("gateway/funnel"));
        command.env("LOADER", binary::loader()).env("LB", COLLECTOR).env("IFACES", "eth0");
        self.funnel = Some(Running::start(command, self.log())?);
        wait_for("rules at the gateway", || self.show().ok()?.contains("dport 6343").then_some(()));
        Ok(())
    }

    /// Where `gateway/funnel` says what it does.
    fn log(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", self.netns.name()))
    }

    /// What the loader shows of its rules.
    pub fn show(&self) -> Result<String> {
        self.netns.command(binary::loader()).arg("show").checked()
    }

    /// What `gateway/funnel` has said.
    pub fn said(&self) -> Result<String> {
        let funnel = self.funnel.as_ref().context("nothing funnels")?;
        Ok(fs::read_to_string(&funnel.log)?)
    }

    /// Ends it. It takes its rules away.
    pub fn stop_funnel(&mut self) -> Result<()> {
        drop(self.funnel.take());
        let shown = self.show()?;
        fs::remove_file(self.log())?;
        ensure!(shown.trim() == "nothing is attached", "the gateway has left rules: {shown}");
        Ok(())
    }
}

/// Joins two namespaces by interfaces of these names.
fn join((a, at_a): (&Netns, &str), (b, at_b): (&Netns, &str)) -> Result<()> {
    let (a, b) = (a.name(), b.name());
    let line = format!("link add {at_a} netns {a} type veth peer name {at_b} netns {b}");
    run("ip", &line.split_whitespace().collect::<Vec<_>>())?;
    Ok(())
}

fn up(netns: &Netns, interface: &str, address: &str) -> Result<()> {
    netns.run(&format!("ip addr add {address} dev {interface}"))?;
    netns.run(&format!("ip link set {interface} up"))?;
    Ok(())
}

/// A command in a namespace that ends with the thread that starts it, however that ends.
fn in_netns(netns: &Netns) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "ip", "netns", "exec", netns.name()]);
    command
}

impl Router {
    /// Connects one to the gateway.
    pub fn new(gateway: &Gateway, number: u8) -> Result<Self> {
        let (netns, customers) = (Netns::new("router")?, Netns::new("customers")?);
        let port = format!("lan{number}");
        join((&netns, "eth0"), (&gateway.netns, &port))?;
        gateway.netns.run(&format!("ip link set {port} master lan up"))?;
        up(&netns, "eth0", &format!("{}/24", Self::address_of(number)))?;
        netns.run("ip route add default via 198.51.100.254")?;
        join((&netns, "customers"), (&customers, "eth0"))?;
        up(&netns, "customers", "10.9.0.1/24")?;
        up(&customers, "eth0", "10.9.0.2/24")?;
        customers.run("ip route add default via 10.9.0.1")?;
        // It would send their packets on, if it had an upstream.
        netns.run("ip route add blackhole 198.18.0.0/15")?;
        netns.sysctl(&[("net.ipv4.ip_forward", "1")])?;

        let folder = Path::new("/tmp").join(netns.name());
        let router = Self { number, netns, customers, folder, bird: None, exporters: None };
        fs::create_dir_all(router.outside(""))?;
        Ok(router)
    }

    fn address_of(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, number)
    }

    /// Its address, by which a collector knows it.
    pub fn address(&self) -> Ipv4Addr {
        Self::address_of(self.number)
    }

    /// The AS that it says its customers' packets go to.
    pub fn origin(&self) -> u64 {
        64700 + u64::from(self.number)
    }

    /// How they go there, as pmacct writes it.
    pub fn as_path(&self) -> String {
        format!("{}_{}", 64600 + u64::from(self.number), self.origin())
    }

    /// A file of its own, as this machine sees it.
    fn outside(&self, file: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").expect("it is absolute");
        root().join(folder).join(file)
    }

    /// A program of its Debian.
    fn program(&self, program: &str) -> Command {
        let mut command = in_netns(&self.netns);
        command.arg("chroot").arg(root()).arg(program);
        command
    }

    /// Writes a file of the use case, which is for the first router, as this one's.
    fn write(&self, file: &str) -> Result<PathBuf> {
        let (first, number) = (Self::address_of(1), self.number);
        let text = fs::read_to_string(files().join("router").join(file))?
            .replace(&first.to_string(), &self.address().to_string())
            .replace("UPSTREAM = 64601", &format!("UPSTREAM = {}", 64600 + u32::from(number)))
            .replace("ORIGIN = 64701", &format!("ORIGIN = {}", self.origin()));
        fs::write(self.outside(file), text)?;
        Ok(self.folder.join(file))
    }

    /// Starts BGP.
    pub fn start_bgp(&mut self) -> Result<()> {
        let config = self.write("bird.conf")?;
        let mut bird = self.program("bird");
        bird.arg("-f").arg("-c").arg(config).arg("-s").arg(self.folder.join("bird.ctl"));
        self.bird = Some(Running::start(bird, self.outside("bird.log"))?);
        Ok(())
    }

    /// Whether both of its sessions are established, if BIRD says anything.
    pub fn is_connected(&self) -> Option<bool> {
        let mut birdc = self.program("birdc");
        birdc.arg("-s").arg(self.folder.join("bird.ctl")).args(["show", "protocols"]);
        let protocols = birdc.checked().ok()?;
        Some(protocols.lines().filter(|line| line.contains("Established")).count() == 2)
    }

    /// Starts the exporters, and waits until they see what customers send.
    pub fn start_exporters(&mut self) -> Result<()> {
        let config = self.write("pmacctd.conf")?;
        let mut pmacctd = self.program("pmacctd");
        pmacctd.arg("-f").arg(config);
        self.exporters = Some(Running::start(pmacctd, self.outside("pmacctd.log"))?);
        Ok(())
    }

    /// Whether the exporters see what customers send.
    pub fn exports(&self) -> Result<bool> {
        let log = fs::read_to_string(self.outside("pmacctd.log"))?;
        let exporters = log.matches("Exporting flows to").count();
        Ok(log.contains("link type is") && exporters == 3)
    }

    /// Ends BGP and the exporters, of all routers at the same time: each takes some seconds.
    pub fn stop_all(routers: &mut [Self]) {
        let running = |router: &mut Self| [router.exporters.take(), router.bird.take()];
        let running: Vec<_> = routers.iter_mut().flat_map(running).flatten().collect();
        running.iter().for_each(Running::terminate);
    }

    /// Customers have conversations, one with each of these source ports, with a pause after each.
    pub fn converse(&self, ports: impl Iterator<Item = u16> + Send, pause: Duration) {
        self.customers.enter(|| {
            for port in ports {
                let socket = UdpSocket::bind(("10.9.0.2", port)).expect("the port is free");
                for _ in 0..PACKETS {
                    socket.send_to(&[0; 100], "198.18.0.7:9000").expect("the router forwards");
                }
                sleep(pause);
            }
        });
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        Self::stop_all(std::slice::from_mut(self));
        if let Err(error) = fs::remove_dir_all(self.outside("")) {
            eprintln!("{}: {error}", self.outside("").display());
        }
    }
}

/// The routers' Debian.
fn root() -> PathBuf {
    let root = repository("target/images/router");
    assert!(root.exists(), "{} is missing; `make images` builds it", root.display());
    root
}

/// All of them.
pub fn connect_all(gateway: &Gateway) -> Result<Vec<Router>> {
    (1..=ROUTERS).map(|number| Router::new(gateway, number)).collect()
}

impl Running {
    fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self { child, log })
    }

    /// Has it end.
    fn terminate(&self) {
        let number = i32::try_from(self.child.id()).expect("the kernel's numbers are smaller");
        // Not waited for yet, so the number is still its own.
        let _ = kill(Pid::from_raw(number), Signal::SIGTERM);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.terminate();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(20) {
                eprintln!("process {} does not end; killing it", self.child.id());
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(Duration::from_millis(10));
        }
    }
}
