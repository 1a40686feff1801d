//! With nothing but CAP_BPF and CAP_NET_ADMIN, as in an injected container.

use std::ffi::OsStr;
use std::process::Command;

use tests::binary;
use tests::netns::{Checked as _, Netns};

use crate::all_or_nothing::CAUSES;
use crate::net::{
    FUNNEL, FUNNEL_ANEW, FUNNEL_TCP, Finish as _, Net, UNFUNNEL, clear, gso_max_segs, icmp_places,
    places, rules, shown, state,
};

/// `program` with no other capabilities than these, and without a way to get more; the file system
/// is read-only and has neither a bpffs nor the kernel's BTF.
fn confined(netns: &Netns, capabilities: &[&str], program: &str) -> Command {
    const SCRIPT: &str = "set -e
        mount --make-rprivate /
        mount -t tmpfs -o ro none /sys/kernel
        mount -o remount,bind,ro /
        if touch /sfunnel-probe 2>/dev/null; then echo 'the root can be written to'; exit 99; fi
        if grep -q '^[^ ]* /sys/fs/bpf' /proc/mounts; then echo 'there is a bpffs'; exit 99; fi
        exec \"$@\"";
    let set = capabilities.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    let mut command = clear(netns.command("unshare"));
    command.args(["-m", "sh", "-c", SCRIPT, "sh", "setpriv", "--no-new-privs"]);
    command.args(["--bounding-set", &set, "--inh-caps", &set, "--ambient-caps", &set]);
    command.arg(program);
    command
}

const TWO: [&str; 2] = ["bpf", "net_admin"];

fn loader(netns: &Netns, capabilities: &[&str]) -> Command {
    confined(netns, capabilities, binary::loader().to_str().expect("the path is UTF-8"))
}

#[test]
fn the_confinement_is_one() {
    let netns = Netns::new("confined").unwrap_or_else(|e| panic!("{e:#}"));
    let status = confined(&netns, &TWO, "cat").arg("/proc/self/status").checked();
    let status = status.unwrap_or_else(|e| panic!("{e:#}"));
    // CAP_NET_ADMIN is number 12, CAP_BPF 39 (include/uapi/linux/capability.h).
    let two = format!("{:016x}", 1_u64 << 12 | 1 << 39);
    for (field, expected) in
        [("CapPrm", &*two), ("CapEff", &two), ("CapBnd", &two), ("NoNewPrivs", "1")]
    {
        let line = status.lines().find(|line| line.starts_with(field)).expect(field);
        assert_eq!(line, format!("{field}:\t{expected}"));
    }
    let btf = confined(&netns, &TWO, "test").args(["!", "-e", "/sys/kernel/btf"]).finish();
    assert_eq!(btf.code, Some(0), "{btf:?}");
}

#[test]
fn two_capabilities_are_enough() {
    let net = Net::new(1);
    let (inlet, outlet) = (net.inlet(0), net.outlet(0));
    for (egress, ports) in [(FUNNEL, (540, 80)), (FUNNEL_ANEW, (541, 81))] {
        let run = loader(&net.left, &TWO)
            .envs([("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", egress)])
            .finish()
            .done();
        assert_eq!(
            run.stderr,
            "sfunnel-loader: attached to l0 ingress, rules: 1\n\
             sfunnel-loader: attached to l0 egress, rules: 1\n\
             sfunnel-loader: attached to l0 ingress for ICMP errors, rules: 1\n"
        );
        assert_eq!(outlet.funnelled(), Some(ports));
        assert!(inlet.unfunnelled());
    }
    loader(&net.left, &TWO).arg("clean").finish().done();
    assert_eq!(places(&net.left), [""; 0]);
    assert_eq!(outlet.funnelled(), None);
}

#[test]
fn they_are_enough_to_lower_gso_max_segs_and_to_restore_it() {
    let net = Net::new(1);
    net.run("ip link set dev l0 gso_max_segs 77");
    for _ in 0..2 {
        loader(&net.left, &TWO).env("SFUNNEL_EGRESS_RULESET", FUNNEL_TCP).finish().done();
        assert_eq!(gso_max_segs(&net.left, "l0"), 1);
    }
    let run = loader(&net.left, &TWO).arg("clean").finish().done();
    assert_eq!(run.last_line(), "sfunnel-loader: l0: gso_max_segs 1 -> 77, as it was");
    assert_eq!(gso_max_segs(&net.left, "l0"), 77);
}

