//! The examples: what the webhook makes of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use clap::Parser as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ruleset::contract::{EGRESS_RULESET, RULESET};
use tests::model::{self, Packet, TCP, UDP};
use tests::random::{self, Checksum};
use tests::test_run::Runner;
use webhook::admission::decision::{Decision, Verdict, decide};
use webhook::admission::pod::PodFacts;
use webhook::admission::settings::Settings;

use crate::rendered::{Rendered, deploy, only_container};

/// Those that need the webhook.
const FUNNELLED: [&str; 4] = ["after", "encapsulated", "load-balancer", "udp"];

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

fn example(name: &str) -> Rendered {
    Rendered::folder(&format!("examples/{name}"))
}

/// The Deployments of an example.
fn deployments(rendered: &Rendered) -> Vec<Deployment> {
    let objects = rendered.objects().iter().filter(|object| object["kind"] == "Deployment");
    objects.map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}

fn name(deployment: &Deployment) -> String {
    deployment.metadata.name.clone().unwrap()
}

/// A pod as the Deployment's controllers make it.
fn pod(deployment: Deployment) -> Pod {
    let template = deployment.spec.unwrap().template;
    Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None }
}

fn ports(rendered: &Rendered) -> Vec<i32> {
    let service: Service = rendered.get("Service", "web");
    let spec = service.spec.unwrap();
    assert_eq!(spec.session_affinity.as_deref(), Some("ClientIP"));
    spec.ports.unwrap().into_iter().map(|port| port.port).collect()
}

#[test]
fn no_example_is_forgotten() {
    let folders = std::fs::read_dir(deploy().join("examples")).unwrap();
    let found: BTreeSet<_> = folders
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("kustomization.yaml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let known = FUNNELLED.into_iter().chain(["before"]).map(str::to_owned).collect();
    assert_eq!(found, known);
}

#[test]
fn every_pod_gets_the_loader_without_a_warning() {
    let settings = Cli::parse_from(["test", "--loader-image", "loader:1"]).settings;
    for example_name in FUNNELLED {
        for deployment in deployments(&example(example_name)) {
            let whose = format!("{example_name}, {}", name(&deployment));
            let Decision { verdict, warnings } = decide(&facts(&pod(deployment)), &settings);
            assert!(matches!(verdict, Verdict::Inject(_)), "{whose}: {verdict:?}");
            assert_eq!(warnings, [], "{whose}");
        }
    }
}

#[test]
fn before_nothing_is_asked_of_the_webhook() {
    let before = example("before");
    assert_eq!(ports(&before), [80, 8080]);
    for deployment in deployments(&before) {
        assert_eq!(pod(deployment).metadata.annotations, None);
    }
}

#[test]
fn after_the_service_has_one_port_and_pods_differ_in_their_annotations_alone() {
    let before = deployments(&example("before"));
    let after = example("after");
    assert_eq!(ports(&after), [80]);
    for mut deployment in deployments(&after) {
        let template = &mut deployment.spec.as_mut().unwrap().template;
        let annotations = template.metadata.as_mut().unwrap().annotations.take().unwrap();
        assert!(annotations.keys().eq([EGRESS_RULESET, RULESET]));
        assert!(before.contains(&deployment), "{} differs in more", name(&deployment));
    }
    for variant in ["encapsulated", "udp", "load-balancer"] {
        assert_eq!(ports(&example(variant)), [80], "{variant}");
    }
}

/// The rules of a Deployment's pods, as the kernel runs them.
struct Rules {
    ingress: Runner,
    egress: Runner,
}

impl Rules {
    fn of(rendered: &Rendered, deployment: &str) -> Self {
        let annotations = pod(rendered.get("Deployment", deployment)).metadata.annotations.unwrap();
        Self {
            ingress: Runner::new(&annotations[RULESET]),
            egress: Runner::new(&annotations[EGRESS_RULESET]),
        }
    }
}

fn run(rules: &Runner, packet: &Packet) -> Packet {
    Packet::read(rules.run(&packet.write()).packet()).expect("a packet")
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 1, 7));
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 9));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 2, 5));
const CLIENT_PORT: u16 = 41000;

