//! Which programs are attached where.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use tests::binary;
use tests::netns::Netns;

use crate::net::{
    FUNNEL, FUNNEL_ANEW, Finish as _, Net, UNFUNNEL, clear, places, rules, shown_at, state,
};

#[test]
fn the_program_stays_when_the_process_has_ended() {
    let net = Net::new(1);
    let outlet = net.outlet(0);
    assert_eq!(outlet.funnelled(), None);
    let run = net.load(&[("SFUNNEL_RULESET", FUNNEL), ("DIRECTION", "egress")]);
    assert_eq!(
        run.stderr,
        "sfunnel-loader: attached to l0 egress, rules: 1\n\
         sfunnel-loader: attached to l0 ingress for ICMP errors, rules: 1\n"
    );
    assert_eq!(run.stdout, "");
    assert_eq!(outlet.funnelled(), Some((540, 80)));

    let filters = net.run("tc filter show dev l0 egress");
    let [all, ours] = filters.lines().collect::<Vec<_>>()[..] else { panic!("{filters}") };
    assert_eq!(all.trim_end(), "filter protocol all pref 540 bpf chain 0");
    let program = &shown_at(&net.left, "l0 egress")["program"];
    let expected = format!(
        "filter protocol all pref 540 bpf chain 0 handle 0x1 sfunnel direct-action not_in_hw \
         id {program} name sfunnel "
    );
    assert!(ours.starts_with(&expected), "{ours}\n{expected}");
}

#[test]
fn by_default_every_interface_that_is_up_but_lo() {
    let net = Net::new(3);
    net.run("ip link set l1 down");
    net.load(&[("SFUNNEL_RULESET", UNFUNNEL)]);
    assert_eq!(places(&net.left), ["l0 ingress", "l2 ingress"]);
    assert!(net.inlet(0).unfunnelled() && net.inlet(2).unfunnelled());
    let qdiscs = net.run("tc qdisc show");
    assert_eq!(qdiscs.matches("qdisc clsact").count(), 2, "{qdiscs}");
}

#[test]
fn no_interface_is_up() {
    let net = Net::new(1);
    net.run("ip link set l0 down");
    let before = state(&net.left);
    net.loader()
        .env("SFUNNEL_RULESET", UNFUNNEL)
        .finish()
        .refused(1, "sfunnel-loader: no interface is up but lo; name one with IFACES");
    assert_eq!(state(&net.left), before);
}

#[test]
fn named_interfaces_each_once_whatever_their_state() {
    let net = Net::new(3);
    net.run("ip link set l1 down");
    let run = net.load(&[("SFUNNEL_RULESET", UNFUNNEL), ("IFACES", " l2\tlo l1\nl2 l1  ")]);
    assert_eq!(
        run.stderr,
        "sfunnel-loader: attached to l2 ingress, rules: 1\n\
         sfunnel-loader: attached to lo ingress, rules: 1\n\
         sfunnel-loader: attached to l1 ingress, rules: 1\n"
    );
    assert_eq!(places(&net.left), ["lo ingress", "l1 ingress", "l2 ingress"]);
    assert!(!net.inlet(0).unfunnelled() && net.inlet(2).unfunnelled());
}

