//! The demonstration: from an annotation to a packet, on one machine.
//!
//! A webhook gets the AdmissionReview of a pod and answers with a patch. A client, a node and three
//! pods are network namespaces; the node balances as kube-proxy does in nftables mode. The loader
//! runs in each pod with the environment that the patch gives it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tests::binary;
use tests::link::Link;
use tests::model::{Packet, TCP};
use tests::netns::{Checked as _, End, Netns, connect};

/// The pod of the demonstration, which `kubectl apply -f` takes as well.
const POD: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/web-pod.json"));

/// The Service's address.
const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
const PODS: usize = 3;
const CLIENTS: usize = 60;
/// The port that keeps its Service entry, and the one that is funnelled through it.
const PORTS: [u16; 2] = [80, 8080];

/// What the client's side is told. A gateway in front of real clients would have the same rules.
const CLIENT_EGRESS: &str =
    "ip daddr 198.51.100.80 tcp dport 8080 actions funnel tcp dport 80 sport 540";
const CLIENT_INGRESS: &str = "ip saddr 198.51.100.80 tcp sport 80 dport 540 actions unfunnel tcp";

/// Set on Ctrl-C. Every step looks at it, so that guards get to clean up.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    let started = Instant::now();

    step("The webhook starts, with a certificate of its own making")?;
    let webhook = Webhook::start()?;
    println!("  listening on https://{}", webhook.address);

    step("It gets the AdmissionReview of a pod that is annotated with rules")?;
    let pod: Value = serde_json::from_str(POD)?;
    for (name, value) in pod["metadata"]["annotations"].as_object().into_iter().flatten() {
        for line in value.as_str().unwrap_or_default().lines() {
            println!("  {name}: {line}");
        }
    }
    let patch = webhook.review(&pod)?;
    println!("\n  and answers with this patch:");
    print_indented(&serde_json::to_string_pretty(&patch)?);
    let mut patched = pod;
    json_patch::patch(&mut patched, &serde_json::from_value::<json_patch::Patch>(patch)?)?;
    let environment = loader_environment(&patched)?;

    step("A client, a node and three pods are made as network namespaces")?;
    let net = Net::new()?;
    println!("  client 10.1.0.0/16 -- node, Service {SERVICE} -- pods 10.2.0.1 to 10.2.2.1");

    step("Before: a Service with two ports, one affinity list for each, as Kubernetes has it")?;
    net.balance(&PORTS)?;
    let before = net.both_on_one_pod()?;
    println!("  both ports on one pod: {before} of {CLIENTS} clients");

    step("After: the Service has port 80 alone; the loader runs in each pod as the patch says")?;
    net.balance(&PORTS[..1])?;
    for (pod, netns) in net.pods.iter().enumerate() {
        let mut loader = netns.command(binary::loader());
        loader.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, value) in &environment {
            loader.env(name, value);
        }
        loader.checked().with_context(|| format!("the loader in pod-{pod}"))?;
    }
    let mut loader = net.client.command(binary::loader());
    loader.env("SFUNNEL_RULESET", CLIENT_INGRESS).env("SFUNNEL_EGRESS_RULESET", CLIENT_EGRESS);
    loader.checked().context("the loader at the client")?;
    println!("  on the client's side: {CLIENT_EGRESS}");
    println!("                        {CLIENT_INGRESS}");
    let after = net.both_on_one_pod()?;
    println!("  both ports on one pod: {after} of {CLIENTS} clients");

    step("One packet on its way, a SYN to port 8080")?;
    net.trace()?;

    step("What the loader shows in the pods")?;
    for netns in &net.pods {
        print_indented(&netns.command(binary::loader()).arg("show").checked()?);
    }

    println!(
        "\nBoth ports of a client on one pod: {before} of {CLIENTS} before, {after} of {CLIENTS} \
         after ({:.0} s)",
        started.elapsed().as_secs_f64()
    );
    ensure!(after == CLIENTS, "after, it should have been all {CLIENTS}");
    // Chance is a third; one run in a million would be outside of these.
    ensure!((4..=38).contains(&before), "before, it should have been about a third");
    Ok(())
}

fn step(title: &str) -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted; everything is cleaned up");
    println!("\n== {title}");
    Ok(std::io::stdout().flush()?)
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}

/// A running webhook. It ends with this value.
struct Webhook {
    process: Child,
    address: SocketAddr,
    folder: std::path::PathBuf,
}

impl Webhook {
    fn start() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("sfunnel-demo-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let program = binary::webhook();
        let mut process = Command::new(&program)
            .args(["--self-signed", "--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"])
            .args(["--loader-image=registry.example/sfunnel-loader:demo", "--log-format=json"])
            .arg("--ca-file")
            .arg(folder.join("ca.pem"))
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't run {}", program.display()))?;
        let log = process.stderr.take().context("its log is piped")?;
        let mut webhook = Self { process, address: ([127, 0, 0, 1], 0).into(), folder };
        let mut lines = BufReader::new(log).lines();
        for line in lines.by_ref() {
            let line = line?;
            let Ok(entry) = serde_json::from_str::<Value>(&line) else {
                bail!("the webhook says: {line}");
            };
            if entry["message"] == "listening" {
                let address = entry["admission"].as_str().context("it names its address")?;
                webhook.address = address.parse()?;
                // Nobody reads on, but the pipe must not fill up.
                thread::spawn(move || lines.for_each(drop));
                return Ok(webhook);
            }
        }
        bail!("the webhook ended before it listened");
    }