fn packet(protocol: u8, from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
    let packet = random::packet(&mut random::rng(1), protocol, 100, Checksum::Right);
    let mut packet = Packet { saddr: from.0, daddr: to.0, fragment: 0, ..packet };
    packet.set_ports(Some(from.1), Some(to.1));
    if protocol == TCP {
        // Not a SYN, whose MSS would be changed.
        packet.segment[13] = 0x18;
    }
    packet.seal()
}

/// From a client through the Service to a pod, and back. The Service knows no port but 80.
#[track_caller]
fn assert_comes_through(client: &Rules, server: &Rules, protocol: u8, port: u16) {
    let sent = packet(protocol, (CLIENT, CLIENT_PORT), (SERVICE, port));
    let on_the_way = run(&client.egress, &sent);
    assert_eq!((on_the_way.protocol, on_the_way.ports().1), (TCP, 80));
    let arrived = run(&server.ingress, &model::nat(&on_the_way, CLIENT, SERVER));
    assert_eq!(arrived, model::nat(&sent, CLIENT, SERVER));

    let answer = packet(protocol, (SERVER, port), (CLIENT, CLIENT_PORT));
    let on_the_way_back = run(&server.egress, &answer);
    assert_eq!(on_the_way_back.ports(), (80, on_the_way.ports().0), "no answer to the Service");
    let arrived = run(&client.ingress, &model::nat(&on_the_way_back, SERVICE, CLIENT));
    assert_eq!(arrived, model::nat(&answer, SERVICE, CLIENT));
}

#[test]
fn what_the_client_funnels_arrives_and_so_do_answers() {
    let all: [(&str, &[(u8, u16)]); 3] = [
        ("after", &[(TCP, 8080)]),
        ("encapsulated", &[(TCP, 8080)]),
        ("udp", &[(TCP, 8080), (UDP, 2055)]),
    ];
    for (example_name, ports) in all {
        let rendered = example(example_name);
        let [client, server] = ["client", "web"].map(|name| Rules::of(&rendered, name));
        for &(protocol, port) in ports {
            assert_comes_through(&client, &server, protocol, port);
        }
        // Port 80 is as it was.
        let asked = packet(TCP, (CLIENT, CLIENT_PORT), (SERVICE, 80));
        assert_eq!(run(&server.ingress, &run(&client.egress, &asked)), asked);
        let answered = packet(TCP, (SERVER, 80), (CLIENT, CLIENT_PORT));
        assert_eq!(run(&client.ingress, &run(&server.egress, &answered)), answered);
    }
}

#[test]
fn outside_clients_keep_their_addresses() {
    let rendered = example("load-balancer");
    let service: Service = rendered.get("Service", "web");
    let spec = service.spec.unwrap();
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    assert_eq!(deployments(&rendered).iter().map(name).collect::<Vec<_>>(), ["web"]);
}

/// Rules keep no state: from a funnelled port, the kubelet would get a funnelled answer.
#[test]
fn probes_ask_a_port_that_is_not_funnelled() {
    let container = only_container(&example("before").pods("web"));
    let probe = container.readiness_probe.unwrap().http_get.unwrap();
    let ports = container.ports.unwrap();
    let asked = ports
        .into_iter()
        .find(|port| port.name.clone().map(IntOrString::String) == Some(probe.port.clone()));
    assert_eq!(asked.unwrap().container_port, 80);
}

/// What the webhook sees of a pod.
pub fn facts(pod: &Pod) -> PodFacts {
    let pod = serde_json::to_value(pod).expect("a pod is plain data");
    serde_json::from_value(pod).expect("it can be read again")
}
