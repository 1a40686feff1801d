//! A port of 127.0.0.1 that leads to the API server, so that kubectl needs not enter the node.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

/// Accepts on `listener` for as long as the process lives, and connects to `target` in the network
/// namespace of `netns`.
///
/// # Errors
///
/// When the namespace can't be entered.
pub fn serve(listener: TcpListener, netns: File, target: SocketAddr) -> Result<()> {
    let (entered, has_entered) = mpsc::channel();
    thread::spawn(move || {
        // A socket belongs to the namespace that its thread was in when it was made.
        let result = setns(netns, CloneFlags::CLONE_NEWNET);
        let failed = result.is_err();
        let _ = entered.send(result);
        if failed {
            return;
        }
        for client in listener.incoming() {
            let Ok(client) = client else {
                // File descriptors are out: a connection has to end first.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            // While the API server is down, its clients see a connection that ends.
            if let Ok(server) = TcpStream::connect(target) {
                join(client, server);
            }
        }
    });
    has_entered.recv()?.context("entering the node's network namespace")
}

/// Carries bytes both ways until both ends have said all.
fn join(client: TcpStream, server: TcpStream) {
    let Ok((from_client, from_server)) =
        client.try_clone().and_then(|client| Ok((client, server.try_clone()?)))
    else {
        return;
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    thread::spawn(move || carry(from_client, server));
    thread::spawn(move || carry(from_server, client));
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    // However it ends, the other side hears of it.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