#[test]
fn directions() {
    let both = format!("{UNFUNNEL}\n{FUNNEL}");
    let accept = "udp dport 7 actions accept";
    // DIRECTION, SFUNNEL_RULESET, SFUNNEL_EGRESS_RULESET; what then is at ingress and egress.
    type Rules<'a> = Option<&'a str>;
    let table: [(&str, Rules<'_>, Rules<'_>, Rules<'_>, Rules<'_>); 10] = [
        ("", Some(UNFUNNEL), None, Some(UNFUNNEL), None),
        ("ingress", Some(UNFUNNEL), None, Some(UNFUNNEL), None),
        ("egress", Some(FUNNEL), None, None, Some(FUNNEL)),
        ("both", Some(&both), None, Some(&both), Some(&both)),
        ("", None, Some(FUNNEL), None, Some(FUNNEL)),
        ("", Some(UNFUNNEL), Some(FUNNEL), Some(UNFUNNEL), Some(FUNNEL)),
        ("egress", None, Some(FUNNEL), None, Some(FUNNEL)),
        ("egress", Some(accept), Some(FUNNEL), None, Some(FUNNEL)),
        ("both", Some(UNFUNNEL), Some(FUNNEL), Some(UNFUNNEL), Some(FUNNEL)),
        ("both", None, Some(FUNNEL), None, Some(FUNNEL)),
    ];
    for case in table {
        let (direction, ruleset, egress_ruleset, ingress, egress) = case;
        let net = Net::new(1);
        let mut variables = vec![("DIRECTION", direction)];
        variables.extend(ruleset.map(|text| ("SFUNNEL_RULESET", text)));
        variables.extend(egress_ruleset.map(|text| ("SFUNNEL_EGRESS_RULESET", text)));
        let run = net.load(&variables);
        for (place, expected) in [("l0 ingress", ingress), ("l0 egress", egress)] {
            let there = places(&net.left).contains(&place.to_owned());
            assert_eq!(there.then(|| rules(&net.left, place)).as_deref(), expected, "{case:?}");
        }
        assert_eq!(net.inlet(0).unfunnelled(), ingress.is_some(), "{case:?}");
        assert_eq!(net.outlet(0).funnelled(), egress.map(|_| (540, 80)), "{case:?}");
        let unused = ruleset == Some(accept);
        assert_eq!(run.stderr.contains("of two rulesets for egress"), unused, "{}", run.stderr);
    }
}

#[test]
fn another_namespace_by_name_and_by_path() {
    let net = Net::new(1);
    let outlet = net.outlet(0);
    let before = state(&net.right);
    let name = net.left.name();
    let path = format!("/var/run/netns/{name}");
    for (netns, ruleset, ports) in [(name, FUNNEL, (540, 80)), (&path, FUNNEL_ANEW, (541, 81))] {
        clear(net.right.command(binary::loader()))
            .envs([("NETNS", netns), ("SFUNNEL_EGRESS_RULESET", ruleset)])
            .finish()
            .done();
        assert_eq!(places(&net.left), ["l0 egress"]);
        assert_eq!(outlet.funnelled(), Some(ports));
        let run = clear(net.right.command(binary::loader()))
            .args(["show", "--netns", netns])
            .finish()
            .done();
        assert!(run.stdout.contains(ruleset), "{}", run.stdout);
    }
    assert_eq!(state(&net.right), before);
    clear(net.right.command(binary::loader())).args(["clean", "--netns", name]).finish().done();
    assert_eq!(outlet.funnelled(), None);
}

#[test]
fn flags_win_over_the_environment() {
    let net = Net::new(2);
    net.loader()
        .envs([
            ("SFUNNEL_RULESET", "nonsense"),
            ("SFUNNEL_EGRESS_RULESET", "nonsense"),
            ("IFACES", "l0"),
            ("DIRECTION", "sideways"),
            ("NETNS", "missing"),
            ("N_ATTEMPTS", "0"),
            ("RETRY_DELAY", "never"),
        ])
        .args(["--ruleset", UNFUNNEL, "--egress-ruleset", FUNNEL, "--ifaces", "l1"])
        .args(["--direction", "both", "--netns", net.left.name()])
        .args(["--attempts", "1", "--retry-delay", "0"])
        .finish()
        .done();
    assert_eq!(places(&net.left), ["l1 ingress", "l1 egress"]);
    assert_eq!(rules(&net.left, "l1 ingress"), UNFUNNEL);
    assert_eq!(rules(&net.left, "l1 egress"), FUNNEL);
}

