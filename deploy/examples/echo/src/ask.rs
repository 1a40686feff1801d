//! The client: asks several ports from one address after the other, and compares who answers.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::answer::{Answer, NotAnAnswer, Port, Protocol};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 1024;

/// What to ask, and from where.
#[derive(Debug, Clone)]
pub struct Questions {
    /// The server or Service: an address, or a name that resolves to one.
    pub host: String,
    /// Asked in this order.
    pub ports: Vec<Port>,
    /// How long to wait for one answer.
    pub patience: Duration,
}

/// Why there was no answer.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// The name can't be resolved.
    #[error("can't resolve it: {0}")]
    Resolve(io::Error),
    /// The name has no address in the family of the address to ask from.
    #[error("it has no address of the same family")]
    Family,
    /// Nothing came in time.
    #[error("timed out")]
    TimedOut,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another program answered.
    #[error(transparent)]
    Stranger(#[from] NotAnAnswer),
}

/// What a client sees whose ports should all be served by one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All ports answered, one pod did.
    Same,
    /// All ports answered, several pods did.
    Different,
    /// A port didn't answer.
    NoAnswer,
}

impl Verdict {
    /// The exit status that stands for it.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Same => 0,
            Self::Different => 1,
            Self::NoAnswer => 2,
        }
    }

    fn of<'a>(answers: impl IntoIterator<Item = Option<&'a Answer>>) -> Self {
        let mut answers = answers.into_iter();
        let Some(Some(first)) = answers.next() else { return Self::NoAnswer };
        answers.fold(Self::Same, |verdict, answer| {
            verdict.max(match answer {
                None => Self::NoAnswer,
                Some(answer) if answer.name == first.name => Self::Same,
                Some(_) => Self::Different,
            })
        })
    }
}

/// What one client saw.
#[derive(Debug)]
pub struct Seen {
    /// A line for each port.
    pub lines: Vec<String>,
    /// All of them together.
    pub verdict: Verdict,
}

/// How many clients saw what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    same: usize,
    different: usize,
    no_answer: usize,
}

impl Tally {
    /// Counts one more client.
    pub fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Same => self.same += 1,
            Verdict::Different => self.different += 1,
            Verdict::NoAnswer => self.no_answer += 1,
        }
    }

    /// The worst that a client saw.
    pub fn worst(self) -> Verdict {
        if self.no_answer > 0 {
            Verdict::NoAnswer
        } else if self.different > 0 {
            Verdict::Different
        } else {
            Verdict::Same
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.same + self.different + self.no_answer;
        write!(
            f,
            "{} of {of} clients: all ports on one pod; {}: on different pods; {}: not all ports answered",
            self.same, self.different, self.no_answer
        )
    }
}

impl Questions {
    /// Asks all ports from one address, or from the one that the kernel chooses.
    pub async fn ask(&self, from: Option<IpAddr>) -> Seen {
        let mut lines = Vec::with_capacity(self.ports.len());
        let mut answers = Vec::with_capacity(self.ports.len());
        for &port in &self.ports {
            let answer = timeout(self.patience, self.ask_port(from, port)).await;
            let answer = answer.unwrap_or(Err(Unanswered::TimedOut));
            lines.push(match &answer {
                Ok(answer) => answer.to_string(),
                Err(why) => {
                    let from = from.map(|from| format!(" to {from}")).unwrap_or_default();
                    format!("no answer from {port} of {}{from}: {why}", self.host)
                }
            });
            answers.push(answer.ok());
        }
        Seen { lines, verdict: Verdict::of(answers.iter().map(Option::as_ref)) }
    }

    async fn ask_port(&self, from: Option<IpAddr>, port: Port) -> Result<Answer, Unanswered> {
        let to = SocketAddr::new(self.resolve(from).await?, port.number);
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = SocketAddr::new(from.unwrap_or(any), 0);
        let answer = match port.protocol {
            Protocol::Tcp => over_tcp(from, to).await?,
            Protocol::Udp => over_udp(from, to).await?,
        };
        Ok(String::from_utf8_lossy(&answer).parse()?)
    }

    async fn resolve(&self, from: Option<IpAddr>) -> Result<IpAddr, Unanswered> {
        let found = lookup_host((&*self.host, 0)).await.map_err(Unanswered::Resolve)?;
        found
            .map(|address| address.ip())
            .find(|to| from.is_none_or(|from| to.is_ipv4() == from.is_ipv4()))
            .ok_or(Unanswered::Family)
    }
}

/// A line that is not HTTP: the server needn't wait for more.
const QUESTION: &[u8] = b"?\n";

async fn over_tcp(from: SocketAddr, to: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(from)?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(QUESTION).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn over_udp(from: SocketAddr, to: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(from).await?;
    socket.connect(to).await?;
    socket.send(QUESTION).await?;
    let mut answer = vec![0; LONGEST as usize];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str) -> Option<Answer> {
        format!("{name} answers tcp:80 to 192.0.2.7:41220").parse().ok()
    }

    fn verdict(answers: &[Option<Answer>]) -> Verdict {
        Verdict::of(answers.iter().map(Option::as_ref))
    }

    #[test]
    fn one_name_is_one_pod() {
        assert_eq!(verdict(&[answer("a"), answer("a"), answer("a")]), Verdict::Same);
        assert_eq!(verdict(&[answer("a"), answer("a"), answer("b")]), Verdict::Different);
        assert_eq!(verdict(&[answer("a"), answer("b"), answer("a")]), Verdict::Different);
    }

    #[test]
    fn no_answer_is_worse_than_a_different_one() {
        assert_eq!(verdict(&[answer("a"), None, answer("b")]), Verdict::NoAnswer);
        assert_eq!(verdict(&[None, answer("a")]), Verdict::NoAnswer);
        assert_eq!(verdict(&[]), Verdict::NoAnswer);
    }

    #[test]
    fn the_worst_that_any_client_saw_counts() {
        let mut tally = Tally::default();
        tally.add(Verdict::Same);
        assert_eq!(tally.worst(), Verdict::Same);
        tally.add(Verdict::Different);
        tally.add(Verdict::Same);
        assert_eq!(tally.worst(), Verdict::Different);
        tally.add(Verdict::NoAnswer);
        assert_eq!(tally.worst(), Verdict::NoAnswer);
        assert_eq!(
            tally.to_string(),
            "2 of 4 clients: all ports on one pod; 1: on different pods; 1: not all ports answered"
        );
    }
}
