//! Whether what arrives through a funnel arrives at a port that the pod knows.
//!
//! A Service's `port` is not what a pod sees: kube-proxy has put the `targetPort` in its place. A rule for
//! the former never matches, which is easily mistaken and hard to see. Services are not looked up: they
//! are often applied after the workload, and the right to read all of them is a high price for a warning.

use std::collections::BTreeSet;

use ruleset::ast::{Action, PortRange, Protocol, Rule, Ruleset, Verb};

use super::annotations::InjectionRequest;
use super::pod::Spec;
use super::warning::Warning;

/// Warns of ports where rules expect funnelled packets, and of which no container says that it listens
/// there. A pod that declares no ports at all has said nothing that could be compared.
pub fn undeclared(request: &InjectionRequest, spec: &Spec) -> Vec<Warning> {
    let declared = declared(spec);
    let Some(ingress) = request.ingress.as_ref().filter(|_| !declared.is_empty()) else {
        return Vec::new();
    };
    let expected: BTreeSet<_> = ingress
        .rules
        .iter()
        .filter_map(arrival)
        .filter(|arrival| !declared.contains(arrival))
        .filter(|port| !request.egress.as_ref().is_some_and(|rules| sends_from(rules, *port)))
        .collect();
    let warning = |(protocol, port)| Warning::UndeclaredPort { protocol, port };
    expected.into_iter().map(warning).collect()
}

/// Protocol, as Kubernetes writes it, and number.
type Port = (&'static str, u16);

fn declared(spec: &Spec) -> BTreeSet<Port> {
    let init = spec.init_containers.iter().flatten().map(|init| &init.container);
    let ports = spec.containers.iter().chain(init).flat_map(|container| &container.ports);
    ports
        .filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => "TCP",
                Some("UDP") => "UDP",
                Some(_) => return None,
            };
            Some((protocol, number))
        })
        .collect()
}

/// The one port at which a rule expects funnelled packets.
fn arrival(rule: &Rule) -> Option<Port> {
    let unfunnels = matches!(
        rule.action,
        Action::Unfunnel { .. } | Action::Translate { verb: Verb::Unfunnel, .. }
    );
    let PortRange { first, last } = rule.matches.dport.as_ref()?.single()?;
    (unfunnels && first == last).then_some((name(rule.matches.protocol), first.get()))
}

/// Whether the pod itself funnels from that port: then what arrives there is an answer.
fn sends_from(egress: &Ruleset, (protocol, port): Port) -> bool {
    egress.rules.iter().any(|rule| match rule.action {
        Action::Funnel { through, sport, .. } => (name(through), sport.get()) == (protocol, port),
        Action::Translate { protocol: same, sport, .. } => {
            name(same) == protocol && (sport.first.get()..=sport.last.get()).contains(&port)
        }
        _ => false,
    })
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}