#[test]
fn where_no_thread_can_be_had() {
    const CAPABILITIES: &str = "-all,+bpf,+net_admin,+dac_override";
    let net = Net::new(1);
    // Root, CAP_SYS_ADMIN and CAP_SYS_RESOURCE may have more. No other user has this number.
    let user = (1 << 29 | std::process::id()).to_string();
    let alone = |program: &OsStr| {
        let mut command = clear(net.left.command("prlimit"));
        command.args(["--nproc=1", "setpriv", "--reuid", &user, "--clear-groups"]);
        command.args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES]);
        command.arg(program);
        command
    };
    let fork = alone("sh".as_ref()).args(["-c", "(true)"]).finish();
    assert!(fork.stderr.contains("Cannot fork"), "{fork:?}");
    let variables = [("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", FUNNEL)];
    alone(binary::loader().as_ref()).envs(variables).finish().done();
    assert_eq!(places(&net.left), ["l0 ingress", "l0 egress"]);
    assert_eq!(icmp_places(&net.left), ["l0 ingress"]);
    assert_eq!(rules(&net.left, "l0 ingress"), UNFUNNEL);
    assert_eq!(rules(&net.left, "l0 egress"), FUNNEL);
}

#[test]
fn as_many_rules_as_there_may_be() {
    let net = Net::new(1);
    let rules: String = (0..abi::MAX_RULES)
        .map(|n| {
            let (high, low) = (n / 256, n % 256);
            let port = 1 + n;
            format!("ip daddr 10.0.{high}.{low} udp dport {port} actions unfunnel udp\n")
        })
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), rules).expect("it is written");
    let run = loader(&net.left, &TWO).arg("--ruleset-file").arg(file.path()).finish().done();
    assert_eq!(
        run.last_line(),
        format!("sfunnel-loader: attached to l0 ingress, rules: {}", abi::MAX_RULES)
    );
}

#[test]
fn every_kind_of_rule_by_itself() {
    // Of a single rule the verifier knows what it is, and looks at other parts of the program.
    let net = Net::new(1);
    for rule in [
        "tcp actions accept",
        "udp dport 53 actions drop",
        "ip tcp dport 80 actions dnat 10.0.0.9",
        "ip6 udp dport 80 actions dnat fd00::9",
        "tcp dport 8080 actions funnel tcp sport 540 dport 80",
        "tcp dport 8080 actions funnel tcp sport 540 dport 80 flags { syn, ack }",
        "ip6 tcp dport 8080 actions funnel udp sport 540 dport 80",
        "udp dport 53 actions funnel tcp sport 540 dport 80",
        "udp dport 53 actions funnel udp sport 540 dport 80",
        "ip daddr 10.9.0.2 udp dport 53 actions funnel udp sport 540 dport 80 dnat 10.0.0.9",
        "tcp sport 540 dport 80 actions unfunnel tcp",
        "tcp sport 540 dport 80 actions unfunnel tcp dport 9090",
        "ip6 saddr fd00::/64 tcp sport 540 dport 80 actions unfunnel udp",
        "udp sport 540 dport 80 actions unfunnel tcp",
        "udp sport 540 dport 80 actions unfunnel udp",
        "tcp sport 32768-60999 dport 8080 actions funnel tcp sport 1024-29255 dport 80",
        "ip6 udp sport 32768-60999 dport 53 actions funnel udp sport 1024-29255 dport 80",
    ] {
        loader(&net.left, &TWO)
            .envs([("SFUNNEL_RULESET", rule), ("DIRECTION", "both")])
            .finish()
            .done();
    }
}

