//! What makes no sense is refused, and nothing is changed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::loaded_programs;
use loader::Failure;
use loader::attach::AttachError;
use loader::object::ObjectError;
use tests::binary;
use tests::netns::Netns;

use crate::net::{Finish as _, Net, Run, UNFUNNEL, clear, eventually, state};

/// A user that nobody else is: its programs can be counted, whoever loads some at the same time.
struct User(u32);

impl User {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < 64, "more users than numbers");
        // Process numbers have at most 22 bits.
        Self(1 << 30 | std::process::id() << 6 | number)
    }

    /// BPF programs of this user that the kernel holds.
    fn programs(&self) -> usize {
        loaded_programs().flatten().filter(|info| info.created_by_uid() == Some(self.0)).count()
    }

    /// The loader as this user, with every capability that it could use, in a file system without
    /// /etc/sfunnel.
    fn loader(&self, netns: &Netns) -> Command {
        const CAPABILITIES: &str = "-all,+bpf,+net_admin,+perfmon,+sys_admin,+dac_override";
        let mut command = clear(netns.command("unshare"));
        command.args(["-m", "sh", "-c", "mount -t tmpfs none /etc && exec setpriv \"$@\"", "sh"]);
        command.args(["--reuid", &self.0.to_string(), "--clear-groups"]);
        command.args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES]);
        command.arg(binary::loader());
        command
    }
}

/// Runs the loader and sees that neither namespace nor kernel differ afterwards.
#[track_caller]
fn unchanged(net: &Net, user: &User, adapt: impl FnOnce(&mut Command) -> &mut Command) -> Run {
    let before = (state(&net.left), user.programs());
    let run = adapt(&mut user.loader(&net.left)).finish();
    assert_eq!((state(&net.left), user.programs()), before, "{run:?}");
    run
}

#[test]
fn the_users_programs_are_counted() {
    let net = Net::new(1);
    let user = User::new();
    assert_eq!(user.programs(), 0);
    user.loader(&net.left).env("SFUNNEL_RULESET", UNFUNNEL).finish().done();
    assert_eq!(user.programs(), 1);
    user.loader(&net.left).arg("clean").finish().done();
    eventually("the program goes", || user.programs() == 0);
}

#[test]
fn rulesets() {
    let net = Net::new(1);
    let user = User::new();
    let many = "udp actions accept\n".repeat(10_000);
    let long = format!("# {}\nudp actions accept", "x".repeat(1 << 20));
    let table: [(&str, &str); 9] = [
        ("", "line 1, column 1: the ruleset has no rule"),
        ("\n # nothing but this\n", "line 1, column 1: the ruleset has no rule"),
        (&many, "line 4097, column 1: the ruleset has more than 4096 rules"),
        (&long, "line 1, column 262145: the ruleset is longer than 262144 bytes"),
        ("udp\0 actions accept", "line 1, column 4: control character U+0000"),
        ("udp dport 65536 actions accept", "line 1, column 11: `65536` is not a port"),
        (
            "udp actions accept\nip saddr 10.0.0.0/33 udp actions accept",
            "line 2, column 10: `/33` is not an IPv4 prefix length",
        ),
        ("udp dport 53 actions", "line 1, column 21: `actions` without an action"),
        (
            "ip saddr ::1 udp actions accept",
            "line 1, column 10: `::1` is an IPv6 address in a rule for IPv4",
        ),
    ];
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path();
    for (text, place) in table {
        std::fs::write(path, text).expect("it is written");
        let reason = format!("sfunnel-loader: {} is refused at {place}", path.display());
        let by_file = |command: &str| {
            let run = unchanged(&net, &user, |loader| {
                loader.arg(command).arg("--ruleset-file").arg(path)
            })
            .refused(2, &reason);
            // The diagnostic with its help comes before.
            let help = run.stderr.lines().rev().nth(1).unwrap_or_default();
            assert!(help.starts_with("  help: "), "{run:?}");
            run
        };
        assert_eq!(by_file("load").stderr, by_file("check").stderr);

        // Neither a NUL nor so much fits in a variable.
        if text.contains('\0') || text.len() > ruleset::MAX_ENV_TEXT {
            continue;
        }
        for variable in ["SFUNNEL_RULESET", "SFUNNEL_EGRESS_RULESET"] {
            let reason = format!("sfunnel-loader: {variable} is refused at {place}");
            let run = unchanged(&net, &user, |loader| loader.env(variable, text));
            run.refused(2, &reason);
        }
        let reason = format!("sfunnel-loader: --ruleset is refused at {place}");
        unchanged(&net, &user, |loader| loader.args(["--ruleset", text])).refused(2, &reason);
    }
}

