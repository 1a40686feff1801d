//! Runs that change the same namespace, one at a time.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loader::lock::{Lock, LockError};
use tests::binary;

use crate::net::{
    FUNNEL_TCP, Net, PATIENCE, UNFUNNEL, eventually, gso_max_segs, icmp_places, places,
};

/// Starts a run that is not to fail.
#[track_caller]
fn start(loader: &mut Command) -> Child {
    loader.stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("can't run {loader:?}: {e}"))
}

#[track_caller]
fn end(run: Child) {
    let output = run.wait_with_output().expect("it is a child of this process");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_run_waits_for_the_one_before() {
    let net = Net::new(1);
    net.left.enter(|| {
        let lock = Lock::take(PATIENCE).unwrap_or_else(|e| panic!("{e}"));
        let mut run = start(net.loader().env("SFUNNEL_RULESET", UNFUNNEL));
        // The loader, and no more `ip`, has the namespace's file open.
        let namespace = fs::read_link("/proc/thread-self/ns/net").expect("/proc is there");
        let process = PathBuf::from(format!("/proc/{}", run.id()));
        eventually("the run gets to the lock", || {
            let mut files = fs::read_dir(process.join("fd")).expect("it runs").flatten();
            fs::read_link(process.join("exe")).is_ok_and(|program| program == binary::loader())
                && files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to == namespace))
        });
        assert_eq!(run.try_wait().expect("it is a child of this process"), None);
        assert_eq!(places(&net.left), [""; 0]);
        // Looking needs no lock, as has just been seen; and other namespaces have their own.
        net.right.enter(|| drop(Lock::take(Duration::ZERO).unwrap_or_else(|e| panic!("{e}"))));
        drop(lock);
        end(run);
    });
    assert_eq!(places(&net.left), ["l0 ingress"]);
}

#[test]
fn it_does_not_wait_for_ever() {
    let net = Net::new(0);
    net.left.enter(|| {
        let lock = Lock::take(PATIENCE).unwrap_or_else(|e| panic!("{e}"));
        let error = Lock::take(Duration::from_millis(50)).expect_err("it is taken");
        assert!(matches!(error, LockError::Taken { .. }), "{error}");
        // What it says is true.
        let text = error.to_string();
        let (_, inode) = text.split_once('`').expect("a quote");
        let (inode, _) = inode.split_once('`').expect("its end");
        let locks = fs::read_to_string("/proc/locks").expect("/proc is there");
        let line = locks.lines().find(|line| line.contains(inode)).expect("it is there");
        assert!(line.contains(&format!(" {} ", std::process::id())), "{line}");
        drop(lock);
        Lock::take(Duration::ZERO).map(drop).unwrap_or_else(|e| panic!("{e}"));
    });
}

#[test]
fn load_and_clean_at_once_leave_all_or_nothing() {
    const ROUNDS: u64 = 30;
    let net = Net::new(1);
    net.run("ip link set dev l0 gso_max_segs 77");
    for round in 0..ROUNDS {
        let mut load = net.loader();
        let mut clean = net.loader();
        let runs =
            [start(load.env("SFUNNEL_EGRESS_RULESET", FUNNEL_TCP)), start(clean.arg("clean"))];
        runs.into_iter().for_each(end);
        let left = (places(&net.left), icmp_places(&net.left), gso_max_segs(&net.left, "l0"));
        let places = |places: &[&str]| places.iter().map(|&place| place.to_owned()).collect();
        let attached = (places(&["l0 egress"]), places(&["l0 ingress"]), 1);
        assert!(left == attached || left == (vec![], vec![], 77), "round {round}: {left:?}");
    }
}