    /// Sends the review of a pod's creation, as the API server does. Returns the patch.
    fn review(&self, pod: &Value) -> Result<Value> {
        use ureq::tls::{Certificate, RootCerts, TlsConfig};
        let ca = Certificate::from_pem(&fs::read(self.folder.join("ca.pem"))?)?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
        let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "11111111-2222-3333-4444-555555555555",
                "kind": { "group": "", "version": "v1", "kind": "Pod" },
                "resource": { "group": "", "version": "v1", "resource": "pods" },
                "name": pod["metadata"]["name"],
                "namespace": pod["metadata"]["namespace"],
                "operation": "CREATE",
                "userInfo": { "username": "demo" },
                "object": pod,
                "dryRun": false,
            },
        });
        let mut answer = agent
            .post(format!("https://{}/mutate", self.address))
            .content_type("application/json")
            .send(review.to_string())?;
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
        let response = &answer["response"];
        ensure!(response["allowed"] == true, "the pod is refused: {response:#}");
        let patch = response["patch"].as_str().context("there is no patch")?;
        Ok(serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?)
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left behind: {error}", self.folder.display());
        }
    }
}

/// What the kubelet would give the loader: each variable's value is an annotation's.
fn loader_environment(pod: &Value) -> Result<Vec<(String, String)>> {
    let loader = &pod["spec"]["initContainers"][0];
    ensure!(loader["name"] == "sfunnel-loader", "the loader is not the first init container");
    let variables = loader["env"].as_array().context("the loader has no environment")?;
    variables
        .iter()
        .map(|variable| {
            let path = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let annotation = path
                .and_then(|path| path.strip_prefix("metadata.annotations['"))
                .and_then(|path| path.strip_suffix("']"))
                .with_context(|| format!("not from an annotation: {variable}"))?;
            let value = pod["metadata"]["annotations"][annotation].as_str();
            let name = variable["name"].as_str().context("a variable without a name")?;
            Ok((name.into(), value.context("no such annotation")?.into()))
        })
        .collect()
}

/// Client -- node -- three pods.
struct Net {
    client: Netns,
    node: Netns,
    pods: Vec<Netns>,
}

fn client_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 1, number as u8 + 1)
}

impl Net {
    fn new() -> Result<Self> {
        let pods = (0..PODS).map(|pod| Netns::new(&format!("pod{pod}"))).collect::<Result<_>>()?;
        let net = Self { client: Netns::new("client")?, node: Netns::new("node")?, pods };
        connect(
            End::new(&net.client, "eth0", "10.1.0.2/16", "02:00:00:00:00:02"),
            End::new(&net.node, "client", "10.1.0.1/16", "02:00:00:00:00:01"),
        )?;
        for number in 0..CLIENTS {
            net.client.run(&format!("ip addr add {}/16 dev eth0", client_address(number)))?;
        }
        net.client.run("ip route add default via 10.1.0.1")?;
        net.node.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        for (number, pod) in net.pods.iter().enumerate() {
            let (node_end, pod_end) =
                (format!("10.2.{number}.254/24"), format!("10.2.{number}.1/24"));
            connect(
                End::new(
                    &net.node,
                    &format!("pod{number}"),
                    &node_end,
                    &format!("02:00:00:00:01:0{number}"),
                ),
                End::new(pod, "eth0", &pod_end, &format!("02:00:00:00:02:0{number}")),
            )?;
            pod.run(&format!("ip route add default via 10.2.{number}.254"))?;
            for port in PORTS {
                let listener = pod.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
                thread::spawn(move || serve(&listener, number));
            }
        }
        Ok(net)
    }

