//! TCP connections from a lab's client to its server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::lab::{Lab, address};

use super::labs::PORT;

/// After which a way that lets nothing through is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Both ends of a connection.
pub struct Connection {
    pub client: TcpStream,
    pub server: TcpStream,
}

/// Opens `count` connections.
pub fn connect(lab: &Lab, count: usize) -> Result<Vec<Connection>> {
    let listener = lab.server.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    let to = SocketAddr::from((address::SERVER, PORT));
    (0..count)
        .map(|_| {
            let client = lab
                .client
                .enter(|| TcpStream::connect_timeout(&to, PATIENCE))
                .with_context(|| format!("no connection to {to}"))?;
            // What is connected can be accepted at once.
            let (server, _) = listener.accept()?;
            for end in [&client, &server] {
                end.set_nodelay(true)?;
                end.set_read_timeout(Some(PATIENCE))?;
                end.set_write_timeout(Some(PATIENCE))?;
            }
            Ok(Connection { client, server })
        })
        .collect()
}