#[test]
fn a_capability_that_is_missing_is_named() {
    for (capabilities, missing) in [
        (&["bpf"][..], "CAP_NET_ADMIN"),
        (&["net_admin"], "CAP_BPF"),
        (&[], "CAP_BPF, CAP_NET_ADMIN"),
    ] {
        let net = Net::new(1);
        let before = state(&net.left);
        let run = loader(&net.left, capabilities).env("SFUNNEL_RULESET", UNFUNNEL).finish();
        // Which step is refused depends on kernel.unprivileged_bpf_disabled.
        let expected = format!("; CAP_BPF and CAP_NET_ADMIN are needed; missing: {missing}");
        assert!(run.last_line().ends_with(&expected), "{capabilities:?}: {run:?}");
        assert_eq!((run.code, run.stderr.lines().count()), (Some(1), 1), "{run:?}");
        assert_eq!(state(&net.left), before, "{capabilities:?}");

        // What is there stays, too.
        net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
        let before = state(&net.left);
        let run = loader(&net.left, capabilities).env("SFUNNEL_RULESET", FUNNEL).finish();
        assert_eq!(run.code, Some(1), "{capabilities:?}: {run:?}");
        assert_eq!(state(&net.left), before, "{capabilities:?}");
    }
}

#[test]
fn cleaning_needs_net_admin() {
    let net = Net::new(1);
    net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
    let run = loader(&net.left, &["bpf"]).arg("clean").finish();
    let expected = "sfunnel-loader: l0 ingress: can't remove the filter: Operation not permitted \
                    (os error 1); CAP_BPF and CAP_NET_ADMIN are needed; missing: CAP_NET_ADMIN";
    assert!(run.last_line().starts_with(expected), "{run:?}");
    assert_eq!(run.code, Some(1));
    assert_eq!(places(&net.left), ["l0 ingress"]);
    loader(&net.left, &["net_admin"]).arg("clean").finish().done();
    assert_eq!(places(&net.left), [""; 0]);
}

#[test]
fn show_says_what_is_attached_and_why_not_more() {
    let net = Net::new(2);
    let run = loader(&net.left, &TWO).arg("show").finish().done();
    assert_eq!(run.stdout, "nothing is attached\n");

    net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
    let programs: Vec<_> = shown(&net.left).iter().map(|a| a["program"].clone()).collect();
    for arguments in [&["show"][..], &["show", "--json"]] {
        loader(&net.left, &TWO).args(arguments).finish().refused(
            1,
            &format!(
                "sfunnel-loader: attached to l0 ingress (BPF program {}), l1 ingress (BPF program \
                 {}); the rules and counters can't be read: `bpf_prog_get_next_id` failed: \
                 Operation not permitted (os error 1); CAP_SYS_ADMIN is needed",
                programs[0], programs[1]
            ),
        );
    }
}

#[test]
fn another_namespace_needs_sys_admin() {
    let net = Net::new(1);
    let before = state(&net.left);
    let name = net.left.name();
    loader(&net.right, &TWO).envs([("SFUNNEL_RULESET", UNFUNNEL), ("NETNS", name)]).finish().refused(
        1,
        &format!(
            "sfunnel-loader: can't enter the network namespace /var/run/netns/{name}: Operation not \
             permitted (os error 1); CAP_SYS_ADMIN is needed"
        ),
    );
    assert_eq!(state(&net.left), before);
}

#[test]
fn all_or_nothing_without_the_means_to_put_an_earlier_program_back() {
    // Only CAP_SYS_ADMIN gets hold of a program that is attached.
    for cause in &CAUSES {
        let net = Net::new(3);
        (cause.prepare)(&net);
        net.load(&[("SFUNNEL_EGRESS_RULESET", FUNNEL), ("IFACES", "l0")]);
        let before = state(&net.left);
        loader(&net.left, &TWO)
            .envs([("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", FUNNEL_ANEW)])
            .env("IFACES", format!("l0 {}", cause.interface))
            .finish()
            .refused(cause.code, cause.reason);
        assert_eq!(state(&net.left), before, "{}", cause.what);
        assert_eq!(rules(&net.left, "l0 egress"), FUNNEL);
        assert_eq!(net.outlet(0).funnelled(), Some((540, 80)), "{}", cause.what);
    }
}