#[test]
fn rules_from_a_file_named_or_mounted() {
    let net = Net::new(1);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("# DNS\r\n\t{FUNNEL};\n")).expect("it is written");
    let named =
        net.loader().env("DIRECTION", "egress").arg("--ruleset-file").arg(file.path()).finish();
    let attached = "sfunnel-loader: attached to l0 egress, rules: 1\n";
    assert!(named.done().stderr.starts_with(attached));
    assert_eq!(rules(&net.left, "l0 egress"), FUNNEL);

    // A file system of its own, in which the ruleset is mounted.
    let mounted = |variable: Option<&str>| {
        let script = "mount -t tmpfs none /etc && mkdir /etc/sfunnel && \
                      printf %s \"$MOUNTED\" > /etc/sfunnel/ruleset && exec \"$0\"";
        let mut command = clear(net.left.command("unshare"));
        command.args(["-m", "sh", "-c", script]).arg(binary::loader());
        command.envs([("MOUNTED", FUNNEL_ANEW), ("DIRECTION", "egress")]);
        command.envs(variable.map(|ruleset| ("SFUNNEL_RULESET", ruleset)));
        command.finish().done();
        rules(&net.left, "l0 egress")
    };
    assert_eq!(mounted(None), FUNNEL_ANEW);
    assert_eq!(mounted(Some(FUNNEL)), FUNNEL);
}

#[test]
fn debug_tells_each_step() {
    let net = Net::new(1);
    let run = net.load(&[("SFUNNEL_RULESET", UNFUNNEL), ("DEBUG", "1")]);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines[0], format!("sfunnel-loader: ingress: {UNFUNNEL}"));
    assert_eq!(lines[lines.len() - 1], "sfunnel-loader: attached to l0 ingress, rules: 1");
}

#[test]
fn an_interface_that_comes_late_is_waited_for() {
    for (named, reason) in [
        (Some("late0"), "there is no interface late0 here; `ip link` lists those that are"),
        (None, "no interface is up but lo; name one with IFACES"),
    ] {
        let netns = Netns::new("late").unwrap_or_else(|e| panic!("{e:#}"));
        let mut loader = clear(netns.command(binary::loader()));
        loader
            .envs([("SFUNNEL_RULESET", UNFUNNEL), ("N_ATTEMPTS", "1000"), ("RETRY_DELAY", "0.02")])
            .envs(named.map(|name| ("IFACES", name)))
            .stderr(Stdio::piped());
        let mut child = loader.spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let first = lines.next().expect("a line").expect("text");
        assert_eq!(first, format!("sfunnel-loader: attempt 1 of 1000: {reason}; next in 20ms"));

        netns.run("ip link add late0 type veth peer name late1").expect("a pair");
        netns.run("ip link set late0 up").expect("up");
        let last = lines.last().expect("lines").expect("text");
        assert!(child.wait().expect("it ends").success(), "{last}");
        assert_eq!(last, "sfunnel-loader: attached to late0 ingress, rules: 1");
        assert_eq!(places(&netns), ["late0 ingress"]);
    }
}

#[test]
fn attempts_are_counted() {
    let net = Net::new(1);
    let before = state(&net.left);
    let reason = "there is no interface late0 here; `ip link` lists those that are";
    let run = net
        .loader()
        .envs([("SFUNNEL_RULESET", UNFUNNEL), ("IFACES", "l0 late0")])
        .envs([("N_ATTEMPTS", "3"), ("RETRY_DELAY", "0.001")])
        .finish()
        .refused(2, &format!("sfunnel-loader: {reason}"));
    assert_eq!(
        run.stderr,
        format!(
            "sfunnel-loader: attempt 1 of 3: {reason}; next in 1ms\n\
             sfunnel-loader: attempt 2 of 3: {reason}; next in 1ms\n\
             sfunnel-loader: {reason}\n"
        )
    );
    assert_eq!(state(&net.left), before);
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    let net = Net::new(1);
    net.run("tc qdisc add dev l0 ingress");
    let run = net
        .loader()
        .envs([("SFUNNEL_RULESET", UNFUNNEL), ("N_ATTEMPTS", "1000"), ("RETRY_DELAY", "3600")])
        .finish();
    assert_eq!((run.code, run.stderr.lines().count()), (Some(1), 1), "{}", run.stderr);
}