#[test]
fn one_bad_ruleset_of_two() {
    let net = Net::new(1);
    let user = User::new();
    for (ruleset, egress_ruleset, culprit) in [
        (UNFUNNEL, "tcp", "SFUNNEL_EGRESS_RULESET is refused at line 1, column 4"),
        ("tcp", UNFUNNEL, "SFUNNEL_RULESET is refused at line 1, column 4"),
    ] {
        let variables = [("SFUNNEL_RULESET", ruleset), ("SFUNNEL_EGRESS_RULESET", egress_ruleset)];
        unchanged(&net, &user, |loader| loader.envs(variables))
            .refused(2, &format!("sfunnel-loader: {culprit}: the rule ends without `actions`"));
    }
}

#[test]
fn files_that_can_not_be_read() {
    let net = Net::new(1);
    let user = User::new();
    let directory = tempfile::tempdir().expect("a directory");
    let not_utf8 = directory.path().join("not-utf-8");
    std::fs::write(&not_utf8, b"udp actions accept # \xFF").expect("it is written");
    let missing = directory.path().join("missing");
    let below_a_file = not_utf8.join("ruleset");
    let table: [(&Path, &str); 4] = [
        (directory.path(), "Is a directory (os error 21)"),
        (&missing, "No such file or directory (os error 2)"),
        (&below_a_file, "Not a directory (os error 20)"),
        (&not_utf8, "invalid utf-8 sequence of 1 bytes from index 21"),
    ];
    for (path, error) in table {
        let reason =
            format!("sfunnel-loader: can't read the rules from {}: {error}", path.display());
        unchanged(&net, &user, |loader| loader.arg("--ruleset-file").arg(path)).refused(2, &reason);
    }
}

#[test]
fn flags_and_variables() {
    const HELP: &str = "; see `sfunnel-loader --help`";
    let net = Net::new(1);
    let user = User::new();
    let missing = format!("{}-missing", net.left.name());
    // Words of the command line, a variable, code, reason.
    let table: [(&str, (&str, &str), i32, String); 17] = [
        ("", ("OFFLOAD", "off"), 2, format!("OFFLOAD: \"off\" is not `limit` or `keep`{HELP}")),
        ("--offload 1", ("", ""), 2, format!("--offload: \"1\" is not `limit` or `keep`{HELP}")),
        ("", ("DIRECTION", "sideways"), 2, format!("DIRECTION: \"sideways\" is not `ingress`, `egress` or `both`{HELP}")),
        ("--direction up", ("", ""), 2, format!("--direction: \"up\" is not `ingress`, `egress` or `both`{HELP}")),
        ("", ("N_ATTEMPTS", "0"), 2, format!("N_ATTEMPTS: \"0\" is not a number from 1 to 1000{HELP}")),
        ("", ("N_ATTEMPTS", "1001"), 2, format!("N_ATTEMPTS: \"1001\" is not a number from 1 to 1000{HELP}")),
        ("", ("RETRY_DELAY", "NaN"), 2, format!("RETRY_DELAY: \"NaN\" is not a number of seconds from 0 to 3600{HELP}")),
        ("", ("CLEAN", "perhaps"), 2, format!("CLEAN: \"perhaps\" is not `1` or `0`{HELP}")),
        ("--sideways", ("", ""), 2, format!("unexpected argument '--sideways' found{HELP}")),
        ("lod", ("", ""), 2, format!("unrecognized subcommand 'lod'{HELP}")),
        ("--ifaces", ("", ""), 2, format!("a value is required for '--ifaces <NAMES>' but none was supplied{HELP}")),
        ("--ruleset x --ruleset-file y", ("", ""), 2, format!("the argument '--ruleset <TEXT>' cannot be used with '--ruleset-file <PATH>'{HELP}")),
        ("", ("IFACES", "l0,l1:1"), 2, format!("IFACES: \"l0,l1:1\" is no interface name: 1 to 15 characters without `/` and `:`, separated by blanks{HELP}")),
        ("", ("IFACES", "l0 nosuch0"), 2, "there is no interface nosuch0 here; `ip link` lists those that are".into()),
        ("", ("NETNS", &missing), 2, format!("there is no network namespace /var/run/netns/{missing}: No such file or directory (os error 2)")),
        ("", ("NETNS", "/proc/self/ns/uts"), 1, "can't enter the network namespace /proc/self/ns/uts: Invalid argument (os error 22); it is something else".into()),
        ("clean", ("NETNS", &missing), 2, format!("there is no network namespace /var/run/netns/{missing}: No such file or directory (os error 2)")),
    ];
    for (words, (variable, value), code, reason) in table {
        let run = unchanged(&net, &user, |loader| {
            loader.env("SFUNNEL_RULESET", UNFUNNEL).args(words.split_whitespace());
            if variable.is_empty() { loader } else { loader.env(variable, value) }
        });
        run.refused(code, &format!("sfunnel-loader: {reason}"));
    }
}

