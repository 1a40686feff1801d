//! The demonstration does what README.md promises, and leaves nothing behind.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::netns;

fn start() -> Child {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demonstration starts")
}

/// Namespaces of this process that still exist.
fn namespaces(of: &Child) -> String {
    let all = netns::run("ip", &["netns", "list"]).expect("ip lists namespaces");
    all.lines().filter(|line| line.contains(&format!("sfunnel-{}-", of.id()))).collect()
}

#[test]
fn sixty_of_sixty() {
    let mut demo = start();
    let mut output = String::new();
    demo.stdout.take().expect("it is piped").read_to_string(&mut output).expect("it is text");
    let mut errors = String::new();
    demo.stderr.take().expect("it is piped").read_to_string(&mut errors).expect("it is text");
    let status = demo.wait().expect("it ends");
    assert!(status.success(), "{output}\n{errors}");

    let last = output.lines().last().expect("it says something");
    assert!(last.starts_with("Both ports of a client on one pod: "), "{last}");
    assert!(last.contains(" of 60 before, 60 of 60 after"), "{last}");
    for promised in [
        "sfunnel.io~1status",
        "as sent       10.1.1.1 > 198.51.100.80, 40 bytes | TCP 40000 > 8080 SYN, sequence 0x1",
        "on the wire   10.1.1.1 > 198.51.100.80, 60 bytes | TCP 540 > 80 SYN, sequence 0xcafebabe | \
         TCP 40000 > 8080 SYN, sequence 0x1",
        ".1, 40 bytes | TCP 40000 > 8080 SYN, sequence 0x1",
        "ip tcp sport 540 dport 80 actions unfunnel tcp",
    ] {
        assert!(output.contains(promised), "{promised} is not in\n{output}");
    }
    assert_eq!(namespaces(&demo), "");
}

#[test]
fn interrupted_it_cleans_up() {
    let mut demo = start();
    let mut lines = BufReader::new(demo.stdout.take().expect("it is piped")).lines();
    // In the middle of its work: the network is there.
    let reached = lines.by_ref().any(|line| line.is_ok_and(|line| line.contains("== Before")));
    assert!(reached, "it ended before it was interrupted");
    assert_ne!(namespaces(&demo), "");
    kill(Pid::from_raw(demo.id() as i32), Signal::SIGINT).expect("it gets the signal");
    lines.for_each(drop);
    assert!(!demo.wait().expect("it ends").success());
    let mut errors = String::new();
    demo.stderr.take().expect("it is piped").read_to_string(&mut errors).expect("it is text");
    assert!(errors.contains("interrupted; everything is cleaned up"), "{errors}");
    assert_eq!(namespaces(&demo), "");
}