    /// Writes the rules that kube-proxy writes in nftables mode for a Service with these ports,
    /// `sessionAffinity: ClientIP`, and forgets what was before.
    ///
    /// Each port has a chain of its own, and each endpoint of a port a set of the clients that it
    /// has served: so two ports of one Service know nothing of each other.
    fn balance(&self, ports: &[u16]) -> Result<()> {
        let mut chains = String::new();
        let mut services = Vec::new();
        for port in ports {
            let mut affinity = String::new();
            let mut endpoints = Vec::new();
            for pod in 0..PODS {
                chains += &format!(
                    "set affinity-{port}-{pod} {{
                        type ipv4_addr; flags dynamic,timeout; timeout 10800s;
                    }}
                    chain endpoint-{port}-{pod} {{
                        update @affinity-{port}-{pod} {{ ip saddr }}
                        meta l4proto tcp dnat to 10.2.{pod}.1:{port}
                    }}\n"
                );
                affinity +=
                    &format!("ip saddr @affinity-{port}-{pod} goto endpoint-{port}-{pod}\n");
                endpoints.push(format!("{pod} : goto endpoint-{port}-{pod}"));
            }
            chains += &format!(
                "chain service-{port} {{
                    {affinity}
                    numgen random mod {PODS} vmap {{ {} }}
                }}\n",
                endpoints.join(", ")
            );
            services.push(format!("{SERVICE} . tcp . {port} : goto service-{port}"));
        }
        self.node.nft(&format!(
            "table ip kube-proxy
            delete table ip kube-proxy
            table ip kube-proxy {{
                {chains}
                map service-ips {{
                    type ipv4_addr . inet_proto . inet_service : verdict;
                    elements = {{ {} }}
                }}
                chain services {{
                    ip daddr . meta l4proto . th dport vmap @service-ips
                }}
                chain nat-prerouting {{
                    type nat hook prerouting priority dstnat;
                    jump services
                }}
            }}",
            services.join(", ")
        ))
    }

    /// Lets every client ask both ports for the pod's name, and counts those to whom both gave the
    /// same.
    fn both_on_one_pod(&self) -> Result<usize> {
        let mut same = 0;
        for number in 0..CLIENTS {
            ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted; everything is cleaned up");
            let ask = |port| self.client.enter(|| ask(client_address(number), port));
            let [one, other] = PORTS.map(ask);
            let who = || format!("client {}", client_address(number));
            same += usize::from(one.with_context(who)? == other.with_context(who)?);
            if (number + 1) % 20 == 0 {
                println!("  {} clients asked", number + 1);
            }
        }
        Ok(same)
    }

    /// Shows one packet as it is sent, as it crosses the link, and as the pod gets it.
    fn trace(&self) -> Result<()> {
        let client = self.client.enter(|| Link::open("eth0"))?;
        let node = self.node.enter(|| Link::open("client"))?;
        let sockets = self.pods.iter().map(|pod| pod.enter(raw_tcp)).collect::<Result<Vec<_>>>()?;

        let (sport, dport) = (40_000_u16, 8080_u16);
        let mut segment = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        // Sequence number 1, five words, SYN, a window of 64,240 bytes.
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xFA, 0xF0, 0, 0, 0, 0]);
        let packet = Packet {
            tos: 0,
            id: 1,
            fragment: 0x4000,
            flow: 0,
            ttl: 64,
            protocol: TCP,
            saddr: client_address(0).into(),
            daddr: SERVICE.into(),
            options: Vec::new(),
            segment,
        }
        .seal();
        println!("  as sent       {}", describe(&packet));
        let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        client.send(&[&macs[..], &packet.write()].concat(), None)?;

        let on_wire = loop {
            let frame =
                node.receive(Duration::from_secs(5))?.context("nothing crosses the link")?.frame;
            match Packet::read(&frame[14..]) {
                Ok(packet) if frame[12..14] == [8, 0] && packet.protocol == TCP => break packet,
                _ => {}
            }
        };
        println!("  on the wire   {}", describe(&on_wire));

        let until = Instant::now() + Duration::from_secs(5);
        loop {
            for (pod, socket) in sockets.iter().enumerate() {
                let mut bytes = [0; 2048];
                let Ok(len) = (&*socket).read(&mut bytes) else { continue };
                if let Ok(delivered) = Packet::read(&bytes[..len])
                    && delivered.ports() == (sport, dport)
                {
                    println!("  to pod-{pod}      {}", describe(&delivered));
                    ensure!(delivered.check_is_right(), "its checksum is wrong");
                    return Ok(());
                }
            }
            ensure!(Instant::now() < until, "no pod gets the packet");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Answers each connection with the pod's name.
fn serve(listener: &TcpListener, pod: usize) {
    for connection in listener.incoming().flatten() {
        // A client that has gone away is its own business.
        let _ = writeln!(&connection, "pod-{pod}");
    }
}

/// The name that the pod behind `port` answers with.
fn ask(from: Ipv4Addr, port: u16) -> Result<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((IpAddr::V4(from), 0)).into())?;
    socket
        .connect_timeout(&SocketAddr::from((SERVICE, port)).into(), Duration::from_secs(5))
        .with_context(|| format!("port {port} does not answer"))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut name = String::new();
    stream.read_to_string(&mut name).with_context(|| format!("port {port} says nothing"))?;
    Ok(name)
}

/// What the kernel delivers to TCP, without taking it away from it.
fn raw_tcp() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One line about a packet, with all of its headers.
fn describe(packet: &Packet) -> String {
    let mut line = format!(
        "{} > {}, {} bytes",
        packet.saddr,
        packet.daddr,
        20 + packet.options.len() + packet.segment.len()
    );
    let mut segment = packet.segment.as_slice();
    while segment.len() >= 20 {
        let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let sequence = u32::from(word(4)) << 16 | u32::from(word(6));
        line += &format!(" | TCP {} > {} SYN, sequence {sequence:#x}", word(0), word(2));
        segment = &segment[20..];
    }
    line
}