#[test]
fn a_file_without_end_is_too_long() {
    let net = Net::new(1);
    let user = User::new();
    let reason = "sfunnel-loader: /dev/zero is refused at line 1, column 262145: \
                  the ruleset is longer than 262144 bytes";
    unchanged(&net, &user, |loader| loader.args(["--ruleset-file", "/dev/zero"]))
        .refused(2, reason);
}

#[test]
fn variables_that_are_not_utf8() {
    let net = Net::new(1);
    let user = User::new();
    for variable in
        ["SFUNNEL_RULESET", "SFUNNEL_EGRESS_RULESET", "IFACES", "DIRECTION", "OFFLOAD", "NETNS"]
    {
        let value = OsStr::from_bytes(b"udp actions accept # \xFF");
        let reason =
            format!("sfunnel-loader: {variable} is not valid UTF-8; see `sfunnel-loader --help`");
        unchanged(&net, &user, |loader| {
            loader.env("SFUNNEL_RULESET", UNFUNNEL).env(variable, value)
        })
        .refused(2, &reason);
    }
}

#[test]
fn no_ruleset_at_all() {
    let net = Net::new(1);
    let user = User::new();
    let reason = "sfunnel-loader: there are no rules: set SFUNNEL_RULESET or \
                  SFUNNEL_EGRESS_RULESET, or mount /etc/sfunnel/ruleset";
    for command in ["load", "check"] {
        unchanged(&net, &user, |loader| loader.arg(command)).refused(2, reason);
    }
}

#[test]
fn check_prints_the_rules_as_they_were_understood() {
    let net = Net::new(1);
    let user = User::new();
    let text = "udp  dport 53 actions funnel tcp dport 80 sport 540; # DNS
        udp dport 53 actions drop";
    let run = unchanged(&net, &user, |loader| {
        loader.arg("check").envs([("SFUNNEL_RULESET", text), ("DIRECTION", "both")])
    })
    .done();
    let rules = "udp dport 53 actions funnel tcp sport 540 dport 80\nudp dport 53 actions drop\n";
    assert_eq!(run.stdout, format!("# ingress: 2 rules\n{rules}# egress: 2 rules\n{rules}"));
    let warning = "\
warning: the rule can never match: earlier rules take all of it
  at line 2, column 9
  | udp dport 53 actions drop
  | ^^^^^^^^^^^^^^^^^^^^^^^^^
  help: the first match wins: move the rule up, or remove it
";
    assert_eq!(run.stderr, warning.repeat(2));

    let variables = [("SFUNNEL_RULESET", UNFUNNEL), ("SFUNNEL_EGRESS_RULESET", rules)];
    let run = unchanged(&net, &user, |loader| loader.arg("check").envs(variables)).done();
    assert_eq!(run.stdout, format!("# ingress: 1 rule\n{UNFUNNEL}\n# egress: 2 rules\n{rules}"));
    // What it prints is a ruleset again.
    let again = [("SFUNNEL_RULESET", run.stdout.as_str())];
    unchanged(&net, &user, |loader| loader.arg("check").envs(again)).done();
}

#[test]
fn check_needs_no_privilege() {
    let netns = Netns::new("check").unwrap_or_else(|e| panic!("{e:#}"));
    let mut command = clear(netns.command("setpriv"));
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]);
    command.arg(binary::loader()).arg("check").env("SFUNNEL_RULESET", UNFUNNEL);
    assert_eq!(command.finish().done().stdout, format!("# ingress: 1 rule\n{UNFUNNEL}\n"));
}

#[test]
fn help_and_version_are_no_mistakes() {
    let netns = Netns::new("help").unwrap_or_else(|e| panic!("{e:#}"));
    for (flag, word) in [("--help", "Usage: sfunnel-loader"), ("--version", "sfunnel-loader ")] {
        let run = clear(netns.command(binary::loader())).arg(flag).finish().done();
        assert!(run.stdout.contains(word), "{}", run.stdout);
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn the_reason_stands_behind_the_verifiers_log() {
    let error = io::Error::from_raw_os_error(libc::E2BIG);
    let log = "493: (bf) r3 = r1\nBPF program is too large.".to_owned();
    let failure = Failure::Attach(AttachError::Object(ObjectError::Program { error, log }));
    let uname = nix::sys::utsname::uname().expect("the kernel has a name");
    assert_eq!(
        failure.to_string(),
        format!(
            "sfunnel-loader: the verifier's log ends so:\n\
             493: (bf) r3 = r1\n\
             BPF program is too large.\n\
             Linux {} refuses the BPF program: Argument list too long (os error 7)",
            uname.release().display()
        )
    );
}
