//! The server: one answer for each TCP connection and each UDP datagram, on every port.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::answer::{Answer, Port, Protocol};
use crate::http::{self, Said};

/// Connections at the same time, on all ports together; more wait in the backlog.
const CONNECTIONS: usize = 512;
/// How long a client may take to say something before it gets the bare line.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(10);
/// How long to wait after an error that is likely to come again at once, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A server with its ports open.
pub struct Server {
    name: String,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Server {
    /// Opens the ports, for both families. Port 0 stands for any that is free.
    ///
    /// # Errors
    ///
    /// One of the ports can't be had.
    pub fn bind(name: String, tcp: &[u16], udp: &[u16]) -> anyhow::Result<Self> {
        let open = |protocol, number: u16| {
            let port = Port { protocol, number };
            bind(port).with_context(|| format!("can't listen on {port}"))
        };
        Ok(Self {
            name,
            tcp: tcp
                .iter()
                .map(|&number| Ok(TcpListener::from_std(open(Protocol::Tcp, number)?.into())?))
                .collect::<anyhow::Result<_>>()?,
            udp: udp
                .iter()
                .map(|&number| Ok(UdpSocket::from_std(open(Protocol::Udp, number)?.into())?))
                .collect::<anyhow::Result<_>>()?,
        })
    }

    /// The ports that are open.
    ///
    /// # Errors
    ///
    /// The kernel doesn't tell.
    pub fn ports(&self) -> io::Result<Vec<Port>> {
        let tcp = self.tcp.iter().map(|socket| (Protocol::Tcp, socket.local_addr()));
        let udp = self.udp.iter().map(|socket| (Protocol::Udp, socket.local_addr()));
        tcp.chain(udp)
            .map(|(protocol, address)| Ok(Port { protocol, number: address?.port() }))
            .collect()
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    ///
    /// The kernel doesn't tell a port's number, or a task panicked.
    pub async fn run(self) -> anyhow::Result<Infallible> {
        let name: Arc<str> = self.name.into();
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tasks = JoinSet::new();
        for listener in self.tcp {
            let number = listener.local_addr()?.port();
            let port = Port { protocol: Protocol::Tcp, number };
            tasks.spawn(accept(listener, port, Arc::clone(&name), Arc::clone(&connections)));
        }
        for socket in self.udp {
            let number = socket.local_addr()?.port();
            let port = Port { protocol: Protocol::Udp, number };
            tasks.spawn(receive(socket, port, Arc::clone(&name)));
        }
        // Without ports there is nothing to wait for: clap asks for at least one.
        match tasks.join_next().await.context("no ports")?? {}
    }
}

/// A socket for both families where the kernel has both, else for IPv4.
fn bind(port: Port) -> io::Result<Socket> {
    match bind_to(port, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.number))) {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            bind_to(port, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number)))
        }
        done => done,
    }
}

fn bind_to(port: Port, address: SocketAddr) -> io::Result<Socket> {
    let kind = match port.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if port.protocol == Protocol::Tcp {
        // A restart finds connections of the last run in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if port.protocol == Protocol::Tcp {
        socket.listen(1024)?;
    }
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    port: Port,
    name: Arc<str>,
    connections: Arc<Semaphore>,
) -> Infallible {
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            unreachable!("nothing closes the semaphore");
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let line = answer(&name, port, peer).to_string();
                tokio::spawn(async move {
                    // What goes wrong is the client's business: it has gone, or is too slow.
                    let _ = timeout(CONNECTION, converse(stream, &line)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                eprintln!("{port}: accept: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Listens, answers, closes.
async fn converse(mut stream: TcpStream, line: &str) -> io::Result<()> {
    let mut heard = Vec::with_capacity(512);
    let mut said = Said::Incomplete;
    while said == Said::Incomplete {
        let first = heard.is_empty();
        let mut limited = (&mut stream).take((http::LONGEST - heard.len()) as u64);
        let more = limited.read_buf(&mut heard);
        match if first { timeout(SILENCE, more).await } else { Ok(more.await) } {
            // Nothing for a second, or for ever.
            Err(_) | Ok(Ok(0)) => said = Said::Line,
            Ok(Ok(_)) => said = http::said(&heard),
            Ok(Err(error)) => return Err(error),
        }
    }
    let text = match said {
        Said::Request(method) => http::response(method, line),
        Said::Line | Said::Incomplete => format!("{line}\n"),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing a connection with unread bytes resets it, and the client may lose the answer.
    let mut rest = [0; 4096];
    let _ = timeout(SILENCE, async {
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    Ok(())
}

async fn receive(socket: UdpSocket, port: Port, name: Arc<str>) -> Infallible {
    let mut datagram = [0; 2048];
    loop {
        match socket.recv_from(&mut datagram).await {
            // Two servers would never stop answering each other.
            Ok((length, _)) if is_answer(&datagram[..length]) => {}
            Ok((_, peer)) => {
                let line = format!("{}\n", answer(&name, port, peer));
                if let Err(error) = socket.send_to(line.as_bytes(), peer).await {
                    eprintln!("{port}: answer to {peer}: {error}");
                }
            }
            Err(error) => {
                eprintln!("{port}: receive: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_answer(datagram: &[u8]) -> bool {
    str::from_utf8(datagram).is_ok_and(|text| text.parse::<Answer>().is_ok())
}

fn answer(name: &str, port: Port, peer: SocketAddr) -> Answer {
    // An IPv4 client of an IPv6 socket looks like ::ffff:192.0.2.7.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    Answer { name: name.to_owned(), port, peer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gets_no_answer() {
        assert!(is_answer(b"web-0 answers udp:2055 to 192.0.2.7:41220\n"));
        assert!(!is_answer(b"?"));
        assert!(!is_answer(b"\xff"));
    }

    #[test]
    fn an_ipv4_client_is_shown_as_one() {
        let port = Port { protocol: Protocol::Tcp, number: 80 };
        let peer = "[::ffff:192.0.2.7]:41220".parse().unwrap();
        assert_eq!(answer("a", port, peer).to_string(), "a answers tcp:80 to 192.0.2.7:41220");
    }
}
