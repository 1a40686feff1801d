//! The loader, from exec to exit.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use tests::binary;
use tests::netns::{Checked as _, End, Netns, connect, run};

use crate::look_up::Family;
use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, section};

const CLASSIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/classifier.c");
const GENERATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/gen.py");

/// What both ways of loading get.
const RULES: &str = "ip udp dport 2055 actions funnel tcp dport 80 sport 540
ip tcp dport 8080 actions funnel tcp dport 80 sport 540
ip tcp dport 80 sport 540 actions unfunnel tcp
";

/// An action for rulesets of any size, which must fit in 256 KiB.
const UNFUNNEL: &str = "unfunnel tcp";

/// Compares process start to attached program with the original's way, and with nothing at all.
pub fn compare(rounds: usize) -> Result<()> {
    section("Loader, from exec to exit");
    let (host, peer) = (Netns::new("bench")?, Netns::new("peer")?);
    connect(
        End::new(&host, "eth0", "10.0.0.1/24", "02:00:00:00:00:01"),
        End::new(&peer, "eth0", "10.0.0.2/24", "02:00:00:00:00:02"),
    )?;
    let folder = tempfile::tempdir()?;
    let [one, three, drops, many, header, object] =
        ["one.rules", "three.rules", "drops.rules", "many.rules", "rules.h", "classifier.o"]
            .map(|name| folder.path().join(name));
    fs::write(&one, Family::V4.rules(1, UNFUNNEL))?;
    fs::write(&three, RULES)?;
    fs::write(&drops, Family::V4.rules(4096, "drop"))?;
    fs::write(&many, Family::V4.rules(4096, UNFUNNEL))?;
    let compile = || compile(&three, &header, &object);
    // On a thread in the namespace, so that nothing but the commands themselves is timed.
    let [nothing, one, three, drops, many, compiler] = host.enter(|| {
        // Warm the caches.
        load(&many)?;
        compile()?;
        let measurements: [&dyn Fn() -> Result<f64>; 6] = [
            &|| timed(&mut Command::new("true")),
            &|| load(&one),
            &|| load(&three),
            &|| load(&drops),
            &|| load(&many),
            &compile,
        ];
        in_turn(rounds, measurements)
    })?;
    let row = |what, ours, theirs, target| {
        Row { what, ours, theirs, unit: Unit::Seconds, target }.print();
    };
    let within = |millis| Target::Within(Duration::from_millis(millis));
    row("1 rule that unfunnels : `true`", &one, &nothing, within(15));
    row("4096 rules that drop : `true`", &drops, &nothing, within(60));
    row("4096 rules that unfunnel : `true`", &many, &nothing, within(60));
    row("3 rules : gen.py, clang, tc as the original", &three, &compiler, Target::None);
    Ok(())
}

/// Takes away the qdisc of the last turn, and what is on it, where there is one.
fn fresh_hook() -> Result<()> {
    if run("tc", &["qdisc", "show", "dev", "eth0"])?.contains("clsact") {
        run("tc", &["qdisc", "del", "dev", "eth0", "clsact"])?;
    }
    Ok(())
}

fn load(rules: &Path) -> Result<f64> {
    fresh_hook()?;
    let mut loader = Command::new(binary::loader());
    timed(loader.args(["--ifaces", "eth0", "--ruleset-file"]).arg(rules))
}

/// The original's way: its generator is Python, and its compiler clang with these flags.
fn compile(rules: &Path, header: &Path, object: &Path) -> Result<f64> {
    fresh_hook()?;
    let started = Instant::now();
    let generated = Command::new("/usr/bin/python3").arg(GENERATOR).arg(rules).checked()?;
    fs::write(header, generated)?;
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-Wall", "-Werror", "-g", "-target", "bpf"]);
    clang.arg("-I/usr/include/x86_64-linux-gnu");
    clang.arg(format!("-DRULES=\"{}\"", header.display()));
    clang.arg("-c").arg(CLASSIFIER).arg("-o").arg(object).checked()?;
    run("tc", &["qdisc", "add", "dev", "eth0", "clsact"])?;
    let mut tc = Command::new("tc");
    tc.args(["filter", "add", "dev", "eth0", "ingress", "bpf", "da", "obj"]).arg(object);
    tc.args(["sec", "classifier", "verbose"]).checked()?;
    Ok(started.elapsed().as_secs_f64())
}

fn timed(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    command.checked()?;
    Ok(started.elapsed().as_secs_f64())
}
