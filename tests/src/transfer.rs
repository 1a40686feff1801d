//! Bulk data over a TCP connection, hashed at both ends.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use ring::digest::{self, SHA256};
use socket2::{Domain, SockRef, Socket, Type};

use crate::netns::Netns;

/// Longest wait for one more byte, or for a connection.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that are written or read at once.
const BLOCK: usize = 1 << 18;

/// A TCP connection, both ends of it.
#[derive(Debug)]
pub struct Connection {
    /// The end that asked.
    pub client: TcpStream,
    /// The end that was asked.
    pub server: TcpStream,
}

impl Connection {
    /// Connects from `netns` to `address`, where `listener` gets it, whoever translates addresses
    /// in between. Neither end waits longer than [`PATIENCE`], now or later.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(netns: &Netns, address: SocketAddr, listener: &TcpListener) -> Result<Self> {
        let client = netns
            .enter(|| -> io::Result<TcpStream> {
                let socket = socket(address)?;
                socket.connect_timeout(&address.into(), PATIENCE)?;
                Ok(socket.into())
            })
            .with_context(|| format!("can't connect to {address}"))?;
        SockRef::from(listener).set_read_timeout(Some(PATIENCE))?;
        let (server, _) = listener.accept().context("no connection arrived")?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(Self { client, server })
    }

    /// The end that sends in this direction, and the one that receives.
    pub fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream) {
        match direction {
            Direction::Up => (&self.client, &self.server),
            Direction::Down => (&self.server, &self.client),
        }
    }
}

/// Which end of a connection sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client.
    Up,
    /// The server.
    Down,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

/// Listens in `netns`.
///
/// # Errors
///
/// The kernel's.
pub fn listen(netns: &Netns, address: SocketAddr) -> Result<TcpListener> {
    netns
        .enter(|| -> io::Result<TcpListener> {
            let socket = socket(address)?;
            socket.bind(&address.into())?;
            socket.listen(16)?;
            Ok(socket.into())
        })
        .with_context(|| format!("can't listen on {address} in {}", netns.name()))
}

/// A socket with the congestion control that every kernel has.
///
/// The machine's own may be BBR, which paces: where a packet has one segment it waits for a timer
/// before each, and carries a tenth. A connection that began with it goes on pacing with another.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_tcp_congestion(b"reno")?;
    Ok(socket)
}

/// What went over a connection in one direction.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the first byte sent to the last one received.
    pub elapsed: Duration,
}

impl Transfer {
    /// Gigabits of payload in a second.
    pub fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8e-9 / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gib, seconds) = (self.bytes as f64 / f64::from(1 << 30), self.elapsed.as_secs_f64());
        write!(f, "{gib:.2} GiB in {seconds:.1} s, {:.2} Gbit/s", self.gbit_per_s())
    }
}

/// Sends pseudo-random bytes that follow from `seed`, in whole blocks, as long as `more` says so of
/// the bytes sent so far; then ends the direction. Both ends hash what they see, and must agree.
///
/// # Errors
///
/// The kernel's, that nothing arrived for [`PATIENCE`], or that the hashes differ.
pub fn transfer(
    (from, to): (&TcpStream, &TcpStream),
    seed: u64,
    more: impl Fn(u64) -> bool + Send,
) -> Result<Transfer> {
    let data = Data::new(seed);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(from, &data, more).context("sending"));
        let received = receive(to).context("receiving");
        let elapsed = start.elapsed();
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (sent, received) = match (sent, received) {
            (Ok(sent), Ok(received)) => (sent, received),
            // If one end fails the other one waits in vain; the first word is the sender's.
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        ensure!(sent == received, "sent {sent:?}, received {received:?}");
        Ok(Transfer { bytes: received.bytes, elapsed })
    })
}

/// What passed an end.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    bytes: u64,
    sha256: Vec<u8>,
}

/// Adds up what passes.
struct Hasher {
    bytes: u64,
    sha256: digest::Context,
}

impl Hasher {
    fn new() -> Self {
        Self { bytes: 0, sha256: digest::Context::new(&SHA256) }
    }

    fn add(&mut self, block: &[u8]) {
        self.bytes += block.len() as u64;
        self.sha256.update(block);
    }

    fn finish(self) -> Content {
        Content { bytes: self.bytes, sha256: self.sha256.finish().as_ref().to_vec() }
    }
}

fn send(mut stream: &TcpStream, data: &Data, more: impl Fn(u64) -> bool) -> io::Result<Content> {
    let mut hasher = Hasher::new();
    for block in data.blocks() {
        if !more(hasher.bytes) {
            break;
        }
        stream.write_all(block)?;
        hasher.add(block);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(hasher.finish())
}

fn receive(mut stream: &TcpStream) -> io::Result<Content> {
    let mut hasher = Hasher::new();
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(len) => hasher.add(&block[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes without end that cost nothing to make: a window moves over a stock of random ones.
struct Data {
    stock: Vec<u8>,
}

impl Data {
    fn new(seed: u64) -> Self {
        let mut stock = vec![0; 2 * BLOCK];
        StdRng::seed_from_u64(seed).fill_bytes(&mut stock);
        Self { stock }
    }

    /// No two blocks are alike, up to 64 GiB: the step is odd, and `BLOCK` is a power of 2.
    fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        (0_usize..).map(|number| &self.stock[number * 4093 % BLOCK..][..BLOCK])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_differ() {
        let data = Data::new(1);
        let firsts: std::collections::HashSet<&[u8]> =
            data.blocks().take(BLOCK).map(|block| &block[..16]).collect();
        assert_eq!(firsts.len(), BLOCK);
    }
}
