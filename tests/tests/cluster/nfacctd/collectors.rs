//! The pods of nfacctd, and what they say: flows, and who speaks BGP to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::Value;
use tests::netns::Checked as _;

use super::routers::{COLLECTOR, PACKETS, Router, files};
use crate::lab::{Lab, Namespace, loader, wait_for};

/// The pods of nfacctd behind their Service.
pub struct Collectors<'a> {
    lab: &'a Lab,
    namespace: Namespace<'a>,
}

/// How many there are.
const PODS: usize = 3;

impl<'a> Collectors<'a> {
    /// Deploys what is in a folder of the use case.
    pub fn deploy(lab: &'a Lab, namespace: &str, folder: &str) -> Result<Self> {
        let collectors = Self { lab, namespace: lab.labelled(namespace) };
        lab.kubectl_with(&format!("apply -n {namespace}"), "-k", &files().join(folder));
        // A cloud's controller would do this.
        let status =
            format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{COLLECTOR}"}}]}}}}}}"#);
        let mut kubectl = lab.cluster().kubectl();
        kubectl.args(["-n", namespace, "patch", "service", "nfacctd", "--subresource=status"]);
        kubectl.args(["--type=merge", "--patch", &status]).checked()?;
        for pod in collectors.namespace.ready("app=nfacctd", PODS) {
            assert_eq!(loader(&pod).is_some(), folder != "before", "{pod}");
        }
        Ok(collectors)
    }

    /// The pods' names, also of those that are ending.
    pub fn pods(&self) -> Vec<String> {
        let pods = self.lab.list(&format!("pods -n {} -l app=nfacctd", self.namespace.name()));
        let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a name").to_owned();
        pods.iter().map(name).collect()
    }

    /// What they have said so far.
    pub fn collect(&self) -> Collected {
        // Pods that are ending among them. One that has no log yet is no reason to have none of the others.
        Collected::read(
            &self
                .kubectl("logs -l app=nfacctd --all-containers --prefix --tail=-1 --ignore-errors"),
        )
    }

    /// Runs kubectl in their namespace.
    pub fn kubectl(&self, line: &str) -> String {
        self.lab.kubectl(&format!("-n {} {line}", self.namespace.name()))
    }

    /// Waits until there are as many as there should be, all of them ready.
    pub fn ready(&self) {
        self.namespace.ready("app=nfacctd", PODS);
    }

    /// Makes room for others at the Service's address.
    pub fn remove(self) -> Result<()> {
        self.kubectl("delete service nfacctd");
        self.kubectl("delete deployment nfacctd");
        wait_for("the pods to end", || self.pods().is_empty().then_some(()));
        Ok(())
    }
}

/// What a flow was exported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Export {
    /// NetFlow version 9.
    Netflow,
    /// IPFIX, which says that it is version 10.
    Ipfix,
    /// sFlow.
    Sflow,
}

impl Export {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Netflow, Self::Ipfix, Self::Sflow];

    /// The program that takes it in.
    const fn program(self) -> &'static str {
        match self {
            Self::Netflow | Self::Ipfix => "nfacctd",
            Self::Sflow => "sfacctd",
        }
    }
}

/// One conversation, as a router has exported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// How.
    pub export: Export,
    /// The router's address.
    pub router: Ipv4Addr,
    /// The customer's port.
    pub port: u16,
}

/// What the collectors say of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its packets.
    pub packets: u64,
    /// Where it goes: the AS, and the path to it; of each record of it.
    pub destinations: BTreeSet<(u64, String)>,
    /// The pods in which it was seen.
    pub pods: BTreeSet<String>,
}

impl Seen {
    /// Whether all of it was seen. pmacct now and then tells of a single flow twice.
    pub fn whole(&self) -> bool {
        self.packets >= PACKETS
    }

    /// Whether all of it has what BGP of this router says.
    pub fn enriched_by(&self, router: &Router) -> bool {
        self.whole() && self.destinations == [(router.origin(), router.as_path())].into()
    }
}

/// All that the collectors have said so far.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Conversations.
    pub flows: BTreeMap<Flow, Seen>,
    /// Who has opened a BGP session with which program in which pod.
    sessions: BTreeSet<(String, &'static str, Ipv4Addr)>,
}

impl Collected {
    /// Reads the pods' logs, whose lines begin with `[pod/POD/CONTAINER] `.
    fn read(logs: &str) -> Self {
        let mut collected = Self::default();
        for line in logs.lines() {
            let Some((from, line)) = line.strip_prefix("[pod/").and_then(|l| l.split_once("] "))
            else {
                continue;
            };
            let (pod, container) = from.split_once('/').expect("a pod and a container");
            if container == "pmacct" {
                collected.add(pod, line);
            }
        }
        collected
    }

    fn add(&mut self, pod: &str, line: &str) {
        if let Some((program, rest)) = line.split_once("/core/BGP ): [")
            && let Some((router, what)) = rest.split_once("] ")
            && what.starts_with("BGP_OPEN")
        {
            let program = if program.ends_with("( sfacctd") { "sfacctd" } else { "nfacctd" };
            let router = router.parse().expect("an address");
            self.sessions.insert((pod.to_owned(), program, router));
        }
        let Some(record) = line.starts_with('{').then(|| serde_json::from_str::<Value>(line))
        else {
            return;
        };
        let record = record.unwrap_or_else(|error| panic!("{pod}: {line}: {error}"));
        // Customers also look for their neighbours.
        if record["ip_proto"] != "udp" {
            return;
        }
        let number = |name: &str| {
            record[name].as_u64().unwrap_or_else(|| panic!("{pod}: no {name}: {line}"))
        };
        let text = |name: &str| {
            record[name].as_str().unwrap_or_else(|| panic!("{pod}: no {name}: {line}"))
        };
        let export = match record["export_proto_version"].as_u64() {
            None => Export::Sflow,
            Some(10) => Export::Ipfix,
            Some(_) => Export::Netflow,
        };
        let router = text("peer_ip_src").parse().expect("an address");
        let port = number("port_src").try_into().expect("a port");
        let seen = self.flows.entry(Flow { export, router, port }).or_default();
        seen.packets += number("packets");
        seen.destinations.insert((number("as_dst"), text("as_path").to_owned()));
        seen.pods.insert(pod.to_owned());
    }

    /// Whether a flow's router has spoken BGP to the collector in that pod.
    pub fn has_session(&self, pod: &str, flow: Flow) -> bool {
        self.sessions.contains(&(pod.to_owned(), flow.export.program(), flow.router))
    }
}
