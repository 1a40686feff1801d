//! The cluster itself: it leaves the machine as it was.

use std::path::Path;
use std::process::Command;

use tests::cluster::{Cluster, Options, ProxyMode, programs};
use tests::netns::{Checked as _, run};

use crate::lab::turn;

fn options(name: &str) -> Options {
    Options {
        name: format!("test-{}-{name}", std::process::id()),
        proxy_mode: ProxyMode::Nftables,
        programs: programs().unwrap_or_else(|error| panic!("{error:#}")),
        images: Vec::new(),
    }
}

fn supervisor() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cluster"))
}

/// What of the machine's own network a node would change if it could: without what changes by itself,
/// such as counters and the lives of addresses.
fn host_network() -> String {
    let look = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        run(words[0], &words[1..]).unwrap_or_else(|error| panic!("{error:#}"))
    };
    [
        look("ip -brief link show"),
        look("ip -brief addr show"),
        look("ip -4 route show table all"),
        look("ip -6 route show table all proto static"),
        look("nft --stateless list ruleset"),
    ]
    .concat()
}

#[test]
fn nothing_of_it_is_left_and_two_run_at_once() {
    let _turn = turn();
    let before = host_network();
    let (one, two) = (options("one"), options("two"));
    let started = [&one, &two].map(|options| {
        let cluster = Cluster::start(options, supervisor());
        cluster.unwrap_or_else(|error| panic!("{error:#}"))
    });
    for cluster in &started {
        let version = cluster.run("version").unwrap_or_else(|error| panic!("{error:#}"));
        assert!(version.contains("Server Version: v1."), "{version}");
        assert_eq!(host_network(), before, "the machine's network has changed");
    }
    let error = Cluster::start(&one, supervisor()).map(drop).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");

    let folders = started.each_ref().map(|cluster| cluster.folder().path().to_owned());
    drop(started);
    for folder in folders {
        let name = folder.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(!folder.exists(), "{} is left behind", folder.display());
        let cgroups = Command::new("find")
            .args(["/sys/fs/cgroup", "-maxdepth", "2", "-ignore_readdir_race", "-name", name])
            .checked()
            .expect("find");
        assert_eq!(cgroups, "", "cgroups are left behind");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(name), "mounts are left behind:\n{mounts}");
        let processes = run("ps", &["-eo", "args"]).expect("ps");
        assert!(!processes.contains(name), "processes are left behind:\n{processes}");
    }
    assert_eq!(host_network(), before, "the machine's network has changed");
}

#[test]
fn a_part_that_is_missing_is_named() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/programs.sh");
    let folder = tempfile::tempdir().expect("a folder");
    let programs = programs().unwrap_or_else(|error| panic!("{error:#}"));
    for entry in programs.read_dir().expect("the programs").flatten() {
        if entry.file_name() != "kubelet" && entry.file_name() != "bridge" {
            let link = folder.path().join(entry.file_name());
            std::os::unix::fs::symlink(entry.path(), link).expect("a link");
        }
    }
    let mut command = Command::new(script);
    let error = command.env("SFUNNEL_CLUSTER_ASSETS", folder.path()).checked().unwrap_err();
    assert!(format!("{error:#}").contains("lacks: kubelet bridge\n"), "{error:#}");

    let mut command = Command::new(script);
    let error = command.env("KUBERNETES_VERSION", "latest").checked().unwrap_err();
    assert!(
        format!("{error:#}").contains("KUBERNETES_VERSION=latest is not like 1.36.3"),
        "{error:#}"
    );

    let _turn = turn();
    let broken = Options { programs: folder.path().to_owned(), ..options("broken") };
    let error = Cluster::start(&broken, supervisor()).map(drop).unwrap_err();
    assert!(format!("{error:#}").contains("starting kubelet"), "{error:#}");
    assert!(!tests::cluster::Folder::named(&broken.name).path().exists());
}

#[test]
fn a_program_that_ends_takes_the_node_with_it() {
    let _turn = turn();
    let options = options("ending");
    let cluster =
        Cluster::start(&options, supervisor()).unwrap_or_else(|error| panic!("{error:#}"));
    // A child of PID 1; `pgrep` finds it by the number of that one.
    let children =
        run("pgrep", &["--parent", &cluster.pid().expect("a node").to_string(), "--exact", "etcd"]);
    let etcd = children.expect("etcd").trim().parse().expect("a process id");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(etcd), nix::sys::signal::Signal::SIGKILL)
        .expect("kill");
    crate::lab::wait_for("the supervisor to clean up", || {
        (!cluster.folder().path().exists()).then_some(())
    });
}
