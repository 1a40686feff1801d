//! What the program takes the kernel: the verifier's effort, and memory that is charged to a limit.

use std::thread;

use abi::MAX_RULES;
use loader::object::{Access, Effort, Link, Program};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use tests::netns::Netns;
use tests::test_run::release;

use crate::net::{FUNNEL, Finish as _, Net, UNFUNNEL, clear, places, state};

/// So many rules for both families; among the first ones, all kinds.
fn rules(count: usize) -> String {
    (0..count)
        .map(|n| {
            let (high, low, port) = (n / 256, n % 256, 1 + n);
            let (family, address) = match n % 2 {
                0 => ("ip", format!("10.0.{high}.{low}")),
                _ => ("ip6", format!("fd00::{high:x}:{low:x}")),
            };
            let rule = match n / 2 {
                0 => format!("udp dport {port} actions funnel tcp sport 540 dport 80"),
                1 => format!("tcp dport {port} actions dnat {address}"),
                2 => format!(
                    "tcp sport 32768-60999 dport {port} actions funnel tcp sport 1024-29255 dport 80"
                ),
                _ => format!("tcp dport {port} actions unfunnel udp"),
            };
            format!("{family} daddr {address} {rule}\n")
        })
        .collect()
}

/// Loads a ruleset as root or with two capabilities, as in a pod.
fn effort(rules: &str, as_root: bool, access: Option<Access>) -> Effort {
    let compiled = ruleset::compile(rules).unwrap_or_else(|e| panic!("{e}"));
    // Capabilities are a thread's own.
    let load = || {
        if !as_root {
            let two = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
            let sets = CapabilitySets {
                effective: two,
                permitted: two,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets).expect("capabilities can be given up");
        }
        let program = Program::load_with(access, &compiled, Link { link_header: 14, mtu: 1500 });
        program.unwrap_or_else(|e| panic!("{e}")).effort
    };
    thread::scope(|scope| scope.spawn(load).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

#[test]
fn it_is_far_from_the_limit() {
    // BPF_COMPLEXITY_LIMIT_INSNS in include/linux/bpf.h.
    const LIMIT: u64 = 1_000_000;
    for count in [1, 256, MAX_RULES] {
        for (case, as_root, access) in [
            // What is chosen holds for the process, so this one comes first.
            ("two capabilities", false, None),
            ("two capabilities, by helpers", false, Some(Access::ByHelpers)),
            ("root", true, Some(Access::Direct)),
        ] {
            let Effort { instructions, microseconds } = effort(&rules(count), as_root, access);
            println!(
                "verifier: {case}, rules: {count}: {instructions} instructions, {} ms",
                microseconds / 1000
            );
            assert!((1000..LIMIT / 2).contains(&instructions), "{case}, {count}: {instructions}");
        }
    }
}

#[test]
fn locked_memory_is_named_in_bytes_where_it_counts() {
    let net = Net::new(1);
    let before = state(&net.left);
    let limited = |netns: &Netns, limit: u64| {
        let mut command = clear(netns.command("prlimit"));
        command.arg(format!("--memlock={limit}")).args(["setpriv", "--no-new-privs"]);
        let two = "-all,+bpf,+net_admin";
        command.args(["--bounding-set", two, "--inh-caps", two, "--ambient-caps", two]);
        command.arg(tests::binary::loader());
        command.envs([("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", FUNNEL)]).finish()
    };
    // A container's, unless its runtime was told otherwise.
    const DEFAULT: u64 = 64 << 10;
    let run = limited(&net.left, DEFAULT);
    if release() >= (5, 11) {
        run.done();
        return;
    }
    assert_eq!((run.code, run.stderr.lines().count()), (Some(1), 1), "{run:?}");
    let line = run.last_line();
    assert!(line.starts_with("sfunnel-loader: RLIMIT_MEMLOCK is 65536 bytes here"), "{line}");
    assert!(line.contains("LimitMEMLOCK=infinity"), "{line}");
    let (_, rest) = line.split_once("take about ").expect("how much is needed");
    let needed = rest.split(';').next().and_then(|number| number.parse().ok()).expect("a number");
    assert_eq!(state(&net.left), before);

    // No other test has programs of its own on such a kernel: it runs them one after the other.
    limited(&net.left, needed).done();
    assert_eq!(places(&net.left), ["l0 ingress", "l0 egress"]);
    assert!(needed < 8 << 20, "{needed} bytes");
}
