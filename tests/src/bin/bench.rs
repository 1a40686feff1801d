//! Ratios, each with what it is compared to, measured in turn in one run.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Result;
use tests::binary;
use tests::model::{Packet, UDP};
use tests::netns::{Checked as _, End, Netns, connect, run};
use tests::test_run::Runner;

const CLASSIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/classifier.c");
const GENERATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/gen.py");

/// What both ways of loading get.
const RULES: &str = "ip udp dport 2055 actions funnel tcp dport 80 sport 540
ip tcp dport 8080 actions funnel tcp dport 80 sport 540
ip tcp dport 80 sport 540 actions unfunnel tcp
";

fn main() -> ExitCode {
    println!("{:<58} {:>8} {:>15}  absolute", "what, compared to what", "ratio", "spread");
    match start_up().and_then(|()| look_up()).and_then(|()| sizes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one line: the median of the ratios of two series measured in turn, and their spread.
fn line(what: &str, ours: &[Duration], theirs: &[Duration]) {
    let mut ratios: Vec<f64> =
        ours.iter().zip(theirs).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "{what:<58} {:>8.3} {:>7.3}-{:<7.3}  {:.1?} / {:.1?}",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1],
        median(ours),
        median(theirs)
    );
}

fn median(series: &[Duration]) -> Duration {
    let mut sorted = series.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn timed(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    command.checked()?;
    Ok(started.elapsed())
}

/// `count` rules of which no packet of `look_up` matches any.
fn rules(count: usize) -> String {
    (0..count)
        .map(|n| {
            let address = Ipv4Addr::from_bits(0x0A00_0000 + n as u32);
            format!("ip daddr {address} tcp dport {} actions drop\n", 1024 + n)
        })
        .collect()
}

/// Takes away the qdisc of the last turn, and what is on it, where there is one.
fn fresh_hook() -> Result<()> {
    if run("tc", &["qdisc", "show", "dev", "eth0"])?.contains("clsact") {
        run("tc", &["qdisc", "del", "dev", "eth0", "clsact"])?;
    }
    Ok(())
}

/// Process start to attached program.
fn start_up() -> Result<()> {
    const RUNS: usize = 21;
    let (host, peer) = (Netns::new("bench")?, Netns::new("peer")?);
    connect(
        End::new(&host, "eth0", "10.0.0.1/24", "02:00:00:00:00:01"),
        End::new(&peer, "eth0", "10.0.0.2/24", "02:00:00:00:00:02"),
    )?;
    let folder = std::env::temp_dir().join(format!("sfunnel-bench-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let [one, many, header, object] =
        ["one.rules", "many.rules", "rules.h", "classifier.o"].map(|name| folder.join(name));
    fs::write(&one, RULES)?;
    fs::write(&many, rules(4096))?;
    let load = |file: &Path| -> Result<Duration> {
        fresh_hook()?;
        let mut loader = Command::new(binary::loader());
        timed(loader.args(["--ifaces", "eth0", "--ruleset-file"]).arg(file))
    };
    // The original's way: its generator is Python, and its compiler clang with these flags.
    let compile = || -> Result<Duration> {
        fresh_hook()?;
        let started = Instant::now();
        let generated = Command::new("/usr/bin/python3").arg(GENERATOR).arg(&one).checked()?;
        fs::write(&header, generated)?;
        let mut clang = Command::new("clang");
        clang.args(["-O2", "-Wall", "-Werror", "-g", "-target", "bpf"]);
        clang.arg("-I/usr/include/x86_64-linux-gnu");
        clang.arg(format!("-DRULES=\"{}\"", header.display()));
        clang.arg("-c").arg(CLASSIFIER).arg("-o").arg(&object).checked()?;
        run("tc", &["qdisc", "add", "dev", "eth0", "clsact"])?;
        let mut tc = Command::new("tc");
        tc.args(["filter", "add", "dev", "eth0", "ingress", "bpf", "da", "obj"]).arg(&object);
        tc.args(["sec", "classifier", "verbose"]).checked()?;
        Ok(started.elapsed())
    };

    let mut series: [Vec<Duration>; 4] = Default::default();
    // On a thread in the namespace, so that nothing but the commands themselves is timed.
    host.enter(|| -> Result<()> {
        // Warm the caches.
        load(&one)?;
        compile()?;
        for _ in 0..RUNS {
            series[0].push(load(&one)?);
            series[1].push(compile()?);
            series[2].push(timed(&mut Command::new("true"))?);
            series[3].push(load(&many)?);
        }
        Ok(())
    })?;
    let [loader, compiler, nothing, loader_many] = &series;
    line("loader, 3 rules : gen.py + clang + tc, the original's way", loader, compiler);
    line("loader, 3 rules : `true`", loader, nothing);
    line("loader, 4096 rules : `true`", loader_many, nothing);
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// A packet that matches nothing, in BPF_PROG_TEST_RUN.
fn look_up() -> Result<()> {
    const RUNS: usize = 11;
    const REPEAT: u32 = 200_000;
    let packet = |protocol, segment| {
        Packet {
            tos: 0,
            id: 0,
            fragment: 0,
            ttl: 64,
            protocol,
            saddr: Ipv4Addr::new(192, 0, 2, 1),
            daddr: Ipv4Addr::new(192, 0, 2, 2),
            options: Vec::new(),
            segment,
        }
        .seal()
        .write()
    };
    // Port 2000 is in some rule, the address is not.
    let udp = packet(UDP, vec![0x07, 0xD0, 0x07, 0xD0, 0, 8, 0, 0]);
    let tcp = {
        let mut segment = vec![0; 20];
        segment[..4].copy_from_slice(&[0x07, 0xD0, 0x07, 0xD0]);
        segment[12] = 0x50;
        packet(tests::model::TCP, segment)
    };
    let counts = [1, 64, 1024, 4096];
    let runners: Vec<Runner> = counts.iter().map(|&count| Runner::new(&rules(count))).collect();
    for (what, packet) in [("other protocol", &udp), ("port of a rule", &tcp)] {
        let mut series = vec![Vec::new(); counts.len()];
        for _ in 0..RUNS {
            for (series, runner) in series.iter_mut().zip(&runners) {
                series.push(runner.time(packet, REPEAT));
            }
        }
        for (series_of, count) in series.iter().zip(counts) {
            line(&format!("no match, {what}, {count} rules : 1 rule"), series_of, &series[0]);
        }
    }
    Ok(())
}

/// What an image would hold.
fn sizes() -> Result<()> {
    for (path, most) in [(binary::loader(), 4_000_000_u32), (binary::webhook(), 12_000_000)] {
        let size = fs::metadata(&path)?.len();
        let name = path.file_name().unwrap_or_default().display();
        println!(
            "{:<58} {:>8.3} {:>15}  {size} B / {most} B",
            format!("size of {name} : what its image may have"),
            size as f64 / f64::from(most),
            ""
        );
    }
    Ok(())
}
