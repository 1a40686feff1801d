//! Clients outside the cluster, through a LoadBalancer Service and a gateway that funnels.

use serde_json::Value;
use tests::binary;
use tests::cluster::ProxyMode;
use tests::netns::{Checked as _, Netns, run};

use crate::lab::{LABEL, Lab, is_ready, loader, repository, turn};

/// Clients, each with an address of its own.
const CLIENTS: usize = 200;

#[test]
fn both_ports_of_every_client_meet_in_one_pod_iptables() {
    both_ports_of_every_client_meet_in_one_pod(ProxyMode::Iptables);
}

#[test]
fn both_ports_of_every_client_meet_in_one_pod_nftables() {
    both_ports_of_every_client_meet_in_one_pod(ProxyMode::Nftables);
}

/// From an empty cluster, by what the README says.
fn both_ports_of_every_client_meet_in_one_pod(mode: ProxyMode) {
    let _turn = turn();
    let lab = Lab::start(mode, "-empty");
    lab.install();
    let outside = Outside::new(&lab);

    for (number, (example, replicas)) in
        [("before", 3), ("before", 12), ("load-balancer", 3), ("load-balancer", 12)]
            .into_iter()
            .enumerate()
    {
        let service = format!("203.0.113.{}", 10 + number);
        let namespace = format!("{example}-{replicas}");
        lab.kubectl(&format!("create namespace {namespace}"));
        lab.kubectl(&format!("label namespace {namespace} {LABEL}"));
        let folder = repository("deploy/examples").join(example);
        lab.kubectl_with(&format!("apply -n {namespace}"), "-k", &folder);
        if example == "before" {
            // For clients outside, as the other one is; those inside are not needed.
            lab.kubectl(&format!("-n {namespace} delete deployment client"));
            patch(
                &lab,
                &namespace,
                r#"{"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local"}}"#,
                "",
            );
        }
        lab.kubectl(&format!("-n {namespace} scale deployment web --replicas={replicas}"));
        // A cloud's controller would do this.
        let status =
            format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{service}"}}]}}}}}}"#);
        patch(&lab, &namespace, &status, "status");
        lab.rolled_out(&namespace, "deployment/web");

        let pods = lab.list(&format!("pods -n {namespace} -l app=web"));
        assert_eq!(pods.len(), replicas);
        for pod in &pods {
            assert!(is_ready(pod));
            assert_eq!(loader_state(pod), (example != "before").then_some("Completed"), "{pod}");
        }
        if example != "before" {
            outside.funnel(&service);
        }
        let together = outside.together(&service);
        lab.report(format_args!(
            "from outside, {example:<14} {replicas:>2} replicas: {together:>3} of {CLIENTS} clients"
        ));
        if example == "before" {
            // By chance, a binomial distribution: five standard deviations from one in `replicas`.
            let chance = 1.0 / replicas as f64;
            let mean = chance * CLIENTS as f64;
            let far = 5.0 * (mean * (1.0 - chance)).sqrt();
            assert!(
                together > 0 && (together as f64 - mean).abs() < far,
                "{together}, but {mean:.0} by chance"
            );
        } else {
            assert_eq!(together, CLIENTS);
        }
    }
}

fn loader_state(pod: &Value) -> Option<&str> {
    loader(pod)?;
    pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"].as_str()
}

fn patch(lab: &Lab, namespace: &str, patch: &str, subresource: &str) {
    let mut kubectl = lab.cluster().kubectl();
    kubectl.args(["-n", namespace, "patch", "service", "web", "--type=merge", "--patch", patch]);
    if !subresource.is_empty() {
        kubectl.args(["--subresource", subresource]);
    }
    kubectl.checked().unwrap_or_else(|error| panic!("{error:#}"));
}

/// Clients behind a gateway, connected to the node.
struct Outside {
    clients: Netns,
    gateway: Netns,
    addresses: Vec<String>,
}

impl Outside {
    fn new(lab: &Lab) -> Self {
        Self::connect(lab).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn connect(lab: &Lab) -> anyhow::Result<Self> {
        let (clients, gateway) = (Netns::new("clients")?, Netns::new("gateway")?);
        let (c, g) = (clients.name(), gateway.name());
        run(
            "ip",
            &["link", "add", "eth0", "netns", c, "type", "veth", "peer", "name", "lan", "netns", g],
        )?;
        let addresses: Vec<_> = (1..=CLIENTS).map(|n| format!("198.51.100.{n}")).collect();
        for address in &addresses {
            clients.run(&format!("ip addr add {address}/24 dev eth0"))?;
        }
        clients.run("ip link set eth0 up")?;
        gateway.run("ip addr add 198.51.100.254/24 dev lan")?;
        gateway.run("ip link set lan up")?;
        gateway.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        clients.run("ip route add default via 198.51.100.254")?;
        lab.cluster().connect(&gateway, "172.31.0.2/16")?;
        lab.cluster().on_node("ip route add 198.51.100.0/24 via 172.31.0.2")?;
        Ok(Self { clients, gateway, addresses })
    }

    /// Runs the loader at the gateway, as the example's text tells.
    fn funnel(&self, service: &str) {
        let mut loader = self.gateway.command(binary::loader());
        loader.env("IFACES", "eth0");
        loader.env(
            "SFUNNEL_EGRESS_RULESET",
            format!("ip daddr {service} tcp dport 8080 actions funnel tcp dport 80 sport 540"),
        );
        loader.env(
            "SFUNNEL_RULESET",
            format!("ip saddr {service} tcp sport 80 dport 540 actions unfunnel tcp"),
        );
        loader.checked().unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// How many clients find both ports on one pod. All of them must find both.
    fn together(&self, service: &str) -> usize {
        let mut ask = self.clients.command(binary::example());
        ask.args(["ask", "--from", &self.addresses.join(","), service, "tcp:80", "tcp:8080"]);
        let output = ask.output().expect("the example program");
        let text = String::from_utf8_lossy(&output.stdout);
        let tally = text.lines().last().unwrap_or_default();
        let tally = tally.strip_suffix("; 0: not all ports answered");
        let together = tally.and_then(|tally| tally.split_once(&format!(" of {CLIENTS} clients")));
        let (together, _) = together.unwrap_or_else(|| panic!("some did not answer:\n{text}"));
        together.parse().expect("a number")
    }
}
